"""For any payload: its commitment hides it, opens it, and shows every bit of it that is changed."""

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.vault import About, PayloadDamaged, commit, open_sealed, require_commitment, seal

PAYLOAD = st.binary(min_size=1, max_size=300)
SEED = st.binary(min_size=32, max_size=32)
ABOUT = About(
    fact="irb.recorded",
    part="document",
    subject="u:" + "0" * 32,
    study="small-study",
    kept_at="2026-11-23T08:00:00.000Z",
)


def drawn_from(seed: bytes) -> Callable[[int], bytes]:
    """Bytes that are fresh for another seed."""
    count = iter(range(1000))
    return lambda size: hashlib.shake_256(seed + bytes([next(count)])).digest(size)


@given(payload=PAYLOAD, one=SEED, other=SEED)
def test_equal_payloads_have_different_commitments(payload: bytes, one: bytes, other: bytes) -> None:
    first, second = (seal(payload, ABOUT, drawn_from(seed)) for seed in (one, other))
    assert (first.kept.commitment == second.kept.commitment) == (one == other)
    assert first.kept.commitment != hashlib.sha256(payload).hexdigest()


@given(payload=PAYLOAD, seed=SEED, salt=SEED)
def test_a_wrong_salt_and_a_wrong_payload_fail(payload: bytes, seed: bytes, salt: bytes) -> None:
    sealed = seal(payload, ABOUT, drawn_from(seed))
    require_commitment(sealed.kept, payload, sealed.opening.expose_salt())
    assert commit(payload, salt) != sealed.kept.commitment
    with pytest.raises(PayloadDamaged, match=sealed.kept.id):
        require_commitment(sealed.kept, payload, salt)
    with pytest.raises(PayloadDamaged, match=sealed.kept.id):
        require_commitment(sealed.kept, payload + b"x", sealed.opening.expose_salt())


@given(payload=PAYLOAD, seed=SEED, at=st.integers(min_value=0))
def test_a_flipped_bit_anywhere_is_named(payload: bytes, seed: bytes, at: int) -> None:
    sealed = seal(payload, ABOUT, drawn_from(seed))
    assert open_sealed(sealed.kept.id, sealed.data, sealed.opening)[1] == payload
    data = bytearray(sealed.data)
    data[at // 8 % len(data)] ^= 1 << at % 8
    with pytest.raises(PayloadDamaged, match=sealed.kept.id):
        open_sealed(sealed.kept.id, bytes(data), sealed.opening)

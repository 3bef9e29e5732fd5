"""Seeds, key pairs, sealed boxes and signatures."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.errors import LocalProtocolError
from privacy.secagg import keys
from privacy.secagg.keys import CannotOpen, MalformedKey, Signer
from privacy.secagg.messages import PAIR_BOX_BYTES, PUBLIC_KEY_BYTES, SHARES_BOX_BYTES, SiteId
from privacy.secret import Secret
from tests.fakes.memory_round import deterministic_entropy

CONTEXT = bytes(32)
T1 = b"t" * 32
ALICE, BOB = SiteId("alice"), SiteId("bob")
LONG_TERM = Secret(b"l" * 32)


def seeds(entropy: str = "e", long_term: Secret[bytes] = LONG_TERM, context: bytes = CONTEXT, site: SiteId = ALICE):
    return keys.draw_seeds(deterministic_entropy(entropy), long_term, context, site)


def every_seed(drawn):
    return [drawn.root.expose(), drawn.self_mask.expose(), drawn.private.expose()]


def test_everything_is_derived_from_its_inputs():
    assert every_seed(seeds()) == every_seed(seeds())
    pair = keys.pair_key(seeds().root, CONTEXT, ALICE)
    assert pair.public == keys.pair_key(seeds().root, CONTEXT, ALICE).public
    assert len(pair.public) == PUBLIC_KEY_BYTES


def test_seeds_differ_by_purpose_entropy_secret_context_and_site():
    all_seeds = [
        seed
        for drawn in (
            seeds(),
            seeds(entropy="f"),
            seeds(long_term=Secret(b"m" * 32)),
            seeds(context=b"c" * 32),
            seeds(site=BOB),
        )
        for seed in every_seed(drawn)
    ]
    assert len(set(all_seeds)) == len(all_seeds) == 15


def test_derived_seeds_differ_by_label_transcript_members_and_names():
    root = seeds().root
    members = (ALICE, BOB)
    derived = [
        keys.pair_seed(root, T1, ALICE, BOB),
        keys.pair_seed(root, T1, BOB, ALICE),
        keys.pair_seed(root, b"u" * 32, ALICE, BOB),
        keys.pair_mask_seed(root, T1, members, ALICE, BOB),
        keys.pair_mask_seed(root, T1, (ALICE,), ALICE, BOB),
        keys.self_mask_seed(root, T1, members, ALICE),
        keys.self_mask_seed(root, T1, members, BOB),
        keys.dither_seed(seeds(), T1, ALICE),
        keys.polynomial_seed(seeds(), CONTEXT, "root"),
        keys.polynomial_seed(seeds(), CONTEXT, "self-mask"),
    ]
    assert len({seed.expose() for seed in derived}) == len(derived)


@pytest.mark.parametrize("entropy", [lambda _: b"", lambda _: b"e" * 31, lambda size: b"e" * (size + 1)])
def test_a_generator_that_gives_another_length_is_refused(entropy: Callable[[int], bytes]):
    with pytest.raises(LocalProtocolError, match="random generator"):
        keys.draw_seeds(entropy, LONG_TERM, CONTEXT, ALICE)


def test_a_short_long_term_secret_is_refused():
    with pytest.raises(LocalProtocolError, match="long-term secret"):
        seeds(long_term=Secret(b"l" * 31))


# --- boxes ---------------------------------------------------------------------------------------------------------

PAIR = keys.box_key(seeds(), CONTEXT, BOB)
BINDING = {"label": "share", "key_transcript": T1, "sender": ALICE, "recipient": BOB}


def test_a_box_opens_for_its_recipient():
    box = keys.seal(Secret(b"s" * 66), PAIR.public, **BINDING)
    assert len(box) == SHARES_BOX_BYTES
    assert keys.open_box(box, PAIR, **BINDING).expose() == b"s" * 66
    assert len(keys.seal(Secret(b"s" * 32), PAIR.public, **BINDING)) == PAIR_BOX_BYTES


@pytest.mark.parametrize(
    "change", [{"label": "pair"}, {"key_transcript": b"u" * 32}, {"sender": BOB}, {"recipient": ALICE}]
)
def test_a_box_is_bound_to_label_transcript_and_names(change):
    box = keys.seal(Secret(b"s"), PAIR.public, **BINDING)
    with pytest.raises(CannotOpen):
        keys.open_box(box, PAIR, **{**BINDING, **change})


def test_a_box_does_not_open_under_another_key_or_when_damaged():
    box = keys.seal(Secret(b"s"), PAIR.public, **BINDING)
    other = keys.pair_key(seeds().root, CONTEXT, BOB)
    with pytest.raises(CannotOpen):
        keys.open_box(box, other, **BINDING)
    for damaged in (b"", box[:-1], box + b"\0", bytes([box[0] ^ 1]) + box[1:], box[:1088] + bytes(32) + box[1120:]):
        with pytest.raises(CannotOpen):
            keys.open_box(damaged, PAIR, **BINDING)


# --- public keys ---------------------------------------------------------------------------------------------------


def test_a_key_of_another_length_is_malformed():
    for public in (b"", PAIR.public[:-1], PAIR.public + b"\0"):
        with pytest.raises(MalformedKey, match="1216 bytes"):
            keys.parse_public_key(public)


# --- signatures ----------------------------------------------------------------------------------------------------


def test_signatures():
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    signer: Signer = key
    signature = signer.sign(b"payload")
    assert keys.signature_holds(public, b"payload", signature)
    assert not keys.signature_holds(public, b"payloaf", signature)
    assert not keys.signature_holds(bytes(31), b"payload", signature)
    assert not keys.signature_holds(public, b"payload", signature[:-1])

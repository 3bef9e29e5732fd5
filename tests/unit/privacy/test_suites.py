"""The two suites: their public keys, what counts as the same key, and their signatures."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.p256 import EcdsaSigner
from privacy.secagg import suites
from privacy.secagg.suites import SUITES, MalformedKey, SuiteName
from privacy.secret import Secret

HYBRID, P256 = SUITES[SuiteName.HYBRID_PQ], SUITES[SuiteName.P256]
SIGNERS = {SuiteName.HYBRID_PQ: Ed25519PrivateKey.from_private_bytes(bytes(range(32)))}
SIGNERS[SuiteName.P256] = EcdsaSigner(ec.derive_private_key(7, ec.SECP256R1()))
PUBLIC = {SuiteName.HYBRID_PQ: SIGNERS[SuiteName.HYBRID_PQ].public_key().public_bytes_raw()}
PUBLIC[SuiteName.P256] = SIGNERS[SuiteName.P256].public

every_suite = pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES.keys())


def public_key(suite, number=0):
    return suite.key_pair(Secret(bytes([number]) * suite.kem_seed_bytes))[1]


def test_every_name_has_its_suite_and_its_own_label():
    assert list(SUITES) == list(SuiteName)
    assert all(suite.name == name for name, suite in SUITES.items())
    assert len({suite.label for suite in SUITES.values()}) == len(SUITES)


def test_the_wire_lets_the_sizes_of_both_through():
    assert sorted(suites.PUBLIC_KEY_SIZES) == [65, 1216]
    assert sorted(suites.SHARES_BOX_SIZES) == [147, 1202]
    assert sorted(suites.PAIR_BOX_SIZES) == [113, 1168]


@every_suite
def test_a_key_pair_follows_from_its_seed(suite):
    secret, public = suite.key_pair(Secret(bytes(suite.kem_seed_bytes)))
    assert public == public_key(suite)
    assert public != public_key(suite, 1)
    assert len(public) == suite.public_key_bytes
    assert isinstance(secret, Secret)
    suite.parse_public_key(public)


@every_suite
def test_a_key_of_another_length_is_malformed(suite):
    public = public_key(suite)
    for other in (b"", public[:-1], public + b"\0"):
        with pytest.raises(MalformedKey, match=f"{suite.public_key_bytes} bytes"):
            suite.parse_public_key(other)


def test_a_key_of_one_suite_is_malformed_in_the_other():
    for one, other in ((HYBRID, P256), (P256, HYBRID)):
        with pytest.raises(MalformedKey):
            other.parse_public_key(public_key(one))


def test_each_half_of_a_hybrid_key_counts():
    one, other = public_key(HYBRID), public_key(HYBRID, 1)
    assert HYBRID.key_parts(one) == (one[:1184], one[1184:])
    assert not set(HYBRID.key_parts(one)) & set(HYBRID.key_parts(other))


def test_a_point_and_its_mirror_image_count_as_one_key():
    """Whoever has the secret d of one has n - d of the other, and both agree on one secret with everybody else."""
    public = public_key(P256)
    mirrored = (2**256 - 2**224 + 2**192 + 2**96 - 1) - int.from_bytes(public[33:], "big")
    mirror = public[:33] + mirrored.to_bytes(32, "big")
    P256.parse_public_key(mirror)
    assert mirror != public
    assert P256.key_parts(mirror) == P256.key_parts(public)
    assert P256.key_parts(public) != P256.key_parts(public_key(P256, 1))


@every_suite
def test_signatures(suite):
    public, signer = PUBLIC[suite.name], SIGNERS[suite.name]
    signature = signer.sign(b"payload")
    assert len(public) == suite.signing_key_bytes
    assert len(signature) == 64
    assert suite.signature_holds(public, b"payload", signature)
    assert not suite.signature_holds(public, b"payloaf", signature)
    assert not suite.signature_holds(public, b"payload", signature[:-1])
    assert not suite.signature_holds(public[:-1], b"payload", signature)
    assert not suite.signature_holds(bytes(suite.signing_key_bytes), b"payload", signature)
    for place in range(64):
        altered = signature[:place] + bytes([signature[place] ^ 1]) + signature[place + 1 :]
        assert not suite.signature_holds(public, b"payload", altered)


def test_a_signature_of_one_suite_is_none_in_the_other():
    for one, other in ((HYBRID, P256), (P256, HYBRID)):
        signature = SIGNERS[one.name].sign(b"payload")
        assert not other.signature_holds(PUBLIC[one.name], b"payload", signature)
        assert not other.signature_holds(PUBLIC[other.name], b"payload", signature)

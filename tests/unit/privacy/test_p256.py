"""Points, private keys and signatures on P-256, each in its one form."""

import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from privacy import p256
from privacy.p256 import ORDER, EcdsaSigner, MalformedPoint
from privacy.secret import Secret

PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1
SIGNER = EcdsaSigner(ec.derive_private_key(7, ec.SECP256R1()))
SIGNATURE = SIGNER.sign(b"payload")


def point(x, y, form=4):
    return bytes((form,)) + x.to_bytes(32, "big") + y.to_bytes(32, "big")


def parts(public=SIGNER.public):
    return int.from_bytes(public[1:33], "big"), int.from_bytes(public[33:], "big")


# --- private keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "scalar"),
    [(0, 1), (1, 2), (ORDER - 2, ORDER - 1), (ORDER - 1, 1), (2**384 - 1, (2**384 - 1) % (ORDER - 1) + 1)],
)
def test_a_seed_gives_a_scalar_from_1_to_n_minus_1(seed, scalar):
    key = p256.private_key(Secret(seed.to_bytes(48, "big"))).expose()
    assert key.private_numbers().private_value == scalar


@pytest.mark.parametrize("size", [0, 32, 47, 49])
def test_a_seed_of_another_length_is_refused(size):
    with pytest.raises(ValueError, match="48 bytes"):
        p256.private_key(Secret(bytes(size)))


# --- points --------------------------------------------------------------------------------------------------------


def test_a_point_there_and_back():
    assert p256.point_bytes(p256.parse_point(SIGNER.public)) == SIGNER.public
    assert len(SIGNER.public) == p256.POINT_BYTES


X, Y = parts()
CURVE_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
Y_OF_5 = pow(5**3 - 3 * 5 + CURVE_B, (PRIME + 1) // 4, PRIME)
BAD = {
    "empty": b"",
    "the identity": b"\0",
    "the identity, padded": bytes(65),
    "short": SIGNER.public[:-1],
    "long": SIGNER.public + b"\0",
    "compressed": bytes((2 + Y % 2,)) + SIGNER.public[1:33],
    "compressed, padded": bytes((2 + Y % 2,)) + SIGNER.public[1:],
    "hybrid": point(X, Y, 6 + Y % 2),
    "not on the curve": point(X, Y ^ 1),
    "zeros": point(0, 0),
    "x not reduced": point(5 + PRIME, Y_OF_5),
    "y not reduced": point(X, PRIME),
}


@pytest.mark.parametrize("public", BAD.values(), ids=BAD.keys())
def test_what_is_no_point_in_its_one_form_is_refused(public):
    with pytest.raises(MalformedPoint):
        p256.parse_point(public)


def test_the_point_whose_second_spelling_is_refused_is_good_itself():
    assert p256.point_bytes(p256.parse_point(point(5, Y_OF_5))) == point(5, Y_OF_5)


# --- signatures ----------------------------------------------------------------------------------------------------


def test_a_signature_verifies_and_is_the_only_one():
    p256.verify(SIGNER.public, SIGNATURE, b"payload")
    assert len(SIGNATURE) == p256.SIGNATURE_BYTES
    assert SIGNER.sign(b"payload") == SIGNATURE  # RFC 6979: nothing is drawn
    assert SIGNER.sign(b"payloaf") != SIGNATURE


def test_the_deterministic_nonce_is_that_of_rfc_6979():
    """Appendix A.2.5, P-256 with SHA-256, message "sample"; s is in the upper half there, so ours is n - s."""
    key = ec.derive_private_key(0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721, ec.SECP256R1())
    r = 0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716
    s = 0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8
    assert s > ORDER // 2
    assert EcdsaSigner(key).sign(b"sample") == r.to_bytes(32, "big") + (ORDER - s).to_bytes(32, "big")


def test_every_signature_has_a_low_s():
    for number in range(64):
        signature = SIGNER.sign(number.to_bytes(4, "big"))
        assert 0 < int.from_bytes(signature[32:], "big") <= ORDER // 2
        p256.verify(SIGNER.public, signature, number.to_bytes(4, "big"))


def forged(r, s):
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


R, S = int.from_bytes(SIGNATURE[:32], "big"), int.from_bytes(SIGNATURE[32:], "big")


def test_the_other_half_of_s_is_refused_though_the_mathematics_accepts_it():
    key = p256.parse_point(SIGNER.public)
    key.verify(encode_dss_signature(R, ORDER - S), b"payload", ec.ECDSA(SHA256()))
    with pytest.raises(InvalidSignature):
        p256.verify(SIGNER.public, forged(R, ORDER - S), b"payload")


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        SIGNATURE[:-1],
        SIGNATURE + b"\0",
        encode_dss_signature(R, S),
        bytes(64),
        forged(0, S),
        forged(R, 0),
        forged(ORDER, S),
        forged(R, ORDER),
        forged(R, S ^ 1),
        forged(R ^ 1, S),
        forged(2**256 - 1, 2**256 - 1),
    ],
)
def test_a_signature_in_another_form_is_refused(signature):
    with pytest.raises(InvalidSignature):
        p256.verify(SIGNER.public, signature, b"payload")


def test_a_signature_of_something_else_or_under_another_key_is_refused():
    other = EcdsaSigner(ec.derive_private_key(8, ec.SECP256R1()))
    with pytest.raises(InvalidSignature):
        p256.verify(SIGNER.public, SIGNATURE, b"payloaf")
    with pytest.raises(InvalidSignature):
        p256.verify(other.public, SIGNATURE, b"payload")
    with pytest.raises(MalformedPoint):
        p256.verify(SIGNER.public[:-1], SIGNATURE, b"payload")


def test_a_signer_shows_nothing_of_its_key_and_takes_no_other_curve():
    key = ec.derive_private_key(int.from_bytes(hashlib.sha256(b"k").digest(), "big"), ec.SECP256R1())
    signer = EcdsaSigner(key)
    assert f"{key.private_numbers().private_value:x}" not in repr(signer)
    assert signer.public == key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    with pytest.raises(TypeError, match="secp384r1"):
        EcdsaSigner(ec.generate_private_key(ec.SECP384R1()))

"""P-256 public keys and ECDSA signatures, each with one spelling (SEC 1; FIPS 186-5; RFC 6979).

A point is 65 bytes: 4, x, y (uncompressed). A signature is 64 bytes: r and s, 32 big-endian bytes each, over the
SHA-256 of the data, with s in the lower half of its range: of the two signatures (r, s) and (r, n - s) that the
mathematics accepts, only one is a signature here, so nobody but the signer can turn one into another. Nonces follow
from the key and the data (RFC 6979): a broken generator cannot give a key away, and signing twice gives the same bytes.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from privacy.secret import Secret

POINT_BYTES = 65
SIGNATURE_BYTES = 64
SEED_BYTES = 48
"""128 bits more than the group order, so that the reduced number is as good as uniform (FIPS 186-5, A.2.1)."""

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_CURVE = ec.SECP256R1()
_SIGNING = ec.ECDSA(SHA256(), deterministic_signing=True)
_VERIFYING = ec.ECDSA(SHA256())
_UNCOMPRESSED = 4


class MalformedPoint(ValueError):
    """Bytes that are not a public key in its one form; the message says why."""


class EcdsaSigner:
    """A private key, as the one thing that may be done with it."""

    __slots__ = ("_key",)

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        if not isinstance(key.curve, ec.SECP256R1):
            raise TypeError(f"an EcdsaSigner signs with a P-256 key, not with {key.curve.name}")
        self._key = Secret(key)

    @property
    def public(self) -> bytes:
        """The public key, POINT_BYTES."""
        return point_bytes(self._key.expose().public_key())

    def sign(self, data: bytes, /) -> bytes:
        """The one signature of `data` under this key, SIGNATURE_BYTES."""
        r, s = decode_dss_signature(self._key.expose().sign(data, _SIGNING))
        return r.to_bytes(32, "big") + min(s, ORDER - s).to_bytes(32, "big")


def private_key(seed: Secret[bytes]) -> Secret[ec.EllipticCurvePrivateKey]:
    """The private key that follows from SEED_BYTES of key material: (seed mod (n - 1)) + 1."""
    if len(seed.expose()) != SEED_BYTES:
        raise ValueError(f"a P-256 key is made from {SEED_BYTES} bytes, not {len(seed.expose())}")
    return Secret(ec.derive_private_key(int.from_bytes(seed.expose(), "big") % (ORDER - 1) + 1, _CURVE))


def point_bytes(public: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as 65 bytes."""
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def parse_point(point: bytes) -> ec.EllipticCurvePublicKey:
    """65 bytes -> a public key. The curve has prime order, so a point on it that is not the identity is a good key.

    Raises:
        MalformedPoint: another length (the identity has one byte, a compressed point 33), another form, a coordinate
            that is not reduced, or a point that is not on the curve.
    """
    if len(point) != POINT_BYTES or point[0] != _UNCOMPRESSED:
        raise MalformedPoint(f"a P-256 key has {POINT_BYTES} bytes and begins with {_UNCOMPRESSED}")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, point)
    except ValueError as error:
        raise MalformedPoint("the bytes are not a point on P-256") from error


def verify(point: bytes, signature: bytes, data: bytes) -> None:
    """Return if `signature` is the signature of `data` under the key `point`.

    Raises:
        InvalidSignature: it is not, or it is not in its one form.
        MalformedPoint: the key is none.
    """
    public = parse_point(point)
    if len(signature) != SIGNATURE_BYTES:
        raise InvalidSignature
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    # The lower half: whoever relays a signature could otherwise change it, and with it every transcript it is in.
    if not (0 < r < ORDER and 0 < s <= ORDER // 2):
        raise InvalidSignature
    public.verify(encode_dss_signature(r, s), data, _VERIFYING)

"""The two suites of algorithms that secure aggregation can run with, and every size that depends on the choice.

Protocol section 4. Both are HPKE (RFC 9180) in base mode with HKDF-SHA256 and AES-256-GCM; they differ in the key
encapsulation and in the signature.

hybrid-pq   KEM MLKEM768_X25519 (hybrid post-quantum), Ed25519. Survivors' self-mask seeds are revealed by design, so
            whoever records today's public keys and can break them later would otherwise read the updates.
p256        KEM DHKEM(P-256, HKDF-SHA256), ECDSA P-256. For those who must use algorithms that FIPS 140 knows; it does
            not protect what is recorded today from tomorrow's quantum computers.

A study names its suite, every attempt has exactly one, and its context's digest covers it: nothing made under one
suite means anything under the other. Signatures have 64 bytes in both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey
from cryptography.hazmat.primitives.hpke import Suite as HpkeSuite

from privacy import p256
from privacy.secagg.messages import SHARE_BYTES
from privacy.secret import Secret

KemPrivateKey: TypeAlias = MLKEM768X25519PrivateKey | ec.EllipticCurvePrivateKey
KemPublicKey: TypeAlias = MLKEM768X25519PublicKey | ec.EllipticCurvePublicKey

PAIR_SEED_BYTES = 32
_TAG_BYTES = 16  # AES-GCM
_MLKEM_SEED_BYTES = 64  # d || z (FIPS 203)
_MLKEM_KEY_BYTES = 1184
_MLKEM_CIPHERTEXT_BYTES = 1088
_X25519_BYTES = 32
_ED25519_BYTES = 32
_X25519_PRIME = 2**255 - 19
_PROBE = X25519PrivateKey.from_private_bytes(bytes(range(32)))  # any scalar: only low-order points give zero with it


class MalformedKey(ValueError):
    """Bytes that are not an acceptable public key; the message says why."""


class SuiteName(StrEnum):
    """How a study file and a round plan call a suite."""

    HYBRID_PQ = "hybrid-pq"
    P256 = "p256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One choice of algorithms."""

    name: SuiteName
    label: str  # in the digest of a context
    hpke: HpkeSuite = field(repr=False)
    kem_seed_bytes: int  # what a key pair is derived from
    public_key_bytes: int
    encapsulation_bytes: int  # what stands before the ciphertext in a sealed box
    signing_key_bytes: int  # of the public key that a certificate binds
    key_pair: Callable[[Secret[bytes]], tuple[Secret[KemPrivateKey], bytes]] = field(repr=False)
    """From a seed of `kem_seed_bytes`: the secret key, and the public key as it travels."""
    parse_public_key: Callable[[bytes], KemPublicKey] = field(repr=False)
    """From what travelled; raises MalformedKey."""
    key_parts: Callable[[bytes], tuple[bytes, ...]] = field(repr=False)
    """What no two keys of an attempt may have in common: whoever has the secret of one part has that of the other."""
    verify: Callable[[bytes, bytes, bytes], None] = field(repr=False)
    """Of signing key, signature and data; raises InvalidSignature, or ValueError for bytes that are no key."""

    @property
    def seal_overhead_bytes(self) -> int:
        """What sealing adds to a plaintext."""
        return self.encapsulation_bytes + _TAG_BYTES

    @property
    def shares_box_bytes(self) -> int:
        """A sealed pair of shares, of r and of b."""
        return self.seal_overhead_bytes + 2 * SHARE_BYTES

    @property
    def pair_box_bytes(self) -> int:
        """A sealed pairwise seed."""
        return self.seal_overhead_bytes + PAIR_SEED_BYTES

    def signature_holds(self, signing_key: bytes, payload: bytes, signature: bytes) -> bool:
        """Whether `signature` is that of `payload`. Who asks must raise if it is not."""
        try:
            self.verify(signing_key, signature, payload)
        except (InvalidSignature, ValueError):
            return False
        return True


# --- suite 1 -------------------------------------------------------------------------------------------------------


def _hybrid_pair(seed: Secret[bytes]) -> tuple[Secret[KemPrivateKey], bytes]:
    lattice = MLKEM768PrivateKey.from_seed_bytes(seed.expose()[:_MLKEM_SEED_BYTES])
    curve = X25519PrivateKey.from_private_bytes(seed.expose()[_MLKEM_SEED_BYTES:])
    public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
    return Secret(MLKEM768X25519PrivateKey(lattice, curve)), public


def _parse_hybrid(public: bytes) -> MLKEM768X25519PublicKey:
    """The ML-KEM-768 and the X25519 half, both well formed.

    Refused: another length; an ML-KEM coefficient that is not reduced (FIPS 203, 7.2); an X25519 coordinate that is not
    reduced (a second spelling of a key would pass for another key); a point of low order (the shared secret would be
    known to everyone).
    """
    if len(public) != _MLKEM_KEY_BYTES + _X25519_BYTES:
        raise MalformedKey(f"a public key has {_MLKEM_KEY_BYTES + _X25519_BYTES} bytes, not {len(public)}")
    lattice_bytes, curve_bytes = _hybrid_parts(public)
    if int.from_bytes(curve_bytes, "little") >= _X25519_PRIME:
        raise MalformedKey("the X25519 half is not in its one canonical form")
    try:
        lattice = MLKEM768PublicKey.from_public_bytes(lattice_bytes)
    except ValueError as error:
        raise MalformedKey("the ML-KEM-768 half is not an encapsulation key") from error
    curve = X25519PublicKey.from_public_bytes(curve_bytes)
    try:
        _PROBE.exchange(curve)
    except ValueError as error:
        raise MalformedKey("the X25519 half is a point of low order") from error
    return MLKEM768X25519PublicKey(lattice, curve)


def _hybrid_parts(public: bytes) -> tuple[bytes, bytes]:
    return public[:_MLKEM_KEY_BYTES], public[_MLKEM_KEY_BYTES:]


def _verify_ed25519(signing_key: bytes, signature: bytes, data: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(signing_key).verify(signature, data)


# --- suite 2 -------------------------------------------------------------------------------------------------------


def _p256_pair(seed: Secret[bytes]) -> tuple[Secret[KemPrivateKey], bytes]:
    secret = p256.private_key(seed).expose()
    return Secret(secret), p256.point_bytes(secret.public_key())


def _parse_p256(public: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return p256.parse_point(public)
    except p256.MalformedPoint as error:
        raise MalformedKey(str(error)) from error


def _p256_parts(public: bytes) -> tuple[bytes]:
    # The x-coordinate alone: a point and its mirror image have one secret between them, and give one shared secret.
    return (public[1:33],)


# --- both ----------------------------------------------------------------------------------------------------------

SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name=SuiteName.HYBRID_PQ,
            label="HPKE-MLKEM768-X25519/HKDF-SHA256/AES-256-GCM/Ed25519",
            hpke=HpkeSuite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
            kem_seed_bytes=_MLKEM_SEED_BYTES + _X25519_BYTES,
            public_key_bytes=_MLKEM_KEY_BYTES + _X25519_BYTES,
            encapsulation_bytes=_MLKEM_CIPHERTEXT_BYTES + _X25519_BYTES,
            signing_key_bytes=_ED25519_BYTES,
            key_pair=_hybrid_pair,
            parse_public_key=_parse_hybrid,
            key_parts=_hybrid_parts,
            verify=_verify_ed25519,
        ),
        Suite(
            name=SuiteName.P256,
            label="HPKE-P256/HKDF-SHA256/AES-256-GCM/ECDSA-P256-SHA256",
            hpke=HpkeSuite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
            kem_seed_bytes=p256.SEED_BYTES,
            public_key_bytes=p256.POINT_BYTES,
            encapsulation_bytes=p256.POINT_BYTES,
            signing_key_bytes=p256.POINT_BYTES,
            key_pair=_p256_pair,
            parse_public_key=_parse_p256,
            key_parts=_p256_parts,
            verify=p256.verify,
        ),
    )
}
"""Every suite by its name."""

PUBLIC_KEY_SIZES = frozenset(suite.public_key_bytes for suite in SUITES.values())
SHARES_BOX_SIZES = frozenset(suite.shares_box_bytes for suite in SUITES.values())
PAIR_BOX_SIZES = frozenset(suite.pair_box_bytes for suite in SUITES.values())
"""What the wire lets through, before it is known which suite an attempt has; the machines know and look again."""

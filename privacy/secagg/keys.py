"""Seeds, key pairs, key derivation labels, sealed boxes and signatures of secure aggregation.

Protocol section 4. Suite 1: HPKE (RFC 9180) in base mode with the hybrid KEM MLKEM768_X25519, HKDF-SHA256 and
AES-256-GCM; Ed25519 signatures. The hybrid matters because survivors' self-mask seeds are revealed by design: whoever
records today's public keys and can break them later would otherwise read the updates.

HPKE draws its ephemeral keys from the operating system inside the cryptography library; every other value here is a
function of its arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.errors import LocalProtocolError
from privacy.secagg.messages import PUBLIC_KEY_BYTES, SiteId
from privacy.secagg.transcript import frame, members_hash
from privacy.secret import Secret

Entropy: TypeAlias = Callable[[int], bytes]
"""Gives that many fresh random bytes; `os.urandom` outside tests."""

SEED_BYTES = 32
_KEM_SEED_BYTES = 64 + 32  # ML-KEM's d || z, then the X25519 scalar
_MLKEM_KEY_BYTES = 1184
_X25519_PRIME = 2**255 - 19
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_PROBE = X25519PrivateKey.from_private_bytes(bytes(range(32)))  # any scalar: only low-order points give zero with it


class Signer(Protocol):
    """The site's certified Ed25519 key, as the one thing that may be done with it."""

    def sign(self, data: bytes, /) -> bytes:
        """The 64-byte signature of `data`."""
        ...


class MalformedKey(ValueError):
    """Bytes that are not an acceptable public key; the message says why."""


class CannotOpen(ValueError):
    """A sealed box that does not open under this key and this context."""


# --- seeds ---------------------------------------------------------------------------------------------------------


def derive(
    secret: Secret[bytes], *, salt: bytes, label: str, parts: tuple[bytes, ...], length: int = 32
) -> Secret[bytes]:
    """HKDF-SHA256 of a secret: salt is the transcript so far, info the label and the names it is bound to."""
    kdf = HKDF(algorithm=SHA256(), length=length, salt=salt, info=frame(label, *parts))
    return Secret(kdf.derive(secret.expose()))


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSeeds:
    """Everything one site keeps secret in one attempt; all keys and masks are derived from these three."""

    root: Secret[bytes]  # r: pairwise seeds and key A; shared, and revealed if the site drops out
    self_mask: Secret[bytes]  # b: shared, and revealed if the site survives
    private: Secret[bytes]  # key B, the polynomials of the shares, the rounding; never shared


def draw_seeds(entropy: Entropy, long_term_secret: Secret[bytes], context: bytes, site: SiteId) -> SiteSeeds:
    """Fresh seeds for one attempt, from fresh entropy hedged with a secret that only this site has.

    Two clones of one machine may draw the same entropy, and a broken generator may repeat itself: the long-term
    secret separates the sites, and the context separates the attempts (threat 23).

    Raises:
        LocalProtocolError: the long-term secret or the entropy is shorter than 32 bytes.
    """
    if len(long_term_secret.expose()) < SEED_BYTES:
        raise LocalProtocolError("a site's long-term secret has 32 bytes or more", f"{len(long_term_secret.expose())}")

    def hedged(label: str) -> Secret[bytes]:
        fresh = entropy(SEED_BYTES)
        if len(fresh) != SEED_BYTES:
            raise LocalProtocolError(f"the random generator gives {SEED_BYTES} bytes", f"{len(fresh)} bytes")
        hedge = derive(long_term_secret, salt=context, label="hedge", parts=(label.encode(), site.encode()))
        return derive(Secret(fresh + hedge.expose()), salt=context, label=label, parts=(site.encode(),))

    return SiteSeeds(root=hedged("root"), self_mask=hedged("self-mask"), private=hedged("private"))


def pair_seed(root: Secret[bytes], key_transcript: bytes, sender: SiteId, recipient: SiteId) -> Secret[bytes]:
    """k_ij = HKDF(r_i, salt = T1, "pair" || i || j), for a recipient j that sorts after the sender i."""
    return derive(root, salt=key_transcript, label="pair", parts=(sender.encode(), recipient.encode()))


def pair_mask_seed(
    seed: Secret[bytes], key_transcript: bytes, members: tuple[SiteId, ...], first: SiteId, second: SiteId
) -> Secret[bytes]:
    """s_ij = HKDF(k_ij, salt = T1 || H(U2), "mask" || i || j), for i before j."""
    salt = key_transcript + members_hash(members)
    return derive(seed, salt=salt, label="mask", parts=(first.encode(), second.encode()))


def self_mask_seed(
    seed: Secret[bytes], key_transcript: bytes, members: tuple[SiteId, ...], site: SiteId
) -> Secret[bytes]:
    """self_i = HKDF(b_i, salt = T1 || H(U2), "self" || i)."""
    return derive(seed, salt=key_transcript + members_hash(members), label="self", parts=(site.encode(),))


def dither_seed(seeds: SiteSeeds, key_transcript: bytes, site: SiteId) -> Secret[bytes]:
    """The seed of the stochastic rounding (section 5), from the seed that is never shared."""
    return derive(seeds.private, salt=key_transcript, label="dither", parts=(site.encode(),))


def polynomial_seed(seeds: SiteSeeds, context: bytes, kind: str) -> Secret[bytes]:
    """The seed of the Shamir coefficients for the secret called `kind` ("root" or "self-mask")."""
    return derive(seeds.private, salt=context, label="polynomial", parts=(kind.encode(),))


# --- key pairs -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A hybrid key pair: ML-KEM-768 and X25519 side by side."""

    secret: Secret[MLKEM768X25519PrivateKey]
    public: bytes  # PUBLIC_KEY_BYTES


def pair_key(root: Secret[bytes], context: bytes, site: SiteId) -> KeyPair:
    """A_i, from r_i alone, so that whoever reconstructs r_i can open what was sealed to A_i and check pkA_i."""
    return _key_pair(derive(root, salt=context, label="keyA", parts=(site.encode(),), length=_KEM_SEED_BYTES))


def box_key(seeds: SiteSeeds, context: bytes, site: SiteId) -> KeyPair:
    """B_i, from the seed that is never shared."""
    return _key_pair(derive(seeds.private, salt=context, label="keyB", parts=(site.encode(),), length=_KEM_SEED_BYTES))


def _key_pair(seed: Secret[bytes]) -> KeyPair:
    material = seed.expose()
    lattice = MLKEM768PrivateKey.from_seed_bytes(material[:64])
    curve = X25519PrivateKey.from_private_bytes(material[64:])
    return KeyPair(
        secret=Secret(MLKEM768X25519PrivateKey(lattice, curve)),
        public=lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw(),
    )


def parse_public_key(public: bytes) -> MLKEM768X25519PublicKey:
    """Bytes -> a hybrid public key.

    Raises:
        MalformedKey: wrong length; an ML-KEM coefficient that is not reduced (FIPS 203, 7.2); an X25519 coordinate
            that is not reduced (a second spelling of a key would pass for another key), or a point of low order
            (the shared secret would be known to everyone).
    """
    if len(public) != PUBLIC_KEY_BYTES:
        raise MalformedKey(f"a public key has {PUBLIC_KEY_BYTES} bytes, not {len(public)}")
    lattice_bytes, curve_bytes = key_halves(public)
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


def key_halves(public: bytes) -> tuple[bytes, bytes]:
    """The ML-KEM-768 and the X25519 half of a public key."""
    return public[:_MLKEM_KEY_BYTES], public[_MLKEM_KEY_BYTES:]


# --- sealed boxes --------------------------------------------------------------------------------------------------


def _box_info(label: str, key_transcript: bytes, sender: SiteId, recipient: SiteId) -> bytes:
    return frame(label, key_transcript, sender.encode(), recipient.encode())


def seal(
    plaintext: Secret[bytes], public: bytes, *, label: str, key_transcript: bytes, sender: SiteId, recipient: SiteId
) -> bytes:
    """HPKE to a public key that `parse_public_key` accepts, bound to T1 (so to ctx), both names and the label.

    It does not prove who sealed it: the signature over all of a sender's boxes does.
    """
    info = _box_info(label, key_transcript, sender, recipient)
    return _SUITE.encrypt(plaintext.expose(), parse_public_key(public), info)


def open_box(
    box: bytes, key: KeyPair, *, label: str, key_transcript: bytes, sender: SiteId, recipient: SiteId
) -> Secret[bytes]:
    """The plaintext; raises CannotOpen for a box made for another key, context, label, sender or recipient."""
    info = _box_info(label, key_transcript, sender, recipient)
    try:
        return Secret(_SUITE.decrypt(box, key.secret.expose(), info))
    except (InvalidTag, ValueError) as error:
        raise CannotOpen("the box does not open under this key, context, sender and recipient") from error


# --- signatures ----------------------------------------------------------------------------------------------------


def signature_holds(signing_key: bytes, payload: bytes, signature: bytes) -> bool:
    """Whether `signature` is the Ed25519 signature of `payload`. Only `checks.py` asks, and it raises."""
    try:
        Ed25519PublicKey.from_public_bytes(signing_key).verify(signature, payload)
    except (InvalidSignature, ValueError):
        return False
    return True

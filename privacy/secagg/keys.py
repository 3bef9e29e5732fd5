"""Seeds, key pairs, key derivation labels and sealed boxes of secure aggregation.

Protocol section 4. The derivations are the same in every suite; what a seed of a key pair becomes is the suite's
(`suites.py`).

HPKE draws its ephemeral keys from the operating system inside the cryptography library; every other value here is a
function of its arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.errors import LocalProtocolError
from privacy.secagg.messages import SiteId
from privacy.secagg.suites import KemPrivateKey, Suite
from privacy.secagg.transcript import frame, members_hash
from privacy.secret import Secret

Entropy: TypeAlias = Callable[[int], bytes]
"""Gives that many fresh random bytes; `os.urandom` outside tests."""

SEED_BYTES = 32


class Signer(Protocol):
    """The key of the suite that the site's certificate binds, as the one thing that may be done with it."""

    def sign(self, data: bytes, /) -> bytes:
        """The 64-byte signature of `data`."""
        ...


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
        fresh = Secret(entropy(SEED_BYTES))
        if len(fresh.expose()) != SEED_BYTES:
            found = f"{len(fresh.expose())} bytes"
            raise LocalProtocolError(f"the random generator gives {SEED_BYTES} bytes", found)
        hedge = derive(long_term_secret, salt=context, label="hedge", parts=(label.encode(), site.encode()))
        return derive(Secret(fresh.expose() + hedge.expose()), salt=context, label=label, parts=(site.encode(),))

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
    """A key pair of a suite, for one attempt."""

    suite: Suite
    secret: Secret[KemPrivateKey]
    public: bytes  # suite.public_key_bytes


def pair_key(suite: Suite, root: Secret[bytes], context: bytes, site: SiteId) -> KeyPair:
    """A_i, from r_i alone, so that whoever reconstructs r_i can open what was sealed to A_i and check pkA_i."""
    return _key_pair(suite, root, context, "keyA", site)


def box_key(suite: Suite, seeds: SiteSeeds, context: bytes, site: SiteId) -> KeyPair:
    """B_i, from the seed that is never shared."""
    return _key_pair(suite, seeds.private, context, "keyB", site)


def _key_pair(suite: Suite, secret: Secret[bytes], context: bytes, label: str, site: SiteId) -> KeyPair:
    # ctx covers the suite, so the keys of two suites have nothing in common, whatever their seeds are long.
    seed = derive(secret, salt=context, label=label, parts=(site.encode(),), length=suite.kem_seed_bytes)
    private, public = suite.key_pair(seed)
    return KeyPair(suite=suite, secret=private, public=public)


# --- sealed boxes --------------------------------------------------------------------------------------------------


def _box_info(label: str, key_transcript: bytes, sender: SiteId, recipient: SiteId) -> bytes:
    return frame(label, key_transcript, sender.encode(), recipient.encode())


def seal(
    plaintext: Secret[bytes],
    public: bytes,
    *,
    suite: Suite,
    label: str,
    key_transcript: bytes,
    sender: SiteId,
    recipient: SiteId,
) -> bytes:
    """HPKE to a public key that `suite.parse_public_key` accepts, bound to T1 (so to ctx), both names and the label.

    It does not prove who sealed it: the signature over all of a sender's boxes does.
    """
    info = _box_info(label, key_transcript, sender, recipient)
    return suite.hpke.encrypt(plaintext.expose(), suite.parse_public_key(public), info)


def open_box(
    box: bytes, key: KeyPair, *, label: str, key_transcript: bytes, sender: SiteId, recipient: SiteId
) -> Secret[bytes]:
    """The plaintext; raises CannotOpen for a box made for another key, context, label, sender or recipient."""
    info = _box_info(label, key_transcript, sender, recipient)
    try:
        return Secret(key.suite.hpke.decrypt(box, key.secret.expose(), info))
    except (InvalidTag, ValueError) as error:
        raise CannotOpen("the box does not open under this key, context, sender and recipient") from error

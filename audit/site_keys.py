"""How a hospital's two signing keys change by its own word: a statement of three parties, and who may make it.

Log format section 14; ADR 50. What is signed is what can be read:

    consortium/site-keys/v1
    log: hub.example.org/consortium
    site: cleveland
    old-signing-key: 64 hexadecimal characters
    old-ecdsa-key: 130 hexadecimal characters
    signing-key: 64 hexadecimal characters
    ecdsa-key: 130 hexadecimal characters
    steward: u:...
    at: 2027-03-01T09:00:00.000Z

A steward of the hospital signs it, and each of the new keys does, as proof that it is there. It stands in the log as
`site.keys_rotated`, an entry of the hospital that the old key signs as it signed all before. So it takes the agent's
home, where the old key is, and a steward's key, which is never there: whoever stole one of them moves nothing.

A steward's key counts here if it came by the word of a steward of before, back to the first that this very chain of
entries named. Whoever holds the home can begin the stewards' keys anew (`steward.enrolled`, signed by itself, for
everybody to see); from then on no key of that chain changes, and the hospital is invited again. Pure.
"""

import base64
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from audit import entries
from audit.entries import (
    SiteEnrolled,
    SiteKeysRotated,
    SiteReinstated,
    SiteRevoked,
    SiteSuspended,
    StewardEnrolled,
    StewardRemoved,
)
from audit.errors import VerificationError
from audit.stewards import NO_KEYS, StewardKeys, statement_lines

KEYS_CONTEXT = "consortium/site-keys/v1"
"""The first line of what is signed, so that a signature can mean nothing else anywhere else."""

READ = frozenset(
    kind.TYPE
    for kind in (
        SiteEnrolled,
        SiteRevoked,
        SiteSuspended,
        SiteReinstated,
        StewardEnrolled,
        StewardRemoved,
        SiteKeysRotated,
    )
)
"""Types of entries that say whose key is whose; `SiteKeys` reads no other."""


_MARK = re.compile(rb'"type":"(?:site\.(?!invited|renewed|heartbeat)|steward\.)')


def may_be_about_keys(data: bytes) -> bool:
    """False of stored bytes that are of no type in READ, without parsing them; most of a long log."""
    return _MARK.search(data) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKeys:
    """The public halves of the two keys that a hospital signs with, in hexadecimal."""

    signing: str  # Ed25519: its entries, and its part of a round in the suite hybrid-pq
    ecdsa: str  # P-256: its part of a round in the suite p256


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysChanged:
    """A change of one hospital's signing keys that holds."""

    site: str
    old: SigningKeys
    new: SigningKeys
    steward: str  # pseudonym of whoever signed for it
    at: str  # RFC 3339, by the clock of whoever signed


def keys_statement(*, log: str, site: str, old: SigningKeys, new: SigningKeys, steward: str, at: str) -> bytes:
    """The bytes under the three signatures of a change."""
    values = {
        "log": log,
        "site": site,
        "old-signing-key": old.signing,
        "old-ecdsa-key": old.ecdsa,
        "signing-key": new.signing,
        "ecdsa-key": new.ecdsa,
        "steward": steward,
        "at": at,
    }
    return statement_lines(KEYS_CONTEXT, **values)


def change_of(entry: SiteKeysRotated) -> KeysChanged:
    """What an entry says; it proves nothing."""
    return KeysChanged(
        site=entry.actor.removeprefix("site:"),
        old=SigningKeys(signing=entry.old_signing_key, ecdsa=entry.old_ecdsa_key),
        new=SigningKeys(signing=entry.signing_key, ecdsa=entry.ecdsa_key),
        steward=entry.steward,
        at=entry.at,
    )


def check_signatures(log: str, entry: SiteKeysRotated) -> None:
    """Raise VerificationError unless the steward's key and both new keys signed exactly this change."""
    said, step = change_of(entry), f"{entry.TYPE} of {entry.actor}"
    statement = keys_statement(log=log, site=said.site, old=said.old, new=said.new, steward=said.steward, at=said.at)
    for whose, key, signature in (
        ("the steward", entry.steward_key, entry.steward_sig),
        ("the new signing key", entry.signing_key, entry.signing_sig),
    ):
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(base64.b64decode(signature), statement)
        except (InvalidSignature, ValueError) as error:
            raise VerificationError(step, f"a signature by {whose}, {key[:16]}", "one that fails") from error
    try:
        _verify_ecdsa(bytes.fromhex(entry.ecdsa_key), base64.b64decode(entry.ecdsa_sig), statement)
    except (InvalidSignature, ValueError) as error:
        raise VerificationError(step, "a signature by the new ECDSA key", "one that fails") from error


def _verify_ecdsa(point: bytes, signature: bytes, data: bytes) -> None:
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    key.verify(encode_dss_signature(r, s), data, ec.ECDSA(SHA256()))


@dataclass(slots=True, kw_only=True)
class _Chain:
    """One chain of a hospital's entries, from an enrolment on. Mutable."""

    key: str  # that signs its next entry
    ecdsa: str = ""  # as the last change named it; the log does not have the first
    stewards: StewardKeys = NO_KEYS
    revoked: bool = False
    suspended: bool = False


class SiteKeys:
    """Whose key is whose, after some entries of a log. Mutable: it takes one entry after the other, in order.

    Args:
        log: The log's origin.
    """

    def __init__(self, log: str) -> None:
        self._log = log
        self._now: dict[str, _Chain] = {}  # site -> the chain that it is in
        # What a chain knows stays with its key: enrolled once more, it does not begin with stewards of its choice.
        self._chains: dict[tuple[str, str], _Chain] = {}
        self._ever: set[str] = set()

    def key_of(self, site: str) -> str | None:
        """The key under which the site's next entry stands; None if it was never enrolled."""
        chain = self._now.get(site)
        return None if chain is None else chain.key

    def take(self, data: bytes) -> KeysChanged | None:
        """Read the next entry, of a type in READ; what changed, if it is a change of keys.

        Raises:
            EntryRefused, VerificationError: Not an entry that an honest log takes in. Nothing was changed.
        """
        entry = entries.parse_entry(data)
        match entry:
            case SiteEnrolled(site=site, signing_key=key):
                self._ever.add(key)
                chain = self._chains.setdefault((site, key), _Chain(key=key))
                chain.suspended = False
                self._now[site] = chain
            case SiteRevoked(site=site) if site in self._now:
                self._now[site].revoked = True
            case SiteSuspended(site=site) if site in self._now:
                self._now[site].suspended = True
            case SiteReinstated(site=site) if site in self._now:
                self._now[site].suspended = False
            case StewardEnrolled() | StewardRemoved():
                chain = self._signed_chain(entry, data)
                try:
                    chain.stewards = chain.stewards.after(entry, self._log)
                except VerificationError:
                    return None  # a hospital's own muddle: who speaks for it stays as it was
            case SiteKeysRotated():
                return self._rotate(entry, self._signed_chain(entry, data))
            case _:
                pass
        return None

    def _signed_chain(self, entry: entries.SiteEntry, data: bytes) -> _Chain:
        site = entry.actor.removeprefix("site:")
        chain = self._now.get(site)
        if chain is None:
            raise VerificationError(f"{entry.TYPE} of {entry.actor}", "an enrolled site", "one that is not")
        entries.verify_site_entry(data, bytes.fromhex(chain.key))
        return chain

    def _rotate(self, entry: SiteKeysRotated, chain: _Chain) -> KeysChanged:
        said, step = change_of(entry), f"{entry.TYPE} of {entry.actor}"
        if chain.revoked or chain.suspended:
            raise VerificationError(step, "a site that stands", "one that is revoked or suspended")
        if said.old.signing != chain.key or (chain.ecdsa and said.old.ecdsa != chain.ecdsa):
            raise VerificationError(step, f"the keys that it has, {chain.key[:16]}", said.old.signing[:16])
        if {said.new.signing, said.new.ecdsa} & (self._ever | {said.old.ecdsa}):
            raise VerificationError(step, "keys that were never anybody's", said.new.signing[:16])
        self._require_steward(entry, chain.stewards, step)
        check_signatures(self._log, entry)
        self._ever |= {said.new.signing, said.new.ecdsa, said.old.ecdsa}
        # Under the old key there is no chain any more: whoever is enrolled with it again begins without a steward.
        retired = _Chain(key=said.old.signing, revoked=True)
        self._chains[said.site, said.old.signing] = retired
        chain.key, chain.ecdsa = said.new.signing, said.new.ecdsa
        self._chains[said.site, chain.key] = chain
        return said

    @staticmethod
    def _require_steward(entry: SiteKeysRotated, stewards: StewardKeys, step: str) -> None:
        if stewards.begun_anew:
            raise VerificationError(step, "stewards whom those of before signed for", "keys that were begun anew")
        if stewards.standing.get(entry.steward_key) != entry.steward:
            raise VerificationError(step, "the key of a steward of this site", entry.steward_key[:16])

"""Who speaks for a hospital's patients: statements that stewards sign with keys of their own, and whose keys count.

A steward's statement is a few lines of text, so that what is signed is what can be read:

    consortium/steward-decision/v1
    log: hub.example.org/consortium
    site: cleveland
    study: heart-disease
    digest: 64 hexadecimal characters
    decision: approved
    steward: u:...
    at: 2027-03-01T09:00:00.000Z
    words: I have read this study and approve it.

Every value is one line by the rules of its field, so no value can pass for two. Pure.
"""

import base64
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.entry_types.steward_entries import StewardEnrolled, StewardKeyEntry, StewardRemoved, StewardSignature
from audit.entry_types.study_entries import StudyApproved, StudyRejected
from audit.errors import VerificationError

DECISION_CONTEXT = "consortium/steward-decision/v1"
KEY_CONTEXT = "consortium/steward-key/v1"
"""The first line of what is signed, so that a signature can mean nothing else anywhere else."""

APPROVED, REJECTED, WITHDRAWN = "approved", "rejected", "withdrawn"
ENROLLED, REMOVED = "enrolled", "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a decision is about: exactly one document of one study, at one hospital, in one log."""

    log: str  # the log's origin
    site: str
    study: str
    study_digest: str


def decision_statement(about: About, *, decision: str, steward: str, words: str, at: str) -> bytes:
    """The bytes under a steward's signature of a decision."""
    return statement_lines(
        DECISION_CONTEXT,
        log=about.log,
        site=about.site,
        study=about.study,
        digest=about.study_digest,
        decision=decision,
        steward=steward,
        at=at,
        words=words,
    )


def key_statement(*, log: str, site: str, change: str, steward: str, key: str, at: str) -> bytes:
    """The bytes under the signature by which a steward's key comes (`enrolled`) or goes (`removed`)."""
    return statement_lines(KEY_CONTEXT, log=log, site=site, change=change, steward=steward, key=key, at=at)


def statement_lines(context: str, **values: str) -> bytes:
    """The bytes of a statement: its context, then a line for each value; raises ValueError for one of more lines."""
    for name, value in values.items():
        if not value.isprintable():  # a line break in one value could begin another
            raise ValueError(f"{name} is not one printable line")
    return "".join(f"{line}\n" for line in (context, *(f"{name}: {value}" for name, value in values.items()))).encode()


def sign(key: Ed25519PrivateKey, statement: bytes) -> str:
    """A signature as entries have it: base64 of 64 bytes."""
    return base64.b64encode(key.sign(statement)).decode()


def public_hex(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """A public key as entries name it: 64 hexadecimal characters."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return public.public_bytes_raw().hex()


def signed_decision(
    key: Ed25519PrivateKey, about: About, *, decision: str, steward: str, words: str, at: str
) -> StewardSignature:
    """A decision, signed."""
    statement = decision_statement(about, decision=decision, steward=steward, words=words, at=at)
    return StewardSignature(
        steward=steward, key=public_hex(key), decision=decision, words=words, at=at, sig=sign(key, statement)
    )


def check_decision(about: About, signed: StewardSignature) -> None:
    """Raise VerificationError unless the key that a signature names made it, over exactly this."""
    statement = decision_statement(
        about, decision=signed.decision, steward=signed.steward, words=signed.words, at=signed.at
    )
    _check(f"decision of {about.site} about {about.study}", signed.key, signed.sig, statement)


def check_key_entry(log: str, entry: StewardKeyEntry) -> None:
    """Raise VerificationError unless the key `signed_by` signed for the change."""
    statement = key_statement(
        log=log,
        site=entry.actor.removeprefix("site:"),
        change=ENROLLED if isinstance(entry, StewardEnrolled) else REMOVED,
        steward=entry.steward,
        key=entry.key,
        at=entry.at,
    )
    _check(f"{entry.TYPE} of {entry.actor}", entry.signed_by, entry.sig, statement)


def _check(step: str, key: str, signature: str, statement: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(base64.b64decode(signature), statement)
    except (InvalidSignature, ValueError) as error:
        raise VerificationError(step, f"a signature by the steward's key {key[:16]}", "one that fails") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class StewardKeys:
    """One hospital's stewards' keys after some of its entries. A key that was removed never comes back."""

    standing: Mapping[str, str]  # key -> pseudonym
    gone: frozenset[str] = frozenset()
    begun_anew: bool = False  # the last of them came without a word of any steward of before

    @property
    def ever(self) -> bool:
        """Whether the hospital ever had one: from then on nobody else approves for it."""
        return bool(self.standing or self.gone)

    def after(self, entry: StewardKeyEntry, log: str) -> "StewardKeys":
        """The keys after one more entry; raises VerificationError for one that does not follow."""
        check_key_entry(log, entry)
        step = f"{entry.TYPE} of {entry.actor}"
        if isinstance(entry, StewardRemoved):
            if entry.signed_by not in self.standing or entry.key not in self.standing:
                raise VerificationError(step, "the key of a steward, signed by a steward", entry.key[:16])
            left = {key: name for key, name in self.standing.items() if key != entry.key}
            return StewardKeys(standing=left, gone=self.gone | {entry.key}, begun_anew=self.begun_anew)
        if entry.key in self.standing or entry.key in self.gone:
            raise VerificationError(step, "a key that was never a steward's here", entry.key[:16])
        if entry.signed_by == entry.key:  # the first; or all of before count no more, for everybody to see
            return StewardKeys(
                standing={entry.key: entry.steward}, gone=self.gone | set(self.standing), begun_anew=self.ever
            )
        if entry.signed_by not in self.standing:
            raise VerificationError(step, "a signature of a steward of before", entry.signed_by[:16])
        return StewardKeys(
            standing={**self.standing, entry.key: entry.steward}, gone=self.gone, begun_anew=self.begun_anew
        )


NO_KEYS = StewardKeys(standing={})


def keys_after(entries: Iterable[StewardKeyEntry], log: str) -> StewardKeys:
    """A hospital's keys after all of its entries about them, in order; raises VerificationError."""
    keys = NO_KEYS
    for entry in entries:
        keys = keys.after(entry, log)
    return keys


def check_decision_entry(
    about: About, entry: StudyApproved | StudyRejected, keys: StewardKeys, used_up: Collection[str]
) -> None:
    """Raise VerificationError for a decision that does not count, as `verify.py` would for the evidence.

    Whatever signatures it lists hold, over exactly this, and none was used up. Where the hospital's entries ever named
    a steward's key, each is by a key that stands, and an approval has one at least; a no needs none.

    Args:
        about: The log, the hospital, the study and the digest that was decided about.
        entry: The decision.
        keys: The hospital's, after all of its entries before this one.
        used_up: Signatures of its approvals of this study that were taken back: those never count again.
    """
    step, signed = f"{entry.TYPE} of {about.site}", entry.signed or ()
    if isinstance(entry, StudyApproved) and keys.ever and not signed:
        raise VerificationError(step, "the signature of one of the hospital's stewards", "none")
    for one in signed:
        check_decision(about, one)
        if keys.ever and one.key not in keys.standing:
            raise VerificationError(step, "the key of a steward of this hospital", one.key[:16])
        if one.sig in used_up:
            raise VerificationError(step, "a new signature", "that of an approval that was taken back")

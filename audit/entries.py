"""The list of all we ever log, and the bytes each entry becomes; the classes themselves are in `audit.entry_types`.

Log format section 6. An entry is one UTF-8 JSON object; the stored bytes are the leaf, and nothing is ever serialised
again to verify it. Keys are sorted, without blanks; `sig`, where there is one, stands last, so that the signed bytes
are the stored bytes without their fixed-length ending.

What a site says about itself the site signs: with a counter and the hash of its previous entry, so that a coordinator
can neither put words in its mouth nor drop some of them (threats A-02, A-03). What the coordinator saw, it writes.

Never in an entry: patient-level data, exact cohort sizes, key material, paths, names of staff.
"""

import base64
import hashlib
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.entry_types.consortium_entries import (
    AccessRepeated,
    AccountEnrolled,
    AuthFailed,
    AuthOk,
    AuthzDenied,
    ConfigChanged,
    Heartbeat,
    KeyRetired,
    KeyRotated,
    LogOmission,
    LogOpened,
    LogRecovered,
    SiteEnrolled,
    SiteHeartbeat,
    SiteInvited,
    SiteReinstated,
    SiteRenewed,
    SiteRevoked,
    SiteSuspended,
    SoftwareDeployed,
    WitnessEnrolled,
    WitnessRefused,
)
from audit.entry_types.frame import (
    COORDINATOR,
    SITE_SIGNED,
    Declaration,
    EitherEntry,
    Entry,
    RoundEntry,
    SiteEntry,
    SiteOwnEntry,
    SiteRoundEntry,
    SiteStudyEntry,
    StudyEntry,
    is_signed_by_site,
)
from audit.entry_types.governance_entries import (
    AS_DECLARED,
    AgreementRecorded,
    AttackTested,
    BackupRestored,
    ConsentWithdrawn,
    DeidDetermined,
    DisclosureRecorded,
    DpiaRecorded,
    ErasureExecuted,
    IncidentClosed,
    IncidentNotified,
    IncidentOpened,
    IrbRecorded,
    LegalBasisDeclared,
    LogReviewed,
    MinimumNecessaryDetermined,
    RetentionApplied,
    RoleChanged,
    TransferRecorded,
)
from audit.entry_types.privacy_entries import (
    DpAudited,
    DpCertificate,
    DpConfigured,
    DpExhausted,
    DpSpent,
    FiguresSpent,
    PoissonSampledDiscreteGaussian,
    PoissonSampledGaussian,
    PrivacyEvent,
    SpentEntry,
)
from audit.entry_types.result_entries import (
    ExportCreated,
    ModelCertificate,
    ModelDownloaded,
    ModelReleased,
)
from audit.entry_types.round_entries import (
    EXACT_SUMS,
    ModelChosen,
    ModelEvaluated,
    ModelVerified,
    RoundAborted,
    RoundClosed,
    RoundRefused,
    RoundStarted,
    SecaggAccused,
    SecaggDropout,
    SecaggFailed,
    UpdateSubmitted,
)
from audit.entry_types.site_key_entries import SiteKeysRotated
from audit.entry_types.steward_entries import StewardEnrolled, StewardRemoved, StewardSignature
from audit.entry_types.study_entries import (
    CohortSnapshot,
    PatientsWithdrawn,
    StudyAborted,
    StudyApproved,
    StudyCompleted,
    StudyCreated,
    StudyPaused,
    StudyRefused,
    StudyRejected,
    StudyResumed,
    StudyStarted,
)
from audit.errors import EntryRefused, VerificationError
from audit.fields import rules_of

__all__ = [
    "AS_DECLARED",
    "COORDINATOR",
    "ENTRY_BYTES_MAX",
    "EXACT_SUMS",
    "KINDS",
    "NO_ENTRY",
    "SITE_SIGNATURE_CONTEXT",
    "SITE_SIGNED",
    "VERSION",
    "AccessRepeated",
    "AccountEnrolled",
    "AgreementRecorded",
    "AttackTested",
    "AuthFailed",
    "AuthOk",
    "AuthzDenied",
    "BackupRestored",
    "CohortSnapshot",
    "ConfigChanged",
    "ConsentWithdrawn",
    "Declaration",
    "DeidDetermined",
    "DisclosureRecorded",
    "DpAudited",
    "DpCertificate",
    "DpConfigured",
    "DpExhausted",
    "DpSpent",
    "DpiaRecorded",
    "EitherEntry",
    "Entry",
    "ErasureExecuted",
    "ExportCreated",
    "FiguresSpent",
    "Heartbeat",
    "IncidentClosed",
    "IncidentNotified",
    "IncidentOpened",
    "IrbRecorded",
    "KeyRetired",
    "KeyRotated",
    "LegalBasisDeclared",
    "LogOmission",
    "LogOpened",
    "LogRecovered",
    "LogReviewed",
    "MinimumNecessaryDetermined",
    "ModelCertificate",
    "ModelChosen",
    "ModelDownloaded",
    "ModelEvaluated",
    "ModelReleased",
    "ModelVerified",
    "PatientsWithdrawn",
    "PoissonSampledDiscreteGaussian",
    "PoissonSampledGaussian",
    "PrivacyEvent",
    "RetentionApplied",
    "RoleChanged",
    "RoundAborted",
    "RoundClosed",
    "RoundEntry",
    "RoundRefused",
    "RoundStarted",
    "SecaggAccused",
    "SecaggDropout",
    "SecaggFailed",
    "SiteChain",
    "SiteEnrolled",
    "SiteEntry",
    "SiteHeartbeat",
    "SiteInvited",
    "SiteKeysRotated",
    "SiteOwnEntry",
    "SiteReinstated",
    "SiteRenewed",
    "SiteRevoked",
    "SiteRoundEntry",
    "SiteStudyEntry",
    "SiteSuspended",
    "SoftwareDeployed",
    "SpentEntry",
    "Stamp",
    "StewardEnrolled",
    "StewardRemoved",
    "StewardSignature",
    "StudyAborted",
    "StudyApproved",
    "StudyCompleted",
    "StudyCreated",
    "StudyEntry",
    "StudyPaused",
    "StudyRefused",
    "StudyRejected",
    "StudyResumed",
    "StudyStarted",
    "TransferRecorded",
    "UpdateSubmitted",
    "WitnessEnrolled",
    "WitnessRefused",
    "entry_bytes",
    "is_signed_by_site",
    "parse_entry",
    "replay_chains",
    "sign_site_entry",
    "signing_key_id",
    "stamp",
    "timestamp",
    "verify_site_entry",
]

VERSION = 1
ENTRY_BYTES_MAX = 65_535
"""An entry bundle writes an entry's length in 16 bits."""

NO_ENTRY = "0" * 64
"""`site_prev` of a site's first entry."""

SITE_SIGNATURE_CONTEXT = b"consortium/site-entry/v1\n"
"""Stands before the entry under a site's signature, so that it can mean nothing else anywhere else."""


class Stamp(TypedDict):
    """Identity and time of an entry: `entries.LogOpened(**entries.stamp(now_ms, entropy), ...)`."""

    id: str
    ts: str


def stamp(now_ms: int, entropy: bytes) -> Stamp:
    """A version 7 UUID and the same instant as text.

    Args:
        now_ms: milliseconds since 1970 in UTC.
        entropy: 10 random bytes.
    """
    if len(entropy) != 10 or not 0 <= now_ms < 2**47:
        raise ValueError("a stamp takes 10 random bytes and a time in milliseconds")
    value = (now_ms << 80) | int.from_bytes(entropy)
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return Stamp(id=str(uuid.UUID(int=value)), ts=timestamp(now_ms))


def timestamp(now_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(now_ms // 1000, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{now_ms % 1000:03d}Z"


KINDS: dict[str, type[Entry]] = {
    kind.TYPE: kind
    for kind in (
        LogOpened,
        KeyRotated,
        KeyRetired,
        SiteInvited,
        SiteEnrolled,
        SiteRevoked,
        SiteSuspended,
        SiteReinstated,
        SiteRenewed,
        SiteKeysRotated,
        WitnessEnrolled,
        StewardEnrolled,
        StewardRemoved,
        AccountEnrolled,
        AuthOk,
        AuthFailed,
        AuthzDenied,
        AccessRepeated,
        ConfigChanged,
        SoftwareDeployed,
        Heartbeat,
        SiteHeartbeat,
        LogOmission,
        WitnessRefused,
        LogRecovered,
        StudyCreated,
        StudyApproved,
        StudyRejected,
        StudyRefused,
        StudyStarted,
        StudyPaused,
        StudyResumed,
        StudyAborted,
        StudyCompleted,
        CohortSnapshot,
        PatientsWithdrawn,
        DpConfigured,
        DpSpent,
        FiguresSpent,
        DpAudited,
        DpCertificate,
        DpExhausted,
        RoundStarted,
        RoundRefused,
        SecaggDropout,
        SecaggFailed,
        SecaggAccused,
        UpdateSubmitted,
        RoundClosed,
        RoundAborted,
        ModelVerified,
        ModelEvaluated,
        ModelChosen,
        ModelReleased,
        ModelDownloaded,
        ModelCertificate,
        ExportCreated,
        AgreementRecorded,
        IrbRecorded,
        LegalBasisDeclared,
        DpiaRecorded,
        MinimumNecessaryDetermined,
        DeidDetermined,
        LogReviewed,
        IncidentOpened,
        IncidentNotified,
        IncidentClosed,
        DisclosureRecorded,
        ConsentWithdrawn,
        ErasureExecuted,
        TransferRecorded,
        RetentionApplied,
        BackupRestored,
        RoleChanged,
        AttackTested,
    )
}
"""Every type we write; anything else is refused."""

_ENVELOPE = ("id", "ts", "actor", "outcome", "study", "round", "attempt", "site_seq", "site_prev")
"""Fields that stand at the top of the object; the others are in `body`."""

_NOT_WRITTEN_IF_NULL = frozenset({"study", "site_seq", "site_prev"})
"""Of an entry that may be about no study, and need not be a site's."""

_BODY_IF_ANY = frozenset({"document_commitment", "note_commitment", "commitments", "subject"})
"""Of a body: what most declarations do not have, and entries of an earlier release cannot have."""

_SIGNATURE_BYTES = len(b',"sig":{"ed25519":"') + 88 + len(b'","key":"') + 16 + len(b'"}}')


# --- bytes -----------------------------------------------------------------------------------------------------------


def entry_bytes(entry: Entry) -> bytes:
    """The stored bytes of an entry that the coordinator writes.

    Raises:
        EntryRefused: longer than 65,535 bytes, or of a type that a site must sign (use `sign_site_entry`).
    """
    if is_signed_by_site(entry):
        raise EntryRefused(entry.TYPE, "no signature", "an entry signed by its site")
    return _bounded(_unsigned_bytes(entry))


def sign_site_entry(entry: SiteEntry, private_key: Ed25519PrivateKey) -> bytes:
    """The stored bytes of a site's entry: the unsigned bytes with `sig` as their last key.

    The signature is over SITE_SIGNATURE_CONTEXT and the unsigned bytes (including their closing brace).
    """
    unsigned = _unsigned_bytes(entry)
    signature = base64.b64encode(private_key.sign(SITE_SIGNATURE_CONTEXT + unsigned))
    ending = b',"sig":{"ed25519":"%b","key":"%b"}}' % (signature, signing_key_id(private_key.public_key()).encode())
    return _bounded(unsigned[:-1] + ending)


def verify_site_entry(data: bytes, public_key: Ed25519PublicKey | bytes) -> SiteEntry:
    """Parse a site's entry and check its signature under a 32-byte key, raw or loaded.

    Raises:
        EntryRefused: not a well-formed entry that a site signs.
        VerificationError: the signature is not by this key over these bytes.
    """
    entry = parse_entry(data)
    if not is_signed_by_site(entry):
        raise EntryRefused("type", entry.TYPE, "a type that a site signs")
    key = public_key if isinstance(public_key, Ed25519PublicKey) else Ed25519PublicKey.from_public_bytes(public_key)
    record = json.loads(data)["sig"]
    step = f"signature of {entry.actor}, entry {entry.site_seq}"
    if record["key"] != signing_key_id(key):
        raise VerificationError(step, f"key {signing_key_id(key)}", record["key"])
    try:
        key.verify(base64.b64decode(record["ed25519"]), SITE_SIGNATURE_CONTEXT + data[:-_SIGNATURE_BYTES] + b"}")
    except InvalidSignature as error:
        raise VerificationError(step, "a signature over these bytes", "one that fails") from error
    return entry


def signing_key_id(key: Ed25519PublicKey) -> str:
    """The 16 hexadecimal characters by which an entry names its key: the start of the key's SHA-256."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def parse_entry(data: bytes) -> Entry:
    """Read stored bytes strictly; proves nothing about who wrote them.

    Raises:
        EntryRefused: too long, not JSON, a key twice, an unknown type or key, a value out of its range, or a spelling
            other than the canonical one.
    """
    _bounded(data)
    record = _load(data)
    kind = KINDS.get(str(record.get("type")))
    if kind is None:
        raise EntryRefused("type", repr(record.get("type")), f"one of {', '.join(sorted(KINDS))}")
    if record.get("v") != VERSION or isinstance(record.get("v"), bool):
        raise EntryRefused("v", repr(record.get("v")), str(VERSION))
    rules = rules_of(kind)
    signed = issubclass(kind, SITE_SIGNED)
    top = {name for name in rules if name in _ENVELOPE}
    wanted = {"v", "type", "body", *top}
    if issubclass(kind, EitherEntry):
        signed = "sig" in record
        wanted -= _NOT_WRITTEN_IF_NULL - record.keys()
    _same_keys("entry", record, wanted | ({"sig"} if signed else set()))
    body = record["body"]
    if not isinstance(body, dict):
        raise EntryRefused("body", type(body).__name__, "an object")
    absent = _absent(kind) - body.keys()
    _same_keys("body", body, rules.keys() - top - absent)
    found: dict[str, Any] = {name: record.get(name) if name in top else body.get(name) for name in rules}
    entry = kind(**found)
    if signed != is_signed_by_site(entry):
        raise EntryRefused("sig", "a site's entry without a signature, or one of nobody's with one", "sig, site_seq")
    if signed:
        _check_signature_shape(data, record["sig"])
    # One spelling only: otherwise two different leaves could carry one fact, or a signature two texts.
    if (data[:-_SIGNATURE_BYTES] + b"}" if signed else data) != _unsigned_bytes(entry):
        raise EntryRefused("entry", "another spelling of the same facts", "canonical JSON")
    return entry


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _unsigned_bytes(entry: Entry) -> bytes:
    rules = rules_of(type(entry))
    written = {name: rule.write(getattr(entry, name)) for name, rule in rules.items()}
    absent = {name for name in _absent(type(entry)) if written.get(name) is None}
    body = {name: value for name, value in written.items() if name not in _ENVELOPE and name not in absent}
    top = {name: value for name, value in written.items() if name in _ENVELOPE and value is not None}
    record = {"v": VERSION, "type": entry.TYPE, "body": body, **top}
    return _CANONICAL.encode(record).encode()


def _absent(kind: type[Entry]) -> frozenset[str]:
    """Fields of the body that are not written where they are null."""
    if kind is LogOpened:
        return frozenset({"continues"})
    if kind is SiteInvited:
        return frozenset({"legal_entity"})
    if kind is StudyCreated:
        return frozenset({"owner", "owner_key", "signed_at", "owner_signature"})
    if kind in (StudyApproved, StudyRejected):
        return frozenset({"signed"})  # entries of an earlier release cannot have it
    return _BODY_IF_ANY if issubclass(kind, Declaration) else frozenset()


def _bounded(data: bytes) -> bytes:
    if not 2 <= len(data) <= ENTRY_BYTES_MAX:
        raise EntryRefused("entry", f"{len(data)} bytes", f"2 to {ENTRY_BYTES_MAX} bytes")
    return data


def _load(data: bytes) -> dict[str, object]:
    def distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
        record = dict(pairs)
        if len(record) != len(pairs):
            raise EntryRefused("entry", "a key twice", "each key once")
        return record

    try:
        record = json.loads(data.decode(), object_pairs_hook=distinct)
    except (ValueError, RecursionError) as error:
        raise EntryRefused("entry", f"no JSON ({type(error).__name__})", "one JSON object in UTF-8") from error
    if not isinstance(record, dict):
        raise EntryRefused("entry", type(record).__name__, "one JSON object")
    return record


def _same_keys(path: str, record: dict[str, object], wanted: Iterable[str]) -> None:
    if record.keys() != set(wanted):
        odd = sorted(record.keys() ^ set(wanted))
        raise EntryRefused(path, f"missing or unknown keys {', '.join(odd)[:200]}", ", ".join(sorted(wanted)))


def _check_signature_shape(data: bytes, record: object) -> None:
    """`sig` must be exactly the fixed-length ending that `sign_site_entry` writes."""
    try:
        assert isinstance(record, dict)
        signature = base64.b64decode(record["ed25519"], validate=True)
        ending = b',"sig":{"ed25519":"%b","key":"%b"}}' % (base64.b64encode(signature), record["key"].encode())
        well_formed = len(signature) == 64 and len(ending) == _SIGNATURE_BYTES and data.endswith(ending)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError):
        well_formed = False
    if not well_formed:
        raise EntryRefused("sig", "another shape", "ed25519 (88 characters of base64) and key (16 hexadecimal), last")


# --- a site's own chain ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteChain:
    """Where a site's entries under one signing key stand: the counter and hash its next entry must carry.

    The coordinator keeps one per site and admits nothing else; the site keeps its own; a verifier replays it.
    """

    site: str
    next_seq: int = 1
    previous: str = NO_ENTRY

    def has(self, entry: SiteEntry) -> bool:
        """Whether the chain is beyond the place of `entry`, which it may hold or not."""
        return entry.site_seq is not None and entry.site_seq < self.next_seq

    def beyond(self, entry: SiteEntry, gone: int) -> "SiteChain":
        """The chain right before `entry`, if no more than `gone` of the site's entries are missing in between."""
        if entry.site_seq is None or not self.next_seq < entry.site_seq <= self.next_seq + gone:
            return self
        return SiteChain(site=self.site, next_seq=entry.site_seq, previous=entry.site_prev or NO_ENTRY)

    def admit(self, data: bytes, entry: SiteEntry) -> "SiteChain":
        """The chain after `entry`, whose stored bytes are `data`; raises VerificationError for a gap or a fork."""
        step = f"chain of site {self.site}"
        if entry.actor != f"site:{self.site}":
            raise VerificationError(step, f"actor site:{self.site}", entry.actor)
        if entry.site_seq != self.next_seq:
            raise VerificationError(step, f"entry {self.next_seq}", f"entry {entry.site_seq}")
        if entry.site_prev != self.previous:
            raise VerificationError(step, f"previous entry {self.previous}", str(entry.site_prev))
        return SiteChain(site=self.site, next_seq=self.next_seq + 1, previous=hashlib.sha256(data).hexdigest())


def replay_chains(log_entries: Iterable[bytes | None]) -> dict[str, SiteChain]:
    """Every enrolled site's chain under its present signing key, read from a whole log.

    None stands for an entry that was dropped: between two of a site's there may be so many more of its own.

    Raises:
        EntryRefused, VerificationError: the log holds what no coordinator of ours would have admitted.
    """
    keys: dict[str, str] = {}
    chains: dict[tuple[str, str], SiteChain] = {}
    ever: set[str] = set()  # a chain never comes to a key that was anybody's before
    gone = 0
    gone_at: dict[tuple[str, str], int] = {}  # how many were gone when a chain was read last
    for data in log_entries:
        if data is None:
            gone += 1
            continue
        entry = parse_entry(data)
        if isinstance(entry, SiteEnrolled):
            keys[entry.site] = entry.signing_key
            ever.add(entry.signing_key)
            chains.setdefault((entry.site, entry.signing_key), SiteChain(site=entry.site))
        elif is_signed_by_site(entry):
            site = entry.actor.removeprefix("site:")
            if site not in keys:
                raise VerificationError(f"chain of site {site}", "an enrolled site", "one that is not")
            chain = chains[site, keys[site]].beyond(entry, gone - gone_at.get((site, keys[site]), 0))
            chains[site, keys[site]] = chain.admit(data, entry)
            gone_at[site, keys[site]] = gone
            if isinstance(entry, SiteKeysRotated):  # the chain goes on under the next key
                new = entry.signing_key
                if entry.old_signing_key != keys[site] or new in ever:
                    raise VerificationError(f"chain of site {site}", f"a new key after {keys[site][:16]}", new[:16])
                ever.add(new)
                chains[site, new], gone_at[site, new] = chains[site, keys[site]], gone
                keys[site] = new
    return {site: chains[site, key] for site, key in keys.items()}

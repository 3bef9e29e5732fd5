"""One frozen class per kind of entry: the list of all we ever log, and the bytes each one becomes.

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
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeAlias, TypedDict, get_args, get_type_hints

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.errors import EntryRefused, VerificationError
from audit.fields import (
    Actor,
    Bucket,
    Columns,
    Count,
    Digest,
    Epsilon,
    Figures,
    Instant,
    Json,
    Label,
    Labels,
    Line,
    Lines,
    MaybeDigest,
    MaybeFigure,
    MaybeName,
    Name,
    Names,
    Outcome,
    Positive,
    Probability,
    Pseudonym,
    PublicKey,
    RoundKind,
    Rule,
    Size,
    Uuid7,
    VKey,
)

VERSION = 1
ENTRY_BYTES_MAX = 65_535
"""An entry bundle writes an entry's length in 16 bits."""

NO_ENTRY = "0" * 64
"""`site_prev` of a site's first entry."""

SITE_SIGNATURE_CONTEXT = b"consortium/site-entry/v1\n"
"""Stands before the entry under a site's signature, so that it can mean nothing else anywhere else."""

EXACT_SUMS = "exact sums over all survivors under secure aggregation; not differentially private"

COORDINATOR = "coordinator"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What every entry has. `outcome` is FHIR's: '0' success, '4' minor, '8' serious, '12' major failure."""

    TYPE: ClassVar[str] = ""

    id: Uuid7
    ts: Instant
    actor: Actor = COORDINATOR
    outcome: Outcome = "0"

    def __post_init__(self) -> None:
        for name, rule in _rules(type(self)).items():
            object.__setattr__(self, name, rule.read(f"{self.TYPE}.{name}", getattr(self, name)))
        if isinstance(self, SITE_SIGNED) != self.actor.startswith("site:"):
            who = "'site:<name>'" if isinstance(self, SITE_SIGNED) else repr(COORDINATOR)
            raise EntryRefused(f"{self.TYPE}.actor", repr(self.actor), who)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyEntry(Entry):
    """An entry about one study."""

    study: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundEntry(StudyEntry):
    """An entry about one attempt at one round."""

    round: Positive
    attempt: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStudyEntry(StudyEntry):
    """An entry that a site signs, about a study."""

    site_seq: Positive
    site_prev: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRoundEntry(RoundEntry):
    """An entry that a site signs, about one attempt at one round."""

    site_seq: Positive
    site_prev: Digest


SITE_SIGNED = (SiteStudyEntry, SiteRoundEntry)
SiteEntry: TypeAlias = SiteStudyEntry | SiteRoundEntry


# --- the consortium -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOpened(Entry):
    """Entry 0: whose log this is, and the keys it speaks with."""

    TYPE: ClassVar[str] = "log.opened"
    consortium: Label
    log_vkey: VKey
    export_vkey: VKey
    coordinator_signing_key: PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteInvited(Entry):
    """An enrolment kit was made for a site."""

    TYPE: ClassVar[str] = "site.invited"
    site: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteEnrolled(Entry):
    """A site got its certificate; from here on its entries verify under `signing_key`, in that key's own chain."""

    TYPE: ClassVar[str] = "site.enrolled"
    site: Name
    certificate_sha256: Digest
    spki_sha256: Digest
    signing_key: PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRevoked(Entry):
    """A site may no longer take part; nothing it signs after this counts."""

    TYPE: ClassVar[str] = "site.revoked"
    site: Name
    reason: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthFailed(Entry):
    """Somebody could not prove who they are."""

    TYPE: ClassVar[str] = "auth.failed"
    outcome: Outcome = "4"
    reason: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthzDenied(Entry):
    """Somebody known asked for what they may not have."""

    TYPE: ClassVar[str] = "authz.denied"
    outcome: Outcome = "4"
    subject: Label  # "site:<name>" or a role
    action: Label
    rule: Line


# --- a study ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCreated(StudyEntry):
    """A study was submitted. Its digest is the SHA-256 of its canonical document, which stewards approve."""

    TYPE: ClassVar[str] = "study.created"
    study_digest: Digest
    document_sha256: Digest  # of study.json in the evidence; equals study_digest
    title: Line
    sites: Names
    rounds: Positive
    threshold: Positive
    minimum: Positive
    epsilon: Epsilon
    delta: Probability
    unit: Label
    mechanism: Label


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyApproved(SiteStudyEntry):
    """A hospital's steward agreed to exactly this document."""

    TYPE: ClassVar[str] = "study.approved"
    study_digest: Digest
    steward: Pseudonym
    statement: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRejected(SiteStudyEntry):
    """A hospital's steward, or its policy, said no."""

    TYPE: ClassVar[str] = "study.rejected"
    outcome: Outcome = "4"
    study_digest: Digest
    steward: Pseudonym
    reason: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyStarted(StudyEntry):
    """Rounds begin from this first global model, which every site computed from the study alone."""

    TYPE: ClassVar[str] = "study.started"
    study_digest: Digest
    sites: Names
    model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPaused(StudyEntry):
    """No round is started until it is resumed."""

    TYPE: ClassVar[str] = "study.paused"
    reason: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResumed(StudyEntry):
    """Rounds go on."""

    TYPE: ClassVar[str] = "study.resumed"
    reason: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyAborted(StudyEntry):
    """The study ended early."""

    TYPE: ClassVar[str] = "study.aborted"
    outcome: Outcome = "8"
    reason: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCompleted(StudyEntry):
    """Every round of the study was closed."""

    TYPE: ClassVar[str] = "study.completed"
    model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortSnapshot(SiteStudyEntry):
    """Which columns a site prepared, and how many patients to the nearest range; never the number itself."""

    TYPE: ClassVar[str] = "cohort.snapshot"
    dataset: Name
    columns: Columns
    patients: Bucket
    contract_digest: Digest  # of the study's data contract the cohort was checked against


# --- privacy ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PoissonSampledGaussian:
    """Steps with Gaussian noise of the site's own, as data that anybody can compose again."""

    KIND: ClassVar[str] = "poisson-sampled-gaussian"

    noise_multiplier: Size
    sampling_rate: Probability
    steps: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class PoissonSampledDiscreteGaussian:
    """Steps whose noise is the sum of `shares` sites' discrete Gaussians, seen as a sum only."""

    KIND: ClassVar[str] = "poisson-sampled-discrete-gaussian"

    noise_multiplier: Size  # of the sum
    sampling_rate: Probability
    steps: Positive
    clip_norm_l2: Size
    shares: Positive
    grid_spacing: Size
    dimension: Positive


PrivacyEvent: TypeAlias = PoissonSampledGaussian | PoissonSampledDiscreteGaussian
_EVENTS: dict[str, type[PrivacyEvent]] = {
    kind.KIND: kind for kind in (PoissonSampledGaussian, PoissonSampledDiscreteGaussian)
}


class _EventRule:
    """Reads and writes privacy events, tagged with their kind; unknown kinds are refused."""

    def read(self, path: str, value: object) -> PrivacyEvent:
        """The event."""
        if isinstance(value, PrivacyEvent):
            value = self.write(value)
        name = value.get("kind") if isinstance(value, dict) else None
        kind = _EVENTS.get(name) if isinstance(name, str) else None
        if kind is None:
            raise EntryRefused(path, repr(value)[:120], f"an event of a kind in {', '.join(_EVENTS)}")
        assert isinstance(value, dict)
        rules = _rules(kind)
        if set(value) != {"kind", *rules}:
            raise EntryRefused(path, repr(value)[:120], f"a {name!r} event with {', '.join(sorted(rules))}")
        read: dict[str, Any] = {field: rule.read(f"{path}.{field}", value[field]) for field, rule in rules.items()}
        return kind(**read)

    def write(self, value: object) -> Json:
        """An object with its kind."""
        assert isinstance(value, PrivacyEvent)
        return {"kind": value.KIND} | {name: getattr(value, name) for name in _rules(type(value))}


@dataclass(frozen=True, slots=True, kw_only=True)
class DpConfigured(SiteStudyEntry):
    """What a site will run, and what it costs if all of it runs. `event` is all planned steps, to compose again."""

    TYPE: ClassVar[str] = "dp.configured"
    dataset: Name
    mechanism: Label
    unit: Label
    relation: Label
    noise_multiplier: Size
    sampling_rate: Probability
    steps_planned: Positive
    clip_norm_l2: Size
    event: PrivacyEvent
    epsilon_planned: Epsilon
    delta: Probability
    accountant: Label
    accountant_version: Label
    engine: Label  # how gradients are computed: it changes what a step costs, and nothing that is promised


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentEntry(SiteRoundEntry):
    """What one attempt cost a site's patients; epsilon and steps are totals of the study so far at this site."""

    dataset: Name
    event: PrivacyEvent
    epsilon: Epsilon
    delta: Probability
    steps_total: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class DpSpent(SpentEntry):
    """What training cost."""

    TYPE: ClassVar[str] = "dp.spent"


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresSpent(SpentEntry):
    """What measuring a model cost, in a study whose test figures have a budget of their own.

    Beside `dp.spent`, never in it: another mechanism, another delta. The totals are those of the test figures; one step
    is one draw of noise, and other attempts at the same model get the same draw.
    """

    TYPE: ClassVar[str] = "figures.spent"


@dataclass(frozen=True, slots=True, kw_only=True)
class DpAudited(SiteStudyEntry):
    """What a site measured of its own mechanism, on probes and never on patients, before it trained.

    `failed` names the checks that did not hold; the outcome is then '8'. `figures` are what was claimed and between
    which bounds it was measured; all bounds of one audit hold together with probability `confidence`.
    """

    TYPE: ClassVar[str] = "dp.audited"
    dataset: Name
    checks: Labels
    failed: Labels
    figures: Figures
    confidence: Probability


@dataclass(frozen=True, slots=True, kw_only=True)
class DpCertificate(SiteStudyEntry):
    """What a site promises each of its patients about one study that is over (after NIST SP 800-226).

    Everything in it is a constant of the study, a sum of the site's own dp.spent and figures.spent entries, or a range.
    Not in it: how often gradients were clipped, how many patients were sampled. These carry no noise and stay at the
    site.
    """

    TYPE: ClassVar[str] = "dp.certificate"
    study_digest: Digest
    dataset: Name
    unit: Label
    relation: Label
    patients: Bucket
    epsilon: Epsilon  # of the study's training, under the trust model
    delta: Probability
    epsilon_figures: Epsilon  # of its test figures, where they have a budget and any were drawn; else 0
    delta_figures: Probability
    trust: Label  # "local" or "distributed"
    threshold: Positive  # t: hospitals that together open a sum
    colluding: Count  # c: hospitals that may pool what they know, and withhold their noise
    honest: Positive  # h: shares of noise that the epsilon rests on; 1 under "local"
    epsilon_unmasked: Epsilon  # what is left of the guarantee if secure aggregation fails
    event: PrivacyEvent  # everything executed, as one event
    clip_norm_l2: Size
    steps_planned: Positive
    records_per_patient: Positive  # at most so many in a step
    sampling: Line
    generator: Line
    accountant: Label
    accountant_version: Label
    studies: Names  # all that this dataset was used for at this site, this one included
    epsilon_dataset: Epsilon  # over all of them
    delta_dataset: Probability
    outside: Lines  # what the guarantee does not cover
    audit: Label  # of the mechanism: "passed", "failed" or "not run"
    audit_figures: Figures
    software: Labels
    code_sha256: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class DpExhausted(SiteStudyEntry):
    """A site's budget does not allow another round; which rule said so, without its numbers."""

    TYPE: ClassVar[str] = "dp.exhausted"
    outcome: Outcome = "4"
    dataset: Name
    rule: Line


# --- rounds ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundStarted(RoundEntry):
    """Sites were invited with one signed plan."""

    TYPE: ClassVar[str] = "round.started"
    kind: RoundKind
    plan_sha256: Digest
    participants: Names
    threshold: Positive
    model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRefused(RoundEntry):
    """A site answered an invitation with a refusal, naming its rule."""

    TYPE: ClassVar[str] = "round.refused"
    outcome: Outcome = "4"
    site: Name
    rule: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggDropout(RoundEntry):
    """A participant whose masked update is not in the sum."""

    TYPE: ClassVar[str] = "secagg.dropout"
    outcome: Outcome = "4"
    site: Name
    phase: Label
    reason: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggFailed(RoundEntry):
    """Somebody broke a rule of the protocol; `blamed` is a site, or null when the signature proves nobody.

    `evidence_sha256` is of the very message that broke it, as the coordinator keeps it, if there is one.
    """

    TYPE: ClassVar[str] = "secagg.failed"
    outcome: Outcome = "8"
    blamed: MaybeName
    phase: Label
    rule: Line
    evidence_sha256: MaybeDigest


@dataclass(frozen=True, slots=True, kw_only=True)
class SecaggAccused(SiteRoundEntry):
    """A site left an attempt because another site, or the coordinator, broke a rule of the protocol.

    `evidence_sha256` is of the message in which the site found it, as the site keeps it.
    """

    TYPE: ClassVar[str] = "secagg.accused"
    outcome: Outcome = "8"
    accused: Name
    phase: Label
    rule: Line
    evidence_sha256: MaybeDigest


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateSubmitted(SiteRoundEntry):
    """A site uploaded one masked update: its digest and how many bytes left the building."""

    TYPE: ClassVar[str] = "update.submitted"
    masked_update_sha256: Digest
    size_bytes: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundClosed(RoundEntry):
    """The sum is in, and makes the next global model. After an evaluation the model is the same."""

    TYPE: ClassVar[str] = "round.closed"
    survivors: Names
    transcript: Digest
    aggregate_sha256: Digest
    model_digest: Digest
    next_model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundAborted(RoundEntry):
    """This attempt is over and revealed nothing."""

    TYPE: ClassVar[str] = "round.aborted"
    outcome: Outcome = "4"
    reason: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVerified(SiteRoundEntry):
    """A site computed the next global model itself and got the same digest."""

    TYPE: ClassVar[str] = "model.verified"
    next_model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEvaluated(RoundEntry):
    """Aggregate metrics of a model over the survivors' test patients."""

    TYPE: ClassVar[str] = "model.evaluated"
    model_digest: Digest
    metrics: Figures
    basis: Line = EXACT_SUMS


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChosen(RoundEntry):
    """The study ends with this round, and keeps the best model that was measured (`evaluation.keep_best`).

    The coordinator's word; every hospital that verified the round computed the same choice, and verify.py computes it
    again from the figures in the log.
    """

    TYPE: ClassVar[str] = "model.chosen"
    model_digest: Digest  # of its parameters alone
    metric: Label
    figure: MaybeFigure  # rounded to millionths; null if no round had one
    origin: Count  # the round that made it; 0 for the first model
    reason: Line


# --- results ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReleased(StudyEntry):
    """A global model left the consortium."""

    TYPE: ClassVar[str] = "model.released"
    model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCertificate(StudyEntry):
    """What the sites' certificates together promise about a global model; anybody can compose them again.

    A patient of one hospital gets that hospital's promise, so the model's epsilon is the largest. For a patient of two
    hospitals they add; under distributed noise both parts are in one sum, and the bound is that of a group of two.
    """

    TYPE: ClassVar[str] = "model.certificate"
    model_digest: Digest
    unit: Label
    relation: Label
    trust: Label
    sites: Names  # whose certificates are in it
    missing: Names  # sites that spent and signed none: the figures do not speak for their patients
    epsilon: Epsilon
    delta: Probability
    epsilon_two_sites: Epsilon
    delta_two_sites: Probability
    epsilon_unmasked: Epsilon  # the largest that is left if secure aggregation fails
    log_size: Positive  # composed from the first so many entries of the log; a certificate may come at any time


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCreated(StudyEntry):
    """Evidence was exported; the hash is that of its manifest, which lists the hash of every file in it."""

    TYPE: ClassVar[str] = "export.created"
    manifest_sha256: Digest
    log_size: Count


KINDS: dict[str, type[Entry]] = {
    kind.TYPE: kind
    for kind in (
        LogOpened,
        SiteInvited,
        SiteEnrolled,
        SiteRevoked,
        AuthFailed,
        AuthzDenied,
        StudyCreated,
        StudyApproved,
        StudyRejected,
        StudyStarted,
        StudyPaused,
        StudyResumed,
        StudyAborted,
        StudyCompleted,
        CohortSnapshot,
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
        ModelCertificate,
        ExportCreated,
    )
}
"""Every type we write; anything else is refused."""

_ENVELOPE = ("id", "ts", "actor", "outcome", "study", "round", "attempt", "site_seq", "site_prev")
"""Fields that stand at the top of the object; the others are in `body`."""

_SIGNATURE_BYTES = len(b',"sig":{"ed25519":"') + 88 + len(b'","key":"') + 16 + len(b'"}}')


# --- bytes -----------------------------------------------------------------------------------------------------------


def entry_bytes(entry: Entry) -> bytes:
    """The stored bytes of an entry that the coordinator writes.

    Raises:
        EntryRefused: longer than 65,535 bytes, or of a type that a site must sign (use `sign_site_entry`).
    """
    if isinstance(entry, SITE_SIGNED):
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
    if not isinstance(entry, SITE_SIGNED):
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
    rules = _rules(kind)
    signed = issubclass(kind, SITE_SIGNED)
    top = {name for name in rules if name in _ENVELOPE}
    _same_keys("entry", record, {"v", "type", "body", *top} | ({"sig"} if signed else set()))
    body = record["body"]
    if not isinstance(body, dict):
        raise EntryRefused("body", type(body).__name__, "an object")
    _same_keys("body", body, rules.keys() - top)
    found: dict[str, Any] = {name: record[name] if name in top else body[name] for name in rules}
    entry = kind(**found)
    if signed:
        _check_signature_shape(data, record["sig"])
    # One spelling only: otherwise two different leaves could carry one fact, or a signature two texts.
    if (data[:-_SIGNATURE_BYTES] + b"}" if signed else data) != _unsigned_bytes(entry):
        raise EntryRefused("entry", "another spelling of the same facts", "canonical JSON")
    return entry


def _unsigned_bytes(entry: Entry) -> bytes:
    rules = _rules(type(entry))
    written = {name: rule.write(getattr(entry, name)) for name, rule in rules.items()}
    body = {name: value for name, value in written.items() if name not in _ENVELOPE}
    top = {name: value for name, value in written.items() if name in _ENVELOPE}
    record = {"v": VERSION, "type": entry.TYPE, "body": body, **top}
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


_RULES: dict[type, dict[str, Rule]] = {}


def _rules(kind: type) -> dict[str, Rule]:
    """Field name -> rule, read once from a class's annotations."""
    if kind in _RULES:
        return _RULES[kind]
    hints = get_type_hints(kind, include_extras=True)
    result: dict[str, Rule] = {}
    for field in fields(kind):
        hint = hints[field.name]
        result[field.name] = _EventRule() if hint == PrivacyEvent else get_args(hint)[1]
    _RULES[kind] = result
    return result


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

    def admit(self, data: bytes, entry: SiteEntry) -> "SiteChain":
        """The chain after `entry`, whose stored bytes are `data`; raises VerificationError for a gap or a fork."""
        step = f"chain of site {self.site}"
        if entry.actor != f"site:{self.site}":
            raise VerificationError(step, f"actor site:{self.site}", entry.actor)
        if entry.site_seq != self.next_seq:
            raise VerificationError(step, f"entry {self.next_seq}", f"entry {entry.site_seq}")
        if entry.site_prev != self.previous:
            raise VerificationError(step, f"previous entry {self.previous}", entry.site_prev)
        return SiteChain(site=self.site, next_seq=self.next_seq + 1, previous=hashlib.sha256(data).hexdigest())


def replay_chains(log_entries: Iterable[bytes]) -> dict[str, SiteChain]:
    """Every enrolled site's chain under its present signing key, read from a whole log.

    Raises:
        EntryRefused, VerificationError: the log holds what no coordinator of ours would have admitted.
    """
    keys: dict[str, str] = {}
    chains: dict[tuple[str, str], SiteChain] = {}
    for data in log_entries:
        entry = parse_entry(data)
        if isinstance(entry, SiteEnrolled):
            keys[entry.site] = entry.signing_key
            chains.setdefault((entry.site, entry.signing_key), SiteChain(site=entry.site))
        elif isinstance(entry, SITE_SIGNED):
            site = entry.actor.removeprefix("site:")
            if site not in keys:
                raise VerificationError(f"chain of site {site}", "an enrolled site", "one that is not")
            chains[site, keys[site]] = chains[site, keys[site]].admit(data, entry)
    return {site: chains[site, key] for site, key in keys.items()}

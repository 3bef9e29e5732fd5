"""Entries about the consortium itself: whose log it is, who belongs to it, who was turned away."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from audit.checkpoint import parse_checkpoint
from audit.entry_types.frame import EitherEntry, Entry, SiteOwnEntry
from audit.errors import EntryRefused, VerificationError
from audit.fields import (
    Choice,
    Count,
    Digest,
    Instant,
    Label,
    Labels,
    Line,
    MaybeCheckpoint,
    MaybeCount,
    MaybeDigest,
    MaybeLine,
    MaybeMoved,
    Moved,
    Name,
    Outcome,
    Positive,
    Pseudonym,
    PublicKey,
    VKey,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOpened(Entry):
    """Entry 0: whose log this is, and the keys it speaks with; and the last checkpoint of the log that it continues."""

    TYPE: ClassVar[str] = "log.opened"
    consortium: Label
    log_vkey: VKey
    export_vkey: VKey
    coordinator_signing_key: PublicKey
    continues: MaybeCheckpoint = None  # of a log whose key was lost or stolen, with all its signature lines

    def __post_init__(self) -> None:
        Entry.__post_init__(self)
        if self.continues is None:
            return
        try:
            origin = parse_checkpoint(self.continues.encode()).checkpoint.origin
        except VerificationError as error:
            raise EntryRefused(f"{self.TYPE}.continues", str(error), "a signed checkpoint") from error
        if origin == self.log_vkey.partition("+")[0]:
            raise EntryRefused(f"{self.TYPE}.continues", f"a checkpoint of {origin}", "one of another log")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotated(Entry):
    """The log has another key of the same name; both sign until `key.retired`. Counts if the old key signed it."""

    TYPE: ClassVar[str] = "key.rotated"
    old_vkey: VKey
    new_vkey: VKey
    overlap_until: Instant  # both sign at least as long, unless the operator ends it sooner
    reason: Line

    def __post_init__(self) -> None:
        Entry.__post_init__(self)
        old, new = (vkey.partition("+")[0] for vkey in (self.old_vkey, self.new_vkey))
        if old != new or self.old_vkey == self.new_vkey:
            raise EntryRefused(f"{self.TYPE}.new_vkey", repr(self.new_vkey[:120]), f"another key of the name {old}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRetired(Entry):
    """The overlap has ended: what only this key signed later is not the log's."""

    TYPE: ClassVar[str] = "key.retired"
    vkey: VKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteInvited(Entry):
    """An enrolment kit was made for a site."""

    TYPE: ClassVar[str] = "site.invited"
    site: Name
    legal_entity: MaybeLine = None  # whom the certificate will be for; not written where nobody said it


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
class SiteSuspended(Entry):
    """A site may not take part for now: its calls are refused until it is reinstated. Its keys stay its own."""

    TYPE: ClassVar[str] = "site.suspended"
    site: Name
    reason: Line


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReinstated(Entry):
    """A suspended site may take part again."""

    TYPE: ClassVar[str] = "site.reinstated"
    site: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRenewed(Entry):
    """A site got its next certificate, for a new TLS key and the signing keys that it had."""

    TYPE: ClassVar[str] = "site.renewed"
    site: Name
    certificate_sha256: Digest
    spki_sha256: Digest
    valid_until: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountEnrolled(Entry):
    """A person's account got its certificate; studies that the person submits are signed with `signing_key`."""

    TYPE: ClassVar[str] = "account.enrolled"
    person: Pseudonym
    role: Annotated[str, Choice(("lead", "scientist", "auditor", "operator"))]
    certificate_sha256: Digest
    signing_key: PublicKey


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


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessEnrolled(SiteOwnEntry):
    """The key under which a site cosigns checkpoints of the log; a key of its own, used for nothing else."""

    TYPE: ClassVar[str] = "witness.enrolled"
    vkey: VKey


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthOk(Entry):
    """An enrolled site opened a session, with its own certificate, over TLS 1.3."""

    TYPE: ClassVar[str] = "auth.ok"
    site: Name
    agent_version: Label


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRepeated(Entry):
    """So many more like an entry that is in the log already: counted, so that nobody can flood the log."""

    TYPE: ClassVar[str] = "access.repeated"
    of: Annotated[str, Choice(("auth.ok", "auth.failed", "authz.denied"))]
    subject: Label
    action: Label
    rule: Line
    count: Positive
    since: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChanged(EitherEntry):
    """The coordinator, or a site's agent, started with another configuration than the last time; digests only."""

    TYPE: ClassVar[str] = "config.changed"
    file: Annotated[str, Choice(("coordinator.yaml", "site.yaml"))]
    sha256: Digest
    previous_sha256: MaybeDigest  # null the first time


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareDeployed(EitherEntry):
    """The coordinator, or a site's agent, started with other software than the last time; its own claim."""

    TYPE: ClassVar[str] = "software.deployed"
    component: Annotated[str, Choice(("coordinator", "site-agent"))]
    software: Labels  # names and versions
    code_sha256: Digest  # of our own source files as they lie on that machine's disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(Entry):
    """The coordinator serves. Between "started" and "stopping" there is one at least every `interval_s`.

    A silence longer than that, or a "started" without a "stopping" before it, is a fact that `audit.heartbeats` finds.
    """

    TYPE: ClassVar[str] = "heartbeat"
    state: Annotated[str, Choice(("started", "alive", "stopping"))]
    uptime_s: Count
    interval_s: Count  # 0: none is promised
    clock_moved_ms: Moved  # how far the clock was set since the last one: wall time less monotonic time


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteHeartbeat(SiteOwnEntry):
    """A site's agent is there and connected. Between "started" and "stopping" there is one at least every `interval_s`.

    `clock_offset_ms` is the most by which a time that the coordinator wrote was ahead of this machine's clock when it
    came here, since the last one: where it is above zero, the coordinator's clock is ahead by that much at least. Null
    where nothing new came.
    """

    TYPE: ClassVar[str] = "site.heartbeat"
    state: Annotated[str, Choice(("started", "alive", "stopping"))]
    uptime_s: Count
    interval_s: Count  # 0: none is promised
    clock_moved_ms: Moved  # how far the clock was set since the last one: wall time less monotonic time
    clock_offset_ms: MaybeMoved
    agent_version: Label
    log_size: Count  # entries of the site's copy of the log that it has cosigned; 0 before the first


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOmission(SiteOwnEntry):
    """An entry of this site was taken in by the coordinator and is not in the log: the site stops taking part.

    The coordinator's word for it was the receipt of `missing_seq`; the checkpoint is one that should have had it.
    """

    TYPE: ClassVar[str] = "log.omission"
    outcome: Outcome = "8"
    missing_seq: Positive  # counter of the first entry that is missing
    missing_sha256: Digest  # of its stored bytes
    checkpoint_size: Count
    checkpoint_root: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessRefused(EitherEntry):
    """A witness does not cosign a checkpoint of this log: a site says so of itself, the coordinator of one outside."""

    TYPE: ClassVar[str] = "witness.refused"
    outcome: Outcome = "8"
    witness: Line  # the name of its key
    rule: Line
    status: Count  # of its answer (log format section 9)
    checkpoint_size: Count
    checkpoint_root: Digest
    witness_size: MaybeCount  # entries that it cosigned last; null where it does not say
    basis: Annotated[str, Choice(("word", "checkpoint"))]  # its word alone, or one that this log's key signed


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecovered(Entry):
    """A start found entries that an earlier process had written down and not yet put into the log; they are in it."""

    TYPE: ClassVar[str] = "log.recovered"
    outcome: Outcome = "4"
    entries: Positive

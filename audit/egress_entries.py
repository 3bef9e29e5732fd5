"""What a hospital's own log holds: everything that left the building, and every export of evidence.

Log format section 10. This log is the hospital's alone: it is written with the same code as the consortium's, under a
key and an origin of its own, and its entries are types of their own, which the consortium's log never takes. They carry
no signature each, since nobody else writes here: the log's checkpoint covers them all.

Never in an entry: what was sent. It is named by its digest.
"""

import json
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeAlias

from audit.errors import EntryRefused
from audit.fields import (
    Actor,
    Count,
    Digest,
    Instant,
    Label,
    MaybeDigest,
    Name,
    Outcome,
    PublicKey,
    Uuid7,
    VKey,
    rules_of,
)

VERSION = 1
_ENTRY_BYTES_MAX = 4096
_ENVELOPE = ("id", "ts", "actor", "outcome")


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressEntry:
    """What every entry of this log has."""

    TYPE: ClassVar[str] = ""

    id: Uuid7
    ts: Instant
    actor: Actor
    outcome: Outcome = "0"

    def __post_init__(self) -> None:
        for name, rule in rules_of(type(self)).items():
            object.__setattr__(self, name, rule.read(f"{self.TYPE}.{name}", getattr(self, name)))
        if not self.actor.startswith("site:"):
            raise EntryRefused(f"{self.TYPE}.actor", repr(self.actor), "'site:<name>'")


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressOpened(EgressEntry):
    """Entry 0: whose log this is, the key of its checkpoints, and the site's key in the consortium's log."""

    TYPE: ClassVar[str] = "egress.opened"
    consortium: Name
    site: Name
    log_vkey: VKey
    signing_key: PublicKey
    lost_entries: Count  # of damaged logs that were set aside before this one began


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSent(EgressEntry):
    """Something left the building, at `ts`."""

    TYPE: ClassVar[str] = "egress.sent"
    kind: Label  # of message, call or vector
    to: Label
    study_digest: MaybeDigest  # null: it belongs to no single study
    sha256: Digest  # of the bytes as they travelled; of the whole vector for a vector
    size_bytes: Count
    approval: MaybeDigest  # SHA-256 of the study.approved entry that stood then; null: none did, or no study is meant


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceExported(EgressEntry):
    """The hospital wrote evidence of a study to a file; the hash is that of its manifest."""

    TYPE: ClassVar[str] = "export.created"
    study: Name
    manifest_sha256: Digest
    log_size: Count  # entries of the consortium's log in it
    egress_size: Count  # entries of this log in it


AnyEgressEntry: TypeAlias = EgressOpened | EgressSent | EvidenceExported
EGRESS_KINDS: dict[str, type[AnyEgressEntry]] = {
    kind.TYPE: kind for kind in (EgressOpened, EgressSent, EvidenceExported)
}
"""Every type this log has."""


def egress_bytes(entry: AnyEgressEntry) -> bytes:
    """The stored bytes: one JSON object, keys sorted, without blanks."""
    written = {name: rule.write(getattr(entry, name)) for name, rule in rules_of(type(entry)).items()}
    top = {name: value for name, value in written.items() if name in _ENVELOPE}
    body = {name: value for name, value in written.items() if name not in _ENVELOPE}
    record = {"v": VERSION, "type": entry.TYPE, "body": body, **top}
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse_egress(data: bytes) -> AnyEgressEntry:
    """Read stored bytes strictly.

    Raises:
        EntryRefused: too long, not JSON, an unknown type or key, a value out of its range, or another spelling than the
            canonical one.
    """
    if len(data) > _ENTRY_BYTES_MAX:
        raise EntryRefused("entry", f"{len(data)} bytes", f"at most {_ENTRY_BYTES_MAX} bytes")
    try:
        record = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise EntryRefused("entry", f"no JSON ({type(error).__name__})", "one JSON object in UTF-8") from error
    kind = EGRESS_KINDS.get(str(record.get("type"))) if isinstance(record, dict) else None
    if kind is None or not isinstance(record.get("body"), dict):
        raise EntryRefused("type", repr(data[:60]), f"an entry of a type in {', '.join(EGRESS_KINDS)}")
    names = {field.name for field in fields(kind)}
    values: dict[str, Any] = {**record["body"], **{name: record.get(name) for name in _ENVELOPE}}
    if values.keys() != names:
        odd = ", ".join(sorted(values.keys() ^ names))
        raise EntryRefused("body", f"missing or unknown keys {odd[:200]}", ", ".join(sorted(names)))
    entry = kind(**values)
    if egress_bytes(entry) != data:
        raise EntryRefused("entry", "another spelling of the same facts", "canonical JSON")
    return entry

"""Which entries a retention policy no longer asks for, and which of those may be dropped (pure).

Entries may go, hashes may not: as long as the tiles of hashes and the checkpoints stay, every older proof still holds
and the root still covers what is gone (`audit.dropped`). Bundles hold 256 entries and only whole ones are looked at,
from the beginning of the log to the first entry that is not old enough.

Of what is old enough, only what is listed here may go, so that an entry of a new type stays until somebody decides.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from audit.dropped import Dropped
from audit.tiles import WIDTH

YEARS_DEFAULT = 6
"""What documentation under 45 CFR 164.316(b)(2)(i) is kept for; a study may promise longer."""

ROUTINE = frozenset({"heartbeat", "site.heartbeat", "auth.ok", "auth.failed", "authz.denied", "access.repeated"})
"""About no study: what nobody asks after once it is old."""
OF_A_STUDY = frozenset(
    {
        "study.created",
        "study.approved",
        "study.rejected",
        "study.refused",
        "study.started",
        "study.paused",
        "study.resumed",
        "study.aborted",
        "study.completed",
        "cohort.snapshot",
        "round.started",
        "round.refused",
        "round.closed",
        "round.aborted",
        "secagg.dropout",
        "secagg.failed",
        "secagg.accused",
        "update.submitted",
        "model.verified",
        "model.evaluated",
        "model.chosen",
        "model.released",
        "model.certificate",
        "model.downloaded",
        "dp.audited",
        "dp.certificate",
        "dp.exhausted",
        "export.created",
    }
)
"""Of a study that ended and whose own years are over. What is not here stays: what patients' records were spent on
(dp.configured, dp.spent, figures.spent) counts for every later study, and what people declared may be in force."""
_ENDS = frozenset({"study.completed", "study.aborted"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What is older than a day, counted from the beginning of the log without a gap."""

    older_than: date
    entries: int
    bundles: int  # whole ones, tile/entries/000 and on
    size_bytes: int  # of the entries in them


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What may be dropped now."""

    due: Due
    dropped: Dropped  # with what was dropped before
    entries: int  # that go now
    size_bytes: int  # of those
    studies: tuple[str, ...]  # whose entries go now


def cutoff(today: date, years: int) -> date:
    """The same day, so many years before; the 28th of February for the 29th where that year has none."""
    try:
        return today.replace(year=today.year - years)
    except ValueError:
        return today.replace(year=today.year - years, day=28)


def due(log_entries: Iterable[bytes | None], older_than: date) -> Due:
    """What a log has from before a day. It ends at the first entry that is not: what comes later is not due.

    Args:
        log_entries: The stored bytes from leaf 0 on; None for what was dropped, and so was old enough.
        older_than: Entries of this day, in UTC, and later are not due.
    """
    sizes: list[int] = []
    for data in log_entries:
        if data is not None and str(json.loads(data)["ts"])[:10] >= older_than.isoformat():
            break
        sizes.append(len(data or b""))
    bundles = len(sizes) // WIDTH
    return Due(older_than=older_than, entries=len(sizes), bundles=bundles, size_bytes=sum(sizes[: bundles * WIDTH]))


@dataclass(slots=True, kw_only=True)
class _Study:
    """What is known of a study; filled entry by entry."""

    ended: bool = False
    last_leaf: int = -1
    last_day: str = ""


@dataclass(slots=True, kw_only=True)
class _Read:
    """What must be known of the whole log; filled entry by entry."""

    studies: dict[str, _Study] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)  # of each hospital's entries
    may_go: list[tuple[int, str | None, int]] = field(default_factory=list)  # leaf, study, bytes

    def take(self, leaf: int, data: bytes, *, within: bool) -> None:
        record: Mapping[str, Any] = json.loads(data)
        kind, name = str(record["type"]), record.get("study")
        if str(record["actor"]).startswith("site:"):
            self.newest[str(record["actor"])] = leaf
        if name is not None:
            study = self.studies.setdefault(str(name), _Study())
            study.ended = study.ended or (kind in _ENDS and record["actor"] == "coordinator")
            study.last_leaf, study.last_day = leaf, max(study.last_day, str(record["ts"])[:10])
        routine = kind in ROUTINE and name is None
        if within and leaf and (routine or (kind in OF_A_STUDY and name is not None)):
            self.may_go.append((leaf, None if name is None else str(name), len(data)))


def plan(
    log_entries: Iterable[bytes | None],
    *,
    found: Due,
    dropped: Dropped,
    today: date,
    promised: Mapping[Any, int],
) -> Plan:
    """Which entries may go.

    A study goes as a whole or not at all: it has ended, all that the log says of it lies in the bundles that are due,
    and its own years are over. Each hospital's newest entry stays.

    Args:
        log_entries: The whole log, to its newest entry; None for what was dropped.
        found: What of it is old enough.
        dropped: What is gone already.
        today: The day of the decision, in UTC.
        promised: The years that each study promised; one that is not here stays.
    """
    stop = found.bundles * WIDTH
    read = _Read()
    for leaf, data in enumerate(log_entries):
        if data is not None:
            read.take(leaf, data, within=leaf < stop)
    over = {
        name
        for name, study in read.studies.items()
        if study.ended
        and study.last_leaf < stop
        and name in promised
        and study.last_day < cutoff(today, promised[name]).isoformat()
    }
    kept = set(read.newest.values())
    go = [
        (leaf, study, size)
        for leaf, study, size in read.may_go
        if leaf not in kept and (study is None or study in over)
    ]
    before = (leaf for first, last in dropped.runs() for leaf in range(first, last + 1))
    return Plan(
        due=found,
        dropped=Dropped.of([*before, *(leaf for leaf, _, _ in go)]),
        entries=len(go),
        size_bytes=sum(size for _, _, size in go),
        studies=tuple(sorted({study for _, study, _ in go if study is not None})),
    )

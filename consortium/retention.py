"""Dropping old entries from the log: said in the log first, witnessed, and only then done.

Log format section 13. The order is
    1 the list of what is to go is durable beside the log
    2 retention.applied, with the SHA-256 of that list, is in the log
    3 most of the hospitals that witness this log have cosigned it, each with all the entries still before it
    4 the list is put in place and the entries are removed (`audit.log.Log.drop`)
A crash before step 2 leaves nothing. One between 2 and 4, or too few hospitals, leaves an announcement: the same
command goes on with it. One within step 4 is finished when the log is opened.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

import structlog

from audit import entries
from audit.dropped import Applied, Dropped
from audit.retention import Plan, cutoff, due, plan
from consortium.contract.names import StudyId
from consortium.coordinator import Coordinator
from consortium.errors import ConsortiumError, NotWitnessed
from consortium.quorum import LOOK_S, WAIT_S
from consortium.record import now_stamp

log = structlog.get_logger(__name__)


class NothingToDrop(ConsortiumError):
    """No entry may be dropped under this policy now."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return (
            "`consortium audit retention --years N` shows what is old enough. Entries go in whole bundles of 256, a"
            " study's when it has ended and its own years are over."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What was dropped."""

    dropped: Dropped
    applied: Applied


def today() -> date:
    """The day, in UTC."""
    return datetime.now(UTC).date()


def planned(coordinator: Coordinator, years: int, promised: Mapping[StudyId, int]) -> Plan:
    """What may be dropped under a policy of so many years; `promised` are the years of every study here."""
    recorded = coordinator.rooms.recorder.log
    found = due(recorded.known(), cutoff(today(), years))
    return plan(recorded.known(), found=found, dropped=recorded.dropped, today=today(), promised=promised)


def carry_out(
    coordinator: Coordinator, *, years: int, promised: Mapping[StudyId, int], document_sha256: str, person: str
) -> Carried:
    """All four steps, or what is left of them.

    Args:
        coordinator: Its parts.
        years: How long entries are kept.
        promised: The years that each study promised.
        document_sha256: Of the written policy.
        person: Who decided; the log has a pseudonym.

    Raises:
        NothingToDrop: The log has no such entries.
        NotWitnessed: It is announced, and too few hospitals have cosigned that yet.
        AuditError: The log's disk; the log stops.
    """
    recorder = coordinator.rooms.recorder
    begun = recorder.log.intended()
    if begun is None:
        made = planned(coordinator, years, promised)
        if not made.entries:
            raise NothingToDrop(f"no entry may be dropped under a policy of {years} years")
        recorder.log.prepare_drop(made.dropped)
        announced = entries.RetentionApplied(
            **now_stamp(),
            on_behalf=coordinator.home.pseudonym(person),
            document_sha256=document_sha256,
            years=years,
            older_than=made.due.older_than.isoformat(),
            entries_due=made.due.entries,
            action="dropped",
            first_leaf=made.dropped.first,
            last_leaf=made.dropped.last,
            entries_dropped=made.dropped.count,
            dropped_sha256=made.dropped.digest,
        )
        recorder.record(entries.entry_bytes(announced))
        begun = recorder.log.intended()
        assert begun is not None
    leaves, applied = begun
    _require_witnessed(coordinator, applied.leaf + 1)
    recorder.log.drop(leaves)
    log.info("log.entries_dropped", entries=leaves.count, leaf=applied.leaf)
    return Carried(dropped=leaves, applied=applied)


def _require_witnessed(coordinator: Coordinator, size: int) -> None:
    """More than half of the hospitals that witness this log, whatever they study; waited for while it serves."""
    rooms = coordinator.rooms
    standing = {row.site for row in rooms.sites.all() if not row.revoked}
    roster = sorted(standing & rooms.witnesses.keys().keys())
    needed = len(roster) // 2 + 1
    deadline = time.monotonic() + (WAIT_S if coordinator.serving else 0.0)
    while True:
        found = rooms.witnesses.quorum_checkpoint(roster, needed)
        if found is not None and found.checkpoint.size >= size:
            return
        if time.monotonic() >= deadline:
            break
        time.sleep(LOOK_S)
    signed = [site for site in roster if rooms.witnesses.covered_by(site) >= size]
    raise NotWitnessed(
        f"the drop is announced in the log, and {needed} of the {len(roster)} hospitals that witness it must cosign"
        f" that before anything is removed; {', '.join(signed)[:300] or 'none'} did. Run the same command again"
    )

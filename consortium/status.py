"""Where everything stands, as one JSON value: what `consortium status` and the demo's table show."""

from typing import TYPE_CHECKING, Any, TypeAlias

from audit.fields import one_line
from consortium.contract.digest import canonical_bytes
from consortium.contract.names import SiteId
from consortium.contract.study import StudyFile
from consortium.database import StudyRow
from consortium.rooms import Rooms
from consortium.studies import StudyState
from consortium.wire.traffic import Passed

if TYPE_CHECKING:
    from consortium.driver import StudyDriver

Snapshot: TypeAlias = dict[str, Any]


def snapshot(rooms: Rooms, drivers: dict[str, "StudyDriver"], passed: Passed | None = None) -> Snapshot:
    """Every study with its round, hospitals and history, who is connected, and what has passed to and from them."""
    return {
        "consortium": rooms.consortium,
        "connected": sorted(rooms.sessions.connected()),
        "log_size": rooms.recorder.log.size,
        "traffic": None if passed is None else passed.to_json(),
        "objections": [{"witness": name, "said": said} for name, said in rooms.witnesses.objections()],
        "studies": [_study(rooms, row, drivers.get(row.study)) for row in rooms.studies.all()],
    }


def _study(rooms: Rooms, row: StudyRow, driver: "StudyDriver | None") -> Snapshot:
    study = driver.study if driver is not None else StudyFile.from_document(row.document)
    decisions = rooms.studies.decisions(row.digest)
    spent = rooms.studies.spent(row.digest)
    history = rooms.studies.history(row.digest)
    progress = driver.progress if driver is not None else None

    def state_of(site: SiteId) -> str:
        decision = decisions.get(site)
        if decision is None:
            return "approval awaited" if site in rooms.sessions.connected() else "away, approval awaited"
        if decision[0] != "approved":
            return one_line(f"{decision[0]}: {decision[1]}")
        if site not in rooms.sessions.connected():
            return "away"
        if row.state != StudyState.RUNNING or progress is None:
            return "ready"
        return progress.sites.get(site, "ready")

    return {
        "study": row.study,
        "title": study.title,
        "digest": row.digest,
        "state": row.state,
        "reason": row.reason,
        "phase": progress.phase if progress is not None else "waiting",
        "since": int(progress.since) if progress is not None else None,
        "round": int(row.next_round),
        "attempt": progress.attempt if progress is not None else row.next_attempt,
        "rounds": study.training.rounds,
        # Without differential privacy there is no such number, and JSON has none for infinity.
        "epsilon": study.privacy.epsilon if study.is_private else None,
        "delta": study.privacy.delta,
        "model_digest": row.model_digest,
        "witnesses_needed": study.cosignatures_needed,
        "witnessed": rooms.witnesses.covered(study.sites.roster, study.cosignatures_needed),
        "sites": [
            {
                "site": site,
                "state": state_of(site),
                "epsilon": spent.get(site),
                "cosigned": rooms.witnesses.covered_by(site),
                "refusal": progress.refusals.get(site) if progress is not None else None,
                "rounds": sum(site in closed["survivors"] for closed in history if closed["kind"] == "train"),
            }
            for site in study.sites.roster
        ],
        "history": [
            {
                "round": closed["round"],
                "kind": closed["kind"],
                # Headlines: with intervals, curves and groups a long study's history would be megabytes.
                "metrics": {name: value for name, value in closed["metrics"].items() if "." not in name},
                "survivors": closed["survivors"],
                "participants": len(closed["participants"]),
                "seconds": closed["seconds"],
            }
            for closed in history
        ],
        "quality": next((dict(closed["metrics"]) for closed in reversed(history) if closed["metrics"]), None),
    }


def to_bytes(value: Snapshot) -> bytes:
    """As it travels to a watcher."""
    return canonical_bytes(value)

"""Studies at the coordinator: submitted, approved by hospitals, started, paused, resumed, aborted, released."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from audit import entries
from consortium.contract.messages import StudyDocument
from consortium.contract.names import Digest, RoundNumber, SiteId, StudyId
from consortium.contract.study import StudyFile
from consortium.database import Database, StudyRow, approvals, endorsements, rounds, spends, studies, study_row
from consortium.errors import StudyConflict, StudyUnknown
from consortium.record import Recorder, now_stamp


class StudyState(StrEnum):
    """Where a study stands."""

    SUBMITTED = "submitted"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    ABORTED = "aborted"


_MAY: Mapping[str, tuple[tuple[StudyState, ...], StudyState]] = {
    "start": ((StudyState.SUBMITTED,), StudyState.RUNNING),
    "pause": ((StudyState.RUNNING,), StudyState.PAUSED),
    "resume": ((StudyState.PAUSED,), StudyState.RUNNING),
    "abort": ((StudyState.SUBMITTED, StudyState.RUNNING, StudyState.PAUSED), StudyState.ABORTED),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundClosedFacts:
    """What a closed round leaves behind in the state."""

    kind: str
    participants: tuple[SiteId, ...]
    survivors: tuple[SiteId, ...]
    transcript: Digest
    model_digest: Digest
    next_model_digest: Digest
    metrics: Mapping[str, float]
    seconds: float


class Studies:
    """The register of studies."""

    def __init__(self, database: Database, recorder: Recorder) -> None:
        self._database = database
        self._recorder = recorder

    # --- what an operator does -------------------------------------------------------------------------------------

    def submit(self, study: StudyFile, document: bytes) -> Digest:
        """Take in a study; a name is used once, so that its digest is the study."""
        digest = study.digest()
        with self._database.transaction() as connection:
            found = connection.execute(sa.select(studies.c.digest).where(studies.c.study == study.id)).scalar()
            if found == digest:
                return digest
            if found is not None:
                raise StudyConflict(f"a different study named {study.id!r} was submitted before; choose another id")
            connection.execute(
                sa.insert(studies).values(
                    study=study.id,
                    digest=digest,
                    document=document,
                    state=StudyState.SUBMITTED,
                    submitted_at=time.time(),
                    next_round=1,
                    next_attempt=1,
                    model_digest="",
                    transcript="0" * 64,
                    survivors="[]",
                    measured="[]",
                    reason="",
                )
            )
            created = entries.StudyCreated(
                **now_stamp(),
                study=study.id,
                study_digest=digest,
                document_sha256=digest,
                title=study.title,
                sites=tuple(sorted(study.sites.required)),
                rounds=study.training.rounds,
                threshold=study.aggregation.threshold,
                minimum=study.sites.minimum,
                epsilon=study.privacy.epsilon,
                delta=study.privacy.delta,
                unit=study.privacy.unit,
                mechanism=study.privacy.mechanism,
            )
            self._recorder.add(connection, [entries.entry_bytes(created)])
        self._recorder.flush()
        return digest

    def move(self, name: str, action: str, reason: str = "by the operator") -> None:
        """`start`, `pause`, `resume` or `abort` a study; raises StudyConflict from a state that does not allow it."""
        allowed, target = _MAY[action]
        row = self.get(name)
        if row.state not in allowed:
            raise StudyConflict(f"{name} is {row.state}; `{action}` needs a study that is {' or '.join(allowed)}")
        entry: entries.Entry | None = None
        match action:
            case "pause":
                entry = entries.StudyPaused(**now_stamp(), study=name, reason=reason)
            case "resume":
                entry = entries.StudyResumed(**now_stamp(), study=name, reason=reason)
            case "abort":
                entry = entries.StudyAborted(**now_stamp(), study=name, reason=reason)
            case _:  # `start` is logged as study.started when the sites agree on the first model
                pass
        values: dict[str, object] = {"state": target, "reason": "" if action in ("start", "resume") else reason}
        if action == "resume":
            values["next_attempt"] = 1
        with self._database.transaction() as connection:
            connection.execute(sa.update(studies).where(studies.c.study == name).values(**values))
            if entry is not None:
                self._recorder.add(connection, [entries.entry_bytes(entry)])
        self._recorder.flush()

    def release(self, name: str) -> Digest:
        """Write down that the final model is handed out, and say which it is."""
        row = self.get(name)
        if row.state != StudyState.COMPLETED:
            raise StudyConflict(f"{name} is {row.state}; only a completed study's model is released")
        released = entries.ModelReleased(**now_stamp(), study=name, model_digest=row.model_digest)
        self._recorder.record(entries.entry_bytes(released))
        return row.model_digest

    # --- what rounds do --------------------------------------------------------------------------------------------

    def begin(self, row: StudyRow, sites: Sequence[SiteId], model_digest: Digest) -> None:
        """The sites agree on the first global model."""
        started = entries.StudyStarted(
            **now_stamp(),
            study=row.study,
            study_digest=row.digest,
            sites=tuple(sorted(sites)),
            model_digest=model_digest,
        )
        with self._database.transaction() as connection:
            connection.execute(
                sa.update(studies).where(studies.c.digest == row.digest).values(model_digest=model_digest)
            )
            self._recorder.add(connection, [entries.entry_bytes(started)])
        self._recorder.flush()

    def open_round(self, row: StudyRow, kind: str, plan: bytes, logged: Sequence[bytes]) -> None:
        """An attempt begins; whatever happens to this process, it is never begun under the same number again."""
        with self._database.transaction() as connection:
            connection.execute(
                sa.insert(rounds).values(
                    study_digest=row.digest,
                    round=row.next_round,
                    attempt=row.next_attempt,
                    kind=kind,
                    outcome="open",
                    plan=plan,
                    facts="{}",
                )
            )
            connection.execute(
                sa.update(studies).where(studies.c.digest == row.digest).values(next_attempt=row.next_attempt + 1)
            )
            self._recorder.add(connection, logged)
        self._recorder.flush()

    def close_round(self, row: StudyRow, attempt: int, facts: RoundClosedFacts, logged: Sequence[bytes]) -> None:
        """The sum is in: state, model and log move on together."""
        record = {
            "participants": list(facts.participants),
            "survivors": list(facts.survivors),
            "metrics": dict(facts.metrics),
            "seconds": facts.seconds,
        }
        with self._database.transaction() as connection:
            self._end_round(connection, row, attempt, "closed", record)
            connection.execute(
                sa.update(studies)
                .where(studies.c.digest == row.digest)
                .values(
                    next_round=row.next_round + 1,
                    next_attempt=1,
                    model_digest=facts.next_model_digest,
                    transcript=facts.transcript,
                    survivors=json.dumps(list(facts.survivors)),
                    **({"measured": json.dumps(list(facts.survivors))} if facts.metrics else {}),
                )
            )
            self._recorder.add(connection, logged)
        self._recorder.flush()

    def abort_round(self, row: StudyRow, attempt: int, reason: str, logged: Sequence[bytes]) -> None:
        """The attempt revealed nothing; the round is tried again."""
        with self._database.transaction() as connection:
            self._end_round(connection, row, attempt, "aborted", {"reason": reason})
            self._recorder.add(connection, logged)
        self._recorder.flush()

    def complete(self, row: StudyRow) -> None:
        """Every round is closed."""
        completed = entries.StudyCompleted(**now_stamp(), study=row.study, model_digest=row.model_digest)
        with self._database.transaction() as connection:
            connection.execute(
                sa.update(studies).where(studies.c.digest == row.digest).values(state=StudyState.COMPLETED, reason="")
            )
            self._recorder.add(connection, [entries.entry_bytes(completed)])
        self._recorder.flush()

    def _end_round(
        self, connection: sa.Connection, row: StudyRow, attempt: int, outcome: str, facts: Mapping[str, object]
    ) -> None:
        connection.execute(
            sa.update(rounds)
            .where(rounds.c.study_digest == row.digest, rounds.c.round == row.next_round, rounds.c.attempt == attempt)
            .values(outcome=outcome, facts=json.dumps(facts))
        )

    # --- questions -------------------------------------------------------------------------------------------------

    def get(self, name: str) -> StudyRow:
        """One study by name; raises StudyUnknown."""
        with self._database.transaction() as connection:
            row = connection.execute(sa.select(studies).where(studies.c.study == name)).first()
        if row is None:
            raise StudyUnknown(name)
        return study_row(row)

    def all(self) -> tuple[StudyRow, ...]:
        """Every study, oldest first."""
        with self._database.transaction() as connection:
            return tuple(
                study_row(row) for row in connection.execute(sa.select(studies).order_by(studies.c.submitted_at))
            )

    def documents(self) -> tuple[StudyDocument, ...]:
        """What sites are shown."""
        return tuple(
            StudyDocument(study=StudyId(r.study), study_digest=r.digest, document=r.document, state=r.state)
            for r in self.all()
        )

    def decisions(self, digest: Digest) -> dict[SiteId, tuple[str, str]]:
        """Site -> (approved or rejected, reason)."""
        with self._database.transaction() as connection:
            found = connection.execute(sa.select(approvals).where(approvals.c.study_digest == digest))
            return {SiteId(r.site): (r.decision, r.reason) for r in found}

    def spent(self, digest: Digest) -> dict[SiteId, float]:
        """Site -> epsilon so far, as each site signed it."""
        with self._database.transaction() as connection:
            found = connection.execute(sa.select(spends).where(spends.c.study_digest == digest))
            return {SiteId(r.site): float(r.epsilon) for r in found}

    def history(self, digest: Digest) -> tuple[dict[str, Any], ...]:
        """Closed rounds in order, with their metrics."""
        with self._database.transaction() as connection:
            found = connection.execute(
                sa.select(rounds)
                .where(rounds.c.study_digest == digest, rounds.c.outcome == "closed")
                .order_by(rounds.c.round)
            )
            return tuple({"round": r.round, "attempt": r.attempt, "kind": r.kind, **json.loads(r.facts)} for r in found)

    def open_plans(self, digest: Digest) -> tuple[bytes, ...]:
        """The plans of attempts that were under way when the process ended; at most one in practice."""
        with self._database.transaction() as connection:
            found = connection.execute(
                sa.select(rounds.c.plan).where(rounds.c.study_digest == digest, rounds.c.outcome == "open")
            )
            return tuple(r.plan for r in found)

    def endorsements(self, digest: Digest, model_digest: Digest) -> tuple[bytes, ...]:
        """The signed `model.verified` entries of the sites that computed this model themselves."""
        with self._database.transaction() as connection:
            found = connection.execute(
                sa.select(endorsements.c.entry)
                .where(endorsements.c.study_digest == digest, endorsements.c.model_digest == model_digest)
                .order_by(endorsements.c.site)
            )
            return tuple(r.entry for r in found)

"""Studies at the coordinator: submitted, approved by hospitals, started, paused, resumed, aborted, released."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import lru_cache
from threading import Lock
from typing import Any, TypedDict

import sqlalchemy as sa

from audit import entries
from audit.certificate import EPSILON_MAX
from audit.fields import is_plain, one_line
from consortium import journal
from consortium.contract.digest import digest_of
from consortium.contract.messages import StudyDocument
from consortium.contract.names import Digest, SiteId, StudyId
from consortium.contract.plan import RoundPlan
from consortium.contract.study import StudyFile
from consortium.contract.submission import Submission
from consortium.database import Database, StudyRow, approvals, endorsements, rounds, spends, studies, study_row
from consortium.errors import StudyConflict, StudyUnknown
from consortium.record import Recorder, now_stamp
from consortium.study_run import ATTEMPTS_MAX


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


class RoundName(TypedDict):
    """What every entry about an attempt says of it."""

    study: str
    round: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenModel:
    """Which model a study keeps, and why it ended with the round that was just closed."""

    metric: str
    figure: float | None  # None if no round had one
    origin: int  # the round that made it; 0 for the first model
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundClosedFacts:
    """What a closed round leaves behind in the state."""

    survivors: tuple[SiteId, ...]
    transcript: Digest
    aggregate_sha256: Digest
    next_model_digest: Digest
    metrics: Mapping[str, float]
    seconds: float
    basis: str | None = None  # of the metrics, where they are not exact sums
    chosen: ChosenModel | None = None  # where this round ends a study that keeps its best model


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedRound:
    """A closed round, as its survivors are told of it."""

    plan: bytes
    survivors: tuple[SiteId, ...]
    transcript: Digest
    aggregate_sha256: Digest
    next_model_digest: Digest
    ended: str | None = None  # why no round follows, where the study has chosen its model


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedSubmission:
    """Who submits a study: a pseudonym, and the statement that was signed and has been checked."""

    owner: str
    submission: Submission


class Studies:
    """The register of studies."""

    def __init__(self, database: Database, recorder: Recorder) -> None:
        self._database = database
        self._recorder = recorder
        self._known: dict[str, StudyRow] = {}  # as they were read last
        self._known_lock = Lock()
        self.released: set[StudyId] = set()  # by this process
        self._fetched: set[tuple[SiteId, Digest]] = set()  # released models in this process; once each in the log

    # --- what an operator does -------------------------------------------------------------------------------------

    def submit(self, study: StudyFile, document: bytes, signed: SignedSubmission | None = None) -> Digest:
        """Take in a study; a name is used once, so that its digest is the study.

        Args:
            study: What `document` says.
            document: Its canonical bytes.
            signed: Whose study it is, whose signature was checked; None for nobody's.

        Raises:
            StudyConflict: Another study of that name is here, or the same of another owner.
        """
        digest = study.digest()
        with self._writing() as connection:
            known = connection.execute(sa.select(studies).where(studies.c.study == study.id)).first()
            found = None if known is None else known.digest
            if known is not None and found == digest:
                if signed is not None and known.owner != signed.owner:
                    raise StudyConflict(f"{study.id} was submitted before, by somebody else")
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
                    last_attempt=ATTEMPTS_MAX,
                    model_digest="",
                    transcript="0" * 64,
                    measured="[]",
                    reason="",
                    owner="" if signed is None else signed.owner,
                    submission="" if signed is None else json.dumps(asdict(signed.submission)),
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
                epsilon=min(study.privacy.epsilon, EPSILON_MAX),  # infinite where nothing is promised
                delta=study.privacy.delta,
                unit=study.privacy.unit,
                mechanism=study.privacy.mechanism,
                owner=None if signed is None else signed.owner,
                owner_key=None if signed is None else signed.submission.owner_key,
                signed_at=None if signed is None else signed.submission.signed_at,
                owner_signature=None if signed is None else signed.submission.signature,
            )
            logged = (created, *_declared_in(study, digest))
            self._recorder.add(connection, [entries.entry_bytes(entry) for entry in logged])
        self._recorder.flush()
        return digest

    def move(self, name: str, action: str, reason: str = "by the operator") -> None:
        """`start`, `pause`, `resume` or `abort` a study; raises StudyConflict from a state that does not allow it."""
        allowed, target = _MAY[action]
        entry: entries.Entry | None = None
        match action:
            case "pause":
                entry = entries.StudyPaused(**now_stamp(), study=name, reason=one_line(reason))
            case "resume":
                entry = entries.StudyResumed(**now_stamp(), study=name, reason=one_line(reason))
            case "abort":
                entry = entries.StudyAborted(**now_stamp(), study=name, reason=one_line(reason))
            case _:  # `start` is logged as study.started when the sites agree on the first model
                pass
        values: dict[str, object] = {"state": target, "reason": "" if action in ("start", "resume") else reason}
        with self._writing() as connection:
            found = connection.execute(sa.select(studies).where(studies.c.study == name)).first()
            if found is None:
                raise StudyUnknown(name)
            row = study_row(found)
            if row.state not in allowed:
                raise StudyConflict(f"{name} is {row.state}; `{action}` needs a study that is {' or '.join(allowed)}")
            if action == "resume":
                # Attempts go on counting: one number never stands for two different attempts.
                values["last_attempt"] = row.next_attempt - 1 + ATTEMPTS_MAX
            connection.execute(sa.update(studies).where(studies.c.study == name).values(**values))
            if entry is not None:
                self._recorder.add(connection, [entries.entry_bytes(entry)])
        self._recorder.flush()

    def completed(self, name: str) -> StudyRow:
        """A study of which every round is closed; raises StudyConflict for any other."""
        row = self.get(name)
        if row.state != StudyState.COMPLETED:
            raise StudyConflict(f"{name} is {row.state}; only a completed study's model is released")
        return row

    def release(self, name: str) -> Digest:
        """Write down that the final model is handed out, and say which it is."""
        row = self.completed(name)
        released = entries.ModelReleased(**now_stamp(), study=name, model_digest=row.model_digest)
        self._recorder.record(entries.entry_bytes(released))
        self.released.add(row.study)
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
        with self._writing() as connection:
            connection.execute(
                sa.update(studies).where(studies.c.digest == row.digest).values(model_digest=model_digest)
            )
            self._recorder.add(connection, [entries.entry_bytes(started)])
        self._recorder.flush()

    def open_round(self, row: StudyRow, plan: RoundPlan) -> bool:
        """An attempt begins; whatever happens to this process, it is never begun under the same number again.

        Returns:
            False, and nothing began, if a participant has taken back its approval at this very moment.
        """
        raw = plan.to_bytes()
        participants = tuple(participant.site for participant in plan.participants)
        started = entries.RoundStarted(
            **now_stamp(),
            study=row.study,
            round=plan.round,
            attempt=plan.attempt,
            kind=plan.kind.value,
            plan_sha256=digest_of(raw),
            participants=participants,
            threshold=plan.threshold,
            model_digest=plan.model_digest,
        )
        with self._writing() as connection:
            # In one transaction with the entry, so that no withdrawal can stand before it in the log.
            if not frozenset(participants) <= _approving(connection, row.digest):
                return False
            connection.execute(
                sa.insert(rounds).values(
                    study_digest=row.digest,
                    round=plan.round,
                    attempt=plan.attempt,
                    kind=plan.kind.value,
                    outcome="open",
                    plan=raw,
                    facts="{}",
                )
            )
            connection.execute(
                sa.update(studies).where(studies.c.digest == row.digest).values(next_attempt=plan.attempt + 1)
            )
            self._recorder.add(connection, [entries.entry_bytes(started)])
        self._recorder.flush_soon()
        return True

    def close_round(self, row: StudyRow, plan: RoundPlan, facts: RoundClosedFacts, *, is_exact: bool = False) -> None:
        """The sum is in: state, model and log move on together. `is_exact` says that updates carry no noise."""
        about = RoundName(study=row.study, round=plan.round, attempt=plan.attempt)
        logged: list[entries.Entry] = [
            entries.RoundClosed(
                **now_stamp(),
                **about,
                survivors=facts.survivors,
                transcript=facts.transcript,
                aggregate_sha256=facts.aggregate_sha256,
                model_digest=plan.model_digest,
                next_model_digest=facts.next_model_digest,
            )
        ]
        if facts.metrics:
            figures = tuple(sorted(facts.metrics.items()))
            logged.append(
                entries.ModelEvaluated(
                    **now_stamp(),
                    **about,
                    model_digest=plan.model_digest,
                    metrics=figures,
                    basis=facts.basis or entries.EXACT_SUMS,
                )
            )
        if facts.chosen is not None:
            logged.append(
                entries.ModelChosen(
                    **now_stamp(),
                    **about,
                    model_digest=facts.next_model_digest,
                    metric=facts.chosen.metric,
                    figure=facts.chosen.figure,
                    origin=facts.chosen.origin,
                    reason=facts.chosen.reason,
                )
            )
        record = {
            "participants": [participant.site for participant in plan.participants],
            "survivors": list(facts.survivors),
            "transcript": facts.transcript,
            "aggregate_sha256": facts.aggregate_sha256,
            "next_model_digest": facts.next_model_digest,
            "metrics": dict(facts.metrics),
            "seconds": facts.seconds,
            **({} if facts.chosen is None else {"ended": facts.chosen.reason}),
        }
        with self._writing() as connection:
            _end_round(connection, plan, "closed", record)
            connection.execute(
                sa.update(studies)
                .where(studies.c.digest == row.digest)
                .values(
                    next_round=row.next_round + 1,
                    next_attempt=1,
                    last_attempt=ATTEMPTS_MAX,
                    model_digest=facts.next_model_digest,
                    transcript=facts.transcript,
                    **({"measured": json.dumps(list(facts.survivors))} if facts.metrics or is_exact else {}),
                )
            )
            self._recorder.add(connection, [entries.entry_bytes(entry) for entry in logged])
        self._recorder.flush_soon()

    def abort_round(self, row: StudyRow, plan: RoundPlan, reason: str, *, measured: Sequence[SiteId] = ()) -> None:
        """The attempt is over without a result; the round is tried again.

        Args:
            row: The study.
            plan: The attempt.
            reason: For the log and for people.
            measured: Survivors whose summed metrics may be known although nothing came of the attempt.
        """
        aborted = entries.RoundAborted(
            **now_stamp(), study=row.study, round=plan.round, attempt=plan.attempt, reason=one_line(reason)
        )
        with self._writing() as connection:
            _end_round(connection, plan, "aborted", {"reason": reason})
            if measured:
                connection.execute(
                    sa.update(studies).where(studies.c.digest == row.digest).values(measured=json.dumps(list(measured)))
                )
            self._recorder.add(connection, [entries.entry_bytes(aborted)])
        self._recorder.flush()

    def abandon_rounds(self, name: str, reason: str) -> tuple[RoundPlan, ...]:
        """Attempts that a stopped process left open are over; returns their plans."""
        row = self.get(name)
        plans = tuple(RoundPlan.from_bytes(raw) for raw in self.open_plans(row.digest))
        for plan in plans:
            self.abort_round(row, plan, reason)
        return plans

    def complete(self, row: StudyRow) -> None:
        """Every round is closed."""
        completed = entries.StudyCompleted(**now_stamp(), study=row.study, model_digest=row.model_digest)
        with self._writing() as connection:
            connection.execute(
                sa.update(studies).where(studies.c.digest == row.digest).values(state=StudyState.COMPLETED, reason="")
            )
            self._recorder.add(connection, [entries.entry_bytes(completed)])
        self._recorder.flush()

    # --- questions -------------------------------------------------------------------------------------------------

    def get(self, name: str) -> StudyRow:
        """One study by name, kept in memory: it is asked for at every step of a round. Raises StudyUnknown."""
        with self._known_lock:
            if name not in self._known:
                with self._database.reading() as connection:
                    row = connection.execute(_STUDY, {"name": name}).first()
                if row is None:
                    raise StudyUnknown(name)
                self._known[name] = study_row(row)
            return self._known[name]

    def owner(self, name: str) -> str | None:
        """Whose study it is, as the log names the person; empty for nobody's, None for no study."""
        try:
            return self.get(name).owner
        except StudyUnknown:
            return None

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """A transaction after which no study is as it was read before."""
        try:
            with self._database.transaction() as connection:
                yield connection
        finally:
            with self._known_lock:
                self._known.clear()

    def all(self) -> tuple[StudyRow, ...]:
        """Every study, oldest first."""
        with self._database.reading() as connection:
            return tuple(
                study_row(row) for row in connection.execute(sa.select(studies).order_by(studies.c.submitted_at))
            )

    def documents(self, site: SiteId) -> tuple[StudyDocument, ...]:
        """The studies a hospital is named in, as it is shown them."""
        return tuple(
            StudyDocument(
                study=StudyId(r.study),
                study_digest=r.digest,
                document=r.document,
                state=r.state,
                submission=Submission(**json.loads(r.submission)) if r.submission else None,
            )
            for r in self.all()
            if site in roster_of(r.document)
        )

    def decisions(self, digest: Digest) -> dict[SiteId, tuple[str, str]]:
        """Site -> (approved or rejected, reason)."""
        with self._database.reading() as connection:
            found = connection.execute(sa.select(approvals).where(approvals.c.study_digest == digest))
            return {SiteId(r.site): (r.decision, r.reason) for r in found}

    def approving(self, digest: Digest) -> frozenset[SiteId]:
        """The hospitals whose steward agreed, and has not taken it back."""
        with self._database.reading() as connection:
            return _approving(connection, digest)

    def spent(self, digest: Digest) -> dict[SiteId, float]:
        """Site -> epsilon so far, as each site signed it."""
        with self._database.reading() as connection:
            found = connection.execute(sa.select(spends).where(spends.c.study_digest == digest))
            return {SiteId(r.site): float(r.epsilon) for r in found}

    def history(self, digest: Digest) -> tuple[dict[str, Any], ...]:
        """Closed rounds in order, with their metrics."""
        with self._database.reading() as connection:
            found = connection.execute(
                sa.select(rounds)
                .where(rounds.c.study_digest == digest, rounds.c.outcome == "closed")
                .order_by(rounds.c.round)
            )
            return tuple({"round": r.round, "attempt": r.attempt, "kind": r.kind, **json.loads(r.facts)} for r in found)

    def aborted_attempts(self, digest: Digest) -> int:
        """How many attempts ended without a result."""
        counted = sa.select(sa.func.count()).where(rounds.c.study_digest == digest, rounds.c.outcome == "aborted")
        with self._database.reading() as connection:
            return int(connection.execute(counted).scalar_one())

    def last_closed(self, digest: Digest) -> ClosedRound | None:
        """The round that made the present global model; None before the first."""
        with self._database.reading() as connection:
            found = connection.execute(_LAST_CLOSED, {"digest": digest}).first()
        if found is None:
            return None
        facts = json.loads(found.facts)
        return ClosedRound(
            plan=found.plan,
            survivors=tuple(SiteId(site) for site in facts["survivors"]),
            transcript=Digest(facts["transcript"]),
            aggregate_sha256=Digest(facts["aggregate_sha256"]),
            next_model_digest=Digest(facts["next_model_digest"]),
            ended=facts.get("ended"),
        )

    def hands_out(self, site: SiteId, digest: Digest) -> Digest | None:
        """The study for which a hospital may have this vector: its present model, or a closed round's aggregate."""
        with self._database.reading() as connection:
            for study in connection.execute(sa.select(studies.c.digest, studies.c.document, studies.c.model_digest)):
                if site not in roster_of(study.document):
                    continue
                if digest == study.model_digest:
                    return Digest(study.digest)
                closed = connection.execute(
                    sa.select(rounds.c.facts)
                    .where(rounds.c.study_digest == study.digest, rounds.c.outcome == "closed")
                    .order_by(rounds.c.round.desc())  # nearly always it is the last one, and no other is read
                )
                if any(json.loads(row.facts)["aggregate_sha256"] == digest for row in closed):
                    return Digest(study.digest)
        return None

    def handed_out(self, site: SiteId, study_digest: Digest, model_digest: Digest) -> None:
        """Write down that a hospital fetches the model of a study that is over."""
        row = next((row for row in self.all() if row.digest == study_digest), None)
        if row is None or row.state != StudyState.COMPLETED or (site, model_digest) in self._fetched:
            return
        fetched = entries.ModelDownloaded(**now_stamp(), study=row.study, site=site, model_digest=model_digest)
        self._recorder.record_soon(entries.entry_bytes(fetched))
        self._fetched.add((site, model_digest))

    def open_plans(self, digest: Digest) -> tuple[bytes, ...]:
        """The plans of attempts that were under way when the process ended; at most one in practice."""
        with self._database.reading() as connection:
            found = connection.execute(
                sa.select(rounds.c.plan).where(rounds.c.study_digest == digest, rounds.c.outcome == "open")
            )
            return tuple(r.plan for r in found)

    def endorsements(self, digest: Digest, model_digest: Digest) -> dict[SiteId, bytes]:
        """The signed `model.verified` entries of the sites that computed this model themselves."""
        with self._database.reading() as connection:
            found = connection.execute(
                sa.select(endorsements.c.site, endorsements.c.entry).where(
                    endorsements.c.study_digest == digest, endorsements.c.model_digest == model_digest
                )
            )
            return {SiteId(r.site): r.entry for r in found}


def _declared_in(study: StudyFile, digest: Digest) -> Iterator[entries.Declaration]:
    """What the study document declares of its board and its legal grounds: it is the document that says so."""
    governance = study.governance
    yield entries.IrbRecorded(
        **now_stamp(),
        study=study.id,
        document_sha256=digest,
        reference=_if_plain(governance.ethics.reference),
        authority=_if_plain(governance.ethics.authority),
        decision=entries.AS_DECLARED,
    )
    yield entries.LegalBasisDeclared(
        **now_stamp(),
        study=study.id,
        document_sha256=digest,
        article_6=governance.legal_basis.gdpr_article_6,
        article_9=governance.legal_basis.gdpr_article_9,
        hipaa=governance.legal_basis.hipaa,
    )


def _if_plain(words: str) -> str:
    """Words of the study document, unless they have a form that declarations do not take."""
    return words if is_plain(words) else "see the study document"


@lru_cache(maxsize=64)
def roster_of(document: bytes) -> tuple[SiteId, ...]:
    """The hospitals named in a study's canonical document, without reading all of it again."""
    return tuple(SiteId(site) for site in json.loads(document)["sites"]["required"])


def _approving(connection: sa.Connection, digest: Digest) -> frozenset[SiteId]:
    return frozenset(SiteId(row.site) for row in connection.execute(_APPROVING, {"digest": digest}))


def _end_round(connection: sa.Connection, plan: RoundPlan, outcome: str, facts: Mapping[str, object]) -> None:
    """How it ended; what was journalled to finish it is of no use from this moment."""
    key = {"of_study": plan.study_digest, "of_round": plan.round, "of_attempt": plan.attempt}
    connection.execute(_END_ROUND, {**key, "outcome": outcome, "facts": json.dumps(facts)})
    journal.forget(connection, plan)


_STUDY = sa.select(studies).where(studies.c.study == sa.bindparam("name"))
_APPROVING = sa.select(approvals.c.site).where(
    approvals.c.study_digest == sa.bindparam("digest"), approvals.c.decision == "approved"
)
_END_ROUND = (
    sa.update(rounds)
    .where(
        rounds.c.study_digest == sa.bindparam("of_study"),
        rounds.c.round == sa.bindparam("of_round"),
        rounds.c.attempt == sa.bindparam("of_attempt"),
    )
    .values(outcome=sa.bindparam("outcome"), facts=sa.bindparam("facts"))
)
_LAST_CLOSED = (
    sa.select(rounds.c.plan, rounds.c.facts)
    .where(rounds.c.study_digest == sa.bindparam("digest"), rounds.c.outcome == "closed")
    .order_by(rounds.c.round.desc())
    .limit(1)
)

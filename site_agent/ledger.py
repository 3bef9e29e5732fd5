"""The hospital's privacy ledger: what every dataset has spent, over all studies, in a file of its own.

A round is reserved before training starts and settled with what was executed. Whatever was reserved counts, so a
process that dies between the two has spent the round; restarts and upgrades find the same sum, and it never falls
except by `release`, for training whose result nobody outside this process has seen.

What is stored are DP events, not epsilons (`privacy.dp.events`), so that anyone can add them up again. Two caps:

- one study: its events composed tightly. Its parameters are fixed before it starts, so that is a proof.
- one dataset over all studies: with a single study the same figure; from the second study on a Renyi filter, because
  what a hospital agrees to next may depend on what came out before (`privacy.dp.accountant.filter_epsilon`).

SQLite, WAL with synchronous=FULL; each call is one BEGIN IMMEDIATE transaction, so two processes cannot both take the
last of a budget. Only the standard library here: an agent that waits stays small.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from consortium.contract.names import Digest, StudyId
from privacy.dp import accountant
from privacy.dp.events import DpEvent, PrivacySpend
from privacy.errors import BudgetExceeded, UnknownEvent
from site_agent.errors import LedgerRefused, LedgerUnavailable

_VERSION = 1
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS spends (
    id INTEGER PRIMARY KEY AUTOINCREMENT, dataset TEXT NOT NULL, study TEXT NOT NULL, study_digest TEXT NOT NULL,
    round INTEGER NOT NULL, attempt INTEGER NOT NULL, event TEXT NOT NULL, delta REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'settled', 'released')),
    reserved_at REAL NOT NULL, settled_at REAL,
    UNIQUE (dataset, study_digest, round, attempt))""",
    f"PRAGMA user_version = {_VERSION}",
)
_WAIT_S = 30.0  # for another process's transaction; each lasts about as long as one composition


class SpendState(StrEnum):
    """Where one spend stands."""

    RESERVED = "reserved"  # counted
    SETTLED = "settled"  # counted
    RELEASED = "released"  # not counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The caps a reservation is held against."""

    study_epsilon: float  # the smaller of what the study asks for and what the hospital gives one study
    study_delta: float
    total_epsilon: float  # of the dataset, over all studies
    total_delta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Leave to train one attempt at one round."""

    id: int
    dataset: str
    event: DpEvent
    state: SpendState
    fresh: bool
    """False if it was made before, by this process or one that died. Then the spend is counted but its training may
    have happened: use the update that was kept, or sit the attempt out; never train a second time on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One study's spending on one dataset, for `site-agent budget`."""

    dataset: str
    study: StudyId
    study_digest: Digest
    rounds: int  # attempts that count
    open_rounds: int  # of them, reserved and not settled
    steps: int
    epsilon: float  # composed tightly
    delta: float  # the study's


class Ledger:
    """The file at `path`, made if there is none. Safe to use from several threads and processes at once.

    Args:
        path: In the agent's home; its mode becomes 0600.
        clock: Unix seconds, for the times in the file; they decide nothing.
        connect: How SQLite is opened.

    Raises (every method):
        LedgerUnavailable: The file cannot be read or written; nothing was changed.
        UnknownEvent: It holds an event that this version has no rule for, so no sum can be trusted.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
    ) -> None:
        self._path = path
        self._clock = clock
        self._connect = connect
        with self._transaction() as connection:
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found > _VERSION:
                raise LedgerUnavailable(f"{path.name} was written by a newer version of this software ({found})")
            for statement in _SCHEMA:
                connection.execute(statement)
        path.chmod(0o600)

    def reserve(
        self,
        *,
        dataset: str,
        study: StudyId,
        study_digest: Digest,
        round_number: int,
        attempt: int,
        event: DpEvent,
        limits: Limits,
    ) -> Reservation:
        """Set aside what one attempt at one round costs, before anything is trained. On disk when this returns.

        Asking again for the same attempt gives the same reservation, `fresh=False`, and counts once.

        Raises:
            BudgetExceeded: A cap would be passed; nothing was reserved.
            LedgerRefused: The attempt is there already with another event, or was released.
        """
        with self._transaction() as connection:
            old = connection.execute(
                "SELECT id, event, state FROM spends"
                " WHERE dataset = ? AND study_digest = ? AND round = ? AND attempt = ?",
                (dataset, study_digest, round_number, attempt),
            ).fetchone()
            if old is not None:
                return _again(old, dataset, event)
            self._require_room(connection, dataset, study_digest, event, limits)
            cursor = connection.execute(
                "INSERT INTO spends (dataset, study, study_digest, round, attempt, event, delta, state, reserved_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 'reserved', ?)",
                (
                    dataset, study, study_digest, round_number, attempt,
                    _encode(event), limits.study_delta, self._clock(),
                ),
            )  # fmt: skip
            return Reservation(
                id=cursor.lastrowid or 0, dataset=dataset, event=event, state=SpendState.RESERVED, fresh=True
            )

    def admit(self, *, dataset: str, study_digest: Digest, event: DpEvent, limits: Limits) -> None:
        """Whether a whole study would fit, so that a hospital does not start what it cannot finish. Writes nothing.

        Args:
            dataset: Whose budget.
            study_digest: The study; what it has spent already is not counted a second time.
            event: The cost of all of its rounds.
            limits: The caps.

        Raises:
            BudgetExceeded: It would not.
        """
        with self._transaction() as connection:
            others = {key: value for key, value in _counted(connection, dataset).items() if key != study_digest}
            _require_within(dataset, others, {**others, study_digest: [event]}, study_digest, limits)

    def settle(self, reservation: Reservation, executed: DpEvent | None) -> None:
        """Replace what was reserved by what was executed; None if no step was.

        Settling again with the same event changes nothing.

        Raises:
            LedgerRefused: More or something else was executed than was reserved (it is recorded, then this is
                raised), or the reservation was settled before with another event, or released.
        """
        with self._transaction() as connection:
            state, recorded = self._find(connection, reservation)
            if state is SpendState.RELEASED:
                raise LedgerRefused("a reservation that was released cannot be settled: its training must not exist")
            if state is SpendState.SETTLED:
                if executed is None or recorded != executed:
                    raise LedgerRefused("a reservation was settled twice with different events")
                return
            connection.execute(
                "UPDATE spends SET state = ?, event = ?, settled_at = ? WHERE id = ?",
                (
                    SpendState.RELEASED.value if executed is None else SpendState.SETTLED.value,
                    _encode(executed or recorded), self._clock(), reservation.id,
                ),
            )  # fmt: skip
        if executed is not None and not _covers(recorded, executed):
            raise LedgerRefused("training executed more than was reserved for it; what was executed is now counted")

    def release(self, reservation: Reservation) -> None:
        """Give back a reservation whose training never started, or whose result was thrown away unseen.

        Unseen means: it never left this process, not even masked. Releasing twice changes nothing.

        Raises:
            LedgerRefused: It was settled, so its update exists.
        """
        with self._transaction() as connection:
            state, _ = self._find(connection, reservation)
            if state is SpendState.SETTLED:
                raise LedgerRefused("a settled spend cannot be given back")
            connection.execute(
                "UPDATE spends SET state = 'released', settled_at = ? WHERE id = ?", (self._clock(), reservation.id)
            )

    def spent(self, dataset: str, *, delta: float) -> PrivacySpend:
        """What all studies together have cost a patient of a dataset, composed tightly; epsilon 0 if nothing."""
        with self._transaction() as connection:
            studies = _counted(connection, dataset)
        return accountant.spend(_all(studies), delta=delta)

    def report(self) -> tuple[LedgerRow, ...]:
        """Every study on every dataset, sorted by dataset and first reservation."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT dataset, study, study_digest, state, event, delta FROM spends WHERE state != 'released'"
                " ORDER BY dataset, id"
            ).fetchall()
        groups: dict[tuple[str, str], list[tuple[str, str, str, str, str, float]]] = {}
        for row in rows:
            groups.setdefault((row[0], row[2]), []).append(row)
        return tuple(_row(group) for group in groups.values())

    # --- inside ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._connect(self._path, timeout=_WAIT_S, isolation_level=None)
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"{self._path.name} could not be opened: {error}") from error
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"{self._path.name} could not be used: {error}") from error
        finally:
            connection.close()  # without COMMIT this rolls back

    def _require_room(
        self, connection: sqlite3.Connection, dataset: str, study_digest: str, event: DpEvent, limits: Limits
    ) -> None:
        before = _counted(connection, dataset)
        after = {**before, study_digest: [*before.get(study_digest, []), event]}
        _require_within(dataset, before, after, study_digest, limits)

    def _find(self, connection: sqlite3.Connection, reservation: Reservation) -> tuple[SpendState, DpEvent]:
        row = connection.execute("SELECT state, event FROM spends WHERE id = ?", (reservation.id,)).fetchone()
        if row is None:
            raise LedgerRefused(f"the ledger has no reservation {reservation.id}; it may be an older copy of the file")
        return SpendState(row[0]), _decode(row[1])


_Studies = Mapping[str, Sequence[DpEvent]]  # study digest -> its events that count


def _require_within(dataset: str, before: _Studies, after: _Studies, study_digest: str, limits: Limits) -> None:
    spent = accountant.epsilon(before.get(study_digest, ()), delta=limits.study_delta)
    wanted = accountant.epsilon(after[study_digest], delta=limits.study_delta)
    if wanted > limits.study_epsilon:
        raise BudgetExceeded(wanted - spent, spent, limits.study_epsilon, dataset)
    spent, wanted = _total(before, limits), _total(after, limits)
    if wanted > limits.total_epsilon:
        raise BudgetExceeded(max(0.0, wanted - spent), spent, limits.total_epsilon, dataset)


def _total(studies: _Studies, limits: Limits) -> float:
    if len(studies) <= 1:
        return accountant.epsilon(_all(studies), delta=limits.total_delta)
    return accountant.filter_epsilon(_all(studies), delta=limits.total_delta, cap=limits.total_epsilon)


def _all(studies: _Studies) -> list[DpEvent]:
    return [event for events in studies.values() for event in events]


def _counted(connection: sqlite3.Connection, dataset: str) -> dict[str, list[DpEvent]]:
    studies: dict[str, list[DpEvent]] = {}
    for study_digest, event in connection.execute(
        "SELECT study_digest, event FROM spends WHERE dataset = ? AND state != 'released' ORDER BY id", (dataset,)
    ):
        studies.setdefault(study_digest, []).append(_decode(event))
    return studies


def _again(row: tuple[int, str, str], dataset: str, event: DpEvent) -> Reservation:
    """The reservation that is there for the attempt already."""
    identifier, recorded, state = row
    if state == SpendState.RELEASED:
        raise LedgerRefused("this attempt was released; train in the next attempt")
    if state == SpendState.RESERVED and _decode(recorded) != event:
        raise LedgerRefused("this attempt was reserved with another event")
    return Reservation(id=identifier, dataset=dataset, event=_decode(recorded), state=SpendState(state), fresh=False)


def _covers(reserved: DpEvent, executed: DpEvent) -> bool:
    return executed.mechanism.steps <= reserved.mechanism.steps and executed == reserved.with_steps(
        executed.mechanism.steps
    )


def _row(rows: Sequence[tuple[str, str, str, str, str, float]]) -> LedgerRow:
    dataset, study, study_digest, _, _, delta = rows[0]
    events = [_decode(row[4]) for row in rows]
    return LedgerRow(
        dataset=dataset,
        study=StudyId(study),
        study_digest=Digest(study_digest),
        rounds=len(rows),
        open_rounds=sum(row[3] == SpendState.RESERVED for row in rows),
        steps=sum(event.mechanism.steps for event in events),
        epsilon=accountant.epsilon(events, delta=delta),
        delta=delta,
    )


def _encode(event: DpEvent) -> str:
    return json.dumps(event.to_dict(), sort_keys=True, separators=(",", ":"))


def _decode(text: str) -> DpEvent:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise UnknownEvent(text[:80]) from error
    if not isinstance(record, dict):
        raise UnknownEvent(text[:80])
    return DpEvent.from_dict(record)

"""The hospital's privacy ledger: what every dataset has spent, over all studies, in a file of its own.

A round is reserved before training starts and settled with what was executed. Whatever was reserved counts, so a
process that dies between the two has spent the round; restarts and upgrades find the same sum, and it never falls
except by `release`, for training whose result nobody outside this process has seen.

What is stored are DP events, not epsilons (`privacy.dp.events`), so that anyone can add them up again. The caps are in
`ledger_caps.py`, the file in `ledger_file.py`, which patients datasets have in common in `patient_marks.py`, and how a
ledger older than this hospital's own log is found out in `told.py`.

Each call is one BEGIN IMMEDIATE transaction, so two processes cannot both take the last of a budget, and takes as long
in the last round of a study as in the first.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from consortium.contract.names import Digest, StudyId
from privacy.dp import accountant
from privacy.dp.events import DpEvent, PrivacySpend
from site_agent.errors import LedgerRefused
from site_agent.ledger_caps import Caps, Counted, Limits, Studies, added, all_events, epsilon, events_of
from site_agent.ledger_file import LedgerFile, decode, encode
from site_agent.patient_marks import Overlap, PatientMarks, datasets_with, neighbours, overlaps_of, record_marks
from site_agent.told import Told, require_current

__all__ = ["Ledger", "LedgerRow", "Limits", "Overlap", "Reservation", "Spend", "SpendState"]


class SpendState(StrEnum):
    """Where one spend stands."""

    RESERVED = "reserved"  # counted
    SETTLED = "settled"  # counted
    RELEASED = "released"  # not counted


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
class Spend:
    """One attempt that counts."""

    round: int
    attempt: int
    event: DpEvent


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
    events: tuple[DpEvent, ...]  # what was run, each mechanism with its steps


class Ledger:
    """The file at `path`, made if there is none. Safe to use from several threads and processes at once.

    Args:
        path: In the agent's home; its mode becomes 0600.
        clock: Unix seconds, for the times in the file; they decide nothing.
        connect: How SQLite is opened.
        told: What this hospital has signed that it spent, kept in another file. A ledger that counts less is an
            older copy: nothing is reserved on it.

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
        told: Callable[[], Sequence[Told]] = tuple,
    ) -> None:
        self._file = LedgerFile(path, connect=connect)
        self._clock = clock
        self._told = told
        self._caps = Caps()

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        self._file.close()

    def require_current(self) -> None:
        """Raise LedgerBehind if this file counts less than this hospital has signed that it spent."""
        told = self._told()
        with self._file.transaction() as connection:
            _require_current(connection, told)

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
            LedgerBehind: The file is older than what this hospital has signed.
            LedgerRefused: The attempt is there already with another event, or was released; or it comes before one that
                was signed for, so that nobody would ever sign for it.
        """
        told = self._told()
        mechanism, steps = encode(event)
        with self._file.transaction() as connection:
            _require_current(connection, told)
            old = connection.execute(
                "SELECT id, mechanism, steps, state FROM spends"
                " WHERE dataset = ? AND study_digest = ? AND round = ? AND attempt = ?",
                (dataset, study_digest, round_number, attempt),
            ).fetchone()
            if old is not None:
                return _again(old, dataset, event)
            _require_later(told, dataset, study_digest, (round_number, attempt))
            self._caps.require_room(dataset, _counted(connection, dataset), study_digest, event, limits)
            cursor = connection.execute(
                "INSERT INTO spends"
                " (dataset, study, study_digest, round, attempt, mechanism, steps, delta, state, reserved_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'reserved', ?)",
                (
                    dataset, study, study_digest, round_number, attempt,
                    mechanism, steps, limits.study_delta, self._clock(),
                ),
            )  # fmt: skip
            return Reservation(
                id=cursor.lastrowid or 0, dataset=dataset, event=event, state=SpendState.RESERVED, fresh=True
            )

    def admit(
        self,
        *,
        dataset: str,
        study_digest: Digest,
        event: DpEvent,
        limits: Limits,
        besides: Mapping[Digest, DpEvent] = MappingProxyType({}),
    ) -> None:
        """Whether a whole study would fit, so that a hospital does not start what it cannot finish. Writes nothing.

        Args:
            dataset: Whose budget.
            study_digest: The study; what it has spent already is not counted a second time.
            event: The cost of all of its rounds.
            limits: The caps.
            besides: What is to be spent with it, all of it, by digest; what of that was spent already is not counted a
                second time. It counts for the dataset's cap.

        Raises:
            BudgetExceeded: It would not.
            LedgerBehind: The file is older than what this hospital has signed.
        """
        told = self._told()
        with self._file.transaction() as connection:
            _require_current(connection, told)
            counted = _counted(connection, dataset)
        others: dict[str, Counted] = {key: value for key, value in counted.items() if key != study_digest}
        others.update({key: added({}, [one]) for key, one in besides.items()})
        self._caps.require_room(dataset, others, study_digest, event, limits)

    def settle(self, reservation: Reservation, executed: DpEvent | None) -> None:
        """Replace what was reserved by what was executed; None if no step was.

        Settling again with the same event changes nothing.

        Raises:
            LedgerRefused: More or something else was executed than was reserved (it is recorded, then this is
                raised), or the reservation was settled before with another event, or released.
        """
        with self._file.transaction() as connection:
            state, recorded = _find(connection, reservation)
            if state is SpendState.RELEASED:
                raise LedgerRefused("a reservation that was released cannot be settled: its training must not exist")
            if state is SpendState.SETTLED:
                if executed is None or recorded != executed:
                    raise LedgerRefused("a reservation was settled twice with different events")
                return
            connection.execute(
                "UPDATE spends SET state = ?, mechanism = ?, steps = ?, settled_at = ? WHERE id = ?",
                (
                    SpendState.RELEASED.value if executed is None else SpendState.SETTLED.value,
                    *encode(executed or recorded), self._clock(), reservation.id,
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
        with self._file.transaction() as connection:
            state, _ = _find(connection, reservation)
            if state is SpendState.SETTLED:
                raise LedgerRefused("a settled spend cannot be given back")
            if state is SpendState.RESERVED:
                connection.execute(
                    "UPDATE spends SET state = 'released', settled_at = ? WHERE id = ?", (self._clock(), reservation.id)
                )

    # --- what has been spent ---------------------------------------------------------------------------------------

    def spent(self, dataset: str, *, delta: float) -> PrivacySpend:
        """What all studies together have cost a patient of a dataset, composed tightly; epsilon 0 if nothing.

        With what was spent on datasets that share patients with it: that patient may be one of them.
        """
        return accountant.spend(all_events(self.counted(dataset)), delta=delta)

    def counted(self, dataset: str) -> Studies:
        """What counts against a dataset, by study: on it, and on datasets that share patients with it."""
        with self._file.transaction() as connection:
            return _counted(connection, dataset)

    def report(self) -> tuple[LedgerRow, ...]:
        """Every study on every dataset, sorted by dataset and first reservation."""
        with self._file.transaction() as connection:
            rows = connection.execute(f"{_TOTALS} WHERE rounds > 0 ORDER BY dataset, first").fetchall()
        groups: dict[tuple[str, str], list[_TotalsRow]] = {}
        for row in rows:
            groups.setdefault((row[0], row[1]), []).append(row)
        return tuple(_row(group) for group in groups.values())

    def spends(self, dataset: str, study_digest: Digest, *, after: tuple[int, int]) -> tuple[Spend, ...]:
        """The attempts at a study that count, in order, from the first one after this round and attempt."""
        with self._file.transaction() as connection:
            return _spends(connection, dataset, study_digest, after)

    def since(self, dataset: str, study_digest: Digest, *, after: tuple[int, int]) -> tuple[Counted, tuple[Spend, ...]]:
        """What counts of a study on a dataset, at one moment: the sum up to an attempt, and each attempt after it."""
        with self._file.transaction() as connection:
            spends = _spends(connection, dataset, study_digest, after)
            left = _study(connection, dataset, study_digest)
        for spend in spends:
            left[spend.event.with_steps(1)] -= spend.event.mechanism.steps
        return {event: steps for event, steps in left.items() if steps}, spends

    def study(self, dataset: str, study_digest: Digest) -> tuple[DpEvent, ...]:
        """What counts of one study on one dataset: each mechanism with its steps."""
        with self._file.transaction() as connection:
            return tuple(events_of(_study(connection, dataset, study_digest)))

    # --- patients in common ----------------------------------------------------------------------------------------

    def register(self, dataset: str, marks: PatientMarks) -> tuple[Overlap, ...]:
        """Remember which patients a dataset has, besides those it had before; which datasets share patients with it.

        From then on they have one budget.
        """
        with self._file.transaction() as connection:
            record_marks(connection, dataset, marks, self._clock())
            return overlaps_of(connection, dataset)

    def overlaps(self, dataset: str) -> tuple[Overlap, ...]:
        """The datasets that share patients with one that was registered."""
        with self._file.transaction() as connection:
            return overlaps_of(connection, dataset)

    def had(self, marks: PatientMarks) -> tuple[str, ...]:
        """The datasets that have, or once had, any of these patients."""
        with self._file.transaction() as connection:
            return datasets_with(connection, marks)

    # --- after a loss ----------------------------------------------------------------------------------------------

    def restore(
        self, *, dataset: str, study: StudyId, study_digest: Digest, delta: float, spends: Iterable[Spend]
    ) -> int:
        """Count again what this hospital signed that it spent, where this file does not; returns how many attempts."""
        restored = 0
        with self._file.transaction() as connection:
            for spend in spends:
                key = (dataset, study_digest, spend.round, spend.attempt)
                mechanism, steps = encode(spend.event)
                found = connection.execute(
                    "SELECT state, mechanism, steps FROM spends"
                    " WHERE dataset = ? AND study_digest = ? AND round = ? AND attempt = ?",
                    key,
                ).fetchone()
                if found is None:
                    connection.execute(
                        "INSERT INTO spends (dataset, study_digest, round, attempt, study, mechanism, steps, delta,"
                        " state, reserved_at, settled_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'settled', ?, ?)",
                        (*key, study, mechanism, steps, delta, self._clock(), self._clock()),
                    )
                elif found[0] == SpendState.RELEASED or found[2] < steps:
                    connection.execute(
                        "UPDATE spends SET state = 'settled', mechanism = ?, steps = ?, settled_at = ?"
                        " WHERE dataset = ? AND study_digest = ? AND round = ? AND attempt = ?",
                        (mechanism, steps, self._clock(), *key),
                    )
                else:
                    continue
                restored += 1
        return restored


_TotalsRow = tuple[str, str, str, str, float, int, int, int]
_TOTALS = "SELECT dataset, study_digest, mechanism, study, delta, steps, rounds, open_rounds FROM totals"


def _counted(connection: sqlite3.Connection, dataset: str) -> dict[str, Counted]:
    studies: dict[str, dict[DpEvent, int]] = {}
    for name in (dataset, *neighbours(connection, dataset)):
        for study_digest, mechanism, steps in connection.execute(
            "SELECT study_digest, mechanism, steps FROM totals WHERE dataset = ? AND rounds > 0", (name,)
        ):
            event = _one_step(mechanism)
            counted = studies.setdefault(study_digest, {})
            counted[event] = counted.get(event, 0) + steps
    return dict(studies)


def _study(connection: sqlite3.Connection, dataset: str, study_digest: str) -> dict[DpEvent, int]:
    rows = connection.execute(
        "SELECT mechanism, steps FROM totals WHERE dataset = ? AND study_digest = ? AND rounds > 0",
        (dataset, study_digest),
    )
    return {_one_step(mechanism): steps for mechanism, steps in rows}


def _spends(
    connection: sqlite3.Connection, dataset: str, study_digest: str, after: tuple[int, int]
) -> tuple[Spend, ...]:
    rows = connection.execute(
        "SELECT round, attempt, mechanism, steps FROM spends"
        " WHERE dataset = ? AND study_digest = ? AND (round, attempt) > (?, ?) AND state != 'released'"
        " ORDER BY round, attempt",
        (dataset, study_digest, *after),
    )
    return tuple(Spend(round=row[0], attempt=row[1], event=decode(row[2], row[3])) for row in rows)


def _require_current(connection: sqlite3.Connection, told: Sequence[Told]) -> None:
    if told:
        steps: dict[tuple[str, str], int] = {}
        for dataset, study_digest, count in connection.execute("SELECT dataset, study_digest, steps FROM totals"):
            steps[dataset, study_digest] = steps.get((dataset, study_digest), 0) + count
        require_current(told, steps)


def _require_later(told: Sequence[Told], dataset: str, study_digest: Digest, attempt: tuple[int, int]) -> None:
    """Entries follow the order of attempts, and what has no entry is missed by nobody when the file is lost."""
    for one in told:
        if (one.dataset, one.study_digest) == (dataset, study_digest) and attempt <= (one.round, one.attempt):
            raise LedgerRefused(
                f"round {attempt[0]}, attempt {attempt[1]} comes before one of the same study that was signed for "
                f"(round {one.round}, attempt {one.attempt})"
            )


@lru_cache(maxsize=1024)
def _one_step(mechanism: str) -> DpEvent:
    return decode(mechanism, 1)


def _find(connection: sqlite3.Connection, reservation: Reservation) -> tuple[SpendState, DpEvent]:
    row = connection.execute(
        "SELECT state, mechanism, steps FROM spends WHERE id = ?", (reservation.id,)
    ).fetchone()  # fmt: skip
    if row is None:
        raise LedgerRefused(f"the ledger has no reservation {reservation.id}; it may be an older copy of the file")
    return SpendState(row[0]), decode(row[1], row[2])


def _again(row: tuple[int, str, int, str], dataset: str, event: DpEvent) -> Reservation:
    """The reservation that is there for the attempt already."""
    identifier, mechanism, steps, state = row
    recorded = decode(mechanism, steps)
    if state == SpendState.RELEASED:
        raise LedgerRefused("this attempt was released; train in the next attempt")
    if state == SpendState.RESERVED and recorded != event:
        raise LedgerRefused("this attempt was reserved with another event")
    return Reservation(id=identifier, dataset=dataset, event=recorded, state=SpendState(state), fresh=False)


def _covers(reserved: DpEvent, executed: DpEvent) -> bool:
    return executed.mechanism.steps <= reserved.mechanism.steps and executed == reserved.with_steps(
        executed.mechanism.steps
    )


def _row(rows: Sequence[_TotalsRow]) -> LedgerRow:
    dataset, study_digest, _, study, delta, *_ = rows[0]
    counted = {_one_step(row[2]): row[5] for row in rows}
    return LedgerRow(
        dataset=dataset,
        study=StudyId(study),
        study_digest=Digest(study_digest),
        rounds=sum(row[6] for row in rows),
        open_rounds=sum(row[7] for row in rows),
        steps=sum(row[5] for row in rows),
        epsilon=epsilon(counted, delta),
        delta=delta,
        events=tuple(events_of(counted)),
    )

"""While rounds follow each other fast, the log is appended to once a second (ADR 13): a clock that a script moves."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from audit import entries
from audit.log import Log
from audit.note import NoteSigner
from consortium import record
from consortium.contract.certificates import new_signing_key
from consortium.contract.names import Digest, SiteId
from consortium.database import Database
from consortium.record import APPEND_EVERY_S, Recorder, now_stamp
from consortium.studies import RoundClosedFacts
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.running_study import MODEL, STUDY, plan, started
from tests.fakes.small_study import SITES

SIGNER = NoteSigner("example.org/test", new_signing_key())
ROUND_S = 0.06
CLOSED = RoundClosedFacts(
    survivors=tuple(SiteId(site) for site in SITES),
    transcript=Digest("c3" * 32),
    aggregate_sha256=Digest("d4" * 32),
    next_model_digest=MODEL,
    metrics={},
    seconds=0.06,
)
TIME_NS = record.time.time_ns


class Stopped(BaseException):
    """The process dies here."""


class Script:
    """A clock, what happens at which time, and the recorder's background thread: all in one thread, in this order.

    Whoever waits lets happen what is due meanwhile. At `dies_at_s` the process dies, whatever it is doing.
    """

    def __init__(self, dies_at_s: float = float("inf")) -> None:
        self.now = 100.0
        self.dies_at_s = 100.0 + dies_at_s
        self._due: list[tuple[float, Callable[[], object]]] = []
        self._submitted: list[tuple[Future[None], Callable[[], None]]] = []
        self._set = False

    # As `time` and `threading.Event`

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return TIME_NS()

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def wait(self, seconds: float) -> bool:
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            self._next()
        self._move_to(until)
        return False

    # As an executor of one thread

    def submit(self, job: Callable[[], None]) -> "Future[None]":
        future: Future[None] = Future()
        self._submitted.append((future, job))
        return future

    def shutdown(self, *, cancel_futures: bool) -> None:
        assert cancel_futures
        self._submitted.clear()

    # The script

    def at(self, seconds: float, happens: Callable[[], object]) -> None:
        """Have something happen so long after the beginning; in the order of time."""
        self._due.append((100.0 + seconds, happens))

    def run(self) -> None:
        """To the end of what is due, and of what the background has to do then."""
        while self._submitted or self._due:
            if self._submitted:
                future, job = self._submitted.pop(0)
                future.set_running_or_notify_cancel()
                job()
                future.set_result(None)
            else:
                self._next()

    def _next(self) -> None:
        at, happens = self._due.pop(0)
        self._move_to(at)
        happens()

    def _move_to(self, at: float) -> None:
        self.now = max(self.now, at)
        if self.now >= self.dies_at_s:
            raise Stopped


class Coordinator:
    """State and log of a coordinator, its recorder under a script, and what was recorded durably."""

    def __init__(self, folder: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database = Database(f"sqlite:///{folder / 'state.db'}")
        self.log = Log.create(folder / "log", SIGNER)
        self.recorder = Recorder(self.database, self.log)
        self.script = script
        self.recorded: list[bytes] = []
        self.appends: list[tuple[float, int]] = []  # when, and how many entries
        under(self.recorder, script, monkeypatch)
        append = self.log.append
        monkeypatch.setattr(
            self.log, "append", lambda data: (self.appends.append((script.now, len(data))), append(data))
        )

    def round(self, number: int) -> None:
        """One round: entries in the transaction of the state they are about."""
        made = [entries.entry_bytes(entries.SiteInvited(**now_stamp(), site=f"site-{number}-{n}")) for n in range(5)]
        with self.database.transaction() as connection:
            self.recorder.add(connection, made)
        self.recorded += made
        self.recorder.flush_soon()


def under(recorder: Recorder, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a recorder's clock and its thread into the hands of a script."""
    recorder._background.shutdown()
    monkeypatch.setattr(record, "time", script)
    recorder._background = recorder._closed = script  # type: ignore[assignment]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Coordinator]]:
    """Makes coordinators, and closes them."""
    made: list[Coordinator] = []

    def one(**options: Any) -> Coordinator:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Coordinator(folder, Script(**options), monkeypatch))
        return made[-1]

    yield one
    for coordinator in made:
        coordinator.log.close()
        coordinator.database.close()


def test_rounds_in_milliseconds_are_appended_once_a_second_and_in_order(opened: Callable[..., Coordinator]) -> None:
    one = opened()
    for number in range(100):
        one.script.at(number * ROUND_S, lambda number=number: one.round(number))  # type: ignore[misc]
    one.script.run()
    assert list(one.log.entries()) == one.recorded
    assert sum(count for _, count in one.appends) == 500
    times = [at for at, _ in one.appends]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert min(gaps) >= APPEND_EVERY_S - 1e-9
    assert max(gaps) <= APPEND_EVERY_S + ROUND_S + record.GATHER_S + 1e-9  # nobody's entries wait longer
    assert len(times) <= 100 * ROUND_S / APPEND_EVERY_S + 2


def test_a_single_round_is_not_kept_waiting(opened: Callable[..., Coordinator]) -> None:
    one = opened()
    for number in range(3):
        one.script.at(10.0 * number, lambda number=number: one.round(number))  # type: ignore[misc]
    one.script.run()
    assert [at - 100.0 for at, _ in one.appends] == pytest.approx([n * 10 + record.GATHER_S for n in range(3)])


@pytest.mark.parametrize("dies_at_s", [0.005, 0.01, 0.05, 0.5, 0.99, 1.0, 1.01, 1.2, 1.99, 2.005])
def test_whenever_the_process_dies_nothing_is_lost_doubled_or_out_of_order(
    opened: Callable[..., Coordinator], dies_at_s: float
) -> None:
    one = opened(dies_at_s=dies_at_s)
    for number in range(40):
        one.script.at(number * ROUND_S, lambda number=number: one.round(number))  # type: ignore[misc]
    with pytest.raises(Stopped):
        one.script.run()
    assert one.recorded
    assert one.log.size <= len(one.recorded)
    Recorder(one.database, one.log).close()  # the next start
    assert list(one.log.entries()) == one.recorded


def test_what_cannot_wait_takes_everything_before_it_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pausing and releasing: once the command returns, the log's own files have it, and all rounds before it."""
    with coordinator_in(tmp_path) as world:
        started(world)
        script = Script()
        under(world.rooms.recorder, script, monkeypatch)
        log = world.rooms.recorder._log  # as a reader of its files sees it: nothing is moved along by looking
        assert world.studies.open_round(world.studies.get(STUDY.id), plan())
        world.studies.close_round(world.studies.get(STUDY.id), plan(), CLOSED)
        assert types_in(log)[-1] == "study.started"  # the background has not run
        world.studies.move(STUDY.id, "pause")
        assert types_in(log)[-4:] == ["study.started", "round.started", "round.closed", "study.paused"]

        world.studies.move(STUDY.id, "resume")
        assert world.studies.open_round(world.studies.get(STUDY.id), plan(2))
        world.studies.complete(world.studies.get(STUDY.id))
        assert world.studies.release(STUDY.id) == MODEL
        assert types_in(log)[-4:] == ["study.resumed", "round.started", "study.completed", "model.released"]
        size = log.size
        script.run()  # what was asked of the background in the meantime finds nothing left to do
        assert log.size == size


def types_in(log: Log) -> list[str]:
    return [entries.parse_entry(data).TYPE for data in log.entries()]

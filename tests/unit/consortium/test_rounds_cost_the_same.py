"""Round 2,000 costs a coordinator what round 20 did. Counted are statements, SQLite's steps and bytes, not seconds."""

import sqlite3
import sqlite3.dbapi2
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from audit import entries
from audit.storage import DirectoryStorage
from consortium.contract.names import Digest, SiteId
from consortium.database import rounds, studies
from consortium.record import now_stamp
from consortium.studies import RoundClosedFacts
from consortium.training_round import SiteLeft
from tests.fakes.coordinator_home import Home, Hospital, coordinator_in
from tests.fakes.running_study import STUDY, plan
from tests.fakes.small_study import SITES

WINDOW = 51
"""Rounds over which costs are added up: as many as it takes to fill one of the log's bundles of 256 entries."""
BETWEEN = 2000
"""Rounds that lie between the two windows, put there by hand."""
STEPS_AT_ONCE = 10

counted: Counter[str] = Counter()


class Counting(sqlite3.Connection):
    """Counts what every statement of every database here does; a handler that returns nothing stops nothing."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.set_progress_handler(lambda: counted.update(steps=STEPS_AT_ONCE), STEPS_AT_ONCE)
        self.set_trace_callback(lambda _: counted.update(statements=1))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    counted.clear()
    connect = sqlite3.connect

    def counting(*args: Any, **options: Any) -> sqlite3.Connection:
        return connect(*args, **{**options, "factory": Counting})

    monkeypatch.setattr(sqlite3, "connect", counting)
    monkeypatch.setattr(sqlite3.dbapi2, "connect", counting)
    write = DirectoryStorage.write

    def written(self: DirectoryStorage, path: str, data: bytes) -> None:
        counted.update(bytes=len(data), files=1)
        write(self, path, data)

    monkeypatch.setattr(DirectoryStorage, "write", written)
    with coordinator_in(tmp_path) as world:
        yield world


def one_round(world: Home, hospitals: list[Hospital], number: int) -> None:
    """What the driver and the attempt ask of state, journal and log, and what hospitals hand over meanwhile."""
    register, digest = world.studies, STUDY.digest()
    planned = plan(number)
    register.approving(digest)
    world.sites.standing()
    assert register.open_round(register.get(STUDY.id), planned)
    for name in SITES[:3]:
        world.rooms.journal.append(planned, SiteLeft(site=SiteId(name)))
    for hospital in hospitals:
        fields = {"study": STUDY.id, "round": number, "attempt": 1, "next_model_digest": Digest(f"{number + 1:064x}")}
        world.sites.submit_events(hospital.site, [hospital.signs(entries.ModelVerified, **fields)])
    facts = RoundClosedFacts(
        survivors=tuple(SiteId(name) for name in SITES[:3]),
        transcript=Digest("c3" * 32),
        aggregate_sha256=Digest("d4" * 32),
        next_model_digest=Digest(f"{number + 1:064x}"),
        metrics={},
        seconds=0.1,
    )
    register.close_round(register.get(STUDY.id), planned, facts)
    register.last_closed(digest)
    register.endorsements(digest, facts.next_model_digest)
    world.rooms.recorder.flush()
    assert register.get(STUDY.id).next_round == number + 1


def window(world: Home, hospitals: list[Hospital]) -> Counter[str]:
    """What the next rounds cost."""
    counted.clear()
    first = world.studies.get(STUDY.id).next_round
    for number in range(first, first + WINDOW):
        one_round(world, hospitals, number)
    return Counter(counted)


def many_rounds_later(world: Home) -> None:
    """State and log as many more rounds would have left them."""
    row = world.studies.get(STUDY.id)
    with world.studies._writing() as connection:
        (pattern,) = connection.execute(sa.select(rounds).where(rounds.c.round == row.next_round - 1)).mappings()
        more = [dict(pattern) | {"round": row.next_round + number} for number in range(BETWEEN)]
        connection.execute(sa.insert(rounds), more)
        connection.execute(sa.update(studies).values(next_round=row.next_round + BETWEEN))
    made = [entries.SiteInvited(**now_stamp(), site=f"site-{number}") for number in range(5 * BETWEEN)]
    world.rooms.recorder.record(*(entries.entry_bytes(entry) for entry in made))


def test_state_journal_and_log(world: Home) -> None:
    hospitals = [world.enrol(name) for name in SITES[:3]]
    world.submit(STUDY)
    for hospital in hospitals:
        world.sites.submit_events(hospital.site, [hospital.approves(STUDY)])
    world.studies.move(STUDY.id, "start")
    world.studies.begin(world.studies.get(STUDY.id), [SiteId(name) for name in SITES[:3]], Digest(f"{1:064x}"))
    world.rooms.recorder._closed.set()  # each round's entries are appended at its end, and by nobody else
    early = window(world, hospitals)
    many_rounds_later(world)
    late = window(world, hospitals)
    assert early["statements"] > 20 * WINDOW  # they are counted
    # Of statements some are due every ten seconds, however many rounds that is; a tree of pages is a level deeper.
    for what, more in (("statements", 1.02), ("steps", 1.15), ("bytes", 1.15), ("files", 1.15)):
        assert late[what] <= more * early[what], (what, early[what] / WINDOW, late[what] / WINDOW)

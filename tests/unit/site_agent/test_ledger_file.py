"""The ledger's file: sums that cannot drift from what they sum, and files of the version before."""

import json
import random
import sqlite3
from contextlib import closing

import pytest

from consortium.contract.names import Digest, StudyId
from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledDiscreteGaussian, PoissonSampledGaussian
from privacy.errors import UnknownEvent
from site_agent import ledger_caps
from site_agent.errors import LedgerUnavailable
from site_agent.ledger import Ledger, Limits
from site_agent.ledger_file import VERSION

GAUSSIAN = DpEvent(
    mechanism=PoissonSampledGaussian(noise_multiplier=3.4484, sampling_rate=0.2, steps=2, clip_norm_l2=1.0)
)
DISCRETE = DpEvent(
    mechanism=PoissonSampledDiscreteGaussian(
        noise_multiplier=5.3487,
        sampling_rate=0.2,
        steps=1,
        clip_norm_l2=0.5,
        shares=3,
        grid_spacing=2.0**-20,
        dimension=14,
    )
)
PLENTY = Limits(study_epsilon=99, study_delta=1e-3, total_epsilon=99, total_delta=1e-3)
STUDY = Digest("a" * 64)

# The file as version 1 made it, word for word.
VERSION_1 = """CREATE TABLE IF NOT EXISTS spends (
    id INTEGER PRIMARY KEY AUTOINCREMENT, dataset TEXT NOT NULL, study TEXT NOT NULL, study_digest TEXT NOT NULL,
    round INTEGER NOT NULL, attempt INTEGER NOT NULL, event TEXT NOT NULL, delta REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'settled', 'released')),
    reserved_at REAL NOT NULL, settled_at REAL,
    UNIQUE (dataset, study_digest, round, attempt))"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


def reserve(ledger, number, *, event=GAUSSIAN, limits=PLENTY, dataset="heart", study=STUDY, attempt=1):
    return ledger.reserve(
        dataset=dataset,
        study=StudyId("heart-disease"),
        study_digest=study,
        round_number=number,
        attempt=attempt,
        event=event,
        limits=limits,
    )


def old_file(path, rows):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(VERSION_1)
        connection.execute("PRAGMA user_version = 1")
        connection.executemany(
            "INSERT INTO spends (dataset, study, study_digest, round, attempt, event, delta, state, reserved_at,"
            " settled_at) VALUES (?, 'heart-disease', ?, ?, 1, ?, 1e-3, ?, 1700000000.5, ?)",
            rows,
        )


def spelled(event):
    return json.dumps(event.to_dict(), sort_keys=True, separators=(",", ":"))


def test_a_file_of_version_1_keeps_every_spend(path):
    rows = [
        ("heart", STUDY, 1, spelled(GAUSSIAN), "settled", 1700000001.5),
        ("heart", STUDY, 2, spelled(GAUSSIAN.with_steps(1)), "settled", 1700000002.5),
        ("heart", STUDY, 3, spelled(GAUSSIAN), "reserved", None),
        ("heart", STUDY, 4, spelled(GAUSSIAN), "released", 1700000004.5),
        ("lung", "b" * 64, 1, spelled(GAUSSIAN), "settled", 1700000005.5),
    ]
    old_file(path, rows)
    ledger = Ledger(path)
    heart, lung = ledger.report()
    assert (heart.rounds, heart.open_rounds, heart.steps) == (3, 1, 5)
    assert (lung.dataset, lung.steps) == ("lung", 2)
    assert heart.epsilon == accountant.epsilon([GAUSSIAN.with_steps(5)], delta=1e-3)
    # Attempts that were there are there still, and the next one gets a number nobody had.
    again = reserve(ledger, 3)
    assert not again.fresh
    ledger.settle(again, GAUSSIAN)
    assert reserve(ledger, 5).id == len(rows) + 1
    ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'spends_1'").fetchone() == (0,)
        times = connection.execute("SELECT reserved_at, settled_at FROM spends WHERE round = 2").fetchone()
        assert times == (1700000000.5, 1700000002.5)


def test_a_file_of_version_1_that_cannot_be_added_up_is_left_as_it_was(path):
    old_file(path, [("heart", STUDY, 1, spelled(GAUSSIAN).replace("poisson", "laplace"), "settled", 1.0)])
    for _ in range(2):
        with pytest.raises(UnknownEvent):
            Ledger(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(event) FROM spends").fetchone() == (1,)


class Died(BaseException):
    """The process is gone."""


class Mortal(sqlite3.Connection):
    left = 10**6

    def execute(self, *args):
        if Mortal.left == 0:
            raise Died
        Mortal.left -= 1
        return super().execute(*args)


def test_death_before_every_statement_of_the_upgrade(path, tmp_path):
    rows = [("heart", STUDY, number, spelled(GAUSSIAN), "settled", 1.0) for number in (1, 2, 3)]
    for lives in range(100):
        path = tmp_path / f"{lives}.db"
        old_file(path, rows)
        Mortal.left = lives
        try:
            Ledger(path, connect=lambda *a, **o: sqlite3.connect(*a, factory=Mortal, **o)).close()
            survived = True
        except Died:
            survived = False
        Mortal.left = 10**6
        assert Ledger(path).report()[0].steps == 6
        if survived:
            break
    assert survived
    assert lives > 10


def test_the_sums_are_those_of_the_rows_whatever_is_done(path):
    """A hundred and fifty things in any order; then what is summed by the triggers against a sum over all rows."""
    ledger, choose = Ledger(path), random.Random(20261122)
    open_ones = []
    for number in range(1, 151):
        action = choose.random()
        if action < 0.5 or not open_ones:
            event = choose.choice([GAUSSIAN, GAUSSIAN.with_steps(7), DISCRETE])
            study = Digest(choose.choice("ab") * 64)
            open_ones.append(
                reserve(ledger, number, event=event, dataset=choose.choice(["heart", "lung"]), study=study)
            )
        else:
            one = open_ones.pop(choose.randrange(len(open_ones)))
            if action < 0.8:
                ledger.settle(one, one.event.with_steps(choose.randint(1, one.event.mechanism.steps)))
            elif action < 0.9:
                ledger.settle(one, None)
            else:
                ledger.release(one)
    ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        summed = connection.execute(
            "SELECT dataset, study_digest, mechanism, SUM(steps), COUNT(*), SUM(state = 'reserved') FROM spends"
            " WHERE state != 'released' GROUP BY dataset, study_digest, mechanism ORDER BY 1, 2, 3"
        ).fetchall()
        kept = connection.execute(
            "SELECT dataset, study_digest, mechanism, steps, rounds, open_rounds FROM totals WHERE rounds > 0"
            " ORDER BY dataset, study_digest, mechanism"
        ).fetchall()
    assert len(kept) == 8
    assert kept == summed


def test_a_spend_cannot_be_deleted(path):
    reserve(Ledger(path), 1)
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.IntegrityError, match="never deleted"):
        connection.execute("DELETE FROM spends")


def test_both_kinds_of_event_come_back_as_they_were(path):
    ledger = Ledger(path)
    reserve(ledger, 1)
    ledger.settle(reserve(ledger, 2, event=DISCRETE), DISCRETE)
    assert set(ledger.report()[0].events) == {GAUSSIAN, DISCRETE}
    assert [spend.event for spend in Ledger(path).spends("heart", STUDY, after=(0, 0))] == [GAUSSIAN, DISCRETE]


def test_the_last_of_many_rounds_costs_what_the_first_did(path, monkeypatch):
    """Statements and compositions are counted, not seconds: a busy machine must not fail this."""
    ledger, event, rounds = Ledger(path), GAUSSIAN.with_steps(1), 3000
    limits = Limits(study_epsilon=50, study_delta=1e-3, total_epsilon=60, total_delta=1e-3, study_steps=rounds)
    ledger.admit(dataset="heart", study_digest=STUDY, event=event.with_steps(rounds), limits=limits)
    compositions = []
    monkeypatch.setattr(ledger_caps.accountant, "epsilon", lambda *a, **o: compositions.append(a) or 1.0)
    with ledger._file.transaction() as connection:  # as 2,900 rounds would have left it
        connection.executemany(
            "INSERT INTO spends (dataset, study, study_digest, round, attempt, mechanism, steps, delta, state,"
            " reserved_at) VALUES ('heart', 'heart-disease', ?, ?, 1, ?, 1, 1e-3, 'settled', 0)",
            [(STUDY, number, ledger_file_spelling(event)) for number in range(1, 2901)],
        )
    rows_read = []
    with ledger._file.transaction() as connection:
        connection.set_progress_handler(lambda: rows_read.append(1) and None, 100)  # every hundred steps of SQLite's
    for number in range(2901, 3001):
        ledger.settle(reserve(ledger, number, event=event, limits=limits), event)
    assert compositions == []
    assert len(rows_read) / 200 < 5, "a transaction read the whole table"
    with pytest.raises(Exception, match="3000"):
        reserve(ledger, 3001, event=event, limits=limits)


def ledger_file_spelling(event):
    record = event.to_dict()
    del record["steps"]
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def test_a_file_put_in_place_of_the_open_one_is_not_written_to(path, tmp_path):
    ledger = Ledger(path)
    reserve(ledger, 1)
    backup = tmp_path / "backup.db"
    Ledger(backup).close()
    backup.replace(path)
    with pytest.raises(LedgerUnavailable, match="replaced"):
        reserve(ledger, 2)
    path.unlink()
    with pytest.raises(LedgerUnavailable, match="not there"):
        reserve(ledger, 2)

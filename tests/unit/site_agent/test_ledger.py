"""Reserve, train, settle: what was reserved counts, once, and a cap is a cap, whatever dies when."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from consortium.contract.names import Digest, StudyId
from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledGaussian
from privacy.errors import BudgetExceeded, UnknownEvent
from site_agent.errors import LedgerRefused, LedgerUnavailable
from site_agent.ledger import Ledger, Limits, SpendState

STUDY = Digest("a" * 64)
OTHER = Digest("b" * 64)
EVENT = DpEvent(mechanism=PoissonSampledGaussian(noise_multiplier=3.4484, sampling_rate=0.2, steps=2, clip_norm_l2=1.0))
LIMITS = Limits(study_epsilon=1.0, study_delta=1e-3, total_epsilon=3.0, total_delta=1e-3)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def reserve(ledger, number=1, *, attempt=1, study=STUDY, event=EVENT, limits=LIMITS, dataset="heart"):
    return ledger.reserve(
        dataset=dataset,
        study=StudyId("heart-disease"),
        study_digest=study,
        round_number=number,
        attempt=attempt,
        event=event,
        limits=limits,
    )


def epsilon(ledger, dataset="heart"):
    return ledger.spent(dataset, delta=1e-3).epsilon


def of(rounds, event=EVENT):
    return accountant.epsilon([event] * rounds, delta=1e-3)


def test_a_new_ledger_has_spent_nothing(path):
    ledger = Ledger(path)
    assert epsilon(ledger) == 0
    assert ledger.report() == ()


def test_what_is_reserved_counts(path):
    ledger = Ledger(path)
    reservation = reserve(ledger)
    assert reservation.fresh
    assert reservation.state is SpendState.RESERVED
    assert epsilon(ledger) == of(1)


def test_what_is_settled_counts_as_executed(path):
    ledger = Ledger(path)
    ledger.settle(reserve(ledger), EVENT.with_steps(1))
    assert epsilon(ledger) == of(1, EVENT.with_steps(1))


def test_the_file_is_for_its_owner_only(path):
    Ledger(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_reservation_survives_a_restart(path):
    reserve(Ledger(path))
    assert epsilon(Ledger(path)) == of(1)


def test_reserving_an_attempt_again_counts_once_and_is_not_fresh(path):
    first = reserve(Ledger(path))
    again = reserve(Ledger(path))
    assert (again.id, again.fresh) == (first.id, False)
    assert epsilon(Ledger(path)) == of(1)


def test_another_attempt_is_another_spend(path):
    ledger = Ledger(path)
    reserve(ledger, attempt=1)
    reserve(ledger, attempt=2)
    assert epsilon(ledger) == of(2)


def test_an_attempt_reserved_with_another_event_is_refused(path):
    ledger = Ledger(path)
    reserve(ledger)
    with pytest.raises(LedgerRefused, match="another event"):
        reserve(ledger, event=EVENT.with_steps(3))


def test_a_settled_attempt_can_be_asked_for_again(path):
    ledger = Ledger(path)
    ledger.settle(reserve(ledger), EVENT)
    again = reserve(ledger)
    assert (again.state, again.fresh) == (SpendState.SETTLED, False)


def test_settling_twice_the_same_way_is_once(path):
    ledger = Ledger(path)
    reservation = reserve(ledger)
    ledger.settle(reservation, EVENT)
    ledger.settle(reservation, EVENT)
    assert epsilon(ledger) == of(1)
    with pytest.raises(LedgerRefused, match="twice"):
        ledger.settle(reservation, EVENT.with_steps(1))


@pytest.mark.parametrize(
    "executed",
    [
        EVENT.with_steps(3),
        DpEvent(mechanism=PoissonSampledGaussian(noise_multiplier=1.0, sampling_rate=0.2, steps=2, clip_norm_l2=1.0)),
    ],
    ids=["more-steps", "less-noise"],
)
def test_what_was_executed_beyond_the_reservation_is_counted_and_then_refused(path, executed):
    ledger = Ledger(path)
    with pytest.raises(LedgerRefused, match="more than was reserved"):
        ledger.settle(reserve(ledger), executed)
    assert epsilon(ledger) == of(1, executed)


def test_nothing_executed_counts_nothing(path):
    ledger = Ledger(path)
    ledger.settle(reserve(ledger), None)
    assert epsilon(ledger) == 0


def test_release_gives_back_what_nobody_saw(path):
    ledger = Ledger(path)
    reservation = reserve(ledger)
    ledger.release(reservation)
    ledger.release(reservation)
    assert epsilon(ledger) == 0
    with pytest.raises(LedgerRefused, match="released"):
        reserve(ledger)
    with pytest.raises(LedgerRefused, match="released"):
        ledger.settle(reservation, EVENT)


def test_release_does_not_unspend(path):
    ledger = Ledger(path)
    reservation = reserve(ledger)
    ledger.settle(reservation, EVENT)
    with pytest.raises(LedgerRefused, match="given back"):
        ledger.release(reservation)
    assert epsilon(ledger) == of(1)


def test_a_reservation_the_file_does_not_have_is_refused(path, tmp_path):
    reservation = reserve(Ledger(path))
    older = Ledger(tmp_path / "backup.sqlite")
    with pytest.raises(LedgerRefused, match="older copy"):
        older.settle(reservation, EVENT)


def test_the_whole_study_fits_its_epsilon_and_not_a_round_more(path):
    ledger = Ledger(path)
    for number in range(1, 21):
        ledger.settle(reserve(ledger, number), EVENT)
    assert 0.999 < epsilon(ledger) <= 1.0
    with pytest.raises(BudgetExceeded) as caught:
        reserve(ledger, 21)
    assert (caught.value.cap, caught.value.dataset) == (1.0, "heart")
    assert caught.value.spent <= 1.0 < caught.value.spent + caught.value.requested
    assert epsilon(ledger) <= 1.0


def test_the_hospitals_cap_for_one_study_holds(path):
    ledger = Ledger(path)
    small = Limits(study_epsilon=of(3), study_delta=1e-3, total_epsilon=3.0, total_delta=1e-3)
    for number in (1, 2, 3):
        reserve(ledger, number, limits=small)
    with pytest.raises(BudgetExceeded):
        reserve(ledger, 4, limits=small)


def test_the_total_over_studies_holds(path):
    ledger = Ledger(path)
    whole = EVENT.with_steps(40)
    studies = [Digest(format(n, "064x")) for n in range(20)]
    allowed = []

    def accept_all():
        for study in studies:
            reserve(ledger, study=study, event=whole)
            allowed.append(study)

    with pytest.raises(BudgetExceeded) as caught:
        accept_all()
    assert caught.value.cap == 3.0
    assert len(allowed) >= 3
    assert epsilon(ledger) <= 3.0


def test_a_lowered_total_refuses_the_next_round_at_once(path):
    ledger = Ledger(path)
    reserve(ledger)
    with pytest.raises(BudgetExceeded):
        reserve(ledger, 2, limits=Limits(study_epsilon=1.0, study_delta=1e-3, total_epsilon=0.1, total_delta=1e-3))


def test_datasets_do_not_share_a_budget(path):
    ledger = Ledger(path)
    reserve(ledger, dataset="heart")
    reserve(ledger, dataset="lung")
    assert epsilon(ledger, "heart") == epsilon(ledger, "lung") == of(1)
    assert [row.dataset for row in ledger.report()] == ["heart", "lung"]


def test_admission_looks_at_the_whole_study_and_writes_nothing(path):
    ledger = Ledger(path)
    whole = EVENT.with_steps(40)
    ledger.admit(dataset="heart", study_digest=STUDY, event=whole, limits=LIMITS)
    assert ledger.report() == ()
    with pytest.raises(BudgetExceeded):
        ledger.admit(dataset="heart", study_digest=STUDY, event=EVENT.with_steps(50), limits=LIMITS)


def test_admission_does_not_count_a_running_study_twice(path):
    ledger = Ledger(path)
    for number in range(1, 11):
        reserve(ledger, number)
    ledger.admit(dataset="heart", study_digest=STUDY, event=EVENT.with_steps(40), limits=LIMITS)


def test_admission_counts_other_studies(path):
    ledger = Ledger(path)
    limits = Limits(study_epsilon=1.0, study_delta=1e-3, total_epsilon=1.2, total_delta=1e-3)
    reserve(ledger, study=OTHER, event=EVENT.with_steps(40))
    with pytest.raises(BudgetExceeded):
        ledger.admit(dataset="heart", study_digest=STUDY, event=EVENT.with_steps(40), limits=limits)


def test_the_report_says_what_each_study_spent(path):
    ledger = Ledger(path)
    ledger.settle(reserve(ledger, 1), EVENT)
    reserve(ledger, 2)
    ledger.release(reserve(ledger, 3))
    reserve(ledger, 1, study=OTHER)
    first, second = ledger.report()
    assert (first.study, first.study_digest, first.rounds, first.open_rounds, first.steps) == (
        "heart-disease", STUDY, 2, 1, 4,
    )  # fmt: skip
    assert (first.epsilon, first.delta) == (of(2), 1e-3)
    assert second.study_digest == OTHER


def test_the_sum_never_falls(path):
    ledger = Ledger(path)
    before = 0.0
    for number in range(1, 6):
        reservation = reserve(ledger, number)
        assert epsilon(ledger) > before
        before = epsilon(ledger)
        ledger.settle(reservation, EVENT)
        assert epsilon(ledger) == before


# --- disks, versions, damage ----------------------------------------------------------------------------------------


def _full_after(pages):
    def connect(*args, **options):
        connection = sqlite3.connect(*args, **options)
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    return connect


def test_a_full_disk_is_one_clear_error_and_nothing_half_written(path):
    ledger = Ledger(path)
    with sqlite3.connect(path) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()
    full = Ledger(path, connect=_full_after(pages))
    plenty = Limits(study_epsilon=99, study_delta=1e-3, total_epsilon=99, total_delta=1e-3)
    done = []

    def fill():
        done.extend(reserve(full, number, limits=plenty) for number in range(1, 200))

    with pytest.raises(LedgerUnavailable, match="full") as caught:
        fill()
    assert "space" in caught.value.advice()
    rows = ledger.report()
    assert sum(row.rounds for row in rows) == len(done)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path):
    with pytest.raises(LedgerUnavailable, match="opened"):
        Ledger(tmp_path / "missing" / "ledger.sqlite")


def test_a_damaged_file_is_one_clear_error(path):
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(LedgerUnavailable):
        Ledger(path)


def test_a_file_of_a_newer_version_is_left_alone(path):
    Ledger(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerUnavailable, match="newer version"):
        Ledger(path)


@pytest.mark.parametrize(
    "mechanism", ["not json", "[1]", json.dumps({"mechanism": "laplace"}), json.dumps(EVENT.to_dict())]
)
def test_an_event_it_cannot_add_up_stops_everything(path, mechanism):
    ledger = Ledger(path)
    reserve(ledger)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE spends SET mechanism = ?", (mechanism,))
    connection.close()
    for act in (lambda: reserve(ledger, 2), lambda: epsilon(ledger), ledger.report):
        with pytest.raises(UnknownEvent):
            act()


# --- deaths ---------------------------------------------------------------------------------------------------------


class Died(BaseException):
    """The process is gone: nothing after this runs, not even COMMIT."""


class Mortal(sqlite3.Connection):
    """Dies just before its n-th statement; a class attribute, since SQLite makes the instance."""

    left = 0

    def execute(self, *args):
        if Mortal.left == 0:
            raise Died
        Mortal.left -= 1
        return super().execute(*args)


def _mortal(*args, **options):
    return sqlite3.connect(*args, factory=Mortal, **options)


def test_death_before_every_statement_of_a_reservation(path):
    Mortal.left = 1000
    ledger = Ledger(path, connect=_mortal)
    reserve(ledger, 1)
    survived = False
    for lives in range(50):
        Mortal.left = lives
        try:
            reserve(ledger, 2)
            survived = True
        except Died:
            pass
        Mortal.left = 1000
        # Either it is there whole, or not at all; the file is fine and the next process goes on.
        assert Ledger(path).report()[0].rounds == (2 if survived else 1)
        if survived:
            break
    assert survived
    assert lives >= 5
    assert not reserve(Ledger(path), 2).fresh


@pytest.mark.parametrize("act", ["settle", "release"])
def test_death_before_every_statement_of_an_ending(path, act):
    Mortal.left = 1000
    ledger = Ledger(path, connect=_mortal)
    reservation = reserve(ledger)
    survived = False
    for lives in range(50):
        Mortal.left = lives
        try:
            if act == "settle":
                ledger.settle(reservation, EVENT.with_steps(1))
            else:
                ledger.release(reservation)
            survived = True
        except Died:
            pass
        Mortal.left = 1000
        after = of(1, EVENT.with_steps(1)) if act == "settle" else 0
        # Until it is over, all that was reserved counts.
        assert epsilon(Ledger(path)) == (after if survived else of(1))
        if survived:
            break
    assert survived
    assert lives >= 4


_RESERVE_AND_WAIT = """
import sys, time
from pathlib import Path
from test_ledger import LIMITS, STUDY, EVENT, reserve
from site_agent.ledger import Ledger
reserve(Ledger(Path(sys.argv[1])), 1)
print("reserved", flush=True)
time.sleep(60)
"""


def _environment():
    here = Path(__file__).resolve().parent
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[2])])}


def test_a_process_killed_while_training_has_spent_its_round(path):
    child = subprocess.Popen(
        [sys.executable, "-c", _RESERVE_AND_WAIT, str(path)], stdout=subprocess.PIPE, env=_environment()
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"reserved\n"
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    child.stdout.close()
    ledger = Ledger(path)
    assert epsilon(ledger) == of(1)
    assert not reserve(ledger, 1).fresh
    assert reserve(ledger, 2).fresh


_RESERVE_ALL = """
import sys
from pathlib import Path
from test_ledger import LIMITS, STUDY, EVENT, reserve
from privacy.errors import BudgetExceeded
from site_agent.ledger import Ledger
got = 0
ledger = Ledger(Path(sys.argv[1]))
try:
    for number in range(1, 40):
        reserve(ledger, number, attempt=int(sys.argv[2]))
        got += 1
except BudgetExceeded:
    pass
print(got)
"""


def test_two_processes_cannot_both_take_the_last_of_a_budget(path):
    start = time.monotonic()
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _RESERVE_ALL, str(path), str(attempt)], stdout=subprocess.PIPE, env=_environment()
        )
        for attempt in (1, 2)
    ]
    got = [int(child.communicate(timeout=120)[0]) for child in children]
    assert sum(got) == 20, f"the budget is for 20 rounds; they took {got}"
    assert epsilon(Ledger(path)) <= 1.0
    assert time.monotonic() - start < 120

"""D-20: a backup of the ledger is put in place of the newer one, and what was spent since is free again.

Held by: `told.py` (what was signed is remembered in another file, and a ledger that counts less is refused at the
start, when a study is prepared and at every reservation) and, where both files were restored,
`agent.CoordinatorLine.check_history` (the log has more of this hospital's entries than the agent remembers). Tried:
rows d20 of `mutations.py`: the two comparisons, and the signature for test figures.
"""

import asyncio
import shutil
from dataclasses import replace

import pytest

from audit import entries
from site_agent.agent import Agent
from site_agent.app import dataset_budgets, open_ledger, restore_budget, run_until_stopped
from site_agent.errors import HistoryLost, LedgerBehind
from site_agent.ledger import Ledger
from site_agent.ledger_caps import Limits
from site_agent.preparation import prepare
from site_agent.room_in_process import RoomInProcess
from site_agent.round_values import RoundValues
from site_agent.signed_events import SignedEvents
from site_agent.spend_entries import sign_spends
from site_agent.store import Store
from site_agent.training_spec import spec_of
from tests.fakes.site_wire import StudyService, dialled
from tests.fakes.site_world import make_world, small_study

STUDY = small_study(training={"rounds": 6})
SPEC = spec_of(STUDY, declared_patients=100).privacy
LIMITS = Limits(study_epsilon=9, study_delta=1e-3, total_epsilon=9, total_delta=1e-3)


def train(home, store, ledger, number):
    """One round as the ledger and the log see it."""
    event = SPEC.round_event()
    reservation = ledger.reserve(
        dataset="ward",
        study=STUDY.study_id,
        study_digest=STUDY.digest(),
        round_number=number,
        attempt=1,
        event=event,
        limits=LIMITS,
    )
    ledger.settle(reservation, event)
    sign_spends(ledger, SignedEvents(home, store), STUDY, STUDY.digest(), "ward")


@pytest.fixture
def world(tmp_path):
    """Four rounds trained; of the ledger there is a copy after the second."""
    world = make_world(tmp_path / "home", STUDY)
    for number in (1, 2, 3, 4):
        train(world.home, world.store, world.ledger, number)
        if number == 2:
            world.ledger.close()
            shutil.copy(tmp_path / "home/ledger.db", tmp_path / "backup.db")
    world.ledger.close()
    return world


def rolled_back(world, tmp_path):
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (world.home.folder / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup.db", world.home.folder / "ledger.db")
    return open_ledger(world.home.folder, world.store)


async def test_an_older_ledger_is_refused_everywhere_and_nothing_is_trained(world, tmp_path):
    ledger = rolled_back(world, tmp_path)
    with pytest.raises(LedgerBehind) as caught:
        await asyncio.wait_for(run_until_stopped(world.home.folder), 20)
    assert "2 noisy steps of study small-study on dataset ward, and 4 are in the log" in str(caught.value)
    assert "--restore" in caught.value.advice()
    with pytest.raises(LedgerBehind):
        prepare(world.home, world.store, ledger, STUDY.digest(), RoomInProcess)
    for number in (3, 5):
        with pytest.raises(LedgerBehind):
            train(world.home, world.store, ledger, number)
    with pytest.raises(LedgerBehind):  # no figures that are too small, either
        dataset_budgets(world.home.folder, None)
    assert ledger.report()[0].rounds == 2


def test_a_ledger_that_was_deleted_is_refused_too(world):
    for path in world.home.folder.glob("ledger.db*"):
        path.unlink()
    with pytest.raises(LedgerBehind, match="counts 0 noisy steps"):
        open_ledger(world.home.folder, world.store).require_current()


def test_another_studys_rounds_do_not_make_up_for_it(world, tmp_path):
    ledger = rolled_back(world, tmp_path)
    Ledger(world.home.folder / "ledger.db").reserve(  # by a program that did not look
        dataset="ward",
        study=STUDY.study_id,
        study_digest="e" * 64,
        round_number=1,
        attempt=1,
        event=SPEC.round_event().with_steps(50),
        limits=Limits(study_epsilon=99, study_delta=1e-3, total_epsilon=99, total_delta=1e-3),
    )
    with pytest.raises(LedgerBehind):
        ledger.require_current()


async def test_a_ledger_that_lacks_test_figures_alone_is_refused_too(tmp_path):
    """They are a line of their own: all of the training is there."""
    study = small_study(evaluation={"privacy": {"epsilon": 1.0, "delta": 1e-3}, "score_bins": 20, "subgroup_bins": 10})
    world = make_world(tmp_path / "home", study, max_epsilon_per_study=2.0)
    prepared = prepare(world.home, world.store, world.ledger, study.digest(), RoomInProcess)
    world.model = prepared.first_model
    values = RoundValues(prepared, world.ledger, SignedEvents(world.home, world.store))
    await values.contribution(world.plan(), world.model, world.home.config.policy)
    world.ledger.close()
    shutil.copy(tmp_path / "home/ledger.db", tmp_path / "backup.db")
    later = replace(world.plan(round=3), model_digest="b" * 64)
    await values.contribution(later, world.model, world.home.config.policy)
    whole = world.ledger.report()
    assert [(row.study, row.steps) for row in whole] == [("small-study", 1), ("small-study-test-figures", 2)]
    ledger = rolled_back(world, tmp_path)
    with pytest.raises(LedgerBehind, match="1 noisy steps of study small-study-test-figures on dataset ward, and 2"):
        ledger.require_current()
    with pytest.raises(LedgerBehind):
        prepare(world.home, world.store, ledger, study.digest(), RoomInProcess)
    assert restore_budget(world.home.folder) == 1
    ledger.require_current()
    assert ledger.report() == whole


def test_what_was_signed_is_counted_again_and_the_study_goes_on(world, tmp_path):
    whole = Ledger(world.home.folder / "ledger.db").report()
    ledger = rolled_back(world, tmp_path)
    assert restore_budget(world.home.folder) == 2
    assert restore_budget(world.home.folder) == 0
    assert [(row.steps, row.epsilon) for row in ledger.report()] == [(row.steps, row.epsilon) for row in whole]
    ledger.require_current()
    train(world.home, world.store, ledger, 5)
    assert ledger.report()[0].rounds == 5


async def test_both_files_restored_are_found_out_by_the_log(tmp_path):
    service = StudyService()
    async with dialled(tmp_path, service) as (_, home):
        store = Store(tmp_path / "agent.db")
        ledger = open_ledger(tmp_path, store)
        events = SignedEvents(home, store)
        events.add(entries.StudyRejected, study=STUDY.id, study_digest="a" * 64, steward="u:" + "1" * 32, reason="no")
        service.events = [store.pending_events()[0][1]]
        store.acknowledge(1)
        # What the log has besides was signed by the newer files, of which nobody remembers anything here.
        service.events += [b"two", b"three"]
        with pytest.raises(HistoryLost, match="log has 3 entries of this hospital and"):
            await _run(Agent(home, store, ledger), lambda: bool(service.heard))
        assert not service.heard


async def test_an_agent_that_remembers_everything_goes_on(tmp_path):
    service = StudyService()
    async with dialled(tmp_path, service) as (_, home):
        store = Store(tmp_path / "agent.db")
        SignedEvents(home, store).add(
            entries.StudyRejected, study=STUDY.id, study_digest="a" * 64, steward="u:" + "1" * 32, reason="no"
        )
        service.events = [store.pending_events()[0][1]]
        store.acknowledge(1)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(_run(Agent(home, store, open_ledger(tmp_path, store))))
            while len(service.events) < 2:  # noqa: ASYNC110 - what is waited for is no event
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            assert not running.done()
            running.cancel()
        # Nothing was signed twice; what is new is the key that it cosigns the log with.
        signed = [type(entries.parse_entry(entry)) for entry in service.events]
        assert signed == [entries.StudyRejected, entries.WitnessEnrolled]


async def _run(agent, enough=lambda: False):
    """An agent until it ends by itself, or it has done enough."""
    stop = asyncio.Event()
    task = asyncio.create_task(agent.run(stop))
    try:
        async with asyncio.timeout(60):
            while not (task.done() or enough()):  # noqa: ASYNC110 - what is waited for is no event
                await asyncio.sleep(0.01)
    finally:
        stop.set()
        await asyncio.wait([task])
    await task

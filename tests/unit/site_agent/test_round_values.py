"""What goes into one round: trained once, charged once, measured on the right model."""

import asyncio
import threading

import numpy as np
import pytest

from audit import entries
from consortium.contract.global_model import GlobalModel
from privacy.errors import BudgetExceeded
from site_agent import room_in_process
from site_agent.errors import TrainingFailed
from site_agent.evaluate import evaluate
from site_agent.preparation import Declined, prepare
from site_agent.room_in_process import RoomInProcess
from site_agent.round_values import RoundValues
from site_agent.signed_events import SignedEvents
from tests.fakes.site_world import make_world, small_study


def values_of(world):
    ready = prepare(world.home, world.store, world.ledger, world.digest, RoomInProcess)
    world.model = ready.first_model
    return RoundValues(ready, world.ledger, SignedEvents(world.home, world.store))


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path)


async def test_the_lanes_are_those_of_the_layout(world):
    values = values_of(world)
    policy = world.home.config.policy
    whole = await values.contribution(world.plan(), world.model, policy)
    assert set(whole.lanes) == {lane.name for lane in world.plan().layout.lanes}
    for lane in world.plan().layout.lanes:
        assert whole.lanes[lane.name].shape == (lane.length,)
    assert whole.lanes["weight"] == [1.0]
    assert whole.evaluation.patients == whole.lanes["test_patients"][0] == 16
    blind = await values.contribution(world.plan(measured=False), world.model, policy)
    assert set(blind.lanes) == {"update", "weight"}
    assert blind.evaluation is None
    measuring = world.plan(round=3)
    only_metrics = await values.contribution(measuring, world.model, policy)
    assert "update" not in only_metrics.lanes
    assert repr(whole) == "Contribution()"


async def test_weights_by_declared_patients_are_taken_out_of_the_update(tmp_path):
    study = small_study(training={"weighting": "patients"}, aggregation={"max_patients_per_site": 10_000})
    world = make_world(tmp_path, study)
    values = values_of(world)
    values._train = lambda *_: np.ones(4, dtype=np.float32)
    lanes = (await values.contribution(world.plan(), world.model, world.home.config.policy)).lanes
    assert lanes["weight"] == [8317.0]
    np.testing.assert_allclose(lanes["update"], 0.8317, rtol=1e-6)


async def test_parameters_with_a_clip_of_their_own_get_lanes_that_are_views_of_one_update(tmp_path):
    study = small_study(aggregation={"tensor_clips": {"0.bias": 0.25}})
    world = make_world(tmp_path, study)
    values = values_of(world)
    update = np.arange(4, dtype=np.float32)
    values._train = lambda *_: update
    plan = world.plan()
    lanes = (await values.contribution(plan, world.model, world.home.config.policy)).lanes
    assert [(lane.name, lane.clip) for lane in plan.layout.lanes[:2]] == [("update/0", 0.25), ("update/1", 4.0)]
    assert lanes["update/0"].tolist() == [0.0]
    assert lanes["update/1"].tolist() == [1.0, 2.0, 3.0]
    assert np.shares_memory(lanes["update/1"], update)
    assert "update" not in lanes


@pytest.mark.parametrize(
    ("update", "weighting", "clipped"),
    [
        ([0.0, 0.0, 0.0, 0.0], "uniform", 0.0),
        ([0.25, 4.0, -4.0, 0.0], "uniform", 0.0),
        ([0.3, 4.5, -4.5, 0.0], "uniform", 0.75),
        ([-0.3, 4.5, 3.0, 0.0], "uniform", 0.5),
        ([0.3, 4.5, -4.5, 9.0], "patients", 0.25),  # the clip is of the weighted update: here times 0.8317
    ],
)
async def test_how_much_the_clip_cuts_is_known_here(tmp_path, update, weighting, clipped):
    aggregation = {"tensor_clips": {"0.bias": 0.25}, "max_patients_per_site": 10_000}
    world = make_world(tmp_path, small_study(aggregation=aggregation, training={"weighting": weighting}))
    values = values_of(world)
    values._train = lambda *_: np.array(update, dtype=np.float32)
    policy = world.home.config.policy
    assert (await values.contribution(world.plan(), world.model, policy)).clipped == clipped
    assert (await values.contribution(world.plan(round=3), world.model, policy)).clipped == 0.0


async def test_a_plan_for_another_number_of_parameters_is_not_filled(world):
    values = values_of(world)
    values._train = lambda *_: np.zeros(5, dtype=np.float32)
    with pytest.raises(TrainingFailed, match="has 5 values; the round plan has room for 4"):
        await values.contribution(world.plan(), world.model, world.home.config.policy)


async def test_trained_and_charged_once_however_many_wait(world):
    values, policy = values_of(world), world.home.config.policy
    plans = [world.plan(attempt=number) for number in (1, 2, 3)]
    found = await asyncio.gather(*(values.contribution(plan, world.model, policy) for plan in plans))
    assert all(np.shares_memory(one.lanes["update"], found[0].lanes["update"]) for one in found)
    assert world.ledger.report()[0].rounds == 1


async def test_two_that_waited_for_an_older_training_start_one(world):
    values, policy = values_of(world), world.home.config.policy
    go_on, started, trained = threading.Event(), threading.Event(), []
    train = values._train

    def slowly(plan, *rest):
        trained.append((plan.round, plan.attempt))
        started.set()
        go_on.wait(10)
        return train(plan, *rest)

    values._train = slowly
    old = asyncio.create_task(values.contribution(world.plan(measured=False), world.model, policy))
    await asyncio.to_thread(started.wait, 10)
    later = [world.plan(round=2, attempt=number, measured=False) for number in (1, 2)]
    waiting = [asyncio.create_task(values.contribution(plan, world.model, policy)) for plan in later]
    await asyncio.sleep(0.05)
    go_on.set()
    await asyncio.gather(old, *waiting)
    assert [number for number, _ in trained] == [1, 2]
    assert world.ledger.report()[0].rounds == 2


async def test_giving_up_waiting_does_not_stop_the_training(world):
    values, policy = values_of(world), world.home.config.policy
    waiting = asyncio.create_task(values.contribution(world.plan(), world.model, policy))
    while values._update is None:  # noqa: ASYNC110 - what is waited for is no event
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await values.contribution(world.plan(attempt=2), world.model, policy)
    assert world.ledger.report()[0].rounds == 1


async def test_released_is_forgotten(world):
    values, policy = values_of(world), world.home.config.policy
    first = await values.contribution(world.plan(measured=False), world.model, policy)
    values.released()
    again = await values.contribution(world.plan(measured=False, attempt=2), world.model, policy)
    assert not np.array_equal(first.lanes["update"], again.lanes["update"])
    assert world.ledger.report()[0].rounds == 2


async def test_an_attempt_charged_by_a_process_that_died_is_not_trained_again(world):
    policy = world.home.config.policy
    await values_of(world).contribution(world.plan(measured=False), world.model, policy)
    with pytest.raises(Declined) as caught:
        await values_of(world).contribution(world.plan(measured=False), world.model, policy)
    assert caught.value.refusal.rule == "ledger"


async def test_a_training_that_failed_is_counted_and_can_be_done_again(world):
    values, policy = values_of(world), world.home.config.policy
    train = values._prepared.room.train

    def fails(*_):
        raise ArithmeticError

    values._prepared.room.train = fails
    with pytest.raises(ArithmeticError):
        await values.contribution(world.plan(measured=False), world.model, policy)
    values._prepared.room.train = train
    await values.contribution(world.plan(measured=False, attempt=2), world.model, policy)
    (row,) = world.ledger.report()
    assert (row.rounds, row.open_rounds) == (2, 1)


async def test_nothing_is_trained_when_the_budget_does_not_allow_it(world):
    values, policy = values_of(world), world.home.config.policy
    trained = []
    values._prepared.room.train = trained.append
    with pytest.raises(BudgetExceeded):
        await values.contribution(world.plan(), world.model, policy.model_copy(update={"max_epsilon_total": 0.1}))
    assert trained == []
    assert world.ledger.report() == ()


async def test_what_was_spent_is_signed(world):
    await values_of(world).contribution(world.plan(), world.model, world.home.config.policy)
    ((_, signed),) = world.store.pending_events()
    spent = entries.parse_entry(signed)
    assert isinstance(spent, entries.DpSpent)
    (row,) = world.ledger.report()
    assert (spent.epsilon, spent.delta, spent.steps_total) == (row.epsilon, row.delta, row.steps)
    assert (spent.round, spent.attempt, spent.event.steps) == (1, 1, 1)


async def test_models_measured_at_once_do_not_touch_each_other(world, monkeypatch):
    """An evaluation goes on when nobody waits for it any more: each has a network of its own."""
    values, policy = values_of(world), world.home.config.policy
    modules, both = [], threading.Barrier(3, timeout=30)

    def measure(module, *args, **options):
        modules.append(module)
        both.wait()
        found = evaluate(module, *args, **options)
        both.wait()
        return found

    monkeypatch.setattr(room_in_process, "evaluate", measure)
    plan = world.plan(round=3)
    models = [GlobalModel(world.model.parameters, np.full(4, value, dtype=np.float32)) for value in (-3, 0, 3)]
    found = await asyncio.gather(*(values.contribution(plan, model, policy) for model in models))
    assert len(set(map(id, modules))) == 3
    monkeypatch.setattr(room_in_process, "evaluate", evaluate)
    alone = [await values.contribution(plan, model, policy) for model in models]
    assert [one.evaluation.loss_sum for one in found] == [one.evaluation.loss_sum for one in alone]
    assert len({one.evaluation.loss_sum for one in alone}) == 3

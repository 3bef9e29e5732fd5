"""Test figures with a budget of their own: what is drawn, what is charged, what is kept."""

import re

import numpy as np
import pytest

from audit import entries
from audit.fields import NAME
from consortium.contract.figures_budget import measured_rounds, mechanism_of, noisy_lanes
from consortium.contract.layout import round_layout
from consortium.contract.plan import RoundKind
from consortium.contract.study import StudyFile
from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.encoding import decode, encode
from privacy.errors import BudgetExceeded
from privacy.secret import Secret
from site_agent.figures_account import admit_figures, budget_digest, ledger_name
from site_agent.logged_event import logged_event
from site_agent.preparation import Declined, prepare
from site_agent.private_figures import PrivateFigures, counts_of
from site_agent.room_in_process import RoomInProcess
from site_agent.round_values import RoundValues
from site_agent.signed_events import SignedEvents
from site_agent.spend_entries import sign_figures
from site_agent.store import StoreUnwritable
from site_agent.tally import Scores
from tests.fakes.site_world import make_world, small_study

BUDGET = {"privacy": {"epsilon": 1.0, "delta": 1e-3}, "score_bins": 20, "subgroup_bins": 10}


def private_study(**changes) -> StudyFile:
    study = small_study(evaluation=BUDGET | {"every_rounds": 2})
    return study.model_copy(update=changes)


def scores(patients: int, seed: int = 1) -> Scores:
    random = np.random.default_rng(seed)
    return Scores(
        scores=random.random(patients),
        positive=random.random(patients) < 0.5,
        groups=random.integers(-1, 2, (patients, 1)),
    )


def layout(study: StudyFile):
    return round_layout(study, parameters=(), kind=RoundKind.EVALUATE, measured=True)


def test_one_patient_moves_the_counts_by_no_more_than_the_mechanism_is_told():
    study, everybody = private_study(), scores(200)
    told = mechanism_of(study)
    assert told.clip_norm_l2 == pytest.approx(np.sqrt(3))  # the count, the histogram, one subgroup
    assert told.dimension == sum(lane.length for lane in noisy_lanes(layout(study)))
    vector = np.concatenate(list(counts_of(everybody, study).values()))
    assert len(vector) == told.dimension
    moved = []
    for one in range(200):
        rest = np.concatenate(list(counts_of(everybody.of(np.arange(200) != one), study).values()))
        moved.append(np.linalg.norm(vector - rest))
    assert max(moved) == pytest.approx(told.clip_norm_l2)
    assert min(moved) == pytest.approx(np.sqrt(2))  # a patient in no cell


def test_all_measured_rounds_together_cost_what_the_study_says():
    study = private_study()
    told = mechanism_of(study)
    assert told.steps == measured_rounds(study) == 2  # round 1 of two, and the evaluation at the end
    assert told.shares == told.sampling_rate == 1
    assert 0.99 < accountant.epsilon([DpEvent(mechanism=told)], delta=1e-3) <= 1.0


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path, private_study(), max_epsilon_per_study=2.0)


def values_of(world):
    ready = prepare(world.home, world.store, world.ledger, world.digest, RoomInProcess)
    world.model = ready.first_model
    return RoundValues(ready, world.ledger, SignedEvents(world.home, world.store))


def signed(world):
    found = [entries.parse_entry(data) for data in world.store.signed_entries()]
    return [entry for entry in found if isinstance(entry, entries.FiguresSpent)]


def spent_on_figures(world):
    return [row for row in world.ledger.report() if row.study_digest == budget_digest(world.digest)]


async def test_figures_are_charged_once_for_a_model_and_the_same_in_every_attempt(world):
    values, policy = values_of(world), world.home.config.policy
    first = await values.contribution(world.plan(), world.model, policy)
    again = await values.contribution(world.plan(attempt=2), world.model, policy)
    values.released()
    last = await values.contribution(world.plan(attempt=3), world.model, policy)
    for name in ("test_patients", "scores_positive", "subgroup_negative"):
        np.testing.assert_array_equal(first.lanes[name], again.lanes[name])
        np.testing.assert_array_equal(first.lanes[name], last.lanes[name])
    (row,) = spent_on_figures(world)
    assert (row.rounds, row.open_rounds, row.steps, row.delta) == (1, 0, 1, 1e-3)
    assert 0 < row.epsilon < 1


async def test_every_draw_is_signed_before_it_is_made(world, monkeypatch):
    values, policy = values_of(world), world.home.config.policy
    signed_then = []
    draw = values._figures._draw

    def drawing(plan, found):
        signed_then.append([(e.round, e.attempt, e.steps_total) for e in signed(world)])
        return draw(plan, found)

    monkeypatch.setattr(values._figures, "_draw", drawing)
    await values.contribution(world.plan(round=3), world.model, policy)
    await values.contribution(world.plan(round=3, attempt=2), world.model, policy)
    assert signed_then == [[(3, 1, 1)]]
    (entry,), (row,) = signed(world), spent_on_figures(world)
    assert (entry.epsilon, entry.delta, entry.dataset, entry.study) == (row.epsilon, 1e-3, "ward", world.study.id)
    assert entry.event == logged_event(DpEvent(mechanism=mechanism_of(world.study)).with_steps(1))


async def test_figures_that_cannot_be_signed_for_are_not_drawn(world, monkeypatch):
    values, policy = values_of(world), world.home.config.policy
    monkeypatch.setattr(values._figures, "_draw", lambda *_: pytest.fail("drawn"))

    def full(*_, **__):
        raise StoreUnwritable("agent.db is full")

    monkeypatch.setattr(world.store, "add_events", full)
    with pytest.raises(StoreUnwritable):
        await values.contribution(world.plan(round=3), world.model, policy)
    assert spent_on_figures(world)[0].rounds == 1  # it counts all the same
    monkeypatch.undo()
    sign_figures(world.ledger, SignedEvents(world.home, world.store), world.study, world.digest, "ward")
    assert [(e.round, e.attempt) for e in signed(world)] == [(3, 1)]


async def test_what_is_sent_is_on_the_grid_of_its_lane_and_not_the_counts(world):
    values = values_of(world)
    plan = world.plan()
    found = await values.contribution(plan, world.model, world.home.config.policy)
    assert set(found.lanes) == {lane.name for lane in plan.layout.lanes}
    for lane in noisy_lanes(plan.layout):
        steps = found.lanes[lane.name] * lane.scale
        assert (steps == np.rint(steps)).all()
        assert (found.lanes[lane.name] % 1 != 0).any()
    summed = decode(encode(found.lanes, plan.layout, Secret(bytes(32))), plan.layout)
    np.testing.assert_array_equal(summed["scores_positive"], found.lanes["scores_positive"])


async def test_another_draw_than_was_planned_for_is_refused(world):
    values, policy = values_of(world), world.home.config.policy
    tight = policy.model_copy(update={"max_epsilon_per_study": 0.5})
    with pytest.raises(BudgetExceeded):
        values._figures._charge(world.plan(), tight)
    assert spent_on_figures(world) == []


async def test_figures_that_a_process_that_died_may_have_sent_are_not_drawn_again(world):
    await values_of(world).contribution(world.plan(round=3), world.model, world.home.config.policy)
    with pytest.raises(Declined) as caught:
        await values_of(world).contribution(world.plan(round=3), world.model, world.home.config.policy)
    assert caught.value.refusal.rule == "ledger"


def test_a_delta_above_the_hospitals_is_refused_before_anything_is_computed(tmp_path):
    study = small_study(evaluation=BUDGET | {"privacy": {"epsilon": 1.0, "delta": 0.01}})
    world = make_world(tmp_path, study, max_epsilon_per_study=2.0)
    with pytest.raises(Declined) as caught:
        prepare(world.home, world.store, world.ledger, world.digest, RoomInProcess)
    assert caught.value.refusal.rule == "max_delta"


def test_training_and_figures_together_are_one_studys_epsilon(tmp_path):
    """Each alone is within what this hospital gives one study; a patient pays both."""
    world = make_world(tmp_path, private_study(), max_epsilon_per_study=1.9)
    with pytest.raises(Declined) as caught:
        prepare(world.home, world.store, world.ledger, world.digest, RoomInProcess)
    assert caught.value.refusal.rule == "max_epsilon_per_study"
    assert caught.value.refusal.explanation.startswith("epsilon 1 and 1 for test figures is more")
    enough = make_world(tmp_path / "more", private_study(), max_epsilon_per_study=2.0)
    prepare(enough.home, enough.store, enough.ledger, enough.digest, RoomInProcess)


def test_the_noise_is_as_wide_as_the_mechanism_says(world):
    study = private_study()
    events = SignedEvents(world.home, world.store)
    figures = PrivateFigures(world.ledger, events, study=study, digest=study.digest(), dataset="cardiology")
    values_of(world)
    plan = world.plan(round=3)
    nobody = scores(0)
    drawn = np.concatenate(
        [np.concatenate(list(figures._draw(plan, nobody).values())[:-1]) for _ in range(200)]
    )  # 200 draws of 61 counts of 0: the standard deviation is known to 0.64 %, so 4 % is over 6 sigma
    assert drawn.std() == pytest.approx(mechanism_of(study).share_std, rel=0.04)
    assert abs(drawn.mean()) < 6 * mechanism_of(study).share_std / np.sqrt(drawn.size)


def test_training_and_figures_together_must_fit_before_the_study_begins(world):
    """Each alone would: the cap is 1.5 and both cost 1."""
    ready = prepare(world.home, world.store, world.ledger, world.digest, RoomInProcess)
    about = {"study": ready.study, "digest": world.digest, "dataset": ready.dataset}
    training = ready.spec.privacy.study_event()
    policy = world.home.config.policy
    admit_figures(world.ledger, **about, policy=policy, training=training)
    tight = policy.model_copy(update={"max_epsilon_total": 1.5})
    with pytest.raises(BudgetExceeded):
        admit_figures(world.ledger, **about, policy=tight, training=training)


@pytest.mark.parametrize("name", ["small-study", "a" * 64, "b" * 50 + "-" + "b" * 13])
def test_the_line_in_the_ledger_has_a_name_that_entries_take(name):
    found = ledger_name(name)
    assert found.startswith(name[:50])
    assert re.fullmatch(NAME.regex, found)

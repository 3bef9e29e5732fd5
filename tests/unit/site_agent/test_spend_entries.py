"""Entries for what was spent: each attempt once, in order, with totals that are the ledger's."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest

from audit import entries
from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledDiscreteGaussian
from site_agent.errors import LedgerRefused
from site_agent.figures_account import budget_digest, figures_event, ledger_name
from site_agent.ledger import Ledger
from site_agent.ledger_caps import Limits, added
from site_agent.ledger_restore import restore_ledger
from site_agent.signed_events import SignedEvents
from site_agent.spend_entries import epsilon_so_far, sign_figures, sign_spends
from site_agent.store import Store
from site_agent.told import Told
from site_agent.training_spec import spec_of
from tests.fakes.site_world import make_world, small_study

STUDY = small_study(training={"rounds": 6})
EVENT = spec_of(STUDY, declared_patients=100).privacy.round_event()
SHARED = DpEvent(
    mechanism=PoissonSampledDiscreteGaussian(
        noise_multiplier=5.0,
        sampling_rate=0.2,
        steps=1,
        clip_norm_l2=0.5,
        shares=3,
        grid_spacing=2.0**-20,
        dimension=14,
    )
)
MEASURED = small_study(
    training={"rounds": 6},
    evaluation={"privacy": {"epsilon": 0.5, "delta": 1e-4}, "score_bins": 20, "subgroup_bins": 10},
)
FIGURES = figures_event(MEASURED)
LIMITS = Limits(study_epsilon=9, study_delta=1e-3, total_epsilon=9, total_delta=1e-3)


@pytest.fixture
def world(tmp_path):
    return make_world(tmp_path, STUDY)


def reserve(world, number, *, attempt=1, event=EVENT):
    return world.ledger.reserve(
        dataset="ward",
        study=STUDY.study_id,
        study_digest=STUDY.digest(),
        round_number=number,
        attempt=attempt,
        event=event,
        limits=LIMITS,
    )


def sign(world):
    sign_spends(world.ledger, SignedEvents(world.home, world.store), STUDY, STUDY.digest(), "ward")


def signed(world):
    found = [entries.parse_entry(data) for data in world.store.signed_entries()]
    return [(e.round, e.attempt, e.event.steps, e.steps_total, e.epsilon) for e in found if e.TYPE == "dp.spent"]


def every(world):
    return [entries.parse_entry(data) for data in world.store.signed_entries() if b'.spent"' in data]


def draw(world, number):
    event = FIGURES.with_steps(1)
    reservation = world.ledger.reserve(
        dataset="ward",
        study=ledger_name(STUDY.study_id),
        study_digest=budget_digest(STUDY.digest()),
        round_number=number,
        attempt=1,
        event=event,
        limits=replace(LIMITS, study_delta=1e-4),
    )
    world.ledger.settle(reservation, event)


def of_draws(steps):
    return accountant.epsilon([FIGURES.with_steps(steps)], delta=1e-4)


def of(steps, event=EVENT):
    return accountant.epsilon([event.with_steps(steps)], delta=1e-3)


def test_one_entry_for_one_training(world):
    world.ledger.settle(reserve(world, 1), EVENT)
    sign(world)
    sign(world)
    assert signed(world) == [(1, 1, 1, 1, of(1))]
    assert world.store.told() == (
        Told(study_digest=STUDY.digest(), study=STUDY.id, dataset="ward", round=1, attempt=1, steps=1),
    )


def test_what_failed_or_died_is_signed_with_the_next_one(world):
    reserve(world, 1)  # its process died, or its training failed
    world.ledger.release(reserve(world, 1, attempt=2))
    world.ledger.settle(reserve(world, 1, attempt=3), EVENT)
    sign(world)
    assert signed(world) == [(1, 1, 1, 1, of(1)), (1, 3, 1, 2, of(2))]
    assert world.ledger.report()[0].steps == 2


def test_both_kinds_of_noise_are_signed_and_restored(world, tmp_path):
    world.ledger.settle(reserve(world, 1), EVENT)
    world.ledger.settle(reserve(world, 2, event=SHARED), SHARED)
    sign(world)
    whole = world.ledger.report()
    empty = Ledger(tmp_path / "new.db", told=world.store.told)
    assert restore_ledger(world.store, empty) == 2
    empty.require_current()
    assert [(row.steps, row.epsilon, row.delta) for row in empty.report()] == [
        (row.steps, row.epsilon, row.delta) for row in whole
    ]
    assert SHARED in empty.report()[0].events


def test_training_and_figures_are_signed_apart_and_restored_apart(world, tmp_path):
    world.ledger.settle(reserve(world, 1), EVENT)
    draw(world, 1)
    draw(world, 3)
    sign(world)
    assert [e.TYPE for e in every(world)] == ["dp.spent"]
    sign_figures(world.ledger, SignedEvents(world.home, world.store), MEASURED, STUDY.digest(), "ward")
    sign_figures(world.ledger, SignedEvents(world.home, world.store), MEASURED, STUDY.digest(), "ward")
    spent = [e for e in every(world) if e.TYPE == "figures.spent"]
    assert [(e.round, e.steps_total, e.epsilon) for e in spent] == [(1, 1, of_draws(1)), (3, 2, of_draws(2))]
    assert {e.study for e in every(world)} == {STUDY.id}
    world.decide()
    empty = Ledger(tmp_path / "new.db", told=world.store.told)
    assert restore_ledger(world.store, empty) == 3
    empty.require_current()
    assert empty.report() == world.ledger.report()


def test_two_that_sign_at_once_sign_once(world, monkeypatch):
    """Both have looked before either has signed."""
    world.ledger.settle(reserve(world, 1), EVENT)
    both, since = threading.Barrier(2), Ledger.since

    def together(*args, **options):
        found = since(*args, **options)
        both.wait(10)
        return found

    monkeypatch.setattr(Ledger, "since", together)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: sign(world), range(2)))
    assert [e[:4] for e in signed(world)] == [(1, 1, 1, 1)]


def test_an_attempt_before_one_that_was_signed_for_is_not_begun(world):
    """Its entry would never come, and so a rolled-back ledger would not be missed it."""
    reserve(world, 2, attempt=2)
    sign(world)
    for number, attempt in ((1, 1), (2, 1)):
        with pytest.raises(LedgerRefused, match="comes before one of the same study that was signed for"):
            reserve(world, number, attempt=attempt)
    assert not reserve(world, 2, attempt=2).fresh
    reserve(world, 2, attempt=3)


def test_a_spend_of_a_study_nobody_remembers_counts_too(world, tmp_path):
    world.ledger.settle(reserve(world, 1), EVENT)
    sign(world)
    with closing(sqlite3.connect(tmp_path / "agent.db")) as connection, connection:
        connection.execute("DELETE FROM decisions")
    empty = Ledger(tmp_path / "new.db")
    assert restore_ledger(world.store, empty) == 1
    assert empty.spent("ward", delta=1e-3).epsilon == of(1)


def test_a_memory_of_the_version_before_learns_what_was_signed(world, tmp_path):
    for number in (1, 2):
        world.ledger.settle(reserve(world, number), EVENT)
        sign(world)
    told = world.store.told()
    world.store.close()
    with closing(sqlite3.connect(tmp_path / "agent.db")) as connection, connection:
        connection.execute("DROP TABLE told")
    assert Store(tmp_path / "agent.db").told() == told
    assert told[0].steps == 2


@pytest.mark.parametrize("planned", [1, 99, 100, 101, 1000])
def test_epsilon_so_far_is_never_too_small_and_exact_at_the_end(planned):
    event = EVENT.with_steps(1)
    rounds = max(1, planned - 3)
    exact = {1, 2, 64, rounds, planned}
    before, asked = 0.0, {planned // 3 or 1, planned // 2 or 1, planned - 1 or 1, *(n for n in exact if n <= planned)}
    for steps in sorted(asked):
        said = epsilon_so_far(added({}, [event.with_steps(steps)]), delta=1e-3, ends=(rounds, planned))
        assert of(steps) <= said <= accountant.renyi_epsilon([event.with_steps(steps)], delta=1e-3)
        assert before <= said <= of(planned)
        before = said
        if steps in exact:
            assert said == of(steps)

"""A-13: a site states a smaller epsilon than its steps cost, runs more steps than planned, or exceeds the budget.

Held by: step 17, which adds up the steps and bounds their cost from below and above with arithmetic of its own. The
classic mistake of reporting each round's epsilon alone, instead of all rounds together, is caught by the lower bound.
Tried: rows a13 of `mutations.py`.
"""

import pytest

from audit import entries, verify
from tests.fakes.sample_study_log import (
    BUDGET,
    DELTA,
    RATE,
    SIGMA,
    STEPS,
    SampleConsortium,
    evidence,
    failed_steps,
    plausible_epsilon,
)

PRIVACY = "privacy spent"


def failure(tmp_path, sample):
    archive, policy = evidence(tmp_path, sample)
    return failed_steps(verify.check(str(archive), policy))[PRIVACY]


def trained(rounds=3, **options):
    sample = SampleConsortium(rounds=rounds)
    sample.opening()
    sample.agreeing()
    for number in range(1, rounds + 1):
        sample.one_round(number, **options)
    return sample


def test_one_rounds_epsilon_instead_of_all(tmp_path):
    step = failure(tmp_path, trained(spend=lambda _, steps: plausible_epsilon(STEPS)))
    assert step["expected"].startswith("between")
    assert "dp.spent of cleveland, epsilon" in step["where"]


def test_an_epsilon_above_every_bound(tmp_path):
    assert failure(tmp_path, trained(spend=lambda _, steps: 0.99))["found"] == "0.99"


def test_above_the_studys_budget(tmp_path):
    step = failure(tmp_path, trained(spend=lambda _, steps: BUDGET + 0.001))
    assert step["expected"] == f"epsilon up to {BUDGET} at delta {DELTA}"


def test_an_epsilon_that_shrinks(tmp_path):
    assert "at least" in failure(tmp_path, trained(spend=lambda _, steps: 0.9 - steps / 100))["expected"]


@pytest.mark.parametrize(
    ("noise_multiplier", "sampling_rate", "steps", "total"),
    [(SIGMA / 2, RATE, STEPS, STEPS), (SIGMA, 2 * RATE, STEPS, STEPS), (SIGMA, RATE, 50, 50), (SIGMA, RATE, STEPS, 9)],
    ids=["less noise", "larger sample", "more steps than planned", "steps that do not add up"],
)
def test_steps_that_are_not_the_planned_ones(tmp_path, noise_multiplier, sampling_rate, steps, total):
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing()
    event = entries.PoissonSampledGaussian(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, steps=steps)
    sample.site(
        "cleveland",
        entries.DpSpent,
        round=1,
        attempt=1,
        dataset="heart",
        event=event,
        epsilon=0.5,
        delta=DELTA,
        steps_total=total,
    )
    assert "dp.spent of cleveland" in failure(tmp_path, sample)["where"]


def test_another_delta(tmp_path):
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing()
    event = entries.PoissonSampledGaussian(noise_multiplier=SIGMA, sampling_rate=RATE, steps=STEPS)
    fields = {"round": 1, "attempt": 1, "dataset": "heart", "epsilon": 0.2, "delta": 0.1, "steps_total": STEPS}
    sample.site("cleveland", entries.DpSpent, event=event, **fields)
    assert failure(tmp_path, sample)["found"] == "0.2 at 0.1"


@pytest.mark.parametrize(("spare", "local", "holds"), [(1, STEPS, True), (0, STEPS, False), (1, STEPS + 1, False)])
def test_a_plan_for_other_steps_than_the_study_has(tmp_path, spare, local, holds):
    """Noise and epsilon can agree with each other, and be for a longer study than the one that was approved."""
    sample = SampleConsortium(rounds=3)
    sample.change_document(training={"rounds": 3, "spare_rounds": spare, "local_steps": local})
    sample.opening()
    sample.agreeing()
    sample.one_round(1)
    archive, policy = evidence(tmp_path, sample)
    steps = failed_steps(verify.check(str(archive), policy))
    assert (PRIVACY not in steps) is holds
    assert holds or (steps[PRIVACY]["where"].endswith("steps_planned") and steps[PRIVACY]["found"] == str(4 * STEPS))


def test_the_plan_of_a_hospital_that_trains_in_turn():
    training = {"rounds": 10, "spare_rounds": 2, "local_steps": 5, "participants_per_round": 3}
    document = {"training": training, "sites": {"required": list("abcdefg")}}
    assert verify.planned_steps(document) == (5 + 2) * 5  # ceil(10 * 3 / 7) turns
    assert verify.planned_steps({"training": {**training, "participants_per_round": None}}) == 60
    assert verify.planned_steps({"training": {"rounds": 10}}) is None
    assert verify.planned_steps(None) is None

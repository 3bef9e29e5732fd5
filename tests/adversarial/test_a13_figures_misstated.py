"""A-13: a site states less than its test figures cost, draws them more often, or passes the study's budget for them.

Held by: step 17, `_check_figures` and `_check_draw`, against study.json and with the same arithmetic as for training.
Tried: rows a13 of `mutations.py`; besides, without the comparison with the budget, the bounds, the sum of steps or the
grid, and without `_check_certified_figures`, the cases that are about it verify.
"""

import pytest

from audit import verify
from tests.fakes.sample_study_log import (
    DELTA,
    FIGURES_BUDGET,
    FIGURES_DELTA,
    FIGURES_SIGMA,
    SITES,
    SampleConsortium,
    drawn,
    evidence,
    failed_steps,
    figures_epsilon,
    plausible_epsilon,
)

PRIVACY = "privacy spent"


def study(draw, *, rounds=3, figures=True):
    """All sites train and draw in every round; `draw` writes the entries of hungary."""
    sample = SampleConsortium(rounds=rounds, figures=figures)
    sample.opening()
    sample.agreeing()
    for number in range(1, rounds + 1):
        sample.one_round(number)
        for site in SITES if figures else SITES[1:2]:
            if site == SITES[1]:
                draw(sample, number)
            else:
                sample.draw(site, round=number)
    return sample


def result(tmp_path, sample):
    archive, policy = evidence(tmp_path, sample)
    return verify.check(str(archive), policy)


def failure(tmp_path, draw, **options):
    return failed_steps(result(tmp_path, study(draw, **options)))[PRIVACY]


def test_honest_figures_verify(tmp_path):
    sample = study(lambda sample, number: sample.draw("hungary", round=number))
    sample.ending()
    found = result(tmp_path, sample)
    assert found["verified"], failed_steps(found)
    line = next(step for step in found["steps"] if step["title"] == PRIVACY)
    assert f"test figures of hungary {figures_epsilon(3):.4f}" in line["detail"]


def test_above_what_the_study_allows_them(tmp_path):
    """Above their own budget, though it would be within the training's were there none for figures."""
    step = failure(tmp_path, lambda s, n: s.draw("hungary", round=n, epsilon=FIGURES_BUDGET + 0.001))
    assert step["expected"] == f"epsilon up to {FIGURES_BUDGET} at delta {FIGURES_DELTA} for test figures"
    assert "figures.spent of hungary, epsilon and delta" in step["where"]


def test_one_draw_instead_of_all(tmp_path):
    step = failure(tmp_path, lambda s, n: s.draw("hungary", round=n, epsilon=figures_epsilon(1)))
    assert step["expected"].startswith("between")
    assert "figures.spent of hungary, epsilon)" in step["where"]


def test_an_epsilon_above_every_bound(tmp_path):
    assert failure(tmp_path, lambda s, n: s.draw("hungary", round=n, epsilon=1.99))["found"] == "1.99"


def test_an_epsilon_that_shrinks(tmp_path):
    step = failure(tmp_path, lambda s, n: s.draw("hungary", round=n, epsilon=0.9 - n / 100))
    assert step["expected"] == "at least 0.89"


def test_in_a_study_that_gives_them_no_budget(tmp_path):
    step = failure(tmp_path, lambda s, n: s.draw("hungary", round=n), figures=False)
    assert step["expected"] == "a study whose test figures have a budget"


def test_more_draws_than_the_study_plans(tmp_path):
    """Three rounds and the last evaluation: not a fifth."""

    def twice(sample, number):
        for attempt in (1, 2):
            sample.draw("hungary", round=number, attempt=attempt)

    step = failure(tmp_path, twice)
    assert (step["expected"], step["found"]) == ("5, at most 4", "5")


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"steps_total": 9}, "steps_total"),
        ({"delta": DELTA}, "epsilon and delta"),
        ({"event": drawn(2)}, "steps_total"),
        ({"event": drawn(clip_norm_l2=1.0)}, "event.clip_norm_l2"),
        ({"event": drawn(shares=3)}, "event"),
        ({"event": drawn(sampling_rate=0.5)}, "event"),
        ({"event": drawn(noise_multiplier=FIGURES_SIGMA / 2)}, "epsilon"),
        ({"event": drawn(grid_spacing=1.0)}, "grid_spacing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_draws_that_are_something_else(tmp_path, changed, where):
    step = failure(tmp_path, lambda s, n: s.draw("hungary", round=n, **changed), rounds=1)
    assert "figures.spent of hungary" in step["where"]
    assert where in step["where"]


def test_a_hospital_that_logged_no_draw_is_named(tmp_path):
    sample = study(lambda sample, number: number > 1 and sample.draw("hungary", round=number))
    notes = " ".join(result(tmp_path, sample)["notes"])
    assert "Test figures without a figures.spent entry of the site: hungary in round 1." in notes
    sample = study(lambda sample, number: sample.draw("hungary", round=number))
    assert "Test figures without" not in " ".join(result(tmp_path / "whole", sample)["notes"])


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"epsilon_figures": 0.0, "delta_figures": 0.0}, "delta_figures"),
        ({"epsilon_figures": figures_epsilon(1)}, "epsilon_figures"),
        ({"epsilon_figures": FIGURES_BUDGET}, "epsilon_figures"),
        ({"delta_figures": DELTA}, "delta_figures"),
        ({"epsilon_dataset": plausible_epsilon(2), "delta_dataset": FIGURES_DELTA}, "epsilon_dataset"),
        ({"epsilon_dataset": 0.99 * figures_epsilon(3), "delta_dataset": FIGURES_DELTA}, "epsilon_dataset"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_certificate_that_says_less_of_them(tmp_path, changed, field):
    sample = study(lambda sample, number: sample.draw("hungary", round=number))
    sample.certificate("hungary", **changed)
    step = failed_steps(result(tmp_path, sample))["privacy certificates"]
    assert f"dp.certificate of hungary, {field}" in step["where"]


def test_a_certificate_of_figures_that_nobody_drew(tmp_path):
    sample = study(lambda *_: None)
    sample.certificate("hungary", epsilon_figures=0.1, delta_figures=FIGURES_DELTA)
    step = failed_steps(result(tmp_path, sample))["privacy certificates"]
    assert "the site drew no test figures with a budget" in step["expected"]

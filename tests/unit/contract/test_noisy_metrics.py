"""Figures from noisy histograms: the exact ones where there is no noise, and honest about the noise where there is."""

import numpy as np
import pytest

from consortium.contract.label_metrics import METRICS_OF_LABEL
from consortium.contract.metrics import metrics_of
from consortium.contract.noisy_metrics import basis_of, noisy_metrics
from consortium.contract.study import Evaluation
from site_agent.tally import Scores, metric_lanes

WANTED = Evaluation.model_validate(
    {
        "split": "site-held-out", "metrics": METRICS_OF_LABEL["binary"], "every_rounds": 1, "score_bins": 100,
        "specificity": 0.9, "decision_threshold": 0.5, "subgroup_bins": 50, "minimum_cell": 10,
        "privacy": {"epsilon": 1.0, "delta": 1e-5}, "subgroups": ({"column": "sex", "values": (0, 1)},),
    }
)  # fmt: skip
EXACT = WANTED.model_copy(update={"privacy": None})


def counts(seed=1, patients=3000):
    """Of one hospital: everybody and two cells, as sums without noise, and the exact lanes beside them."""
    random = np.random.default_rng(seed)
    positive = random.random(patients) < 0.4
    scores = 1 / (1 + np.exp(-random.normal(-0.8 + 1.6 * positive, 1.0)))
    everybody = Scores(scores=scores, positive=positive, groups=random.integers(0, 2, (patients, 1)))
    cells = [everybody.of_cell(0, cell).histograms(50) for cell in (0, 1)]
    histograms = everybody.histograms(100)
    sums = {
        "sites_reporting": np.ones(1),
        "test_patients": np.array([float(patients)]),
        "scores_positive": histograms[0].astype(float),
        "scores_negative": histograms[1].astype(float),
        "subgroup_positive": np.concatenate([one[0] for one in cells]).astype(float),
        "subgroup_negative": np.concatenate([one[1] for one in cells]).astype(float),
    }
    return sums, metric_lanes(everybody, EXACT)


def test_without_noise_they_are_the_exact_ones():
    sums, lanes = counts()
    found, exact = noisy_metrics(sums, WANTED, 0.0), metrics_of(lanes, EXACT)
    for name in ("auc", "accuracy", "brier", "loss", "sensitivity"):
        one, other = getattr(found.overall, name), getattr(exact.overall, name)
        assert one.value == pytest.approx(other.value, abs=0.002), name
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.005), name
    assert found.overall.score == pytest.approx(exact.overall.score, abs=0.001)
    assert [b.rate.value for b in found.calibration] == pytest.approx([b.rate.value for b in exact.calibration])
    assert [b.score for b in found.calibration] == pytest.approx([b.score for b in exact.calibration], abs=0.005)
    assert [(one.subgroup, one.cell) for one in found.cells] == [(0, 0), (0, 1)]


def test_intervals_hold_for_the_figures_without_noise_about_as_often_as_they_say():
    """40 draws of noise of two patients a bin: the interval is of patients and noise, so it holds for nearly all."""
    sums, lanes = counts()
    few = WANTED.model_copy(update={"metrics": ("auc", "brier"), "subgroups": None})
    exact, random, held, narrow = metrics_of(lanes, EXACT).overall, np.random.default_rng(3), 0, 0
    for _ in range(40):
        noisy = {n: v if n == "sites_reporting" else v + random.normal(0, 2, len(v)) for n, v in sums.items()}
        found = noisy_metrics(noisy, few, 2.0).overall
        held += found.auc.low <= exact.auc.value <= found.auc.high
        held += found.brier.low <= exact.brier.value <= found.brier.high
        narrow += found.auc.high - found.auc.low > exact.auc.high - exact.auc.low
    assert held >= 74  # of 80
    assert narrow == 40  # every one is wider than without noise


def test_what_the_noise_drowns_is_left_out():
    sums, _ = counts(patients=60)
    found = noisy_metrics(sums, WANTED, 30.0)
    assert found.cells == ()
    assert found.calibration == ()
    assert {"auc", "accuracy", "brier", "loss", "sensitivity"}.isdisjoint(found.named())


def test_negative_counts_are_no_error():
    sums = {name: -np.ones_like(values) for name, values in counts(patients=20)[0].items()}
    found = noisy_metrics({**sums, "sites_reporting": np.array([4.0])}, WANTED, 1.0)
    assert found.named() == {"sites": 4, "patients": 0}
    nobody = noisy_metrics({name: 0 * values for name, values in sums.items()}, WANTED, 1.0)
    assert nobody.named() == {"sites": 0, "patients": 0}


def test_the_log_says_what_the_figures_are():
    class Study:
        evaluation = WANTED
        has_validation = False

    assert "epsilon 1 at delta 1e-05" in basis_of(Study)
    Study.has_validation = True
    assert basis_of(Study).startswith("sums of validation patients over all survivors")
    Study.evaluation = EXACT
    assert basis_of(Study, chosen=True).startswith("exact sums of test patients over all survivors")
    Study.has_validation = False
    assert basis_of(Study) is None

"""What one hospital puts into its metric lanes, and which cells it keeps to itself."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from consortium.contract.label_metrics import METRICS_OF_LABEL
from consortium.contract.layout import LaneName
from consortium.contract.study import Evaluation
from site_agent.tally import Scores, covered, metric_lanes


def wanted(**choices):
    return Evaluation.model_validate(
        {
            "split": "site-held-out", "metrics": METRICS_OF_LABEL["binary"], "every_rounds": 1, "score_bins": 20,
            "specificity": 0.9, "decision_threshold": 0.5, **choices,
        }
    )  # fmt: skip


def scores(sizes, outside=0, seed=1):
    """Patients in the cells of one subgroup, and some in none."""
    cells = np.concatenate([np.repeat(np.arange(len(sizes)), sizes), np.full(outside, -1)])
    random = np.random.default_rng(seed)
    return Scores(scores=random.random(len(cells)), positive=random.random(len(cells)) < 0.5, groups=cells[:, None])


@pytest.mark.parametrize(("patients", "hidden"), [(0, 0), (7, 7), (10, 10), (11, 10), (400, 10)])
def test_the_cover_is_as_many_patients_as_a_cell_needs(patients, hidden):
    cover = covered(patients, 10)
    assert (len(cover), cover.sum()) == (patients, hidden)
    assert (covered(patients, 10) == cover).all()  # in every round the same


def test_the_cover_is_chosen_from_all_over_the_file():
    assert np.flatnonzero(covered(400, 40)).mean() == pytest.approx(200, abs=60)


def test_a_withheld_cell_is_zero_in_every_lane():
    bands = {"column": "age", "bands": (50.0, 60.0)}
    here = scores([9, 0, 50])
    lanes = metric_lanes(here, wanted(subgroups=(bands,)))
    subgroup = [name for name in lanes if name.startswith("subgroup_")]
    assert len(subgroup) == 9
    for name in subgroup:
        small, empty, large = lanes[name].reshape(3, -1)
        assert not small.any()
        assert not empty.any()
        assert large.any()
    cover = covered(59, 10)
    assert lanes[LaneName.SUBGROUP_PATIENTS].tolist() == [0, 0, 50 - cover[9:].sum()]
    assert lanes[LaneName.SUBGROUP_SITES].tolist() == [0, 0, 1]
    assert lanes[LaneName.TEST_PATIENTS] == [59]  # everybody is still in the figures over everybody


def test_lanes_of_a_cell_are_those_of_its_patients():
    here = scores([20, 30])
    plan = wanted(subgroups=({"column": "sex", "values": (0, 1)},), subgroup_bins=20, minimum_cell=5)
    lanes = metric_lanes(here, plan)
    here = here.of(~covered(50, 5))
    for cell in (0, 1):
        alone = metric_lanes(here.of_cell(0, cell), plan)
        for of_cell, of_all in (
            (LaneName.SUBGROUP_POSITIVE, LaneName.SCORES_POSITIVE),
            (LaneName.SUBGROUP_NEGATIVE, LaneName.SCORES_NEGATIVE),
            (LaneName.SUBGROUP_PATIENTS, LaneName.TEST_PATIENTS),
            (LaneName.SUBGROUP_CORRECT, LaneName.CORRECT),
            (LaneName.SUBGROUP_SQUARED_ERROR, LaneName.SQUARED_ERROR),
        ):
            assert lanes[of_cell].reshape(2, -1)[cell] == pytest.approx(alone[of_all])
        assert lanes[LaneName.SUBGROUP_LOSS].reshape(2, -1)[cell][0] == pytest.approx(alone[LaneName.LOSS_SUM][0])
        assert lanes[LaneName.SUBGROUP_SCORES][cell] == pytest.approx(alone[LaneName.CALIBRATION_SCORES].sum())
        assert lanes[LaneName.SUBGROUP_LABELLED][cell] == alone[LaneName.CALIBRATION_POSITIVE].sum()


def test_a_hospitals_own_figures_travel_within_0_and_1():
    here = scores([50])
    lanes = metric_lanes(here, wanted(per_site="spread"))
    auc, accuracy, brier, loss = lanes[LaneName.SITE_FIGURES][:4]
    assert auc == pytest.approx(roc_auc_score(here.positive, here.scores))
    assert accuracy == lanes[LaneName.SITE_ACCURACY][0]
    assert brier == pytest.approx(np.mean((here.scores - here.positive) ** 2))
    assert 0 < loss < 1
    assert lanes[LaneName.SITE_FIGURES][4:] == pytest.approx(np.square([auc, accuracy, brier, loss]))
    assert lanes[LaneName.SITE_COUNTED].tolist() == [1, 1, 1, 1]
    nobody = metric_lanes(here.of(np.zeros(50, dtype=bool)), wanted(per_site="spread"))
    assert nobody[LaneName.SITE_COUNTED].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("specificity", "expected"), [(0.5, 1.0), (0.75, 1.0), (0.76, 0.5), (0.9, 0.5)])
def test_the_own_sensitivity_is_at_a_score_that_keeps_the_specificity(specificity, expected):
    here = Scores(
        scores=np.array([0.1, 0.2, 0.3, 0.6, 0.5, 0.9]),
        positive=np.array([False, False, False, False, True, True]),
        groups=np.zeros((6, 0), dtype=np.int64),
    )
    assert here.sensitivity(specificity) == expected
    assert here.of(here.positive).sensitivity(specificity) is None

"""S-17: a group of few patients, or one hospital, shows in the difference of sums that are each large enough.

Held by: `site_agent.tally`, which withholds cells of fewer than `minimum_cell` patients and keeps a cover of as many
out of every cell, whatever their size. Tried: rows s17 of `mutations.py` (nobody in the cover; cells shown whatever
their size; a cover that is chosen anew every time).
"""

import numpy as np

from consortium.contract.layout import LaneName
from consortium.contract.metrics import metrics_of
from consortium.contract.study import Evaluation
from site_agent.tally import Scores, metric_lanes

LEAST = 10
WANTED = Evaluation.model_validate(
    {
        "split": "site-held-out", "metrics": ("auc", "brier"), "every_rounds": 1, "score_bins": 20,
        "decision_threshold": 0.5, "subgroup_bins": 20, "minimum_cell": LEAST,
        "subgroups": ({"column": "sex", "values": (0, 1)},),
    }
)  # fmt: skip


def hospital(seed: int, women: int, men: int) -> Scores:
    random = np.random.default_rng(seed)
    cells = random.permutation(np.repeat([0, 1], [women, men]))
    return Scores(scores=random.random(women + men), positive=random.random(women + men) < 0.5, groups=cells[:, None])


HOSPITALS = [hospital(1, 60, 60), hospital(2, 70, 50), hospital(3, 3, 80)]


def summed(hospitals: list[Scores]) -> dict[LaneName, np.ndarray]:
    lanes = [metric_lanes(one, WANTED) for one in hospitals]
    return {name: np.sum([lane[name] for lane in lanes], axis=0) for name in lanes[0]}


def test_a_small_group_is_in_no_sum_over_groups() -> None:
    lanes = metric_lanes(HOSPITALS[2], WANTED)
    women = [values.reshape(2, -1)[0] for name, values in lanes.items() if name.startswith("subgroup_")]
    assert len(women) >= 6
    assert not any(values.any() for values in women)


def test_everybody_minus_the_groups_is_enough_patients_of_every_hospital() -> None:
    for one in HOSPITALS:
        lanes = metric_lanes(one, WANTED)
        everybody = lanes[LaneName.SCORES_POSITIVE] + lanes[LaneName.SCORES_NEGATIVE]
        grouped = (lanes[LaneName.SUBGROUP_POSITIVE] + lanes[LaneName.SUBGROUP_NEGATIVE]).reshape(2, -1).sum(axis=0)
        assert (everybody - grouped).sum() >= LEAST
    # What a coordinator can subtract holds the three women among at least ten patients of each hospital.
    sums = summed(HOSPITALS)
    left = sums[LaneName.TEST_PATIENTS][0] - sums[LaneName.SUBGROUP_PATIENTS].sum()
    assert left >= 3 * LEAST + 3 - LEAST  # the women may be of the cover


def test_a_group_of_one_hospital_is_in_no_report() -> None:
    alone = [hospital(1, 60, 60), hospital(2, 3, 50), hospital(3, 3, 80)]
    shown = metrics_of(summed(alone), WANTED).cells
    assert [(one.cell, one.sites) for one in shown] == [(1, 3)]


def test_two_rounds_differ_by_nobody() -> None:
    once, again = summed(HOSPITALS), summed(HOSPITALS)
    for name in (LaneName.SUBGROUP_PATIENTS, LaneName.SUBGROUP_POSITIVE):
        np.testing.assert_array_equal(once[name], again[name])

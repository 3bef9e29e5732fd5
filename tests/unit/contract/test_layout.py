"""The lanes of a round follow from the study, the size of the network and the round alone."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from consortium.contract.digest import canonical_bytes
from consortium.contract.label_metrics import METRICS_OF_LABEL
from consortium.contract.layout import (
    LOSS_PER_PATIENT_MAX,
    LaneName,
    measures,
    round_layout,
    update_lanes,
    weight_max,
)
from consortium.contract.names import RoundNumber
from consortium.contract.plan import LANES_MAX, PARTICIPANTS_MAX, PLAN_BYTES_MAX, RoundKind
from consortium.contract.study import StudyFile, load_study
from consortium.contract.subgroups import NOISE_TAIL, EvaluationPrivacy, Subgroup
from consortium.contract.tensor_clips import STRETCHES_MAX, TensorClipsRefused
from privacy.encoding import Layout

HEART = load_study(Path(__file__).parents[3] / "configs/heart-disease/study.yaml")
PARAMETERS = (("0.bias", (1,)), ("0.weight", (1, 13)))


def changed(section: str, **values: Any) -> StudyFile:
    part = getattr(HEART, section).model_copy(update=values)
    return HEART.model_copy(update={section: part})


def train(study: StudyFile, *, measured: bool = True) -> Layout:
    return round_layout(study, parameters=PARAMETERS, kind=RoundKind.TRAIN, measured=measured)


def evaluate(study: StudyFile) -> Layout:
    return round_layout(study, parameters=PARAMETERS, kind=RoundKind.EVALUATE, measured=True)


def shape(layout: Layout) -> dict[str, tuple[int, float]]:
    return {lane.name: (lane.length, lane.clip) for lane in layout.lanes}


METRIC_LANES = {
    "sites_reporting": (1, 1.0), "test_patients": (1, 1e5), "correct": (1, 1e5), "site_accuracy": (1, 1.0),
    "loss_sum": (1, 16e5), "loss_squares": (1, 256e5), "squared_error": (2, 1e5),
    "scores_positive": (100, 1e5), "scores_negative": (100, 1e5),
    "calibration_positive": (10, 1e5), "calibration_negative": (10, 1e5), "calibration_scores": (10, 1e5),
}  # fmt: skip
SUBGROUP_LANES = {  # women, men, below 55 years, 55 and above
    "subgroup_sites": (4, 1.0), "subgroup_patients": (4, 1e5), "subgroup_correct": (4, 1e5),
    "subgroup_loss": (8, 256e5), "subgroup_squared_error": (8, 1e5), "subgroup_labelled": (4, 1e5),
    "subgroup_scores": (4, 1e5), "subgroup_positive": (80, 1e5), "subgroup_negative": (80, 1e5),
}  # fmt: skip


def test_lanes_of_a_training_round() -> None:
    layout = train(HEART)
    assert shape(layout) == {"update": (14, 4.0), "weight": (1, 1.0)} | METRIC_LANES | SUBGROUP_LANES
    assert layout.modulus_bits == 32
    assert layout.length == 14 + 1 + 8 + 200 + 30 + 4 * 9 + 160


def test_lanes_of_the_evaluation_round_carry_no_update() -> None:
    assert shape(evaluate(HEART)) == METRIC_LANES | SUBGROUP_LANES


@pytest.mark.parametrize(
    ("metrics", "lanes"),
    [
        (("auc",), {"scores_positive", "scores_negative"}),
        (("sensitivity",), {"scores_positive", "scores_negative"}),
        (("accuracy",), {"correct", "site_accuracy"}),
        (("loss",), {"loss_sum", "loss_squares"}),
        (("brier",), {"squared_error"}),
        (("calibration",), {"calibration_positive", "calibration_negative", "calibration_scores"}),
    ],
)
def test_only_the_metrics_asked_for_get_lanes(metrics: tuple[str, ...], lanes: set[str]) -> None:
    always = {"sites_reporting", "test_patients"}
    assert set(shape(evaluate(changed("evaluation", metrics=metrics, subgroups=None)))) == always | lanes
    # The same in every cell, under the name the subgroup's lane has for it.
    twins = {
        "scores_positive": "positive", "scores_negative": "negative", "correct": "correct", "loss_sum": "loss",
        "squared_error": "squared_error", "calibration_positive": "labelled", "calibration_scores": "scores",
    }  # fmt: skip
    of_cells = {"sites", "patients"} | {twins[name] for name in lanes & set(twins)}
    found = set(shape(evaluate(changed("evaluation", metrics=metrics))))
    assert found == always | lanes | {f"subgroup_{name}" for name in of_cells}


def test_a_spread_has_lanes_for_the_figures_that_hospitals_have() -> None:
    layout = evaluate(changed("evaluation", metrics=("loss", "auc", "sensitivity"), per_site="spread"))
    assert shape(layout)["site_figures"] == (4, 1.0)
    assert shape(layout)["site_counted"] == (2, 1.0)
    assert "site_counted" not in shape(evaluate(changed("evaluation", metrics=("calibration",), per_site="spread")))


def test_with_a_budget_there_are_histograms_alone() -> None:
    layout = evaluate(changed("evaluation", privacy=EvaluationPrivacy(epsilon=1.0, delta=1e-3)))
    clip = 1e5 + NOISE_TAIL
    assert shape(layout) == {
        "sites_reporting": (1, 1.0), "test_patients": (1, clip), "scores_positive": (100, clip),
        "scores_negative": (100, clip), "subgroup_positive": (80, clip), "subgroup_negative": (80, clip),
    }  # fmt: skip
    assert all(lane.scale >= 256 for lane in layout.lanes[1:])
    layout.check(len(HEART.sites.required))


def test_a_ring_has_room_for_every_metric_of_the_largest_study() -> None:
    cells = tuple(Subgroup(column="age", bands=tuple(range(1, 16))) for _ in range(2))
    everything = changed(
        "evaluation",
        metrics=METRICS_OF_LABEL["binary"],
        specificity=0.9,
        per_site="spread",
        subgroups=cells,
        subgroup_bins=1000,
    )
    for bits, patients in ((16, 100), (32, 1_000_000), (64, 10_000_000)):
        aggregation = everything.aggregation.model_copy(
            update={"modulus_bits": bits, "max_patients_per_site": patients}
        )
        sites = everything.sites.model_copy(update={"required": tuple(f"site-{index:03}" for index in range(128))})
        layout = evaluate(everything.model_copy(update={"aggregation": aggregation, "sites": sites}))
        layout.check(128)
        of_classes = {name for name in LaneName if name.startswith(("class_", "dice_", "confusion"))}
        assert set(shape(layout)) == set(LaneName) - {LaneName.UPDATE, LaneName.WEIGHT} - of_classes


@pytest.mark.parametrize(("every", "with_metrics"), [(1, {1, 2, 3, 4, 5, 6, 7}), (3, {1, 4, 7}), (20, {1})])
def test_training_rounds_measure_every_so_often(every: int, with_metrics: set[int]) -> None:
    study = changed("evaluation", every_rounds=every)
    for number in range(1, 8):
        assert measures(study, RoundKind.TRAIN, RoundNumber(number)) == (number in with_metrics)
        assert measures(study, RoundKind.EVALUATE, RoundNumber(number))


def test_a_round_may_go_without_metrics() -> None:
    assert set(shape(train(HEART, measured=False))) == {"update", "weight"}


def test_weights_are_one_or_the_declared_patients() -> None:
    by_patients = changed("training", weighting="patients")
    assert weight_max(HEART) == 1.0
    assert weight_max(by_patients) == 1e5
    assert shape(train(by_patients))["weight"] == (1, 1e5)


COUNTS = {
    LaneName.WEIGHT, LaneName.SITES_REPORTING, LaneName.TEST_PATIENTS, LaneName.CORRECT,
    LaneName.SCORES_POSITIVE, LaneName.SCORES_NEGATIVE, LaneName.CALIBRATION_POSITIVE, LaneName.CALIBRATION_NEGATIVE,
    LaneName.SUBGROUP_SITES, LaneName.SUBGROUP_PATIENTS, LaneName.SUBGROUP_CORRECT, LaneName.SUBGROUP_LABELLED,
    LaneName.SUBGROUP_POSITIVE, LaneName.SUBGROUP_NEGATIVE,
}  # fmt: skip


@pytest.mark.parametrize(("bits", "patients"), [(16, 200), (32, 10_000), (64, 10_000_000)])
@pytest.mark.parametrize("sites", [3, 4, 100, 128])
@pytest.mark.parametrize("update_clip", [1e-9, 1e-3, 1.0, 4.0, 7.5, 1e6])
def test_counts_are_exact_and_the_rest_as_fine_as_the_ring_allows(
    bits: int, patients: int, sites: int, update_clip: float
) -> None:
    names = tuple(f"site-{index:03}" for index in range(sites))
    study = changed("aggregation", modulus_bits=bits, update_clip=update_clip, max_patients_per_site=patients)
    study = study.model_copy(update={"sites": study.sites.model_copy(update={"required": names})})
    layout = train(study)
    layout.check(sites)
    room = 2 ** (bits - 1) - 1
    for lane in layout.lanes:
        assert lane.is_count == (lane.name in COUNTS)
        if not lane.is_count:
            scale = Fraction(lane.scale)
            assert scale.numerator & (scale.numerator - 1) == 0
            assert scale.denominator & (scale.denominator - 1) == 0
            assert sites * (Fraction(lane.clip) * scale + 1) <= room
            # The largest such power of two; where that is 1, which marks counts, the next below it.
            assert sites * (Fraction(lane.clip) * scale * 2 + 1) > room or scale == Fraction(1, 2)


# --- clips by parameter --------------------------------------------------------------------------------------------


def test_parameters_with_a_clip_of_their_own_have_lanes_of_their_own() -> None:
    layout = train(changed("aggregation", tensor_clips={"0.bias": 0.5}), measured=False)
    assert shape(layout) == {"update/0": (1, 0.5), "update/1": (13, 4.0), "weight": (1, 1.0)}
    fine, coarse = update_lanes(layout)
    assert fine.scale == 8 * coarse.scale  # as fine as its own clip allows
    layout.check(len(HEART.sites.required))


def test_one_clip_for_all_is_the_lane_it_always_was() -> None:
    assert train(changed("aggregation", tensor_clips={"0.bias": 4.0})) == train(HEART)
    assert train(changed("aggregation", tensor_clips={"*": 4.0})) == train(HEART)
    assert [lane.name for lane in update_lanes(train(HEART))] == ["update"]


def test_the_lanes_of_an_update_add_up_to_the_parameters_in_their_order() -> None:
    parameters = tuple((f"layer{index}.{kind}", (index + 1,)) for index in range(9) for kind in ("bias", "weight"))
    study = changed("aggregation", tensor_clips={"layer0.*": 1.0, "layer4.bias": 2.0, "layer8.weight": 3.0})
    layout = round_layout(study, parameters=parameters, kind=RoundKind.TRAIN, measured=True)
    assert [(lane.length, lane.clip) for lane in update_lanes(layout)] == [
        (2, 1.0), (4 + 6 + 8, 4.0), (5, 2.0), (5 + 12 + 14 + 16 + 9, 4.0), (9, 3.0),
    ]  # fmt: skip
    assert sum(lane.length for lane in update_lanes(layout)) == sum(size for _, (size,) in parameters)


def test_a_round_of_evaluation_has_no_lane_of_an_update() -> None:
    assert update_lanes(evaluate(changed("aggregation", tensor_clips={"0.bias": 0.5}))) == ()


def test_clips_that_do_not_fit_the_parameters_are_refused() -> None:
    with pytest.raises(TensorClipsRefused, match="head"):
        train(changed("aggregation", tensor_clips={"head": 0.5}))


def test_a_plan_holds_the_most_lanes_that_a_study_can_have() -> None:
    everything = changed("evaluation", metrics=METRICS_OF_LABEL["binary"], specificity=0.9, per_site="spread")
    parameters = tuple(
        (f"{index:04}.{kind}", (2**21,)) for index in range(STRETCHES_MAX // 2) for kind in ("bias", "weight")
    )
    awkward = {"modulus_bits": 16, "update_clip": 1 / 3, "tensor_clips": {"*.bias": 1e-9 / 3}}
    study = everything.model_copy(update={"aggregation": everything.aggregation.model_copy(update=awkward)})
    layout = round_layout(study, parameters=parameters, kind=RoundKind.TRAIN, measured=True)
    assert len(update_lanes(layout)) == STRETCHES_MAX
    assert len(layout.lanes) <= LANES_MAX
    lanes = len(canonical_bytes(layout.canonical()))  # type: ignore[arg-type]
    others = PARTICIPANTS_MAX * (40 + 64 + 64 + 130 + 16) + 2000
    assert lanes + others < PLAN_BYTES_MAX


def test_a_real_lane_never_has_the_scale_that_marks_counts() -> None:
    # Clip 16 * 256 in a ring of 16 bits with 4 sites: the largest power of two that fits is exactly 1.
    study = changed("aggregation", modulus_bits=16, max_patients_per_site=256)
    lane = next(lane for lane in evaluate(study).lanes if lane.name == LaneName.LOSS_SUM)
    assert (lane.clip, lane.scale) == (LOSS_PER_PATIENT_MAX * 256, 0.5)

"""Which metrics a study may ask for depends on its label; each has lanes of the right length in the ring."""

from pathlib import Path

import numpy as np
import pytest

from consortium.contract.catalogue import METRICS
from consortium.contract.label_metrics import METRICS_OF_LABEL, metrics_fit_label
from consortium.contract.layout import LaneName, round_layout
from consortium.contract.metrics import metrics_of
from consortium.contract.plan import RoundKind
from consortium.contract.schema import problems_of
from consortium.contract.study import StudyFile, load_study
from consortium.contract.study_data import BinaryLabel, ClassesLabel, ImagingData, MaskLabel
from consortium.contract.subgroups import EvaluationPrivacy
from privacy.encoding import Layout, decode, encode
from privacy.secret import Secret
from site_agent.class_tally import ClassScores
from site_agent.dice_tally import Overlaps

HEART = load_study(Path(__file__).parents[3] / "configs/heart-disease/study.yaml")
BINARY = BinaryLabel(type="binary", positive_above=0)
BUDGET = EvaluationPrivacy(epsilon=1.0, delta=1e-5)


def classes(count: int) -> ClassesLabel:
    return ClassesLabel(type="classes", values=tuple(range(count)))


def mask(count: int) -> MaskLabel:
    return MaskLabel(type="mask", values=tuple(range(count)))


def imaging(label: ClassesLabel | MaskLabel, *metrics: str) -> StudyFile:
    """The heart study with images; only what lanes follow from is looked at."""
    evaluation = HEART.evaluation.model_copy(update={"metrics": metrics, "subgroups": None, "score_bins": 20})
    data = ImagingData.model_validate(
        {
            "kind": "imaging", "task": "segmentation" if label.type == "mask" else "classification", "modality": "MR",
            "channels": 1, "shape": (16, 16), "intensity": {"range": (0.0, 1.0)}, "label": label,
            "minimum_patients": 4, "split": {"test_fraction": 0.5, "seed": 1, "stratify": False},
        }
    )  # fmt: skip
    return HEART.model_copy(update={"evaluation": evaluation, "data": data})


def lanes_of(study: StudyFile) -> Layout:
    return round_layout(study, parameters=(), kind=RoundKind.EVALUATE, measured=True)


def test_every_metric_belongs_to_a_label() -> None:
    assert set(METRICS) == {metric for metrics in METRICS_OF_LABEL.values() for metric in metrics}


@pytest.mark.parametrize(
    ("label", "metrics", "found", "allowed"),
    [
        (BINARY, ("dice",), "dice", "with labels of type binary one of auc, accuracy, loss, brier, calibration, sens"),
        (BINARY, ("confusion",), "confusion", "with labels of type binary one of"),
        (classes(3), ("loss", "brier"), "brier", "with labels of type classes one of auc, accuracy, loss, confusion"),
        (mask(3), ("accuracy",), "accuracy", "with labels of type mask one of loss, dice"),
        (classes(25), ("confusion",), "confusion of 25 values", "at most 24 values of the label"),
        (classes(101), ("auc",), "auc of 101 values", "at most 100 values of the label"),
        (mask(65), ("dice",), "dice of 65 values", "at most 64 values of the label"),
    ],
)
def test_a_metric_that_does_not_fit_the_label(
    label: BinaryLabel | ClassesLabel | MaskLabel, metrics: tuple[str, ...], found: str, allowed: str
) -> None:
    (finding,) = metrics_fit_label(label, metrics, 100, None)
    assert finding.at == f"evaluation.metrics[{len(metrics) - 1}]"
    assert finding.found == found
    assert finding.allowed.startswith(allowed)


def test_histograms_of_many_classes_have_few_bins() -> None:
    (finding,) = metrics_fit_label(classes(100), ("auc",), 1001, None)
    assert (finding.at, finding.allowed[:12]) == ("evaluation.score_bins", "at most 1000")
    assert not list(metrics_fit_label(classes(100), ("auc",), 1000, None))
    assert not list(metrics_fit_label(classes(100), ("loss",), 10_000, None))


def test_noisy_figures_are_of_binary_labels() -> None:
    assert not list(metrics_fit_label(BINARY, ("auc",), 100, BUDGET))
    for label, metric in ((classes(3), "auc"), (mask(3), "dice")):
        (finding,) = metrics_fit_label(label, (metric,), 100, BUDGET)
        assert finding.at == "evaluation.privacy"
        assert "binary labels only" in finding.allowed


def test_the_rule_is_one_of_the_study_file() -> None:
    document = HEART.model_dump(by_alias=True, exclude_none=True)
    document["evaluation"]["metrics"] = ("sensitivity", "dice")
    problems = problems_of(StudyFile, document)
    assert [(one.path, one.found) for one in problems] == [("evaluation.metrics[1]", "dice")]


def test_what_labels_of_several_classes_need_not_say_has_a_default() -> None:
    document = HEART.model_dump(by_alias=True, exclude_none=True)
    for key in ("score_bins", "decision_threshold"):
        del document["evaluation"][key]
    found = StudyFile.model_validate(document).evaluation
    assert (found.score_bins, found.decision_threshold) == (100, 0.5)


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        (
            imaging(classes(3), "auc", "accuracy", "loss", "confusion"),
            {"correct": 1, "site_accuracy": 1, "loss_sum": 1, "loss_squares": 1, "confusion": 9, "class_positive": 60,
             "class_negative": 60},
        ),
        (imaging(classes(3), "confusion"), {"confusion": 9}),
        (imaging(mask(4), "dice"), {"dice_patients": 4, "dice_sums": 8, "dice_histogram": 80}),
        (imaging(mask(4), "loss"), {"loss_sum": 1, "loss_squares": 1}),
    ],
)  # fmt: skip
def test_only_the_metrics_asked_for_get_lanes(study: StudyFile, expected: dict[str, int]) -> None:
    found = {lane.name: lane.length for lane in lanes_of(study).lanes}
    assert found == {"sites_reporting": 1, "test_patients": 1} | expected


def hospitals(random: np.random.Generator, study: StudyFile) -> list[ClassScores | Overlaps]:
    found: list[ClassScores | Overlaps] = []
    for _ in range(len(study.sites.required)):
        patients = int(random.integers(0, 50))
        if isinstance(study.data.label, MaskLabel):
            dice = random.random((patients, 4))
            dice[random.random((patients, 4)) < 0.3] = np.nan
            found.append(Overlaps(dice=dice, losses=random.random(patients)))
        else:
            values = random.dirichlet(np.ones(3), patients)
            found.append(ClassScores(probabilities=values, labels=random.integers(0, 3, patients)))
    return found


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize(
    "study", [imaging(classes(3), "auc", "accuracy", "loss", "confusion"), imaging(mask(4), "dice", "loss")]
)
def test_sums_through_the_ring_are_the_sums_of_the_hospitals(study: StudyFile, bits: int) -> None:
    """Counts exactly; real numbers to the step of their lane, once for each hospital."""
    aggregation = study.aggregation.model_copy(update={"modulus_bits": bits, "max_patients_per_site": 100})
    study = study.model_copy(update={"aggregation": aggregation})
    layout = lanes_of(study)
    several = [one.lanes(study.evaluation) for one in hospitals(np.random.default_rng(bits), study)]
    shared = [{lane.name: values[LaneName(lane.name)] for lane in layout.lanes} for values in several]
    encoded = [encode(values, layout, Secret(bytes([n]) * 32)) for n, values in enumerate(shared)]
    total = encoded[0].copy()
    for vector in encoded[1:]:
        total += vector
    sums = decode(total, layout)
    for lane in layout.lanes:
        exact = sum(values[lane.name] for values in shared)
        step = 0.0 if lane.is_count else len(shared) / float(lane.scale) + 1e-12  # of the sum in float64
        assert np.abs(sums[lane.name] - exact).max() <= step
    named = metrics_of({lane.name: sums[lane.name] for lane in layout.lanes}, study.evaluation).named()
    assert named["patients"] == sum(len(values["test_patients"]) and values["test_patients"][0] for values in shared)

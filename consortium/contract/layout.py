"""The lanes of the masked vector in one round: what every hospital's upload consists of (protocol section 5).

A function of the study, the network's parameters and the round alone, so that every site and the coordinator arrive
at the same layout and a site can refuse a plan that says otherwise.

| lane | values | length | of each site | in rounds |
|---|---|---|---|---|
| update | model difference, times weight / W_max | d | real, clipped | train |
| weight | 1, or declared patients | 1 | exact | train |
| sites_reporting | 1 if the site shares metrics, else 0 | 1 | exact | with metrics |
| test_patients | patients set aside | 1 | exact | with metrics |
| correct | of them, predicted right | 1 | exact | accuracy |
| site_accuracy | correct / test_patients | 1 | real, 0 to 1 | accuracy |
| loss_sum | loss summed over them | 1 | real | loss |
| loss_squares | its square summed over them | 1 | real | loss |
| squared_error | (score - label)^2 summed over them, and its square | 2 | real | brier |
| scores_positive | patients with the label, by score | bins | exact | auc, sensitivity |
| scores_negative | patients without it, by score | bins | exact | auc, sensitivity |
| calibration_positive | patients with the label, by score | calibration bins | exact | calibration |
| calibration_negative | patients without it, by score | calibration bins | exact | calibration |
| calibration_scores | their scores summed, by score | calibration bins | real | calibration |
| site_figures | the site's own figures, then their squares | 2 for each | real, 0 to 1 | per_site: spread |
| site_counted | 1 if the site has that figure, else 0 | 1 for each | exact | per_site: spread |

A label of K classes has no `scores_` and `calibration_` lanes but

| lane | values | length | of each site | in rounds |
|---|---|---|---|---|
| confusion | patients by class (rows) and predicted class | K * K | exact | confusion |
| class_positive | for each class: patients of it, by score for it | K * bins | exact | auc |
| class_negative | for each class: patients of the others, by score for it | K * bins | exact | auc |

and a mask of K classes, with the mean over the foreground in the place of the first class, which is the background:

| lane | values | length | of each site | in rounds |
|---|---|---|---|---|
| dice_patients | patients who have this Dice | K | exact | dice |
| dice_sums | their Dice summed; then its squares | 2 * K | real | dice |
| dice_histogram | for each class: patients by Dice | K * 20 | exact | dice |

With subgroups, for each of their cells in the study's order, and zeros for a cell that the site withholds:

| lane | values | length for each cell | of each site | in rounds |
|---|---|---|---|---|
| subgroup_sites | 1 if the site shows the cell, else 0 | 1 | exact | with metrics |
| subgroup_patients | patients set aside | 1 | exact | with metrics |
| subgroup_correct | of them, predicted right | 1 | exact | accuracy |
| subgroup_loss | loss summed, and its square | 2 | real | loss |
| subgroup_squared_error | (score - label)^2 summed, and its square | 2 | real | brier |
| subgroup_labelled | patients with the label | 1 | exact | calibration |
| subgroup_scores | their scores summed | 1 | real | calibration |
| subgroup_positive | patients with the label, by score | subgroup bins | exact | auc, sensitivity |
| subgroup_negative | patients without it, by score | subgroup bins | exact | auc, sensitivity |

With a budget for the test figures (`evaluation.privacy`) there are no others than sites_reporting, test_patients,
scores_positive, scores_negative, subgroup_positive and subgroup_negative, whatever the metrics: everything is read off
those, and all but the first carry each site's own noise.

The update is one lane named `update`, clipped to `update_clip`. Where `tensor_clips` gives parameters a clip of their
own it is several, `update/0`, `update/1` and so on: neighbouring parameters with one clip share a lane, and every lane
is as fine as its clip allows.

W_max is 1 with uniform weighting and `max_patients_per_site` otherwise: the clip of the weight lane. The lanes with
metrics describe the global model as it is when the round starts.
"""

from collections.abc import Iterator
from enum import StrEnum

from consortium.contract.global_model import ParameterLayout
from consortium.contract.names import RoundNumber
from consortium.contract.plan import RoundKind
from consortium.contract.study import Evaluation, StudyFile
from consortium.contract.study_data import BINARY, CLASSES
from consortium.contract.subgroups import NOISE_TAIL, all_cells
from consortium.contract.tensor_clips import clipped_stretches
from privacy.encoding import Lane, Layout, lane_scale

NOISE_STEPS_MAX = 2.0**40
"""Steps from 0 to the clip of a lane in which noise is drawn."""

LOSS_PER_PATIENT_MAX = 16.0
"""A patient's loss is cut here before it is summed: -log of a probability of 1e-7."""

DICE_BINS = 20
"""Of the histogram of patients by Dice: quartiles are read off it."""

_SPREAD = ("auc", "accuracy", "brier", "loss", "dice")


class LaneName(StrEnum):
    """The names of the lanes, as they stand in plans and contexts."""

    UPDATE = "update"
    WEIGHT = "weight"
    SITES_REPORTING = "sites_reporting"
    TEST_PATIENTS = "test_patients"
    CORRECT = "correct"
    SITE_ACCURACY = "site_accuracy"
    LOSS_SUM = "loss_sum"
    LOSS_SQUARES = "loss_squares"
    SQUARED_ERROR = "squared_error"
    SCORES_POSITIVE = "scores_positive"
    SCORES_NEGATIVE = "scores_negative"
    CALIBRATION_POSITIVE = "calibration_positive"
    CALIBRATION_NEGATIVE = "calibration_negative"
    CALIBRATION_SCORES = "calibration_scores"
    SITE_FIGURES = "site_figures"
    SITE_COUNTED = "site_counted"
    CONFUSION = "confusion"
    CLASS_POSITIVE = "class_positive"
    CLASS_NEGATIVE = "class_negative"
    DICE_PATIENTS = "dice_patients"
    DICE_SUMS = "dice_sums"
    DICE_HISTOGRAM = "dice_histogram"
    SUBGROUP_SITES = "subgroup_sites"
    SUBGROUP_PATIENTS = "subgroup_patients"
    SUBGROUP_CORRECT = "subgroup_correct"
    SUBGROUP_LOSS = "subgroup_loss"
    SUBGROUP_SQUARED_ERROR = "subgroup_squared_error"
    SUBGROUP_LABELLED = "subgroup_labelled"
    SUBGROUP_SCORES = "subgroup_scores"
    SUBGROUP_POSITIVE = "subgroup_positive"
    SUBGROUP_NEGATIVE = "subgroup_negative"


def measures(study: StudyFile, kind: RoundKind, round_number: RoundNumber) -> bool:
    """Whether a round carries metrics: evaluation rounds always, training rounds 1, 1 + every_rounds and so on.

    In groups none does: metrics are exact, and the coordinator sees the sum of every group. Where hospitals train by
    turns no training round does, for sums of figures over sets that differ could be subtracted from one another (S-23).
    """
    if study.aggregation.group_size is not None:
        return False
    if study.training.participants_per_round is not None:
        return kind is RoundKind.EVALUATE
    return kind is RoundKind.EVALUATE or (round_number - 1) % study.evaluation.every_rounds == 0


def last_round(study: StudyFile) -> int:
    """The highest number that a round of the study can have: of the evaluation at the end, of which groups have none.

    With validation patients there are two, on them and on the test patients.
    """
    if study.aggregation.group_size is not None:
        return study.training.rounds
    return study.training.rounds + (2 if study.has_validation else 1)


def weight_max(study: StudyFile) -> float:
    """W_max: the largest weight a site can have. Updates travel multiplied by weight / W_max."""
    return float(study.aggregation.max_patients_per_site) if study.training.weighting == "patients" else 1.0


def round_layout(study: StudyFile, *, parameters: ParameterLayout, kind: RoundKind, measured: bool) -> Layout:
    """The layout of one round.

    Args:
        study: The study.
        parameters: Names and shapes of the trainable parameters of the study's network, d values in all.
        kind: Training, or evaluation, which is always measured.
        measured: Whether the metric lanes are there. The study says when they may be (`measures`); a round goes
            without them when the survivors would otherwise differ by one hospital from those measured before.

    Raises:
        TensorClipsRefused: The study's clips do not fit these parameters.
    """
    lanes: list[Lane] = []
    if kind is RoundKind.TRAIN:
        lanes += _update_lanes(study, parameters)
        lanes.append(_count(LaneName.WEIGHT, 1, weight_max(study)))
    if measured:
        lanes += _metric_lanes(study)
    return Layout(modulus_bits=study.aggregation.modulus_bits, lanes=tuple(lanes))


def _update_lanes(study: StudyFile, parameters: ParameterLayout) -> Iterator[Lane]:
    aggregation = study.aggregation
    stretches = clipped_stretches(parameters, aggregation.update_clip, aggregation.tensor_clips or {})
    for index, stretch in enumerate(stretches):
        name = LaneName.UPDATE.value if len(stretches) == 1 else f"{LaneName.UPDATE}/{index}"
        yield Lane(name=name, length=stretch.length, clip=stretch.clip, scale=update_scale(study, stretch.clip))


def update_scale(study: StudyFile, clip: float) -> float:
    """Steps per unit of an update's lane with this clip.

    As fine as the ring allows, but for noise in whole steps: with `distributed-dp-sgd` no finer than
    `NOISE_STEPS_MAX` steps from 0 to the clip, so that its integers are exact in float64 and quick to draw.
    """
    scale = real_scale(len(study.sites.required), clip, study.aggregation.modulus_bits)
    while study.is_distributed and scale * clip > NOISE_STEPS_MAX:
        scale /= 2
    return scale


def update_lanes(layout: Layout) -> tuple[Lane, ...]:
    """The lanes that carry the model difference, in the order of the parameters; none in a round of evaluation.

    One lane named `update`, or `update/0`, `update/1` and so on where the study gives parameters clips of their own.
    Their lengths add up to the number of parameters.
    """
    return tuple(lane for lane in layout.lanes if lane.name.partition("/")[0] == LaneName.UPDATE)


def largest_layout(study: StudyFile, *, parameters: ParameterLayout) -> Layout:
    """The layout of the rounds that send most: of training with metrics, unless the study has groups."""
    measured = measures(study, RoundKind.TRAIN, RoundNumber(1))
    return round_layout(study, parameters=parameters, kind=RoundKind.TRAIN, measured=measured)


def spread_figures(evaluation: Evaluation) -> tuple[str, ...]:
    """The figures of each hospital whose mean and standard deviation over hospitals are taken, in the lanes' order."""
    return tuple(m for m in _SPREAD if m in evaluation.metrics) if evaluation.per_site == "spread" else ()


def _metric_lanes(study: StudyFile) -> Iterator[Lane]:
    """Lanes for the metrics the study asks for and no others: what is not sent cannot leak."""
    evaluation, patients = study.evaluation, float(study.aggregation.max_patients_per_site)
    yield _count(LaneName.SITES_REPORTING, 1, 1.0)
    if evaluation.privacy is not None:
        yield from _private_lanes(study)
        return
    ranked = not {"auc", "sensitivity"}.isdisjoint(evaluation.metrics)
    yield _count(LaneName.TEST_PATIENTS, 1, patients)
    if "accuracy" in evaluation.metrics:
        yield _count(LaneName.CORRECT, 1, patients)
        yield _real(study, LaneName.SITE_ACCURACY.value, 1, 1.0)
    if "loss" in evaluation.metrics:
        yield _real(study, LaneName.LOSS_SUM.value, 1, LOSS_PER_PATIENT_MAX * patients)
        yield _real(study, LaneName.LOSS_SQUARES.value, 1, LOSS_PER_PATIENT_MAX**2 * patients)
    if "brier" in evaluation.metrics:
        yield _real(study, LaneName.SQUARED_ERROR.value, 2, patients)
    yield from _class_lanes(study)
    if ranked and study.data.label.type == BINARY:
        yield _count(LaneName.SCORES_POSITIVE, evaluation.score_bins, patients)
        yield _count(LaneName.SCORES_NEGATIVE, evaluation.score_bins, patients)
    if "calibration" in evaluation.metrics:
        yield _count(LaneName.CALIBRATION_POSITIVE, evaluation.curve_bins, patients)
        yield _count(LaneName.CALIBRATION_NEGATIVE, evaluation.curve_bins, patients)
        yield _real(study, LaneName.CALIBRATION_SCORES.value, evaluation.curve_bins, patients)
    if spread := spread_figures(evaluation):
        yield _real(study, LaneName.SITE_FIGURES.value, 2 * len(spread), 1.0)
        yield _count(LaneName.SITE_COUNTED, len(spread), 1.0)
    if cells := len(all_cells(evaluation.subgroups)):
        yield from _subgroup_lanes(study, cells, ranked=ranked)


def _class_lanes(study: StudyFile) -> Iterator[Lane]:
    """Lanes of labels with several classes; the study's rules have made sure that their metrics fit the label."""
    evaluation, patients = study.evaluation, float(study.aggregation.max_patients_per_site)
    label, classes = study.data.label.type, study.data.outputs
    if "confusion" in evaluation.metrics:
        yield _count(LaneName.CONFUSION, classes**2, patients)
    if label == CLASSES and "auc" in evaluation.metrics:
        yield _count(LaneName.CLASS_POSITIVE, classes * evaluation.score_bins, patients)
        yield _count(LaneName.CLASS_NEGATIVE, classes * evaluation.score_bins, patients)
    if "dice" in evaluation.metrics:
        yield _count(LaneName.DICE_PATIENTS, classes, patients)
        yield _real(study, LaneName.DICE_SUMS.value, 2 * classes, patients)
        yield _count(LaneName.DICE_HISTOGRAM, classes * DICE_BINS, patients)


def _subgroup_lanes(study: StudyFile, cells: int, *, ranked: bool) -> Iterator[Lane]:
    evaluation, patients = study.evaluation, float(study.aggregation.max_patients_per_site)
    yield _count(LaneName.SUBGROUP_SITES, cells, 1.0)
    yield _count(LaneName.SUBGROUP_PATIENTS, cells, patients)
    if "accuracy" in evaluation.metrics:
        yield _count(LaneName.SUBGROUP_CORRECT, cells, patients)
    if "loss" in evaluation.metrics:
        yield _real(study, LaneName.SUBGROUP_LOSS.value, 2 * cells, LOSS_PER_PATIENT_MAX**2 * patients)
    if "brier" in evaluation.metrics:
        yield _real(study, LaneName.SUBGROUP_SQUARED_ERROR.value, 2 * cells, patients)
    if "calibration" in evaluation.metrics:
        yield _count(LaneName.SUBGROUP_LABELLED, cells, patients)
        yield _real(study, LaneName.SUBGROUP_SCORES.value, cells, patients)
    if ranked:
        yield _count(LaneName.SUBGROUP_POSITIVE, cells * evaluation.cell_bins, patients)
        yield _count(LaneName.SUBGROUP_NEGATIVE, cells * evaluation.cell_bins, patients)


def _private_lanes(study: StudyFile) -> Iterator[Lane]:
    """Histograms with noise: wide enough for its tail, on a grid that whole patients are on."""
    evaluation, clip = study.evaluation, study.aggregation.max_patients_per_site + NOISE_TAIL
    lengths = {LaneName.TEST_PATIENTS: 1}
    lengths |= dict.fromkeys((LaneName.SCORES_POSITIVE, LaneName.SCORES_NEGATIVE), evaluation.score_bins)
    if cells := len(all_cells(evaluation.subgroups)):
        bins = cells * evaluation.cell_bins
        lengths |= dict.fromkeys((LaneName.SUBGROUP_POSITIVE, LaneName.SUBGROUP_NEGATIVE), bins)
    for name, length in lengths.items():
        yield _real(study, name.value, length, clip)


def _count(name: LaneName, length: int, clip: float) -> Lane:
    """A lane of whole numbers, exact at scale 1; the study's rules have made sure that their sum fits."""
    return Lane(name=name.value, length=length, clip=clip, scale=1.0)


def _real(study: StudyFile, name: str, length: int, clip: float) -> Lane:
    """A lane of real numbers."""
    scale = real_scale(len(study.sites.required), clip, study.aggregation.modulus_bits)
    return Lane(name=name, length=length, clip=clip, scale=scale)


def real_scale(sites: int, clip: float, bits: int) -> float:
    """Steps per unit of a lane of real numbers, as fine as the ring allows for the whole roster."""
    scale = lane_scale(sites, clip, bits)
    return 0.5 if scale == 1 else scale  # scale 1 marks a lane of exact counts, which refuses fractions

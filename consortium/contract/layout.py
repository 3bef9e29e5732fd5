"""The lanes of the masked vector in one round: what every hospital's upload consists of (protocol section 5).

A function of the study, the network's size and the round alone, so that every site and the coordinator arrive at the
same layout and a site can refuse a plan that says otherwise.

| lane | values | length | of each site | in rounds |
|---|---|---|---|---|
| update | model difference, times weight / W_max | d | real, clipped to update_clip | train |
| weight | 1, or declared patients | 1 | exact | train |
| sites_reporting | 1 if the site shares metrics, else 0 | 1 | exact | with metrics |
| test_patients | patients set aside | 1 | exact | with metrics |
| correct | of them, predicted right | 1 | exact | accuracy |
| site_accuracy | correct / test_patients | 1 | real, 0 to 1 | accuracy |
| loss_sum | loss summed over them | 1 | real | loss |
| scores_positive | patients with the label, by score | bins | exact | auc |
| scores_negative | patients without it, by score | bins | exact | auc |

W_max is 1 with uniform weighting and `max_patients_per_site` otherwise: the clip of the weight lane. The lanes with
metrics describe the global model as it is when the round starts.
"""

from collections.abc import Iterator
from enum import StrEnum

from consortium.contract.names import RoundNumber
from consortium.contract.plan import RoundKind
from consortium.contract.study import StudyFile
from privacy.encoding import Lane, Layout, lane_scale

LOSS_PER_PATIENT_MAX = 16.0
"""A patient's loss is cut here before it is summed: -log of a probability of 1e-7."""


class LaneName(StrEnum):
    """The names of the lanes, as they stand in plans and contexts."""

    UPDATE = "update"
    WEIGHT = "weight"
    SITES_REPORTING = "sites_reporting"
    TEST_PATIENTS = "test_patients"
    CORRECT = "correct"
    SITE_ACCURACY = "site_accuracy"
    LOSS_SUM = "loss_sum"
    SCORES_POSITIVE = "scores_positive"
    SCORES_NEGATIVE = "scores_negative"


def measures(study: StudyFile, kind: RoundKind, round_number: RoundNumber) -> bool:
    """Whether a round carries metrics: evaluation rounds always, training rounds 1, 1 + every_rounds and so on."""
    return kind is RoundKind.EVALUATE or (round_number - 1) % study.evaluation.every_rounds == 0


def weight_max(study: StudyFile) -> float:
    """W_max: the largest weight a site can have. Updates travel multiplied by weight / W_max."""
    return float(study.aggregation.max_patients_per_site) if study.training.weighting == "patients" else 1.0


def round_layout(study: StudyFile, *, parameter_count: int, kind: RoundKind, measured: bool) -> Layout:
    """The layout of one round.

    Args:
        study: The study.
        parameter_count: d, the trainable parameters of the study's network.
        kind: Training, or evaluation, which is always measured.
        measured: Whether the metric lanes are there. The study says when they may be (`measures`); a round goes
            without them when the survivors would otherwise differ by one hospital from those measured before.
    """
    lanes: list[Lane] = []
    if kind is RoundKind.TRAIN:
        lanes.append(_real(study, LaneName.UPDATE, parameter_count, study.aggregation.update_clip))
        lanes.append(_count(LaneName.WEIGHT, 1, weight_max(study)))
    if measured:
        lanes += _metric_lanes(study)
    return Layout(modulus_bits=study.aggregation.modulus_bits, lanes=tuple(lanes))


def _metric_lanes(study: StudyFile) -> Iterator[Lane]:
    """Lanes for the metrics the study asks for and no others: what is not sent cannot leak."""
    patients = float(study.aggregation.max_patients_per_site)
    metrics = study.evaluation.metrics
    yield _count(LaneName.SITES_REPORTING, 1, 1.0)
    yield _count(LaneName.TEST_PATIENTS, 1, patients)
    if "accuracy" in metrics:
        yield _count(LaneName.CORRECT, 1, patients)
        yield _real(study, LaneName.SITE_ACCURACY, 1, 1.0)
    if "loss" in metrics:
        yield _real(study, LaneName.LOSS_SUM, 1, LOSS_PER_PATIENT_MAX * patients)
    if "auc" in metrics:
        yield _count(LaneName.SCORES_POSITIVE, study.evaluation.score_bins, patients)
        yield _count(LaneName.SCORES_NEGATIVE, study.evaluation.score_bins, patients)


def _count(name: LaneName, length: int, clip: float) -> Lane:
    """A lane of whole numbers, exact at scale 1; the study's rules have made sure that their sum fits."""
    return Lane(name=name.value, length=length, clip=clip, scale=1.0)


def _real(study: StudyFile, name: LaneName, length: int, clip: float) -> Lane:
    """A lane of real numbers, as fine as the ring allows for the whole roster."""
    scale = lane_scale(len(study.sites.required), clip, study.aggregation.modulus_bits)
    if scale == 1:
        scale = 0.5  # scale 1 marks a lane of exact counts, which refuses fractions
    return Lane(name=name.value, length=length, clip=clip, scale=scale)

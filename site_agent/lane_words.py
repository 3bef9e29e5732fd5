"""What each lane of an upload means, in a steward's words: everything that is ever summed over hospitals."""

from dataclasses import dataclass

from consortium.contract.layout import LaneName, largest_layout
from consortium.contract.study import StudyFile
from site_agent.training_spec import parameters_of

_MEANS = {
    LaneName.UPDATE: "how training here would change the model",
    LaneName.WEIGHT: "how much this hospital counts: 1, or the patients declared in site.yaml",
    LaneName.SITES_REPORTING: "1 if this hospital shares test figures, else 0",
    LaneName.TEST_PATIENTS: "how many patients the model was tested on",
    LaneName.CORRECT: "how many of them it predicted right",
    LaneName.SITE_ACCURACY: "the share it predicted right here",
    LaneName.LOSS_SUM: "how wrong it was, summed over them",
    LaneName.LOSS_SQUARES: "the same, squared: for intervals",
    LaneName.SQUARED_ERROR: "squared distance of scores from labels, summed",
    LaneName.SCORES_POSITIVE: "how many patients with the label got which score",
    LaneName.SCORES_NEGATIVE: "how many patients without it got which score",
    LaneName.CALIBRATION_POSITIVE: "patients with the label, by score",
    LaneName.CALIBRATION_NEGATIVE: "patients without it, by score",
    LaneName.CALIBRATION_SCORES: "their scores summed, by score",
    LaneName.SITE_FIGURES: "this hospital's own figures and their squares",
    LaneName.SITE_COUNTED: "whether it has each figure",
    LaneName.CONFUSION: "patients by true and predicted class",
    LaneName.CLASS_POSITIVE: "patients of each class, by score",
    LaneName.CLASS_NEGATIVE: "patients of the others, by score",
    LaneName.DICE_PATIENTS: "patients whose outline was compared, by class",
    LaneName.DICE_SUMS: "overlap of outlines, summed, and its squares",
    LaneName.DICE_HISTOGRAM: "patients by overlap",
    LaneName.SUBGROUP_SITES: "of each group of patients: whether it is shown",
    LaneName.SUBGROUP_PATIENTS: "of each group: patients tested on",
    LaneName.SUBGROUP_CORRECT: "of each group: predicted right",
    LaneName.SUBGROUP_LOSS: "of each group: how wrong, and its square",
    LaneName.SUBGROUP_SQUARED_ERROR: "of each group: squared error",
    LaneName.SUBGROUP_LABELLED: "of each group: patients with the label",
    LaneName.SUBGROUP_SCORES: "of each group: their scores summed",
    LaneName.SUBGROUP_POSITIVE: "of each group: with the label, by score",
    LaneName.SUBGROUP_NEGATIVE: "of each group: without it, by score",
}
_WITH_NOISE_OF_THEIR_OWN = (
    LaneName.TEST_PATIENTS,
    LaneName.SCORES_POSITIVE,
    LaneName.SCORES_NEGATIVE,
    LaneName.SUBGROUP_POSITIVE,
    LaneName.SUBGROUP_NEGATIVE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneWords:
    """One lane of the largest upload of a study."""

    name: str
    values: int
    size_bytes: int
    means: str
    noise: bool  # whether patients are hidden in noise before it is masked


def lanes_of(study: StudyFile) -> tuple[LaneWords, ...]:
    """Every lane of the largest upload, in its order; they come to what `largest_layout` says in bytes."""
    layout = largest_layout(study, parameters=parameters_of(study))
    each = layout.size_bytes // sum(lane.length for lane in layout.lanes)
    return tuple(
        LaneWords(
            name=lane.name,
            values=lane.length,
            size_bytes=lane.length * each,
            means=_MEANS[LaneName(lane.name.partition("/")[0])],
            noise=_has_noise(study, LaneName(lane.name.partition("/")[0])),
        )
        for lane in layout.lanes
    )


def _has_noise(study: StudyFile, name: LaneName) -> bool:
    if name is LaneName.UPDATE:
        return study.is_private
    return study.evaluation.privacy is not None and name in _WITH_NOISE_OF_THEIR_OWN

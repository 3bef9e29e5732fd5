"""The noise of test figures that have a budget of their own: how much, on what grid, for how many rounds.

Every test patient is in the count of patients once, in one bin of the histograms over everybody, and in at most one bin
of those of each subgroup: with S subgroups, one patient more or fewer moves the vector of all these counts by at most
sqrt(2 + S) in L2, and by whole patients, which are on the lanes' grid. Every hospital adds as much discrete Gaussian
noise as its own promise needs (`shares=1`), so the promise does not rest on secure aggregation or on other hospitals.

One measured round is one step, with sampling rate 1. A round that is measured again after its sum may be known is
another step: `training.spare_rounds` of them are planned for.
"""

import math

from consortium.contract.layout import LaneName, round_layout
from consortium.contract.plan import RoundKind
from consortium.contract.study import StudyFile
from consortium.contract.subgroups import EvaluationPrivacy
from privacy.dp.calibrate import calibrate_shares
from privacy.dp.mechanism import PoissonSampledDiscreteGaussian
from privacy.encoding import Lane, Layout
from privacy.errors import LocalProtocolError


def figures_privacy(study: StudyFile) -> EvaluationPrivacy | None:
    """The budget of the test figures that a study draws: none without one, and none where hospitals form groups.

    Sums of groups hold no test figures at all.
    """
    return study.evaluation.privacy if study.aggregation.group_size is None else None


def noisy_lanes(layout: Layout) -> tuple[Lane, ...]:
    """The lanes of a study with a budget that carry noise, in order; together they are the vector that is charged."""
    names = {
        LaneName.TEST_PATIENTS, LaneName.SCORES_POSITIVE, LaneName.SCORES_NEGATIVE,
        LaneName.SUBGROUP_POSITIVE, LaneName.SUBGROUP_NEGATIVE,
    }  # fmt: skip
    return tuple(lane for lane in layout.lanes if lane.name in names)


def measured_rounds(study: StudyFile) -> int:
    """Rounds with metrics that are planned for: of training, the evaluations at the end, and spare ones.

    A patient is either a validation patient or a test patient, and pays for the figures of one kind only. All are
    counted for everybody all the same: nothing has to be believed of how patients were divided.

    Where hospitals train by turns, no round of training is measured.
    """
    if study.training.participants_per_round is not None:
        return 1 + study.training.spare_rounds
    at_the_end = 2 if study.has_validation else 1
    return -(-study.training.rounds // study.evaluation.every_rounds) + at_the_end + study.training.spare_rounds


def mechanism_of(study: StudyFile) -> PoissonSampledDiscreteGaussian:
    """The mechanism of all measured rounds together, with the least noise that keeps `evaluation.privacy`.

    Raises:
        LocalProtocolError: The study has no such budget; or its ring has no grid fine enough, or no noise keeps it.
    """
    wanted = study.evaluation.privacy
    if wanted is None:
        raise LocalProtocolError("a study with a budget for its test figures", "none")
    lanes = noisy_lanes(round_layout(study, parameters=(), kind=RoundKind.EVALUATE, measured=True))
    return calibrate_shares(
        epsilon_target=wanted.epsilon,
        delta=wanted.delta,
        sampling_rate=1.0,
        steps=measured_rounds(study),
        clip_norm_l2=math.sqrt(2 + len(study.evaluation.subgroups or ())),
        shares=1,
        grid_spacing=1 / lanes[0].scale,
        dimension=sum(lane.length for lane in lanes),
    )

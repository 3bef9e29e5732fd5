"""The noise that a study's hospitals share (distributed-dp-sgd), and whether an update's lane has room for it (pure).

Secure aggregation design, section 6. Every number follows from the study: the lane's step S is the grid on which
gradients are summed and noise is drawn, so that a site's integers travel as they are, and stochastic rounding, which
leaves whole steps alone, changes none of them. Of the lane's clip, the tail of one site's share is set aside; the sum
of gradients before the noise is moved into what is left (`SharedNoise.sum_bound`), which does not make two neighbouring
sums differ by more.

The layout itself does not depend on the noise: two releases of an accounting library may calibrate to multipliers that
differ in the last digit, and must still agree on every byte of a round plan.
"""

from dataclasses import dataclass
from pathlib import Path

from consortium.contract.errors import ContractError, FileInvalid, Problem, shown
from consortium.contract.global_model import parameter_count
from consortium.contract.layout import update_scale
from consortium.contract.study import StudyFile
from privacy.dp.mechanism import PoissonSampledDiscreteGaussian
from privacy.errors import LocalProtocolError

PARAMETERS_ASSUMED = 2**27
"""What is asked before anybody has built the network is answered for this many parameters, as MONAI's largest have.

The tails of the noise reach a little further with more of them; a hospital calibrates for the number it has built.
"""


class NoiseRefused(ContractError):
    """A distributed study whose noise does not fit its ring. Whose fault: the study's author."""

    code = "invalid"

    def __init__(self, path: str, found: str, allowed: str) -> None:
        self.problem = Problem(path=path, line=None, found=found, allowed=allowed)
        super().__init__(f"the study's noise does not fit: {self.problem}")

    def advice(self) -> str:
        """What to do next."""
        return "Change the value named above and submit the study under a new id."


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedNoise:
    """What a site adds, and what it adds it to."""

    mechanism: PoissonSampledDiscreteGaussian  # of the sum, with the steps of the whole study
    sum_bound: float  # the largest absolute value of a coordinate of a site's clean sum, in the unit of the clip norm


def shared_noise(study: StudyFile, *, parameters: int | None = None) -> SharedNoise:
    """The noise of a distributed study, calibrated to h = t - c shares over all its rounds and the spare ones.

    Args:
        study: The study.
        parameters: How many values the hospitals send of the network they have built; None where the study file tells
            (`StudyFile.parameters`), and only there: hospitals that count differently would calibrate differently.

    Raises:
        NoiseRefused: A share is finer than the grid can carry, or its tail leaves less than the clip norm of room.
        LocalProtocolError: No noise multiplier keeps the study's epsilon and delta.
    """
    from privacy.dp.calibrate import calibrate_shares  # noqa: PLC0415 - heavy, and only asked for here

    training, privacy, aggregation = study.training, study.privacy, study.aggregation
    if parameters is None:
        assert study.parameters is not None  # of a network that has to be built the caller says how many there are
        parameters = parameter_count(study.parameters)
    clip = aggregation.update_clip
    grid_spacing = 1 / update_scale(study, clip)
    try:
        mechanism = calibrate_shares(
            epsilon_target=privacy.epsilon,
            delta=privacy.delta,
            sampling_rate=training.sampling_rate,
            steps=training.rounds + training.spare_rounds,
            clip_norm_l2=privacy.clip_norm_l2,
            shares=study.honest_shares,
            grid_spacing=grid_spacing,
            dimension=parameters,
        )
    except LocalProtocolError as error:
        raise NoiseRefused("aggregation", f"steps of {grid_spacing:g}", str(error)) from error
    room = clip - mechanism.share_tail
    # Less room than one patient may take would cut what little signal a small hospital has.
    if room < privacy.clip_norm_l2:
        least = mechanism.share_tail + privacy.clip_norm_l2
        raise NoiseRefused(
            "aggregation.update_clip",
            f"{shown(clip)}, of which the noise of one hospital may take {mechanism.share_tail:.4g}",
            f"at least {least:.4g}; more by what the gradients of a step can add up to at one hospital",
        )
    return SharedNoise(mechanism=mechanism, sum_bound=room)


def expected_parameters(study: StudyFile) -> int:
    """How many values the hospitals will send: as the study file tells, or PARAMETERS_ASSUMED."""
    return PARAMETERS_ASSUMED if study.parameters is None else parameter_count(study.parameters)


def require_room(path: Path, study: StudyFile) -> None:
    """Raise FileInvalid for a study file whose shared noise does not fit; a study without shared noise always does.

    Not a rule of the file itself: it calibrates, which takes a second and a library that a reader of studies need not
    have.
    """
    if not study.is_distributed:
        return
    try:
        shared_noise(study, parameters=expected_parameters(study))
    except NoiseRefused as error:
        raise FileInvalid(path, [error.problem]) from error


def noise_line(study: StudyFile) -> str:
    """What the hospitals of a distributed study add, in one line for its author; raises as `shared_noise`."""
    noise = shared_noise(study, parameters=expected_parameters(study))
    mechanism, clip = noise.mechanism, study.aggregation.update_clip
    return (
        f"each hospital adds noise of standard deviation {mechanism.share_std:.4g}, of which any {mechanism.shares} "
        f"make up the study's; of update_clip, {shown(clip)}, its tail takes {mechanism.share_tail:.4g} and a "
        f"hospital's sum of gradients has {noise.sum_bound:.4g} for each coordinate"
    )

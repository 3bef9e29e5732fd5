"""Study -> what a hospital computes, as small frozen values; no torch here.

The agent needs these before it trains: to say what a round will cost, to reserve it, and to build the first model.
What affects privacy stands in one short class of its own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from consortium.contract.catalogue import Sgd
from consortium.contract.shared_noise import shared_noise
from consortium.contract.study import StudyFile
from privacy.dp.calibrate import calibrate
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import Mechanism


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """Which network, and everything its first weights depend on."""

    network: str
    args: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    input_shape: tuple[int, ...]  # of one record: (inputs,) of a table, (channels, height, width) of an image
    seed: int  # public

    @property
    def input_size(self) -> int:
        """Inputs of a record of a table; the number of values of any other."""
        return math.prod(self.input_shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacySpec:
    """All that decides what a patient is promised. Constants of the study; nothing here is counted from data."""

    mechanism: Mechanism  # with the steps of the whole study
    delta: float
    # Shared noise only: the largest absolute value of a coordinate of a site's sum before its share is added, in the
    # unit of the clip norm. None where the hospital adds all the noise itself and takes its own steps.
    sum_bound: float | None = None
    local_steps: int  # steps in one round
    max_records_per_patient: int
    declared_patients: int  # a declared cohort size, see `spec_of`; a step's sum is divided by sampling_rate times it

    @property
    def denominator(self) -> float:
        """What a step's noisy sum is divided by."""
        return self.mechanism.sampling_rate * self.declared_patients

    def round_event(self) -> DpEvent:
        """What one round costs: the event to reserve before it and to settle after it."""
        return self.study_event().with_steps(self.local_steps)

    def study_event(self) -> DpEvent:
        """What the whole study costs."""
        return DpEvent(mechanism=self.mechanism)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSpec:
    """The local optimizer; it works on gradients that are already private."""

    learning_rate: float
    momentum: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """One study's training at one site."""

    network: NetworkSpec
    optimizer: OptimizerSpec | None  # None with shared noise: the coordinator takes the step, and all repeat it
    privacy: PrivacySpec


def spec_of(study: StudyFile, *, declared_patients: int) -> TrainingSpec:
    """The training a study asks for, its noise calibrated to its epsilon over all rounds.

    What a step's sum is divided by is declared, never counted: with 96 patients instead of 97 it is the same.

    | weighting | divisor: sampling rate times | in the average |
    |---|---|---|
    | uniform | the study's `minimum_patients` | every patient weighs the same, and no site says how many it has |
    | patients | the site's `declared_patients` | sites weigh by the number they declare, in the weight lane |

    With one divisor for all, the noise of a small hospital does not drown the sum of a large one.

    Args:
        study: The study.
        declared_patients: The size of the training cohort that the hospital declares in site.yaml.

    Raises:
        LocalProtocolError: No noise multiplier keeps the study's epsilon and delta.
        NoiseRefused: The noise that hospitals share does not fit the study's ring.
    """
    training, privacy = study.training, study.privacy
    optimizer: OptimizerSpec | None = None
    mechanism: Mechanism
    sum_bound: float | None = None
    if study.is_distributed:
        shared = shared_noise(study)
        mechanism, sum_bound = shared.mechanism, shared.sum_bound
    else:
        assert isinstance(training.optimizer, Sgd)  # a rule of the study file
        optimizer = OptimizerSpec(learning_rate=training.optimizer.learning_rate, momentum=training.optimizer.momentum)
        mechanism = calibrate(
            epsilon_target=privacy.epsilon,
            delta=privacy.delta,
            sampling_rate=training.sampling_rate,
            steps=(training.rounds + training.spare_rounds) * training.local_steps,
            clip_norm_l2=privacy.clip_norm_l2,
        )
    return TrainingSpec(
        network=network_spec_of(study),
        optimizer=optimizer,
        privacy=PrivacySpec(
            mechanism=mechanism,
            delta=privacy.delta,
            sum_bound=sum_bound,
            local_steps=training.local_steps,
            max_records_per_patient=privacy.max_records_per_patient,
            declared_patients=declared_patients if training.weighting == "patients" else study.data.minimum_patients,
        ),
    )


def network_spec_of(study: StudyFile) -> NetworkSpec:
    """The network a study names, without calibrating anything."""
    return NetworkSpec(
        network=study.model.network,
        args=MappingProxyType(study.model.args.model_dump()),
        input_shape=(len(study.data.input_names),),
        seed=study.training.seed,
    )

"""Study -> what a hospital computes, as small frozen values; no torch, but where a network of MONAI must be counted.

The agent needs these before it trains: to say what a round will cost, to reserve it, and to build the first model.
What affects privacy stands in one short class of its own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from consortium.contract.catalogue import LossName, Sgd
from consortium.contract.global_model import ParameterLayout, parameter_count
from consortium.contract.shared_noise import shared_noise
from consortium.contract.study import StudyFile
from privacy.dp.calibrate import calibrate
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import Mechanism


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """Which network, everything its first weights depend on, and the loss it is trained with."""

    network: str
    args: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    input_shape: tuple[int, ...]  # of one record: (inputs,) of a table, (channels, height, width) of an image
    outputs: int = 1  # for each label
    label_shape: tuple[int, ...] = ()  # of one record's label: () for one number, the sides of an image for a mask
    loss: LossName = "binary-cross-entropy"
    seed: int  # public
    trainable: tuple[str, ...] | None = None  # patterns; None trains every parameter
    site_kept: tuple[str, ...] | None = None  # patterns of trained parameters that never leave

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
    """The local optimizer; with differential privacy it works on gradients that are already private."""

    learning_rate: float
    momentum: float = 0.0
    betas: tuple[float, float] | None = None  # Adam with these; SGD without
    eps: float = 1e-8  # of Adam
    proximal_mu: float = 0.0  # of FedProx: how strongly a step is pulled back to the global model


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """One study's training at one site."""

    network: NetworkSpec
    optimizer: OptimizerSpec | None  # None with shared noise: the coordinator takes the step, and all repeat it
    privacy: PrivacySpec

    @property
    def declared_patients(self) -> int:
        """A declared cohort size, see `spec_of`."""
        return self.privacy.declared_patients


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainSpec:
    """One study's training at one site where patients are promised no differential privacy."""

    network: NetworkSpec
    optimizer: OptimizerSpec
    local_steps: int  # steps in one round
    batch_part: float  # of the site's patients in each step, in (0, 1]
    max_records_per_patient: int
    declared_patients: int  # the site's weight, where sites are weighted by their patients


def plain_spec_of(study: StudyFile, *, declared_patients: int) -> PlainSpec:
    """The training of a study with `privacy.mechanism: none`; see `spec_of`."""
    training = study.training
    return PlainSpec(
        network=network_spec_of(study),
        optimizer=_optimizer_of(study),
        local_steps=training.local_steps,
        batch_part=training.sampling_rate,
        max_records_per_patient=study.privacy.max_records_per_patient,
        declared_patients=declared_patients if training.weighting == "patients" else study.data.minimum_patients,
    )


def _optimizer_of(study: StudyFile) -> OptimizerSpec:
    """The hospital's own optimizer."""
    given, mu = study.training.optimizer, study.training.proximal_mu or 0.0
    if isinstance(given, Sgd):
        return OptimizerSpec(learning_rate=given.learning_rate, momentum=given.momentum, proximal_mu=mu)
    return OptimizerSpec(learning_rate=given.learning_rate, betas=given.betas, eps=given.eps, proximal_mu=mu)


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
        shared = shared_noise(study, parameters=parameter_count(parameters_of(study)))
        mechanism, sum_bound = shared.mechanism, shared.sum_bound
    else:
        optimizer = _optimizer_of(study)
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
        input_shape=study.data.input_shape,
        outputs=study.data.outputs,
        label_shape=study.data.label_shape,
        loss=study.training.loss,
        seed=study.training.seed,
        trainable=study.training.trainable,
        site_kept=study.training.site_kept,
    )


def parameters_of(study: StudyFile) -> ParameterLayout:
    """Names and shapes of the parameters that are sent; where the study file does not tell, the network is built.

    Raises:
        NetworkRefused, PartsRefused: See `networks.layout_of`.
    """
    known = study.parameters
    if known is not None:
        return known
    from site_agent.networks import layout_of  # noqa: PLC0415 - torch

    return layout_of(network_spec_of(study))

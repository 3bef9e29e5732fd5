"""Study -> what a hospital computes, as small frozen values; no torch, but where a network of MONAI must be counted.

The agent needs these before it trains: to say what a round will cost, to reserve it, and to build the first model.
What affects privacy stands in one short class of its own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self, TypeAlias

from consortium.contract.catalogue import LossName, Sgd
from consortium.contract.global_model import ParameterLayout, parameter_count
from consortium.contract.record_views import Patch, Transform
from consortium.contract.schedules import Rates
from consortium.contract.shared_noise import shared_noise
from consortium.contract.study import StudyFile
from consortium.contract.study_data import ImagingData
from consortium.contract.study_training import rates_of
from privacy.dp.calibrate import calibrate
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import Mechanism

WeightFiles: TypeAlias = Mapping[str, str]
"""SHA-256 of a file of initial weights -> where it lies: `weights` in site.yaml."""

NO_FILES: WeightFiles = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialFile:
    """The file that a study's first weights are read from."""

    sha256: str
    draw_missing: bool  # whether parameters that are not in it are drawn from the seed
    path: str | None  # None where nobody said where it lies: then the network cannot be built


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """Which network, everything its first weights depend on, and the loss it is trained with."""

    network: str
    args: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    # Of one record as the network sees it: (inputs,) of a table, (channels, *sides) of an image or of its patches.
    input_shape: tuple[int, ...]
    outputs: int = 1  # for each label
    label_shape: tuple[int, ...] = ()  # of one record's label: () for one number, the sides of an image for a mask
    loss: LossName = "binary-cross-entropy"
    seed: int  # public
    initial: InitialFile | None = None  # None draws every weight from the seed
    adapter: Mapping[str, object] | None = None  # the study's `adapter`
    trainable: tuple[str, ...] | None = None  # patterns, an adapter's among them; None trains every parameter
    site_kept: tuple[str, ...] | None = None  # patterns of trained parameters that never leave

    @property
    def input_size(self) -> int:
        """Inputs of a record of a table; the number of values of any other."""
        return math.prod(self.input_shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSpec:
    """What training makes of a record in every step; nothing here depends on data. See `views.py`."""

    record_shape: tuple[int, ...]  # of one record as it is read: (channels, *sides)
    augmentation: tuple[Transform, ...] = ()
    patch: Patch | None = None
    seed: int  # public
    site: str = ""  # whose records they are, so that two sites draw differently


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What was calibrated for a study."""

    mechanism: Mechanism
    sum_bound: float | None = None  # see `PrivacySpec`


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
    rates: Rates | None = None  # of every step of the study; the learning rate without
    carries_state: bool = False  # whether it goes on with the state it had after the last round


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """One study's training at one site."""

    network: NetworkSpec
    optimizer: OptimizerSpec | None  # None with shared noise: the coordinator takes the step, and all repeat it
    privacy: PrivacySpec
    views: ViewSpec | None = None  # None trains on records as they are

    @property
    def declared_patients(self) -> int:
        """A declared cohort size, see `spec_of`."""
        return self.privacy.declared_patients

    @property
    def views_per_record(self) -> int:
        """What the network sees of one record in a step: its patches, or the record."""
        return 1 if self.views is None or self.views.patch is None else self.views.patch.per_record

    def at(self, site: str) -> Self:
        """The same at a site of this name."""
        return self if self.views is None else replace(self, views=replace(self.views, site=site))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainSpec:
    """One study's training at one site where patients are promised no differential privacy."""

    network: NetworkSpec
    optimizer: OptimizerSpec
    local_steps: int  # steps in one round
    batch_part: float  # of the site's patients in each step, in (0, 1]
    max_records_per_patient: int
    declared_patients: int  # the site's weight, where sites are weighted by their patients
    views: ViewSpec | None = None  # None trains on records as they are

    def at(self, site: str) -> Self:
        """The same at a site of this name."""
        return self if self.views is None else replace(self, views=replace(self.views, site=site))


def plain_spec_of(study: StudyFile, *, declared_patients: int, weights: WeightFiles = NO_FILES) -> PlainSpec:
    """The training of a study with `privacy.mechanism: none`; see `spec_of`."""
    training = study.training
    return PlainSpec(
        network=network_spec_of(study, weights),
        optimizer=optimizer_spec_of(study),
        local_steps=training.local_steps,
        batch_part=training.sampling_rate,
        max_records_per_patient=study.privacy.max_records_per_patient,
        declared_patients=declared_patients if training.weighting == "patients" else study.data.minimum_patients,
        views=view_spec_of(study),
    )


def optimizer_spec_of(study: StudyFile) -> OptimizerSpec:
    """The hospital's own optimizer."""
    training, given = study.training, study.training.optimizer
    common = OptimizerSpec(
        learning_rate=given.learning_rate,
        proximal_mu=training.proximal_mu or 0.0,
        rates=None if training.schedule is None else rates_of(training),
        carries_state=training.optimizer_state is not None,
    )
    if isinstance(given, Sgd):
        return replace(common, momentum=given.momentum)
    return replace(common, betas=given.betas, eps=given.eps)


def spec_of(
    study: StudyFile,
    *,
    declared_patients: int,
    weights: WeightFiles = NO_FILES,
    parameters: int | None = None,
    noise: Noise | None = None,
) -> TrainingSpec:
    """The training a study asks for, its noise calibrated to its epsilon over all rounds that a site can be in.

    What a step's sum is divided by is declared, never counted: with 96 patients instead of 97 it is the same.

    | weighting | divisor: sampling rate times | in the average |
    |---|---|---|
    | uniform | the study's `minimum_patients` | every patient weighs the same, and no site says how many it has |
    | patients | the site's `declared_patients` | sites weigh by the number they declare, in the weight lane |

    With one divisor for all, the noise of a small hospital does not drown the sum of a large one.

    Args:
        study: The study.
        declared_patients: The size of the training cohort that the hospital declares in site.yaml.
        weights: Where files of initial weights lie.
        parameters: How many values are sent, where they were counted; they decide about shared noise.
        noise: As it was calibrated before; else it is calibrated here, which takes a second.

    Raises:
        LocalProtocolError: No noise multiplier keeps the study's epsilon and delta.
        NoiseRefused: The noise that hospitals share does not fit the study's ring.
    """
    training, privacy = study.training, study.privacy
    if noise is None:
        noise = _noise_of(study, parameters)
    return TrainingSpec(
        network=network_spec_of(study, weights),
        optimizer=None if study.is_distributed else optimizer_spec_of(study),
        privacy=PrivacySpec(
            mechanism=noise.mechanism,
            delta=privacy.delta,
            sum_bound=noise.sum_bound,
            local_steps=training.local_steps,
            max_records_per_patient=privacy.max_records_per_patient,
            declared_patients=declared_patients if training.weighting == "patients" else study.data.minimum_patients,
        ),
        views=view_spec_of(study),
    )


def _noise_of(study: StudyFile, parameters: int | None) -> Noise:
    training, privacy = study.training, study.privacy
    if study.is_distributed:
        count = parameter_count(parameters_of(study)) if parameters is None else parameters
        shared = shared_noise(study, parameters=count)
        return Noise(mechanism=shared.mechanism, sum_bound=shared.sum_bound)
    mechanism = calibrate(
        epsilon_target=privacy.epsilon,
        delta=privacy.delta,
        sampling_rate=training.sampling_rate,
        steps=study.steps_of_a_site,
        clip_norm_l2=privacy.clip_norm_l2,
    )
    return Noise(mechanism=mechanism)


def view_spec_of(study: StudyFile) -> ViewSpec | None:
    """What training makes of records, at a site without a name yet; None where it takes them as they are."""
    data = study.data
    if not isinstance(data, ImagingData) or (data.augmentation is None and data.patch is None):
        return None
    return ViewSpec(
        record_shape=data.record_shape,
        augmentation=data.augmentation or (),
        patch=data.patch,
        seed=study.training.seed,
    )


def network_spec_of(study: StudyFile, weights: WeightFiles = NO_FILES) -> NetworkSpec:
    """The network a study names, without calibrating anything."""
    named, adapter, trainable = study.initial_weights, study.adapter, study.training.trainable
    initial = None
    if named is not None:
        initial = InitialFile(
            sha256=named.sha256, draw_missing=named.missing == "drawn", path=weights.get(named.sha256)
        )
    return NetworkSpec(
        network=study.model.network,
        args=MappingProxyType(study.model.args.model_dump()),
        input_shape=study.data.input_shape,
        outputs=study.data.outputs,
        label_shape=study.data.label_shape,
        loss=study.training.loss,
        seed=study.training.seed,
        initial=initial,
        adapter=None if adapter is None else MappingProxyType(adapter.model_dump()),
        trainable=trainable if adapter is None else (*(trainable or ()), *adapter.patterns),
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

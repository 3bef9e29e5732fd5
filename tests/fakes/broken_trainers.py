"""Trainers that look right and are not: each one breaks the mechanism in a way that was seen in the field.

Every one is a factory `(spec, records) -> trainer`, as the audits take it. The healthy one is `DpTrainer` itself.
"""

from dataclasses import replace

import numpy as np
import torch

from privacy.dp.randomness import CryptographicGenerator
from site_agent.gradients.engine import PatientSum
from site_agent.trainer import DpTrainer, TrainedUpdate
from site_agent.training_room import LocalFigures
from site_agent.update import parameter_count


class _NoNoise:
    """In place of the generator of the noise."""

    def gaussian(self, count, std):
        """Nothing."""
        return np.zeros(count)


class _TorchNoise:
    """Noise from the process's own generator, whose seed anybody can try."""

    def gaussian(self, count, std):
        """float64[count]"""
        return torch.randn(count, dtype=torch.float64).numpy() * std


class _Engine:
    """Around a healthy engine; what is not changed is the healthy one's."""

    def __init__(self, engine):
        self._engine = engine

    def __getattr__(self, name):
        return getattr(self._engine, name)


class _Unclipped(_Engine):
    def clipped_sum(self, batch, clip_norm_l2):
        return self._engine.clipped_sum(batch, 1e9)


class _BrokenCounts(_Engine):
    """A record of NaN moves the sum by the clip norm: it is there, and that shows."""

    def clipped_sum(self, batch, clip_norm_l2):
        clean = self._engine.clipped_sum(batch, clip_norm_l2)
        shift = clean.broken * clip_norm_l2 / np.sqrt(clean.total.size)
        return PatientSum(total=clean.total + shift, patients=clean.patients, clipped=clean.clipped, broken=0)


class _Leftover(_Engine):
    """A sum that was interrupted is added to the next one."""

    def __init__(self, engine):
        super().__init__(engine)
        self.kept = 0.0

    def clipped_sum(self, batch, clip_norm_l2):
        clean = self._engine.clipped_sum(batch, clip_norm_l2)
        total, self.kept = clean.total + self.kept, 0.0
        return replace(clean, total=total)


def noise_off(spec, records):
    """The noise is forgotten; everything is counted as if it were there."""
    trainer = DpTrainer(spec, records)
    trainer._ending._random = _NoNoise()
    return trainer


def less_noise(spec, records):
    """Four fifths of the noise, as when it was calibrated for fewer steps."""
    mechanism = spec.privacy.mechanism
    weaker = replace(mechanism, noise_multiplier=max(0.1, 0.8 * mechanism.noise_multiplier))
    return DpTrainer(replace(spec, privacy=replace(spec.privacy, mechanism=weaker)), records)


def clip_off(spec, records):
    """Gradients are not clipped."""
    trainer = DpTrainer(spec, records)
    trainer.engine = _Unclipped(trainer.engine)
    return trainer


def nan_counts(spec, records):
    """A broken record is not a zero."""
    trainer = DpTrainer(spec, records)
    trainer.engine = _BrokenCounts(trainer.engine)
    return trainer


def divisor_counted(spec, records):
    """The sum is divided by the patients there are."""
    counted = max(1, records.patient_count)
    return DpTrainer(replace(spec, privacy=replace(spec.privacy, declared_patients=counted)), records)


def rate_counted(spec, records):
    """A batch size was meant, so the rate depends on the number of patients; the divisor is kept."""
    privacy = spec.privacy
    rate = min(1.0, 12 / max(12, records.patient_count)) if privacy.mechanism.sampling_rate < 1 else 1.0
    declared = privacy.declared_patients * privacy.mechanism.sampling_rate / rate
    mechanism = replace(privacy.mechanism, sampling_rate=rate)
    return DpTrainer(replace(spec, privacy=replace(privacy, mechanism=mechanism, declared_patients=declared)), records)


def one_seed(spec, records):
    """Every trainer's generator starts from the same key."""
    return DpTrainer(spec, records, entropy=bytes)


def torch_noise(spec, records):
    """Noise from torch's global generator."""
    trainer = DpTrainer(spec, records)
    trainer._ending._random = _TorchNoise()
    return trainer


def noise_kept(spec, records):
    """The generator of the noise begins again with every round."""
    return _NoiseKept(spec, records)


class _NoiseKept(DpTrainer):
    def train_round(self, model, start=None):
        self._ending._random = CryptographicGenerator(bytes)
        return super().train_round(model)


class Shuffled(DpTrainer):
    """Batches of one size from a shuffled list, as a loader gives them."""

    def _sample(self):
        patients = len(self._records_of_patient)
        size = round(patients * self._spec.privacy.mechanism.sampling_rate)
        rows = np.sort(self._generator.choose(patients, size))
        return self._views.next_step([rows[place : place + 1] for place in range(size)])


class OneRoundCounted(DpTrainer):
    """A new accountant in every round."""

    @property
    def events(self):
        """The last round's only."""
        return self._events[-1:]


class GoesOn(DpTrainer):
    """Whatever breaks in a round, the rest of it is sent."""

    def train_round(self, model, start=None):
        try:
            return super().train_round(model)
        except Exception:  # noqa: BLE001 - the fault that is played
            figures = LocalFigures(sampled_patients=(), clipped_patients=0, broken_patients=0)
            nothing = np.zeros(parameter_count(self._module), dtype=np.float32)
            return TrainedUpdate(update=nothing, events=(), local=figures)


class MoreSteps:
    """Takes twice the steps it says."""

    def __init__(self, spec, records):
        privacy = replace(spec.privacy, local_steps=2 * spec.privacy.local_steps)
        self._trainer = DpTrainer(replace(spec, privacy=privacy), records)
        self._local_steps = spec.privacy.local_steps

    @property
    def engine(self):
        """The trainer's own."""
        return self._trainer.engine

    @engine.setter
    def engine(self, engine):
        self._trainer.engine = engine

    @property
    def events(self):
        """Half of what was executed."""
        return tuple(event.with_steps(self._local_steps) for event in self._trainer.events)

    def train_round(self, model, start=None):
        """A round that says it took half of its steps."""
        trained = self._trainer.train_round(model)
        return replace(trained, events=self.events[-1:])

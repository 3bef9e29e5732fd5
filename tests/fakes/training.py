"""A small hospital for tests of the training side: synthetic patients, a study's training, and known randomness."""

import hashlib
import itertools
from collections.abc import Mapping

import numpy as np

from privacy.dp.mechanism import PoissonSampledGaussian
from privacy.dp.randomness import Entropy
from site_agent.cohort import Records
from site_agent.training_spec import NetworkSpec, OptimizerSpec, PrivacySpec, TrainingSpec

INPUTS = 5


def entropy_of(label: str) -> Entropy:
    """Bytes that look random and are the same in every run: a statistical test never fails by bad luck."""
    calls = itertools.count()
    return lambda size: hashlib.shake_256(f"{label}/{next(calls)}".encode()).digest(size)


def patients(count: int, *, records_each: int = 1, inputs: int = INPUTS, seed: int = 7) -> Records:
    """`count` patients whose first input decides their label, with some noise."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count * records_each, inputs)).astype(np.float32)
    labels = (features[:, 0] + 0.5 * random.normal(size=len(features)) > 0).astype(np.float32)
    return Records(
        features=features,
        labels=labels,
        patients=np.repeat(np.arange(count, dtype=np.int64), records_each),
        patient_count=count,
    )


def spec(
    *,
    network: str = "logistic",
    args: Mapping[str, object] | None = None,
    inputs: int = INPUTS,
    noise_multiplier: float = 2.0,
    sampling_rate: float = 0.2,
    rounds: int = 20,
    local_steps: int = 2,
    clip_norm_l2: float = 1.0,
    learning_rate: float = 0.5,
    momentum: float = 0.0,
    max_records_per_patient: int = 1,
    declared_patients: int = 100,
    seed: int = 1,
) -> TrainingSpec:
    """A study's training with one thing changed."""
    return TrainingSpec(
        network=NetworkSpec(network=network, args=args or {}, input_shape=(inputs,), seed=seed),
        optimizer=OptimizerSpec(learning_rate=learning_rate, momentum=momentum),
        privacy=PrivacySpec(
            mechanism=PoissonSampledGaussian(
                noise_multiplier=noise_multiplier,
                sampling_rate=sampling_rate,
                steps=rounds * local_steps,
                clip_norm_l2=clip_norm_l2,
            ),
            delta=1e-3,
            local_steps=local_steps,
            max_records_per_patient=max_records_per_patient,
            declared_patients=declared_patients,
        ),
    )

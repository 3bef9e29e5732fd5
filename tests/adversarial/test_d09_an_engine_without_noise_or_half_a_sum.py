"""D-09: a gradient engine that brings its own noise or none, or a step that goes on with half of a batch.

Noise is added to the rounded sum of any engine, in one place; the trainer's updates are measured under each. The bound
on the variance and that on the tails are each missed by honest noise once in 10^6 keys, and the keys here are fixed.
Tried with noise at 0.9 of its size, and: rows d09 of `mutations.py`.
"""

import math

import numpy as np
import pytest
from scipy import stats

from site_agent import trainer as trainer_module
from site_agent.cohort import Records
from site_agent.device import Compute
from site_agent.errors import TrainingFailed
from site_agent.gradients.admission import ENGINES, EngineChoice
from site_agent.gradients.engine import PatientSum
from site_agent.networks import build_from
from site_agent.trainer import DpTrainer
from site_agent.update import load_vector, vector_of
from tests.fakes.training import entropy_of, patients, spec

INPUTS, ROUNDS = 300, 6
QUIET = {"learning_rate": 0.5, "declared_patients": 10, "noise_multiplier": 3.0, "clip_norm_l2": 0.7}
NOISE = 0.5 * 3.0 * 0.7 / (1.0 * 10)


def residuals(engine):
    """What one step differs by from its clean sum, over its standard deviation: float64[rounds * d]."""
    training = spec(inputs=INPUTS, local_steps=1, sampling_rate=1.0, **QUIET)
    one = DpTrainer(training, patients(4, inputs=INPUTS), engine=EngineChoice(name=engine), entropy=entropy_of(engine))
    model = vector_of(build_from(training.network))
    updates = np.stack([one.train_round(model).update for _ in range(ROUNDS)]).astype(np.float64)
    # Everybody is in every step, so the clean sum is the same in each.
    load_vector(one._module, model)
    clean = one.engine.clipped_sum(one._sample(), 0.7).total
    return ((updates + 0.5 * clean / 10) / NOISE).ravel()


def is_as_promised(values):
    count = len(values)
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], count)
    beyond = int((np.abs(values) > 2.5).sum())
    tails = stats.binom.ppf([5e-7, 1 - 5e-7], count, 2 * stats.norm.sf(2.5))
    return low <= (values**2).sum() <= high and tails[0] <= beyond <= tails[1]


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_noise_has_its_size_and_its_tails_under_every_engine(engine):
    assert is_as_promised(residuals(engine))


def test_the_measurement_finds_noise_that_is_too_small(monkeypatch):
    honest = trainer_module.noisy
    monkeypatch.setattr(
        trainer_module, "noisy", lambda total, std, grid, generator: honest(total, 0.9 * std, grid, generator)
    )
    assert not is_as_promised(residuals("bookkeeping"))


def test_a_sum_that_was_left_without_its_step_stops_the_next():
    training = spec()
    one = DpTrainer(training, patients(20), entropy=entropy_of("left"))
    optimizer = one._ending
    optimizer.take(one.clean_sum(optimizer.grid))
    with pytest.raises(TrainingFailed, match="left without its step"):
        one.train_round(vector_of(build_from(training.network)))
    assert one.events == ()


def test_a_step_without_a_sum_and_a_skipped_step_are_refused():
    optimizer = DpTrainer(spec(), patients(20), entropy=entropy_of("none"))._ending
    with pytest.raises(TrainingFailed, match="without a sum"):
        optimizer.step()
    with pytest.raises(TrainingFailed, match="skipped"):
        optimizer.signal_skip_step()


def test_the_sum_of_one_step_is_not_used_by_two():
    optimizer = DpTrainer(spec(), patients(20), entropy=entropy_of("twice"))._ending
    optimizer.take(PatientSum(total=np.zeros(6), patients=0, clipped=0, broken=0))
    optimizer.step()
    with pytest.raises(TrainingFailed, match="without a sum"):
        optimizer.step()


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_batch_larger_than_memory_is_one_step_with_the_noise_of_one(engine):
    training = spec(sampling_rate=1.0, local_steps=1, noise_multiplier=0.1, declared_patients=30)
    train = patients(30)
    model = vector_of(build_from(training.network))
    updates = []
    for records_max in (4, 512):
        choice = EngineChoice(name=engine, records_max=records_max)
        one = DpTrainer(training, train, engine=choice, entropy=entropy_of("large"))
        trained = one.train_round(model)
        assert trained.local.sampled_patients == (30,)
        assert [event.mechanism.steps for event in trained.events] == [1]
        updates.append(trained.update)
    assert updates[0] == pytest.approx(updates[1], abs=1e-6)


def test_an_empty_batch_is_pure_noise_under_every_engine():
    nobody = Records(
        features=np.zeros((0, INPUTS), dtype=np.float32),
        labels=np.zeros(0, dtype=np.float32),
        patients=np.zeros(0, dtype=np.int64),
        patient_count=0,
    )
    training = spec(inputs=INPUTS, local_steps=1, sampling_rate=1.0, **QUIET)
    model = vector_of(build_from(training.network))
    updates = [
        DpTrainer(training, nobody, engine=EngineChoice(name=name), entropy=entropy_of("empty"))
        .train_round(model)
        .update
        for name in ENGINES
    ]
    assert all((update == updates[0]).all() for update in updates)  # one key, so one noise: the engine adds nothing
    assert updates[0].std() == pytest.approx(NOISE, rel=6 / math.sqrt(2 * INPUTS))


def test_no_setting_brings_back_opacus_batches_or_clipping():
    """Adaptive clipping, BatchMemoryManager and loaders: nothing that trains imports them or takes their arguments."""
    from site_agent.gradients import admission, opacus_engines  # noqa: PLC0415

    for module in (trainer_module, opacus_engines, admission):
        words = set(vars(module))
        assert not words & {"PrivacyEngine", "BatchMemoryManager", "DPDataLoader", "DataLoader", "AdaClipDPOptimizer"}
    assert set(EngineChoice.__dataclass_fields__) == {"name", "records_max", "compute"}
    assert set(Compute.__dataclass_fields__) == {"device", "precision"}

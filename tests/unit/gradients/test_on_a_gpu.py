"""What needs a GPU: that it computes what the processor computes. Without one everything here is skipped, and says so.

pytest tests/unit/gradients/test_on_a_gpu.py -rs
"""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from site_agent.device import compute_for, growth_bytes
from site_agent.evaluate import score_patients
from site_agent.gradients.admission import ENGINES, EngineChoice, choose
from site_agent.gradients.engine import FLOAT_MARGIN
from site_agent.gradients.loop import LoopEngine
from site_agent.gradients.losses import record_loss
from site_agent.gradients.workload import Workload
from site_agent.networks import build_from
from site_agent.plain_trainer import PlainTrainer
from site_agent.trainer import DpTrainer
from site_agent.training_spec import OptimizerSpec, PlainSpec
from site_agent.update import vector_of
from tests.fakes.odd_networks import made
from tests.fakes.training import entropy_of, patients, spec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine")

LOSS = record_loss(nn.BCEWithLogitsLoss())
TRAINING = spec(network="mlp", args={"hidden": (4,), "activation": "relu"})


@pytest.fixture
def gpu():
    return compute_for("cuda", "float32")


def work(shape):
    return Workload(input_shape=shape, patients=4, records_each=1, memory_bytes=2**30)


@pytest.mark.parametrize("engine", sorted(ENGINES))
@pytest.mark.parametrize("network", ["cnn", "mlp"])
def test_every_engine_gives_the_sum_of_the_processor(gpu, network, engine):
    module, shape = made(network)
    batch = work(shape).batch((1, 1, 1, 1))
    expected = LoopEngine(copy.deepcopy(module), LOSS).clipped_sum(batch, 0.05)
    found = EngineChoice(name=engine, compute=gpu).build(module, LOSS).clipped_sum(batch, 0.05)
    assert next(module.parameters()).is_cuda
    assert np.linalg.norm(found.total - expected.total) <= 1e-4 * np.linalg.norm(expected.total)
    assert (found.patients, found.broken) == (expected.patients, expected.broken)


def test_an_engine_is_chosen_there_and_passes_its_test(gpu):
    module, shape = made("cnn")
    trial = choose(module.to(gpu.device), LOSS, work(shape), compute=gpu)
    assert trial.choice.compute == gpu
    assert not any(tried.unsuited for tried in trial.candidates if tried.engine in {"loop", "bookkeeping", "vmap"})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_round_is_trained_there_with_the_patients_and_the_noise_of_the_processor(precision):
    model, records = vector_of(build_from(TRAINING.network)), patients(30)
    choices = EngineChoice(name="loop"), EngineChoice(name="loop", compute=compute_for("cuda", precision))
    on_processor, on_gpu = (
        DpTrainer(TRAINING, records, engine=choice, entropy=entropy_of("same")).train_round(model) for choice in choices
    )
    assert on_gpu.events == on_processor.events
    assert on_gpu.local.sampled_patients == on_processor.local.sampled_patients
    assert on_gpu.update == pytest.approx(on_processor.update, abs=1e-5 if precision == "float32" else 1e-3)


def test_nobody_counts_for_more_than_the_clip_norm_in_bfloat16():
    module, shape = made("cnn")
    tried = EngineChoice(name="loop", compute=compute_for("cuda", "bfloat16")).build(module, LOSS)
    for part in work(shape).batch((1, 2, 1)).parts(1):
        assert np.linalg.norm(tried.clipped_sum(part, 0.001).total) <= 0.001 * (1 + FLOAT_MARGIN / 4)


def test_plain_training_and_evaluation_there(gpu):
    model, records = vector_of(build_from(TRAINING.network)), patients(8)
    plain = PlainSpec(
        network=TRAINING.network, optimizer=OptimizerSpec(learning_rate=0.1), local_steps=3, batch_part=1.0,
        max_records_per_patient=1, declared_patients=8,
    )  # fmt: skip
    one, other = PlainTrainer(plain, records), PlainTrainer(plain, records, compute=gpu)
    assert other.train_round(model).update == pytest.approx(one.train_round(model).update, abs=1e-5)
    module = build_from(TRAINING.network)
    expected = score_patients(copy.deepcopy(module), model, records)[0]
    assert score_patients(module.to(gpu.device), model, records)[0] == pytest.approx(expected, abs=1e-5)


def test_memory_is_seen_and_a_full_gpu_makes_parts_smaller(gpu, monkeypatch):
    taken = growth_bytes(gpu.device, lambda: torch.ones(2**24, device=gpu.device).sum())  # 64 MiB
    assert taken is not None
    assert 2**26 <= taken < 2**28
    module, shape = made("cnn")
    engine = EngineChoice(name="vmap", compute=gpu).build(module, LOSS)
    add = engine.add

    def greedy(part, *rest):
        if len(part.features) > 2:
            torch.empty(2**50, dtype=torch.uint8, device=gpu.device)
        add(part, *rest)

    monkeypatch.setattr(engine, "add", greedy)
    assert engine.clipped_sum(work(shape).batch((1,) * 8), 1.0).patients == 8
    assert engine.records_max == 2

"""bfloat16: one engine alone may use it, nobody moves more than the clip norm, and nobody moves another's gradient."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from site_agent.device import Compute
from site_agent.errors import EngineUnsuited
from site_agent.gradients.admission import ENGINES, EngineChoice, choose
from site_agent.gradients.engine import FLOAT_MARGIN, Batch
from site_agent.gradients.loop import LoopEngine
from site_agent.gradients.losses import record_loss
from site_agent.gradients.self_test import PRECISION_TOLERANCE, precision_test
from site_agent.gradients.workload import Workload
from site_agent.networks import build_from
from site_agent.plain_trainer import PlainTrainer
from site_agent.trainer import DpTrainer
from site_agent.training_spec import OptimizerSpec, PlainSpec
from site_agent.update import vector_of
from tests.fakes.odd_networks import made
from tests.fakes.training import entropy_of, patients, spec

LOSS = record_loss(nn.BCEWithLogitsLoss())
LOWER = Compute(precision="bfloat16")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # as at a hospital; two threads on a busy machine take many times as long


def work(shape):
    return Workload(input_shape=shape, patients=4, records_each=2, memory_bytes=2**30)


@pytest.mark.parametrize("network", ["cnn", "convolutions 2d", "mlp", "words"])
def test_nobody_counts_for_more_than_the_clip_norm_or_changes_what_another_counts_for(network):
    module, shape = made(network)
    quiet = work(shape).batch((1, 2, 1, 1))
    loud = Batch(features=quiet.features * 1e4, labels=quiet.labels, sizes=quiet.sizes)
    tried = LoopEngine(module, LOSS, precision="bfloat16")
    exact = LoopEngine(copy.deepcopy(module), LOSS)
    for batch in (quiet, loud):
        alone = [tried.clipped_sum(part, 0.01) for part in batch.parts(1)]
        for one in alone:
            assert one.broken == 0
            assert np.linalg.norm(one.total) <= 0.01 * (1 + FLOAT_MARGIN / 4)
        together = tried.clipped_sum(batch, 0.01)
        assert together.total == pytest.approx(sum(one.total for one in alone), rel=1e-13, abs=1e-16)
        assert together.clipped == sum(one.clipped for one in alone) > 0
    # It is another precision: the gradient is near that of float32, and not the same.
    found, wanted = (engine.clipped_sum(quiet, math.inf).total for engine in (tried, exact))
    assert 1e-5 < np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < PRECISION_TOLERANCE


def test_a_broken_record_is_a_zero():
    module, shape = made("cnn")
    batch = work(shape).batch((1, 1))
    batch.features[0].fill_(math.nan)
    found = LoopEngine(module, LOSS, precision="bfloat16").clipped_sum(batch, 1.0)
    assert (found.broken, found.patients) == (1, 2)
    assert np.isfinite(found.total).all()


def test_every_other_engine_is_refused_and_says_why():
    module, shape = made("mlp")
    trial = choose(module, LOSS, work(shape), compute=LOWER)
    assert trial.choice == EngineChoice(name="loop", compute=LOWER)
    assert [tried.engine for tried in trial.candidates] == list(ENGINES)
    assert all("one patient more would move" in tried.unsuited for tried in trial.candidates if tried.engine != "loop")
    for name in ENGINES:
        if name == "loop":
            assert choose(module, LOSS, work(shape), pinned=name, compute=LOWER).pinned
            continue
        with pytest.raises(EngineUnsuited, match="in bfloat16 one patient more"):
            EngineChoice(name=name, compute=LOWER).build(module, LOSS)
        with pytest.raises(EngineUnsuited, match="in bfloat16 one patient more"):
            choose(module, LOSS, work(shape), pinned=name, compute=LOWER)


class Fine(nn.Module):
    """Answers with what eight bits do not hold: a difference far behind the leading digits."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(5, 1)

    def forward(self, inputs):
        far = self.last(inputs) * 0.001 + 1000
        return (far.to(self.last(inputs).dtype) - 1000) * 1000 + 0 * self.last(inputs)


def test_a_network_that_does_not_learn_in_it_is_refused():
    precision_test(made("mlp")[0], LOSS, work((5,)), "bfloat16")
    torch.manual_seed(3)
    with pytest.raises(EngineUnsuited, match=r"in bfloat16 its gradients differ by .* of those in float32"):
        precision_test(Fine(), LOSS, work((5,)), "bfloat16")


def test_a_round_in_it_has_the_steps_and_the_noise_of_any_other():
    training = spec(network="mlp", args={"hidden": (4,), "activation": "relu"})
    records, model = patients(30), vector_of(build_from(training.network))
    updates = []
    for compute in (Compute(), LOWER):
        engine = EngineChoice(name="loop", compute=compute)
        trainer = DpTrainer(training, records, engine=engine, entropy=entropy_of("same"))
        trained = trainer.train_round(model)
        assert trained.events == (training.privacy.round_event(),)
        assert trained.update.dtype == np.float32
        trainer.cross_check()
        updates.append(trained.update)
    # The same patients and the same noise: what is left is a rounding of the gradients.
    assert not np.array_equal(*updates)
    assert updates[0] == pytest.approx(updates[1], abs=1e-3)


def test_plain_training_in_it():
    training = spec(network="mlp", args={"hidden": (4,), "activation": "relu"})
    plain = PlainSpec(
        network=training.network, optimizer=OptimizerSpec(learning_rate=0.1), local_steps=3, batch_part=1.0,
        max_records_per_patient=1, declared_patients=8,
    )  # fmt: skip
    model = vector_of(build_from(training.network))
    one, other = (PlainTrainer(plain, patients(8), compute=compute).train_round(model).update
                  for compute in (Compute(), LOWER))  # fmt: skip
    assert not np.array_equal(one, other)
    assert np.linalg.norm(one - other) < PRECISION_TOLERANCE * np.linalg.norm(one)
    assert not torch.is_autocast_enabled("cpu")

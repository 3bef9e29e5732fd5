"""One rank of a hospital with several processes, for tests: `torchrun ... -m tests.fakes.two_processes FILE`.

Rank 0 trains on synthetic patients and writes what it found as JSON. A helper that builds a generator of randomness
ends at once: coins and noise are drawn at rank 0 alone.
"""

import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from privacy.dp.mechanism import Grid
from privacy.dp.randomness import CryptographicGenerator
from site_agent.errors import TrainingFailed
from site_agent.gradients.admission import EngineChoice
from site_agent.gradients.ddp import SpreadEngine
from site_agent.gradients.engine import FLOAT_MARGIN, Batch
from site_agent.local_steps import LocalStart
from site_agent.networks import build_from
from site_agent.processes import alone_or_together
from site_agent.trainer import DpTrainer
from site_agent.training_spec import NetworkSpec, ViewSpec
from site_agent.update import vector_of
from tests.fakes.training import entropy_of, patients, spec
from tests.fakes.viewed_study import MOVED, SHIFTED

ARGS = {"hidden": (64, 32), "activation": "tanh"}
TRAINING = spec(network="mlp", args=ARGS, sampling_rate=0.5, local_steps=2, max_records_per_patient=3,
                learning_rate=1.0, declared_patients=10)  # fmt: skip


def trained(engine: str = "bookkeeping", count: int = 40) -> tuple[DpTrainer, np.ndarray]:
    """A trainer whose randomness is known, and its update."""
    one = DpTrainer(
        TRAINING, patients(count, records_each=3), engine=EngineChoice(name=engine), entropy=entropy_of("two")
    )
    return one, one.train_round(vector_of(build_from(TRAINING.network))).update


def trained_on_views(site: str = "north") -> np.ndarray:
    """The update of a round that sees pictures turned and shifted, of a network whose helpers need no MONAI."""
    shape = (1, 28, 28)
    training = spec(sampling_rate=0.5, local_steps=2, max_records_per_patient=2, declared_patients=10)
    viewed = replace(
        training,
        network=NetworkSpec(network="cnn", args={}, input_shape=shape, seed=1),
        views=ViewSpec(record_shape=shape, augmentation=MOVED + SHIFTED, patch=None, seed=1, site=site),
    )
    flat = patients(12, records_each=2, inputs=math.prod(shape))
    records = replace(flat, features=flat.features.reshape(-1, *shape))
    one = DpTrainer(viewed, records, engine=EngineChoice(name="bookkeeping"), entropy=entropy_of("views"))
    return one.train_round(vector_of(build_from(viewed.network)), LocalStart(round=3)).update


def agent(out: Path) -> None:
    """What rank 0 finds."""
    found: dict[str, object] = {}
    for engine in ("bookkeeping", "loop"):
        one, update = trained(engine)
        assert isinstance(one.engine, SpreadEngine)
        found[engine] = update.tolist()
        found[f"{engine} steps"] = sum(event.mechanism.steps for event in one.events)
    found["views"] = trained_on_views().tolist()
    found["nobody"] = trained(count=0)[1].tolist()
    one, _ = trained("loop")
    features, labels = torch.ones(4, 5), torch.ones(4)
    features[3] = torch.nan
    grid = Grid.of(TRAINING.privacy.mechanism, one.engine.dimension, margin=FLOAT_MARGIN)
    batch = Batch(features=features, labels=labels, sizes=(1, 2, 1))
    sums = one.engine.clipped_sum(batch, grid.clip_norm_l2)
    found["counts"] = [sums.patients, sums.clipped, sums.broken]
    try:
        one.engine.clipped_sum(Batch(features=torch.ones(4, 4), labels=labels, sizes=(1, 2, 1)), 1.0)
    except TrainingFailed as refused:
        found["refused"] = str(refused)
    found["after"] = [one.engine.clipped_sum(batch, grid.clip_norm_l2).total.tolist() == sums.total.tolist()]
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    if os.environ.get("RANK", "0") != "0":
        CryptographicGenerator.__init__ = lambda *_: sys.exit("a helper draws random numbers")  # type: ignore[method-assign]
    alone_or_together(lambda: agent(Path(sys.argv[1])))

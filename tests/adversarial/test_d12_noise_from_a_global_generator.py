"""D-12: noise or samples come from a generator of the process, which whoever guesses its seed repeats and subtracts.

torch's generator on a CPU uses 32 bits of its seed: all its streams can be searched in 15 core-hours. Whatever is
drawn for a patient's sake, training's noise of either kind, samples and test figures' noise, comes from
`privacy/dp/randomness.py`. That the audit of the mechanism notices torch's noise at a hospital is in
`tests/unit/site_agent/test_mechanism_audit.py`. Tried: rows d12 of `mutations.py`; besides, with numpy's generator for
the words of `CryptographicGenerator`, and with one of its own and a fixed seed, or torch's, for the noise of shares.
"""

import random
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import site_agent
from consortium.contract.layout import round_layout
from consortium.contract.plan import RoundKind
from site_agent.networks import build_from
from site_agent.private_figures import PrivateFigures
from site_agent.tally import Scores
from site_agent.trainer import DpTrainer
from site_agent.training_spec import spec_of
from site_agent.update import vector_of
from tests.fakes.site_world import small_study
from tests.fakes.training import patients, spec

ROOT = Path(site_agent.__file__).parents[1]
SHARED = small_study(
    training={"rounds": 5, "optimizer": {"name": "adam", "learning_rate": 0.05}},
    privacy={"mechanism": "distributed-dp-sgd"},
    aggregation={"update_clip": 64.0},
)
MEASURED = small_study(evaluation={"privacy": {"epsilon": 1.0, "delta": 1e-3}, "score_bins": 20, "subgroup_bins": 10})


def trained(training):
    one = DpTrainer(training, patients(50, inputs=training.network.input_size))
    return np.asarray(one.train_round(vector_of(build_from(training.network))).update, dtype=np.float64)


def local_noise():
    return trained(spec())


def shared_noise():
    return trained(spec_of(SHARED, declared_patients=100))


def figures_noise():
    figures = PrivateFigures(None, None, study=MEASURED, digest=MEASURED.digest(), dataset="ward")
    layout = round_layout(MEASURED, parameters=(), kind=RoundKind.EVALUATE, measured=True)
    nobody = Scores(scores=np.zeros(0), positive=np.zeros(0, dtype=bool), groups=np.zeros((0, 1), dtype=int))
    drawn = figures._draw(SimpleNamespace(layout=layout), nobody)
    return np.concatenate([drawn[name] for name in ("scores_positive", "scores_negative", "subgroup_positive")])


def seed_all():
    torch.manual_seed(42)
    np.random.seed(42)  # noqa: NPY002 - what other software does
    random.seed(42)


DRAWS = pytest.mark.parametrize("draw", [local_noise, shared_noise, figures_noise])


@DRAWS
def test_no_generator_of_the_process_is_read(draw):
    seed_all()
    expected = torch.rand(1), np.random.random(), random.random()  # noqa: NPY002
    seed_all()
    assert (draw() != 0).any()
    assert (torch.rand(1), np.random.random(), random.random()) == expected  # noqa: NPY002


@DRAWS
def test_their_seeds_repeat_nothing(draw):
    found = []
    for _ in range(2):
        seed_all()
        found.append(draw())
    assert np.mean(found[0] == found[1]) < 0.5  # noise on a coarse grid may coincide here and there


@pytest.mark.parametrize("file", ["privacy", "site_agent/trainer.py", "site_agent/shared_step.py",
                                  "site_agent/private_figures.py", "site_agent/round_values.py"])  # fmt: skip
def test_where_noise_is_drawn_no_other_generator_is_made(file):
    """Also not one of its own with a seed of 32 or 64 bits, which would pass the tests above."""
    paths = sorted((ROOT / file).rglob("*.py")) if (ROOT / file).is_dir() else [ROOT / file]
    assert paths
    other = re.compile(
        r"torch\.(normal|rand|randn|bernoulli|randperm|randint|multinomial|Generator|manual_seed)"
        r"|\.(normal_|uniform_|bernoulli_)\("
        r"|np\.random|default_rng|^\s*(import|from) random\b",
        flags=re.MULTILINE,
    )
    assert {path.name: other.findall(path.read_text()) for path in paths if other.search(path.read_text())} == {}

"""The imaging benchmarks on data that take milliseconds: that they compare what they say they compare."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from consortium.contract.global_model import GlobalModel
from site_agent.plain_trainer import PlainTrainer
from site_agent.update import load_vector, named_parameters
from tests.benchmarks import agent_overhead, bench_process, cache_epoch, swin_round
from tests.benchmarks.agent_overhead import Agent, BareLoop, Case
from tests.benchmarks.bench_volumes import Volumes, write_volumes
from tests.benchmarks.hundred_million import SITES

SMALL = Case(
    volumes=Volumes(patients=4, shape=(8, 8, 8), stored_shape=(8, 8, 8), compressed=False), batches=1, channels=(4, 8)
)


# --- the agent and the bare loop -------------------------------------------------------------------------------------


def test_a_step_of_the_agent_is_a_step_of_the_bare_loop(tmp_path: Path) -> None:
    """The same volumes, network and loss: from one model and on everybody, both have the same gradients."""
    write_volumes(tmp_path / "volumes", SMALL.volumes)
    agent, bare = Agent(tmp_path, SMALL), BareLoop(tmp_path, SMALL)
    load_vector(bare.network, agent.prepared.first_model.vector)
    update = agent.round()
    bare.epoch()
    assert np.abs(update).max() == pytest.approx(agent_overhead.LEARNING_RATE, rel=1e-2)  # Adam's first step
    trained = named_parameters(_network_of(agent))
    assert len(trained) > 10
    for (name, ours), (theirs_name, theirs) in zip(trained, named_parameters(bare.network), strict=True):
        assert name == theirs_name
        assert ours.grad is not None
        assert theirs.grad is not None
        np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-3, atol=1e-5, err_msg=name)
    # A second round is trained anew: the agent does not hand out what it has.
    assert agent.round() is not update


def _network_of(agent: Agent) -> nn.Module:
    trainer = agent.prepared.room._trainer
    assert isinstance(trainer, PlainTrainer)
    return trainer._module


def test_the_figure_has_both_and_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_overhead, "_memory", lambda _folder: "memory of both")
    (figure,) = agent_overhead.measure(SMALL, repeats=1)
    assert figure.name == agent_overhead.NAME
    assert figure.value is not None
    assert figure.value > 0
    assert "memory of both" in figure.note
    assert "3 volumes of 8x8x8, batches of 3" in figure.note


# --- the cache -------------------------------------------------------------------------------------------------------


def test_the_cache_gives_the_same_cohort_and_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = Volumes(patients=4, shape=(10, 10, 10), stored_shape=(8, 8, 8), stored_spacing=1.5)
    write_volumes(tmp_path, volumes)
    study, cache = cache_epoch._study(volumes), cache_epoch._cache(tmp_path)
    without = cache_epoch._read(study, tmp_path, None)
    for _ in range(2):  # put there, then taken from there
        cached = cache_epoch._read(study, tmp_path, cache)
        np.testing.assert_array_equal(cached.train.features, without.train.features)
        np.testing.assert_array_equal(cached.test.labels, without.test.labels)
    assert cache.size_bytes() > 4 * 2 * 4 * 1000
    monkeypatch.setattr(cache_epoch, "_memory", lambda *_: "memory of both")
    (figure,) = cache_epoch.measure(volumes, repeats=1)
    assert figure.value is not None
    assert figure.value > 0
    assert "memory of both" in figure.note


# --- a hundred million parameters ------------------------------------------------------------------------------------


def test_the_study_names_a_network_of_a_hundred_million_parameters() -> None:
    study = swin_round.study_of()
    assert study.model.network == "swin-unetr"
    assert study.training.local_steps == study.training.rounds == 1
    assert not study.is_private


def test_a_sum_is_held_to_the_updates_it_is_made_of(tmp_path: Path) -> None:
    study = swin_round.study_of(12)
    layout = (("layer.weight", (5,)),)
    before = GlobalModel(layout, np.linspace(-1, 1, 5, dtype=np.float32))
    updates = [np.full(5, value, dtype=np.float32) for value in (0.1, 0.2, 0.6)]
    field = SimpleNamespace(folder=tmp_path, home=tmp_path / "coordinator")
    (field.home / "models").mkdir(parents=True)
    for site, update in zip(SITES, updates, strict=True):
        (tmp_path / site).mkdir()
        np.save(tmp_path / site / "update.npy", update)
        (tmp_path / site / "trained.json").write_text(json.dumps({"model": before.digest(), "seconds": 1.5}))
    after = GlobalModel(layout, before.vector + np.float32(0.3))
    wrong = GlobalModel(layout, before.vector + np.array([0.3, 0.3, 0.3, 0.3, 0.30001], dtype=np.float32))
    for model in (before, after, wrong):
        (field.home / "models" / model.digest()).write_bytes(model.to_safetensors())
    found = swin_round.compare(field, study, after.digest())  # type: ignore[arg-type] # its folders are used
    assert found.of_bound <= 1
    assert found.largest < 1e-6
    assert found.step == 2.0**-27  # of three sites in a ring of 32 bits, clipped to 4
    assert found.moved == pytest.approx(0.3)
    assert "within" in swin_round.words_of(found)
    assert found.training_s == 1.5
    off = swin_round.compare(field, study, wrong.digest())  # type: ignore[arg-type] # the same
    assert off.of_bound > 10


def test_a_machine_with_too_little_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swin_round, "_available_bytes", lambda: 2**30)
    (figure,) = swin_round.measure()
    assert figure.value is None
    assert "1 GiB of memory are free; 14 are wanted" in figure.note


def test_what_was_trained_is_written_down_before_it_is_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from site_agent.round_values import RoundValues  # noqa: PLC0415 - it is replaced here

    update = np.arange(3, dtype=np.float32)
    monkeypatch.setattr(RoundValues, "_train", lambda *_: update)
    bench_process.keep_update(tmp_path)
    model = GlobalModel((("w", (3,)),), np.zeros(3, dtype=np.float32))
    assert RoundValues._train(None, None, model, None) is update  # type: ignore[arg-type] # none of it is looked at
    assert np.load(tmp_path / "update.npy").tolist() == [0.0, 1.0, 2.0]
    assert json.loads((tmp_path / "trained.json").read_text())["model"] == model.digest()

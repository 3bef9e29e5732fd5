"""Every engine gives the sum that `loop` gives, and `loop` the one that the words say."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from privacy.dp.mechanism import Grid, PoissonSampledGaussian
from site_agent.errors import EngineUnsuited, TrainingFailed
from site_agent.gradients import bookkeeping, layers
from site_agent.gradients.admission import ENGINES, EngineChoice
from site_agent.gradients.bookkeeping import BookkeepingEngine
from site_agent.gradients.engine import FLOAT_MARGIN, PATIENTS_MAX, Batch
from site_agent.gradients.loop import LoopEngine
from site_agent.gradients.losses import record_loss
from site_agent.gradients.self_test import self_test
from site_agent.gradients.workload import Workload
from site_agent.networks import build
from site_agent.update import named_parameters
from tests.fakes.odd_networks import NETWORKS, made

LOSS = record_loss(nn.BCEWithLogitsLoss())


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # as at a hospital; two threads on a busy machine take many times as long


def workload(shape, **changes):
    fields = {"input_shape": shape, "patients": 3, "records_each": 3, "memory_bytes": 2**30} | changes
    return Workload(**fields)


def batch(name, sizes, dtype=torch.float32):
    module, shape = made(name)
    return module, workload(shape).batch(sizes, dtype)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # of a layer whose inputs are whole numbers
@pytest.mark.parametrize("engine", sorted(ENGINES))
@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_every_engine_equals_the_loop_on_every_network(network, engine):
    module, shape = made(network)
    said = ""
    try:
        self_test(ENGINES[engine], module, LOSS, workload(shape))
    except (EngineUnsuited, RuntimeError, AttributeError) as refused:
        said = str(refused)
    assert "differs" not in said
    assert "finds" not in said
    # What studies may name, every engine can do; what only Opacus cannot do, the others can.
    assert not said or (engine in {"hooks", "ghost"} and network not in {"logistic", "mlp", "cnn"})


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 3, 2)])
@pytest.mark.parametrize("network", ["logistic", "mlp", "cnn"])
def test_in_float32_too(network, sizes):
    module, found = batch(network, sizes)
    expected = LoopEngine(copy.deepcopy(module), LOSS).clipped_sum(found, 0.5)
    for name in ENGINES:
        if name == "ghost" and max(sizes) > 1:
            continue
        total = ENGINES[name](copy.deepcopy(module), LOSS).clipped_sum(found, 0.5).total
        assert np.linalg.norm(total - expected.total) <= 1e-5 * np.linalg.norm(expected.total), name


def test_the_loop_is_what_the_words_say():
    module, found = batch("mlp", (2, 1, 3), torch.float64)
    module = module.double()
    expected, start = 0.0, 0
    for size in found.sizes:
        rows = slice(start, start := start + size)
        module.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(
            module(found.features[rows])[:, 0], found.labels[rows]
        ).backward()
        gradient = np.concatenate([p.grad.numpy().ravel() for _, p in named_parameters(module)])
        expected = expected + gradient * min(1.0, 0.4 / np.linalg.norm(gradient))
    assert LoopEngine(module, LOSS).clipped_sum(found, 0.4).total == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_nobody_counts_for_more_than_the_clip_norm(engine):
    module, found = batch("mlp", (1,) * 6)
    loud = Batch(features=found.features * 1e6, labels=found.labels, sizes=found.sizes)
    for part in loud.parts(1):
        total = EngineChoice(name=engine).build(copy.deepcopy(module), LOSS).clipped_sum(part, 0.25).total
        assert np.linalg.norm(total) <= 0.25 * (1 + FLOAT_MARGIN / 4)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("engine", sorted(ENGINES))
@pytest.mark.parametrize("network", ["logistic", "cnn"])
def test_a_broken_record_is_a_zero_and_counted(network, engine, value):
    module, found = batch(network, (1, 1, 1))
    rest = Batch(features=found.features[1:], labels=found.labels[1:], sizes=(1, 1))
    features = found.features.clone()
    features[0].flatten()[1] = value
    tried = EngineChoice(name=engine).build(module, LOSS)
    result = tried.clipped_sum(Batch(features=features, labels=found.labels, sizes=(1, 1, 1)), 0.5)
    expected = tried.clipped_sum(rest, 0.5)
    assert (result.patients, result.broken, result.clipped) == (3, 1, expected.clipped)
    assert result.total == pytest.approx(expected.total, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_batch_is_cut_between_patients_and_the_sum_is_the_same(engine, monkeypatch):
    sizes = (1,) * 7 if engine == "ghost" else (2, 1, 3, 1)
    module, found = batch("mlp", sizes)
    seen = []
    cut = ENGINES[engine](copy.deepcopy(module), LOSS, records_max=2)
    add = cut.add
    monkeypatch.setattr(cut, "add", lambda part, *rest: (seen.append(part.sizes), add(part, *rest)))
    total = cut.clipped_sum(found, 0.5).total
    whole = ENGINES[engine](copy.deepcopy(module), LOSS).clipped_sum(found, 0.5).total
    assert sum(seen, ()) == sizes
    assert all(sum(part) <= 2 or len(part) == 1 for part in seen)
    assert np.linalg.norm(total - whole) <= 1e-5 * np.linalg.norm(whole)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_batch_that_fails_half_way_gives_nothing_and_leaves_nothing(engine, monkeypatch):
    module, found = batch("mlp", (1,) * 6)
    tried = ENGINES[engine](module, LOSS, records_max=2)
    whole = tried.clipped_sum(found, 0.5).total
    add, calls = tried.add, []

    def fails(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError
        add(*arguments)

    monkeypatch.setattr(tried, "add", fails)
    with pytest.raises(MemoryError):
        tried.clipped_sum(found, 0.5)
    assert (tried.clipped_sum(found, 0.5).total == whole).all()


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_no_engine_reads_or_moves_torchs_or_numpys_global_generator(engine):
    module, found = batch("mlp", (1,) * 4)
    tried = ENGINES[engine](module, LOSS)
    totals, states = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - it is this generator that must not matter
        before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
        totals.append(tried.clipped_sum(found, 0.5).total)
        after = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
        states.append(torch.equal(before[0], after[0]) and (before[1] == after[1]).all())
    assert (totals[0] == totals[1]).all()
    assert all(states)


def test_trying_an_engine_leaves_the_batch_as_it_was():
    # In float64 a layer's input is the batch itself; what a broken patient has in it must not be silenced there.
    module = build("mlp", {"hidden": (64, 32), "activation": "relu"}, input_shape=(13,), seed=1).double()
    found = workload((13,)).batch((1,) * 4, torch.float64)
    found.features[0].fill_(math.nan)
    result = BookkeepingEngine(module, LOSS).clipped_sum(found, 0.5)
    assert result.broken == 1
    assert torch.isnan(found.features[0]).all()
    self_test(BookkeepingEngine, module, LOSS, workload((13,)))


@pytest.mark.parametrize("limits", [{"POSITIONS_OF_PATIENT_MAX": 0}, {"POSITIONS_OF_PATIENT_MAX": 10**6}])
def test_factors_and_written_gradients_are_the_same(limits, monkeypatch):
    for name, value in limits.items():
        monkeypatch.setattr(bookkeeping, name, value)
    module, shape = made("convolutions 2d")
    self_test(BookkeepingEngine, module, LOSS, workload(shape))


def test_windows_and_the_librarys_convolution_are_the_same(monkeypatch):
    monkeypatch.setattr(layers, "WINDOWS_MAX", 0)
    for name in ("convolutions 1d", "convolutions 2d", "convolutions 3d"):
        module, shape = made(name)
        self_test(BookkeepingEngine, module, LOSS, workload(shape))


class Overwrites(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 1)

    def forward(self, inputs):
        values = torch.tanh(self.first(inputs)).detach()
        outputs = self.second(values)
        values.mul_(2)
        return outputs + 0 * self.first(inputs).sum(1, keepdim=True)


class MixesRecords(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(5, 1)

    def forward(self, inputs):
        return self.last(inputs - inputs.mean(0))


def test_bookkeeping_refuses_what_it_cannot_follow():
    found = workload((5,)).batch((1, 1, 1))
    with pytest.raises((EngineUnsuited, RuntimeError)):
        BookkeepingEngine(Overwrites(), LOSS).clipped_sum(found, 1.0)
    with pytest.raises(EngineUnsuited, match="no rule for GRU"):
        BookkeepingEngine(nn.Sequential(nn.GRU(5, 3)), LOSS)
    with pytest.raises(EngineUnsuited, match="padding_mode='reflect'"):
        BookkeepingEngine(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), LOSS)
    folds = nn.Sequential(nn.Unflatten(1, (5, 1)), nn.Flatten(0, 1), nn.Linear(1, 1), nn.Unflatten(0, (-1, 5)))
    with pytest.raises(EngineUnsuited, match="called with 15 rows"):
        BookkeepingEngine(folds, LOSS).clipped_sum(found, 1.0)


@pytest.mark.parametrize("engine", ["bookkeeping", "vmap"])
def test_the_self_test_finds_a_network_that_mixes_records(engine):
    with pytest.raises(EngineUnsuited, match=f"{engine}.*differs.*by [0-9]"):
        self_test(ENGINES[engine], MixesRecords(), LOSS, workload((5,)))


@pytest.mark.parametrize(
    ("part", "broken"),
    [
        ("factors_of", lambda squares, clip, tally: torch.ones_like(squares)),
        ("add_rows", lambda rows, factors, out: out.add_((factors @ rows.double()) * 1.0001)),
        ("by_patient", lambda records, sizes: records[: len(sizes)]),
    ],
    ids=["does not clip", "a little too much", "first records only"],
)
def test_the_self_test_finds_a_broken_engine(part, broken, monkeypatch):
    monkeypatch.setattr(bookkeeping, part, broken)
    module, shape = made("cnn")
    with pytest.raises(EngineUnsuited, match=r"bookkeeping.*(differs|finds)"):
        self_test(BookkeepingEngine, module, LOSS, workload(shape))


@pytest.mark.parametrize("sizes", [(1, 1), (4,), (1, 2, 0), (3, -1, 1)])
def test_a_batch_that_is_not_grouped_by_patient_is_refused(sizes):
    with pytest.raises(TrainingFailed, match="grouped by patient"):
        Batch(features=torch.zeros(3, 2), labels=torch.zeros(3), sizes=sizes)


def test_more_patients_than_the_margin_covers_are_refused():
    many = PATIENTS_MAX + 1
    with pytest.raises(TrainingFailed, match="at most"):
        Batch(features=torch.zeros(many, 1), labels=torch.zeros(many), sizes=(1,) * many)


def test_a_batch_and_a_sum_print_as_nothing():
    module, found = batch("mlp", (1, 1))
    result = LoopEngine(module, LOSS).clipped_sum(found, 1.0)
    assert repr(found) == "Batch(sizes=(1, 1))"
    assert repr(result) == "PatientSum()"


def test_neighbouring_sums_on_the_grid_are_within_the_clip_norm():
    # With a grid as coarse as a ring gives, where rounding is what costs most.
    mechanism = PoissonSampledGaussian(noise_multiplier=0.5, sampling_rate=0.1, steps=1, clip_norm_l2=1.0)
    module, found = batch("cnn", (1,) * 12)
    loud = Batch(features=found.features * 1e4, labels=found.labels, sizes=found.sizes)
    less = Batch(features=loud.features[1:], labels=loud.labels[1:], sizes=loud.sizes[1:])
    tried = BookkeepingEngine(module, LOSS)
    fine = Grid.of(mechanism, tried.dimension, margin=FLOAT_MARGIN)
    spacing = 2.0**-12
    coarse = Grid(spacing=spacing, clip_norm_l2=1 - FLOAT_MARGIN - spacing * math.sqrt(tried.dimension))
    for grid in (fine, coarse):
        both = [tried.clipped_sum(one, grid.clip_norm_l2).on_grid(grid) for one in (loud, less)]
        assert both[0].dtype == np.int64
        assert np.linalg.norm((both[0] - both[1]) * grid.spacing) <= 1.0

"""A network and its flat vector are the same thing."""

import numpy as np
import pytest
import torch
from torch import nn

from consortium.contract.layout import round_layout, update_lanes
from consortium.contract.plan import RoundKind
from site_agent.errors import TrainingFailed
from site_agent.networks import build, build_from
from site_agent.training_spec import network_spec_of
from site_agent.update import (
    global_model_of,
    load_vector,
    named_parameters,
    parameter_count,
    parameter_layout,
    vector_of,
)
from site_agent.update_lanes import lanes_of
from tests.fakes.site_world import small_study


class Language(nn.Module):
    """An embedding whose weight is the output layer's too, a batch norm that counts batches, and a frozen layer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.frozen = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.output = nn.Linear(3, 5)
        self.output.weight = self.embedding.weight
        self.frozen.weight.requires_grad_(False)
        self.register_buffer("seen", torch.tensor(2**40))

    def forward(self, tokens):
        return self.output(self.norm(self.frozen(self.embedding(tokens))))


class Tied(nn.Module):
    """Two names for one weight, and a counter."""

    def __init__(self):
        super().__init__()
        self.zeta = nn.Linear(3, 3, bias=False)
        self.alpha = nn.Linear(3, 3, bias=False)
        self.alpha.weight = self.zeta.weight
        self.middle = nn.Linear(3, 1)
        self.register_buffer("steps", torch.tensor(7))


def mlp(seed=1):
    return build("mlp", {"hidden": (4,), "activation": "tanh"}, input_shape=(3,), seed=seed)


def test_the_layout_is_sorted_by_name():
    assert parameter_layout(mlp()) == (("0.bias", (4,)), ("0.weight", (4, 3)), ("2.bias", (1,)), ("2.weight", (1, 4)))


def test_a_vector_comes_back_as_it_went():
    module, other = mlp(1), mlp(2)
    load_vector(other, vector_of(module))
    assert (vector_of(other) == vector_of(module)).all()
    inputs = torch.ones(5, 3)
    assert (other(inputs) == module(inputs)).all()


def test_the_vector_is_a_copy():
    module = mlp()
    vector = vector_of(module)
    vector[:] = 9
    assert not (vector_of(module) == 9).any()
    load_vector(module, vector)
    vector[:] = 0
    assert (vector_of(module) == 9).all()


def test_a_tied_parameter_is_there_once_and_a_counter_never():
    assert [name for name, _ in parameter_layout(Tied())] == ["middle.bias", "middle.weight", "zeta.weight"]
    assert parameter_count(Tied()) == 9 + 4


LANGUAGE_PARAMETERS = (
    ("embedding.weight", (5, 3)), ("frozen.bias", (3,)), ("norm.bias", (3,)), ("norm.weight", (3,)),
    ("output.bias", (5,)),
)  # fmt: skip


def test_only_what_is_trained_is_in_it_and_each_value_once():
    module = Language()
    assert parameter_layout(module) == LANGUAGE_PARAMETERS
    assert parameter_count(module) == 15 + 3 + 3 + 3 + 5
    assert sum(p is module.embedding.weight for _, p in named_parameters(module)) == 1
    buffers = dict(module.named_buffers())
    assert {name: b.dtype.is_floating_point for name, b in buffers.items()} == {
        "norm.running_mean": True, "norm.running_var": True, "norm.num_batches_tracked": False, "seen": False,
    }  # fmt: skip
    assert not set(buffers) & set(dict(parameter_layout(module)))


def test_what_is_not_in_it_stays_as_it_is():
    module = Language()
    module(torch.tensor([0, 1, 2, 3]))  # the norm counts a batch
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    vector = vector_of(module)
    load_vector(module, vector + 1)
    for name, value in module.state_dict().items():
        trained = name in dict(LANGUAGE_PARAMETERS) or name == "output.weight"
        assert torch.equal(value, kept[name] + 1 if trained else kept[name]), name
    assert module.norm.num_batches_tracked == 1
    assert (vector_of(module) == vector + 1).all()


def test_a_tied_weight_stays_tied_and_both_its_users_move():
    module = Language()
    load_vector(module, np.arange(29, dtype=np.float32))
    assert module.output.weight is module.embedding.weight
    assert module.embedding.weight.flatten().tolist() == list(range(15))
    assert module.output.bias.tolist() == list(range(24, 29))


def clipped(tensor_clips):
    """A study whose network is another one: what counts here is its clips."""
    study = small_study()
    return study.model_copy(update={"aggregation": study.aggregation.model_copy(update={"tensor_clips": tensor_clips})})


def test_what_is_masked_is_the_update_and_nothing_else():
    """A round's layout has as many values as are trained: no counter, no statistic, nothing twice."""
    module = Language()
    study = clipped({"embedding.*": 0.5, "norm.*": 2.0})
    layout = round_layout(study, parameters=parameter_layout(module), kind=RoundKind.TRAIN, measured=False)
    assert [(lane.name, lane.length, lane.clip) for lane in layout.lanes] == [
        ("update/0", 15, 0.5), ("update/1", 3, 4.0), ("update/2", 6, 2.0), ("update/3", 5, 4.0), ("weight", 1, 1.0),
    ]  # fmt: skip
    update = np.arange(29, dtype=np.float32)
    lanes = lanes_of(update, layout)
    assert [lanes[lane.name].tolist() for lane in update_lanes(layout)] == [
        list(range(15)), list(range(15, 18)), list(range(18, 24)), list(range(24, 29)),
    ]  # fmt: skip
    assert all(np.shares_memory(lane, update) for lane in lanes.values())


@pytest.mark.parametrize("size", [0, 28, 30])
def test_an_update_of_another_length_fits_no_lanes(size):
    study = clipped({"norm.*": 2.0})
    layout = round_layout(study, parameters=LANGUAGE_PARAMETERS, kind=RoundKind.TRAIN, measured=False)
    with pytest.raises(TrainingFailed, match=f"has {size} values; the round plan has room for 29"):
        lanes_of(np.zeros(size, dtype=np.float32), layout)


@pytest.mark.parametrize(
    "study",
    [
        small_study(),
        small_study(model={"network": "mlp", "args": {"hidden": (4,), "activation": "relu"}}),
        small_study(model={"network": "mlp", "args": {"hidden": (3, 4, 5, 2), "activation": "gelu"}}),
    ],
    ids=lambda study: f"{study.model.network} {getattr(study.model.args, 'hidden', ())}",
)
def test_the_contract_knows_the_parameters_of_every_network(study):
    """So that a study file is refused for a clip of a parameter there is not, where no torch is installed."""
    assert study.parameters == parameter_layout(build_from(network_spec_of(study)))


def test_a_frozen_parameter_is_not_in_it():
    module = mlp()
    module[0].weight.requires_grad_(False)
    assert "0.weight" not in dict(parameter_layout(module))


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(20, dtype=np.float32),
        np.zeros(22, dtype=np.float32),
        np.zeros((1, 21), dtype=np.float32),
        np.zeros(21, dtype=np.float64),
        np.full(21, np.nan, dtype=np.float32),
        np.full(21, np.inf, dtype=np.float32),
    ],
    ids=["short", "long", "matrix", "float64", "nan", "infinity"],
)
def test_a_vector_that_does_not_fit_is_refused(vector):
    module = mlp()
    before = vector_of(module)
    with pytest.raises(TrainingFailed):
        load_vector(module, vector)
    assert (vector_of(module) == before).all()


def test_the_global_model_has_the_same_layout():
    module = mlp()
    model = global_model_of(module)
    assert model.parameters == parameter_layout(module)
    assert (model.vector == vector_of(module)).all()
    assert model.digest() == global_model_of(mlp()).digest()

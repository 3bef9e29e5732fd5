"""A network and its flat vector are the same thing."""

import numpy as np
import pytest
import torch
from torch import nn

from site_agent.errors import TrainingFailed
from site_agent.networks import build
from site_agent.update import global_model_of, load_vector, parameter_count, parameter_layout, vector_of


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
    return build("mlp", {"hidden": (4,), "activation": "tanh"}, input_size=3, seed=seed)


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

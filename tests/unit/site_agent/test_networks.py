"""Which networks a study may name, and that every site builds the same one."""

import numpy as np
import pytest
import torch
from torch import nn

from consortium.contract.networks import NETWORKS as CATALOGUE
from site_agent import networks
from site_agent.errors import NetworkRefused
from site_agent.gradients.refusals import require_private
from site_agent.networks import build, build_from
from site_agent.update import vector_of
from tests.fakes.training import spec

MLP = {"hidden": (8, 4), "activation": "relu"}


def test_the_allow_list_is_the_catalogue():
    assert list(networks.NETWORKS) == list(CATALOGUE)


def test_logistic_starts_at_zero():
    assert vector_of(build("logistic", {}, input_shape=(13,), seed=1)).tolist() == [0.0] * 14


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_an_mlp_has_the_layers_it_was_asked_for(activation):
    module = build("mlp", {"hidden": (8, 4), "activation": activation}, input_shape=(5,), seed=1)
    assert module(torch.zeros(3, 5)).shape == (3, 1)
    assert len(vector_of(module)) == 5 * 8 + 8 + 8 * 4 + 4 + 4 + 1


def test_one_seed_gives_one_model_and_another_seed_another():
    first, again, other = (vector_of(build("mlp", MLP, input_shape=(5,), seed=seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert not np.allclose(first, other)


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    build("mlp", MLP, input_shape=(5,), seed=1)
    assert (torch.rand(3) == expected).all()


def test_the_global_generator_does_not_touch_the_weights():
    torch.manual_seed(1)
    first = vector_of(build("mlp", MLP, input_shape=(5,), seed=1))
    torch.manual_seed(2)
    assert (vector_of(build("mlp", MLP, input_shape=(5,), seed=1)) == first).all()


def test_a_spec_builds_the_same():
    wanted = spec(network="mlp", args=MLP, seed=3).network
    assert (vector_of(build_from(wanted)) == vector_of(build("mlp", MLP, input_shape=(5,), seed=3))).all()


@pytest.mark.parametrize(
    ("network", "args", "field"),
    [
        ("resnet", {}, "model.network"),
        ("torch.nn.Linear", {}, "model.network"),
        ("logistic", {"bias": False}, "model.args.bias"),
        ("mlp", {"activation": "relu"}, "model.args.hidden"),
        ("mlp", {"hidden": (), "activation": "relu"}, "model.args.hidden"),
        ("mlp", {"hidden": (0,), "activation": "relu"}, "model.args.hidden"),
        ("mlp", {"hidden": (True,), "activation": "relu"}, "model.args.hidden"),
        ("mlp", {"hidden": 8, "activation": "relu"}, "model.args.hidden"),
        ("mlp", {"hidden": (8,), "activation": "os.system"}, "model.args.activation"),
        ("mlp", {"hidden": (8,), "activation": "relu", "norm": "batch"}, "model.args.norm"),
    ],
)
def test_what_is_not_on_the_list_is_refused_by_name(network, args, field):
    with pytest.raises(NetworkRefused) as caught:
        build(network, args, input_shape=(5,), seed=1)
    assert caught.value.field == field
    assert field in caught.value.advice()


def _frozen():
    norm = nn.BatchNorm1d(4)
    for parameter in norm.parameters():
        parameter.requires_grad_(False)
    return norm


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(4),
        nn.BatchNorm1d(4, affine=False),
        nn.BatchNorm1d(4, track_running_stats=False),
        nn.BatchNorm2d(4),
        nn.SyncBatchNorm(4),
        _frozen(),
        nn.InstanceNorm1d(4, track_running_stats=True),
    ],
    ids=["plain", "non-affine", "untracked", "2d", "sync", "frozen", "tracking-instance-norm"],
)
def test_statistics_of_batches_are_refused(norm):
    with pytest.raises(NetworkRefused):
        require_private(nn.Sequential(nn.Linear(4, 4), norm, nn.Linear(4, 1)))


def test_a_float_buffer_is_refused():
    module = nn.Linear(4, 1)
    module.register_buffer("running", torch.zeros(4))
    with pytest.raises(NetworkRefused, match="running"):
        require_private(module)


def test_group_norm_and_a_counter_are_allowed():
    module = nn.Sequential(nn.Linear(4, 4), nn.GroupNorm(2, 4), nn.Linear(4, 1))
    module.register_buffer("steps", torch.tensor(0))
    require_private(module)

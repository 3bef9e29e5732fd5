"""The allow-list of networks a study may name, and the only place that builds one.

A study says a name and arguments (`consortium.contract.catalogue`); the same study gives the same weights at every
site, so that all sites can agree on the first global model by its digest. Random weights come from the study's public
seed, inside a scope that leaves torch's global generator as it was.

Refused whatever its name: networks that keep statistics of the batches they saw (`gradients.refusals`).
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import nn

from site_agent.errors import NetworkRefused
from site_agent.gradients.refusals import require_private
from site_agent.training_spec import NetworkSpec

_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def build(network: str, args: Mapping[str, object], *, input_shape: tuple[int, ...], seed: int) -> nn.Module:
    """The network a study names, with its first weights: float32[records, *input_shape] -> float32[records, 1] logits.

    Args:
        network: A key of `NETWORKS`.
        args: The study's `model.args`.
        input_shape: Of one record.
        seed: The study's `training.seed`; it decides weights and nothing secret.

    Raises:
        NetworkRefused: The name or an argument is not on the allow-list, or the network cannot be trained privately.
    """
    builder = NETWORKS.get(network)
    if builder is None:
        raise NetworkRefused("model.network", repr(network), ", ".join(NETWORKS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = builder(args, input_shape)
    require_private(module)
    return module


def build_from(spec: NetworkSpec) -> nn.Module:
    """`build`, from a spec."""
    return build(spec.network, spec.args, input_shape=spec.input_shape, seed=spec.seed)


def _logistic(args: Mapping[str, object], input_shape: tuple[int, ...]) -> nn.Module:
    """One weight per input and a bias, all zero: there is no symmetry to break, and zero is everybody's first guess."""
    _known(args, set())
    layer = nn.Linear(_inputs(input_shape), 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer)


def _mlp(args: Mapping[str, object], input_shape: tuple[int, ...]) -> nn.Module:
    """Fully connected layers with one output."""
    _known(args, {"hidden", "activation"})
    hidden, activation = args.get("hidden"), args.get("activation")
    if not isinstance(hidden, list | tuple) or not hidden or not all(type(n) is int and n >= 1 for n in hidden):
        raise NetworkRefused("model.args.hidden", repr(hidden), "a list of whole numbers of at least 1")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise NetworkRefused("model.args.activation", repr(activation), ", ".join(_ACTIVATIONS))
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise([_inputs(input_shape), *hidden]):
        layers += [nn.Linear(width_in, width_out), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 1))


def _cnn(args: Mapping[str, object], input_shape: tuple[int, ...]) -> nn.Module:
    """Two convolutions with group norm, for small images: the network most papers on DP-SGD report."""
    _known(args, set())
    if len(input_shape) != 3 or input_shape[1:] != (28, 28):
        raise NetworkRefused("model.network", f"cnn for records of shape {input_shape}", "images of 28 by 28")
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 16, 8, stride=2, padding=3),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.MaxPool2d(2, stride=1),
        nn.Conv2d(16, 32, 4, stride=2),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.MaxPool2d(2, stride=1),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.ReLU(),
        nn.Linear(32, 1),
    )


NETWORKS: Mapping[str, Callable[[Mapping[str, object], tuple[int, ...]], nn.Module]] = {
    "logistic": _logistic,
    "mlp": _mlp,
    "cnn": _cnn,
}


def _inputs(input_shape: tuple[int, ...]) -> int:
    if len(input_shape) != 1:
        raise NetworkRefused("model.network", f"a network of tables for records of shape {input_shape}", "cnn")
    return input_shape[0]


def _known(args: Mapping[str, object], names: set[str]) -> None:
    for name in args:
        if name not in names:
            raise NetworkRefused(f"model.args.{name}", "an unknown argument", ", ".join(sorted(names)) or "none")

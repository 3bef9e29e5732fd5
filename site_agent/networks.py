"""The allow-list of networks a study may name, and the only place that builds one.

A study says a name and arguments (`consortium.contract.catalogue`); the same study gives the same weights at every
site, so that all sites can agree on the first global model by its digest. Random weights come from the study's public
seed, inside a scope that leaves torch's global generator as it was.

Refused whatever its name: networks that keep statistics of the batches they saw (every BatchNorm, also frozen or
non-affine; instance norm that tracks), because those statistics leave the building without noise, and networks that
Opacus cannot give per-record gradients for.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from opacus.validators import ModuleValidator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from site_agent.errors import NetworkRefused
from site_agent.training_spec import NetworkSpec

_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def build(network: str, args: Mapping[str, object], *, input_size: int, seed: int) -> nn.Module:
    """The network a study names, with its first weights: float32[records, input_size] -> float32[records, 1] logits.

    Args:
        network: A key of `NETWORKS`.
        args: The study's `model.args`.
        input_size: Inputs per record, at least 1.
        seed: The study's `training.seed`; it decides weights and nothing secret.

    Raises:
        NetworkRefused: The name or an argument is not on the allow-list, or the network cannot be trained privately.
    """
    builder = NETWORKS.get(network)
    if builder is None:
        raise NetworkRefused("model.network", repr(network), ", ".join(NETWORKS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = builder(args, input_size)
    require_private(module)
    return module


def build_from(spec: NetworkSpec) -> nn.Module:
    """`build`, from a spec."""
    return build(spec.network, spec.args, input_size=spec.input_size, seed=spec.seed)


def require_private(module: nn.Module) -> None:
    """Refuse a network whose training under DP-SGD would not mean what the accountant is told.

    Raises:
        NetworkRefused: It keeps statistics of batches, has a float buffer, or Opacus' validator refuses it.
    """
    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm):
            raise NetworkRefused(
                "model.network", f"{type(part).__name__} at {name!r}", "GroupNorm or LayerNorm instead"
            )
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            raise NetworkRefused("model.network", f"the float buffer {name!r}", "parameters only: buffers get no noise")
    problems = ModuleValidator.validate(module.train(), strict=False)
    if problems:
        raise NetworkRefused("model.network", str(problems[0]), "layers with per-record gradients")


def _logistic(args: Mapping[str, object], input_size: int) -> nn.Module:
    """One weight per input and a bias, all zero: there is no symmetry to break, and zero is everybody's first guess."""
    _known(args, set())
    layer = nn.Linear(input_size, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer)


def _mlp(args: Mapping[str, object], input_size: int) -> nn.Module:
    """Fully connected layers with one output."""
    _known(args, {"hidden", "activation"})
    hidden, activation = args.get("hidden"), args.get("activation")
    if not isinstance(hidden, list | tuple) or not hidden or not all(type(n) is int and n >= 1 for n in hidden):
        raise NetworkRefused("model.args.hidden", repr(hidden), "a list of whole numbers of at least 1")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise NetworkRefused("model.args.activation", repr(activation), ", ".join(_ACTIVATIONS))
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise([input_size, *hidden]):
        layers += [nn.Linear(width_in, width_out), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 1))


NETWORKS: Mapping[str, Callable[[Mapping[str, object], int], nn.Module]] = {"logistic": _logistic, "mlp": _mlp}


def _known(args: Mapping[str, object], names: set[str]) -> None:
    for name in args:
        if name not in names:
            raise NetworkRefused(f"model.args.{name}", "an unknown argument", ", ".join(sorted(names)) or "none")

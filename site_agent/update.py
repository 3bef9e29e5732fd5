"""A network's parameters <-> one flat float32 vector, in the layout every site and the coordinator share.

Parameters are sorted by name. A tensor that two layers share counts once, under the name torch lists it by; a frozen
parameter and a buffer (a counter of batches, say) are never in it, so neither is trained, masked nor summed. Parameters
that the study leaves with every hospital (`training.site_kept`, marked by `divide`) are trained but are not in it
either. The layout is a function of the study alone.
"""

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from consortium.contract.global_model import GlobalModel, ParameterLayout, is_finite
from consortium.contract.parameter_parts import parts_of
from site_agent.errors import TrainingFailed

_BLOCK = 1 << 18  # values copied at a time


_KEPT = "site_kept_names"
"""An attribute that `divide` gives to a network; whoever copies the network copies it."""

NamedParameters: TypeAlias = tuple[tuple[str, nn.Parameter], ...]


def divide(module: nn.Module, trainable: tuple[str, ...] | None, site_kept: tuple[str, ...] | None) -> None:
    """Freeze what a study does not train, and mark what every hospital keeps (`consortium.contract.parameter_parts`).

    Raises:
        PartsRefused: The patterns do not fit the network.
    """
    if trainable is None and site_kept is None:
        return
    layout = tuple((name, tuple(p.shape)) for name, p in named_parameters(module))
    parts = parts_of(layout, trainable, site_kept)
    frozen = {name for name, _ in parts.frozen}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in frozen)
    setattr(module, _KEPT, frozenset(name for name, _ in parts.kept))


def _kept_names(module: nn.Module) -> frozenset[str]:
    names: frozenset[str] = getattr(module, _KEPT, frozenset())
    return names


def named_parameters(module: nn.Module) -> NamedParameters:
    """The parameters that are trained, sorted by name, each once: those that are sent and those that are kept."""
    return tuple(sorted((name, p) for name, p in module.named_parameters() if p.requires_grad))


def sent_parameters(module: nn.Module) -> NamedParameters:
    """Of the trained parameters those of the layout, in its order."""
    kept = _kept_names(module)
    return tuple((name, p) for name, p in named_parameters(module) if name not in kept)


def kept_parameters(module: nn.Module) -> NamedParameters:
    """Of the trained parameters those that never leave the hospital."""
    kept = _kept_names(module)
    return tuple((name, p) for name, p in named_parameters(module) if name in kept)


def parameter_layout(module: nn.Module) -> ParameterLayout:
    """Name and shape of every parameter that is sent, sorted by name."""
    return tuple((name, tuple(p.shape)) for name, p in sent_parameters(module))


def kept_layout(module: nn.Module) -> ParameterLayout:
    """The same of those that are kept."""
    return tuple((name, tuple(p.shape)) for name, p in kept_parameters(module))


def parameter_count(module: nn.Module) -> int:
    """How many values are trained."""
    return sum(p.numel() for _, p in named_parameters(module))


def vector_of(module: nn.Module) -> NDArray[np.float32]:
    """The parameters that are sent as float32[d], a copy."""
    return _flat(sent_parameters(module))


def kept_vector_of(module: nn.Module) -> NDArray[np.float32]:
    """The parameters that are kept as one vector, a copy; empty without any."""
    return _flat(kept_parameters(module))


def _flat(parameters: NamedParameters) -> NDArray[np.float32]:
    parts = [p.detach().to(device="cpu", dtype=torch.float32).numpy().ravel() for _, p in parameters]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def load_vector(module: nn.Module, vector: NDArray[np.float32]) -> None:
    """Overwrite the parameters that are sent with a vector in this module's layout.

    Raises:
        TrainingFailed: The vector is not float32, has another length, or holds a value that is not finite.
    """
    _load(sent_parameters(module), vector)


def load_kept(module: nn.Module, vector: NDArray[np.float32]) -> None:
    """Overwrite the parameters that are kept; raises as `load_vector`."""
    _load(kept_parameters(module), vector)


def _load(parameters: NamedParameters, vector: NDArray[np.float32]) -> None:
    wanted = sum(p.numel() for _, p in parameters)
    if vector.dtype != np.float32 or vector.shape != (wanted,):
        raise TrainingFailed(f"the global model has {vector.size} values of {vector.dtype}; this network has {wanted}")
    if not is_finite(vector):
        raise TrainingFailed("the global model holds a value that is not finite")
    start = 0
    with torch.no_grad():
        for _, parameter in parameters:
            stop = start + parameter.numel()
            # torch warns of arrays that cannot be written to, as a global model's cannot: it gets copies of blocks.
            flat = parameter.view(-1)
            for place in range(0, len(flat), _BLOCK):
                block = vector[start + place : min(start + place + _BLOCK, stop)]
                flat[place : place + _BLOCK].copy_(torch.from_numpy(block.copy()))
            start = stop


def global_model_of(module: nn.Module) -> GlobalModel:
    """The module's parameters as the model that travels."""
    return GlobalModel(parameter_layout(module), vector_of(module))

"""A network's parameters <-> one flat float32 vector, in the layout every site and the coordinator share.

Parameters are sorted by name. A tensor that two layers share counts once, under the name torch lists it by; a frozen
parameter and a buffer (a counter of batches, say) are never in it, so neither is trained, masked nor summed. The layout
is a function of the study's network alone.
"""

import math
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from consortium.contract.global_model import GlobalModel, ParameterLayout, is_finite
from consortium.contract.layout import update_lanes
from privacy.encoding import Layout
from site_agent.errors import TrainingFailed

_BLOCK = 1 << 18  # values copied at a time


def named_parameters(module: nn.Module) -> tuple[tuple[str, nn.Parameter], ...]:
    """The trainable parameters in the order of the layout, each once."""
    return tuple(sorted((name, p) for name, p in module.named_parameters() if p.requires_grad))


def parameter_layout(module: nn.Module) -> ParameterLayout:
    """Name and shape of every trainable parameter, sorted by name."""
    return tuple((name, tuple(p.shape)) for name, p in named_parameters(module))


def parameter_count(module: nn.Module) -> int:
    """How many values the vector has."""
    return sum(math.prod(shape) for _, shape in parameter_layout(module))


def vector_of(module: nn.Module) -> NDArray[np.float32]:
    """The parameters as float32[parameter_count], a copy."""
    parts = [p.detach().to(device="cpu", dtype=torch.float32).numpy().ravel() for _, p in named_parameters(module)]
    return np.concatenate(parts)


def load_vector(module: nn.Module, vector: NDArray[np.float32]) -> None:
    """Overwrite the parameters with a vector in this module's layout.

    Raises:
        TrainingFailed: The vector is not float32, has another length, or holds a value that is not finite.
    """
    wanted = parameter_count(module)
    if vector.dtype != np.float32 or vector.shape != (wanted,):
        raise TrainingFailed(f"the global model has {vector.size} values of {vector.dtype}; this network has {wanted}")
    if not is_finite(vector):
        raise TrainingFailed("the global model holds a value that is not finite")
    start = 0
    with torch.no_grad():
        for _, parameter in named_parameters(module):
            stop = start + parameter.numel()
            # torch warns of arrays that cannot be written to, as a global model's cannot: it gets copies of blocks.
            flat = parameter.view(-1)
            for place in range(0, len(flat), _BLOCK):
                block = vector[start + place : min(start + place + _BLOCK, stop)]
                flat[place : place + _BLOCK].copy_(torch.from_numpy(block.copy()))
            start = stop


def lanes_of(
    update: NDArray[np.float32] | NDArray[np.float64], layout: Layout
) -> dict[str, NDArray[np.float32] | NDArray[np.float64]]:
    """An update in this layout's lanes, as views: parameters that share a clip share a lane.

    Raises:
        TrainingFailed: The lanes hold another number of values than the update has.
    """
    lanes = update_lanes(layout)
    room = sum(lane.length for lane in lanes)
    if update.shape != (room,):
        raise TrainingFailed(f"the update has {update.size} values; the round plan has room for {room}")
    starts = accumulate((lane.length for lane in lanes), initial=0)
    return {lane.name: update[start : start + lane.length] for lane, start in zip(lanes, starts, strict=False)}


def global_model_of(module: nn.Module) -> GlobalModel:
    """The module's parameters as the model that travels."""
    return GlobalModel(parameter_layout(module), vector_of(module))

"""Layers that DP-SGD allows, in the place of those MONAI's networks come with.

| found | becomes | why |
|---|---|---|
| batch norm | group norm | its statistics mix patients |
| instance norm, group norm | group norm with groups of its own | one rule for every width, and no norm of one value |
| an activation that works in place | the same, not in place | engines read what a layer was given |

The number of groups follows from the width: a fixed one, such as 4, does not divide the 3 outputs of a U-Net. No group
has a single channel unless the layer has, so that a norm is defined where a picture has shrunk to one pixel.
"""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

GROUPS_MAX = 8
"""Groups of a norm. Wu and He (ECCV 2018) use 32 on wide networks; those trained under noise are narrow."""


def groups_of(channels: int) -> int:
    """Groups of a norm over so many channels: the largest divisor up to GROUPS_MAX that leaves two channels in each."""
    return next(groups for groups in range(min(GROUPS_MAX, max(1, channels // 2)), 0, -1) if channels % groups == 0)


def with_private_layers(module: nn.Module) -> nn.Module:
    """The same network with its layers replaced as above; changed in place. It draws no random numbers."""
    made: dict[nn.Module, nn.Module] = {}  # a layer with two parents stays one layer
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, (_NormBase, nn.GroupNorm)):
                setattr(parent, name, made.setdefault(layer, _group_norm(layer)))
    for part in module.modules():
        if getattr(part, "inplace", False) is True:
            setattr(part, "inplace", False)  # noqa: B010 - what has it is found by name
    return module


def _group_norm(layer: "_NormBase | nn.GroupNorm") -> nn.GroupNorm:
    channels = layer.num_channels if isinstance(layer, nn.GroupNorm) else layer.num_features
    return nn.GroupNorm(groups_of(channels), channels, eps=layer.eps)

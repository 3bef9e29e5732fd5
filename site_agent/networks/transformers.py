"""What MONAI's transformer blocks hold and never call."""

from monai.networks.blocks.transformerblock import TransformerBlock
from torch import nn


def without_unused_layers(network: nn.Module) -> nn.Module:
    """The network without norms that no forward pass reaches: they would be sent, and get noise, for nothing."""
    for part in network.modules():
        if isinstance(part, TransformerBlock) and not part.with_cross_attention:
            part.add_module("norm_cross_attn", nn.Identity())
    return network

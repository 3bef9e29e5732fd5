"""Small instances of MONAI's networks: those that imaging studies are made of, with the arguments that matter here.

Group norm or instance norm stands in place of batch norm. Everything else is as MONAI builds it, in-place activations
and layers that are used twice included. What draws random numbers (dropout, stochastic depth) is on where a network has
it, because it must be off where engines are compared.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

GROUPS = ("group", {"num_groups": 2})
OVERWRITES = MappingProxyType({"hooks": "is being modified inplace", "ghost": "is being modified inplace"})
"""`x += ...` in a network's own code cannot be switched off, as that of a layer can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One network: where MONAI keeps it, its arguments, and the shapes of one record."""

    module: str  # below monai.networks.nets
    kind: str
    args: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    shape: tuple[int, ...]
    masks: bool = False  # one output for each pixel; otherwise one for each record
    # Engines that cannot do it, and a word of the reason they must give.
    unsuited: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of one record's label."""
        return (1, *self.shape[1:]) if self.masks else ()

    def build(self) -> nn.Module:
        """The network with the same weights every time, and torch's global generator as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            kind = getattr(importlib.import_module(f"monai.networks.nets.{self.module}"), self.kind)
            return without_batch_norm(FirstOutput(kind(**self.args)) if self.kind == "ViT" else kind(**self.args))


class FirstOutput(nn.Module):
    """MONAI's ViT also returns what its layers put out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The logits."""
        outputs: torch.Tensor = self.network(inputs)[0]
        return outputs


def without_batch_norm(network: nn.Module) -> nn.Module:
    """Group norm in the place of every batch norm: MONAI's AttentionUnet cannot be asked for another norm."""
    for part in network.modules():
        for name, child in part.named_children():
            if isinstance(child, _BatchNorm):
                setattr(part, name, nn.GroupNorm(1, child.num_features))
    return network


EXAMPLES: Mapping[str, Example] = {
    "DenseNet121": Example(
        module="densenet", kind="DenseNet121", shape=(1, 32, 32),
        args={
            "spatial_dims": 2, "in_channels": 1, "out_channels": 1, "init_features": 8, "growth_rate": 4,
            "block_config": (2, 2, 2, 2), "norm": GROUPS,
        },
    ),
    "ResNet 2-D": Example(
        module="resnet", kind="ResNet", shape=(1, 16, 16),
        unsuited=OVERWRITES,
        args={
            "block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 8, 8], "spatial_dims": 2,
            "n_input_channels": 1, "num_classes": 1, "norm": GROUPS,
        },
    ),
    "ResNet 3-D": Example(
        module="resnet", kind="ResNet", shape=(1, 8, 8, 8),
        unsuited=OVERWRITES,
        args={
            "block": "bottleneck", "layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 4, 4], "spatial_dims": 3,
            "n_input_channels": 1, "num_classes": 1, "norm": GROUPS, "conv1_t_size": 3,
        },
    ),
    "EfficientNet": Example(
        module="efficientnet", kind="EfficientNet", shape=(1, 32, 32),
        args={
            "blocks_args_str": ["r1_k3_s11_e1_i32_o16_se0.25", "r2_k3_s22_e6_i16_o24_se0.25"], "spatial_dims": 2,
            "in_channels": 1, "num_classes": 1, "width_coefficient": 0.25, "image_size": 32, "norm": GROUPS,
        },
    ),
    "UNet 2-D": Example(
        module="unet", kind="UNet", shape=(1, 16, 16), masks=True,
        args={
            "spatial_dims": 2, "in_channels": 1, "out_channels": 1, "channels": (4, 8, 8), "strides": (2, 2),
            "num_res_units": 2, "norm": "instance", "dropout": 0.1,
        },
    ),
    "UNet 3-D": Example(
        module="unet", kind="UNet", shape=(1, 8, 8, 8), masks=True,
        args={
            "spatial_dims": 3, "in_channels": 1, "out_channels": 1, "channels": (4, 8, 8), "strides": (2, 2),
            "num_res_units": 1, "norm": ("group", {"num_groups": 1}),
        },
    ),
    "BasicUNet": Example(
        module="basic_unet", kind="BasicUNet", shape=(1, 16, 16), masks=True,
        args={
            "spatial_dims": 2, "in_channels": 1, "out_channels": 1, "features": (4, 4, 4, 8, 8, 4), "norm": GROUPS,
        },
    ),
    "AttentionUnet": Example(
        module="attentionunet", kind="AttentionUnet", shape=(1, 16, 16), masks=True,
        args={
            "spatial_dims": 2, "in_channels": 1, "out_channels": 1, "channels": (4, 8, 8), "strides": (2, 2),
        },
    ),
    "SegResNet": Example(
        module="segresnet", kind="SegResNet", shape=(1, 16, 16), masks=True,
        unsuited=OVERWRITES,
        args={
            "spatial_dims": 2, "in_channels": 1, "out_channels": 1, "init_filters": 4, "blocks_down": (1, 1, 1),
            "blocks_up": (1, 1), "norm": GROUPS,
        },
    ),
    "DynUNet": Example(
        module="dynunet", kind="DynUNet", shape=(1, 16, 16), masks=True,
        unsuited={"hooks": "autograd.Function with functorch", "ghost": "autograd.Function with functorch"},
        args={
            "spatial_dims": 2, "in_channels": 1, "out_channels": 1, "kernel_size": (3, 3, 3), "strides": (1, 2, 2),
            "upsample_kernel_size": (2, 2), "filters": (4, 8, 8), "norm_name": ("instance", {"affine": True}),
        },
    ),
    "UNETR": Example(
        module="unetr", kind="UNETR", shape=(1, 32, 32), masks=True,
        unsuited={
            "bookkeeping": "no rule for PatchEmbeddingBlock", "hooks": "used more than once", "ghost": "_norm_sample",
        },
        args={
            "in_channels": 1, "out_channels": 1, "img_size": (32, 32), "feature_size": 2, "hidden_size": 8,
            "mlp_dim": 8, "num_heads": 2, "norm_name": "instance", "spatial_dims": 2,
        },
    ),
    "SwinUNETR": Example(
        module="swin_unetr", kind="SwinUNETR", shape=(1, 64, 64), masks=True,
        unsuited={"bookkeeping": "no rule for WindowAttention", "hooks": "buffers", "ghost": "buffers"},
        args={
            "in_channels": 1, "out_channels": 1, "patch_size": 2, "window_size": 2, "feature_size": 12,
            "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2), "norm_name": "instance", "spatial_dims": 2,
            "drop_rate": 0.1, "dropout_path_rate": 0.1,
        },
    ),
    "ViT": Example(
        module="vit", kind="ViT", shape=(1, 16, 16),
        unsuited={"bookkeeping": "no rule for ViT", "hooks": "integer tensors", "ghost": "integer tensors"},
        args={
            "in_channels": 1, "img_size": (16, 16), "patch_size": (8, 8), "hidden_size": 8, "mlp_dim": 16,
            "num_layers": 2, "num_heads": 2, "classification": True, "num_classes": 1, "post_activation": "none",
            "spatial_dims": 2, "dropout_rate": 0.1,
        },
    ),
}  # fmt: skip
"""Name -> a network of that kind that is small enough to be tried in a second."""

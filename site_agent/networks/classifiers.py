"""MONAI's networks that give an image one label.

Norms are asked for in whatever form a network accepts, and replaced after it is built (`private_layers`).
"""

import torch
from monai.networks.nets.densenet import DenseNet121
from monai.networks.nets.efficientnet import EfficientNetBN, MBConvBlock
from monai.networks.nets.resnet import ResNet
from monai.networks.nets.vit import ViT
from torch import nn

from consortium.contract.networks import DenseNet121Args, EfficientNetArgs, ResNetArgs, ViTArgs
from site_agent.networks.records import RecordShape
from site_agent.networks.transformers import without_unused_layers

_STAGES = {10: ("basic", (1, 1, 1, 1)), 18: ("basic", (2, 2, 2, 2)), 50: ("bottleneck", (3, 4, 6, 3))}


def densenet121(args: DenseNet121Args, shape: RecordShape) -> nn.Module:
    """Huang et al. (CVPR 2017)."""
    return DenseNet121(
        spatial_dims=shape.axes,
        in_channels=shape.channels,
        out_channels=shape.outputs,
        init_features=args.init_features,
        growth_rate=args.growth_rate,
        dropout_prob=args.dropout,
    )


def resnet(args: ResNetArgs, shape: RecordShape) -> nn.Module:
    """He et al. (CVPR 2016)."""
    block, layers = _STAGES[args.depth]
    return ResNet(
        block=block,
        layers=list(layers),
        block_inplanes=[args.width << stage for stage in range(4)],
        spatial_dims=shape.axes,
        n_input_channels=shape.channels,
        num_classes=shape.outputs,
        conv1_t_size=3 if args.small_images else 7,
        conv1_t_stride=1 if args.small_images else 2,
        no_max_pool=args.small_images,
    )


def efficientnet(args: EfficientNetArgs, shape: RecordShape) -> nn.Module:
    """Tan and Le (ICML 2019), without stochastic depth: it draws for whole records, and engines are compared on one."""
    network = EfficientNetBN(
        f"efficientnet-{args.size}",
        pretrained=False,
        spatial_dims=shape.axes,
        in_channels=shape.channels,
        num_classes=shape.outputs,
    )
    network.set_swish(memory_efficient=False)  # the other one has a backward pass of its own, which few engines follow
    network._dropout.p = args.dropout  # noqa: SLF001 - MONAI fixes it by the network's size
    for part in network.modules():
        if isinstance(part, MBConvBlock):
            part.drop_connect_rate = None
    return network


class VisionTransformer(ViT):
    """MONAI's ViT, which also returns what its layers put out."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The logits alone."""
        logits: torch.Tensor = super().forward(inputs)[0]  # type: ignore[no-untyped-call] # as MONAI has it
        return logits


def vit(args: ViTArgs, shape: RecordShape) -> nn.Module:
    """Dosovitskiy et al. (ICLR 2021)."""
    network = VisionTransformer(
        in_channels=shape.channels,
        img_size=shape.sides,
        patch_size=(args.patch_size,) * shape.axes,
        hidden_size=args.hidden_size,
        mlp_dim=args.mlp_size,
        num_layers=args.layers,
        num_heads=args.heads,
        classification=True,
        num_classes=shape.outputs,
        dropout_rate=args.dropout,
        spatial_dims=shape.axes,
        post_activation="none",
    )
    return without_unused_layers(network)

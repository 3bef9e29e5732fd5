"""MONAI's networks that give every place of an image a label.

Norms are asked for in whatever form a network accepts, and replaced after it is built (`private_layers`).
"""

from monai.networks.nets.attentionunet import AttentionUnet
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unet import UNet
from monai.networks.nets.unetr import UNETR
from torch import nn

from consortium.contract.networks import (
    AttentionUnetArgs,
    BasicUNetArgs,
    DynUNetArgs,
    SegResNetArgs,
    SwinUnetrArgs,
    UNetArgs,
    UnetrArgs,
)
from site_agent.networks.records import RecordShape
from site_agent.networks.transformers import without_unused_layers

_ONE_GROUP = ("group", {"num_groups": 1})


def unet(args: UNetArgs, shape: RecordShape) -> nn.Module:
    """Kerfoot et al. (STACOM 2018)."""
    return UNet(
        spatial_dims=shape.axes,
        in_channels=shape.channels,
        out_channels=shape.outputs,
        channels=args.channels,
        strides=(2,) * (len(args.channels) - 1),
        num_res_units=args.res_units,
        dropout=args.dropout,
    )


def dynunet(args: DynUNetArgs, shape: RecordShape) -> nn.Module:
    """Isensee et al. (Nature Methods 2021)."""
    levels = len(args.channels)
    return DynUNet(
        spatial_dims=shape.axes,
        in_channels=shape.channels,
        out_channels=shape.outputs,
        kernel_size=(3,) * levels,
        strides=(1, *(2,) * (levels - 1)),
        upsample_kernel_size=(2,) * (levels - 1),
        filters=args.channels,
        dropout=args.dropout or None,
        res_block=args.residual,
    )


def segresnet(args: SegResNetArgs, shape: RecordShape) -> nn.Module:
    """Myronenko (BrainLes 2018), without its autoencoder."""
    return SegResNet(
        spatial_dims=shape.axes,
        init_filters=args.width,
        in_channels=shape.channels,
        out_channels=shape.outputs,
        dropout_prob=args.dropout or None,
        norm=_ONE_GROUP,
        blocks_down=args.blocks_down,
        blocks_up=args.blocks_up,
    )


def attention_unet(args: AttentionUnetArgs, shape: RecordShape) -> nn.Module:
    """Oktay et al. (MIDL 2018)."""
    return AttentionUnet(
        spatial_dims=shape.axes,
        in_channels=shape.channels,
        out_channels=shape.outputs,
        channels=args.channels,
        strides=(2,) * (len(args.channels) - 1),
        dropout=args.dropout,
    )


def basic_unet(args: BasicUNetArgs, shape: RecordShape) -> nn.Module:
    """Falk et al. (Nature Methods 2019)."""
    return BasicUNet(
        spatial_dims=shape.axes,
        in_channels=shape.channels,
        out_channels=shape.outputs,
        features=args.channels,
        dropout=args.dropout,
    )


def swin_unetr(args: SwinUnetrArgs, shape: RecordShape) -> nn.Module:
    """Hatamizadeh et al. (BrainLes 2021), without stochastic depth."""
    return SwinUNETR(
        in_channels=shape.channels,
        out_channels=shape.outputs,
        depths=args.depths,
        num_heads=args.heads,
        window_size=args.window,
        feature_size=args.feature_size,
        drop_rate=args.dropout,
        spatial_dims=shape.axes,
    )


def unetr(args: UnetrArgs, shape: RecordShape) -> nn.Module:
    """Hatamizadeh et al. (WACV 2022)."""
    network = UNETR(
        in_channels=shape.channels,
        out_channels=shape.outputs,
        img_size=shape.sides,
        feature_size=args.feature_size,
        hidden_size=args.hidden_size,
        mlp_dim=args.mlp_size,
        num_heads=args.heads,
        dropout_rate=args.dropout,
        spatial_dims=shape.axes,
    )
    return without_unused_layers(network)

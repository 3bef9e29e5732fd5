"""The allow-list of `_target_`: what a bundle may name, with the arguments it may give and their bounds. Pure.

A target is looked up here as a word. It is never imported by its name, so a name that is not in this file reaches no
code at all. Which class stands for it is written in `building.py`, and a test holds every argument here against
MONAI's own signature.

| kind | what happens |
|---|---|
| network, loss, transform, inferer | built, with the arguments listed and no other |
| optimizer, schedule | read and shown; the study's own optimizer takes the steps, on gradients already private |
| left out (`LEFT_OUT`) | loops, loaders, handlers, metrics, readers: named, and never built |
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from consortium.contract.errors import shown
from site_agent.bundles.documents import Value
from site_agent.bundles.expressions import DataType

SPECIAL_KEYS = ("_target_", "_disabled_", "_desc_", "_mode_")
"""Keys with a meaning that a bundle may use; `_mode_` only as "default", which is what it is without."""


class Kind(StrEnum):
    """What a target is for."""

    NETWORK = "network"
    LOSS = "loss"
    TRANSFORM = "transform"
    INFERER = "inferer"
    OPTIMIZER = "optimizer"
    SCHEDULE = "schedule"


@dataclass(frozen=True, slots=True)
class Argument:
    """What one argument may be."""

    allowed: str
    holds: Callable[[Value], bool]


@dataclass(frozen=True, slots=True)
class Target:
    """One class of MONAI or torch, and the arguments it may be given."""

    name: str  # the class
    kind: Kind
    arguments: Mapping[str, Argument]
    required: frozenset[str] = frozenset()


def _whole(low: int, high: int) -> Argument:
    return Argument(f"a whole number from {low} to {high}", lambda v: _is_whole(v, low, high))


def _number(low: float, high: float) -> Argument:
    return Argument(f"a number from {low:g} to {high:g}", lambda v: _is_number(v, low, high))


def _numbers(low: float, high: float, longest: int = 64) -> Argument:
    """A number, or a list of them, or of lists of them."""
    return Argument(
        f"a number from {low:g} to {high:g}, or a list of at most {longest} of them",
        lambda v: _each(v, longest, lambda part: _is_number(part, low, high)),
    )


def _wholes(low: int, high: int, longest: int = 8) -> Argument:
    return Argument(
        f"a whole number from {low} to {high}, or a list of at most {longest} of them",
        lambda v: _each(v, longest, lambda part: _is_whole(part, low, high)),
    )


def _choice(*words: str) -> Argument:
    return Argument(", ".join(words), lambda v: isinstance(v, str) and v in words)


def _choices(*words: str) -> Argument:
    """One of the words, or one for each key."""
    return Argument(
        f"{', '.join(words)}, or a list of them",
        lambda v: _each(v, 8, lambda part: isinstance(part, str) and part in words),
    )


def _or_nothing(inner: Argument) -> Argument:
    return Argument(f"{inner.allowed}; or nothing", lambda v: v is None or inner.holds(v))


def _is_whole(value: Value, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value: Value, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high


def _each(value: Value, longest: int, holds: Callable[[Value], bool]) -> bool:
    """Whether it holds for a value, for each of a list, or for each of a list's lists."""
    if not isinstance(value, list):
        return holds(value)
    return 0 < len(value) <= longest and all(
        (0 < len(part) <= longest and all(map(holds, part))) if isinstance(part, list) else holds(part)
        for part in value
    )


FLAG = Argument("true or false", lambda v: isinstance(v, bool))
FLAGS = Argument("true or false, or a list of them", lambda v: _each(v, 8, lambda part: isinstance(part, bool)))
FALSE = Argument("false", lambda v: v is False)
NOTHING = Argument("nothing", lambda v: v is None)
_KEY_WORD = re.compile(r"[a-z][a-z0-9_]{0,39}")
KEYS = Argument(
    "image, label, pred, or such words in a list",
    lambda v: _each(v, 8, lambda part: isinstance(part, str) and _KEY_WORD.fullmatch(part) is not None),
)
ONE_KEY = Argument("image, label, pred, or such a word", lambda v: isinstance(v, str) and bool(_KEY_WORD.fullmatch(v)))
DTYPE = Argument(
    "a number type such as float32 or $torch.float32",
    lambda v: isinstance(v, DataType) or v in ("float16", "float32", "float64", "uint8", "int16", "int32", "int64"),
)
_PROBABILITY = _number(0, 1)
_DIMS = _whole(2, 3)
_CHANNELS = _whole(1, 256)
_SIZE = _wholes(-1, 1024, 3)
_INTENSITY = _numbers(-1e6, 1e6)
_MODES = _choices("bilinear", "nearest", "trilinear", "bicubic", "area", "nearest-exact")
_PADDING = _choices("zeros", "border", "reflection", "constant", "edge", "reflect")

_NORMS: Mapping[str, Mapping[str, Argument]] = {
    "batch": {"affine": FLAG, "eps": _number(0, 1)},
    "instance": {"affine": FLAG, "eps": _number(0, 1)},
    "group": {"num_groups": _whole(1, 256), "affine": FLAG, "eps": _number(0, 1)},
    "layer": {"eps": _number(0, 1)},
}
_ACTS: Mapping[str, Mapping[str, Argument]] = {
    "relu": {"inplace": FLAG},
    "leakyrelu": {"negative_slope": _number(0, 1), "inplace": FLAG},
    "prelu": {"num_parameters": _whole(1, 256), "init": _number(0, 1)},
    "elu": {"alpha": _number(0, 10), "inplace": FLAG},
    "gelu": {},
    "swish": {},
    "sigmoid": {},
    "tanh": {},
}


def _layer(table: Mapping[str, Mapping[str, Argument]]) -> Argument:
    """A layer by name, or by name and its arguments: "group", or ["group", {"num_groups": 4}]."""

    def holds(value: Value) -> bool:
        match value:
            case str() as name:
                return name.lower() in table
            case [str() as name, dict() as given] if name.lower() in table:
                known = table[name.lower()]
                return all(key in known and known[key].holds(part) for key, part in given.items())
            case _:
                return False

    return Argument(f'{", ".join(table)}, or such a name with its arguments: ["group", {{"num_groups": 4}}]', holds)


_NORM, _ACT = _layer(_NORMS), _layer(_ACTS)
_DROPOUT = _number(0, 0.99)
_KERNELS = _wholes(1, 7, 8)
_STRIDES = _wholes(1, 4, 8)
_WIDTHS = _wholes(1, 1024, 8)

_NETWORKS = (
    Target(
        "UNet",
        Kind.NETWORK,
        {
            "spatial_dims": _DIMS,
            "in_channels": _CHANNELS,
            "out_channels": _CHANNELS,
            "channels": _WIDTHS,
            "strides": _STRIDES,
            "kernel_size": _KERNELS,
            "up_kernel_size": _KERNELS,
            "num_res_units": _whole(0, 8),
            "act": _ACT,
            "norm": _NORM,
            "dropout": _DROPOUT,
            "bias": FLAG,
            "adn_ordering": _choice("NDA", "NA", "A", "AN", "ADN"),
        },
        frozenset({"spatial_dims", "in_channels", "out_channels", "channels", "strides"}),
    ),
    Target(
        "BasicUNet",
        Kind.NETWORK,
        {
            "spatial_dims": _DIMS,
            "in_channels": _CHANNELS,
            "out_channels": _CHANNELS,
            "features": _WIDTHS,
            "act": _ACT,
            "norm": _NORM,
            "bias": FLAG,
            "dropout": _DROPOUT,
            "upsample": _choice("deconv", "pixelshuffle", "nontrainable"),
        },
        frozenset({"in_channels", "out_channels"}),
    ),
    Target(
        "AttentionUnet",
        Kind.NETWORK,
        {
            "spatial_dims": _DIMS,
            "in_channels": _CHANNELS,
            "out_channels": _CHANNELS,
            "channels": _WIDTHS,
            "strides": _STRIDES,
            "kernel_size": _KERNELS,
            "up_kernel_size": _KERNELS,
            "dropout": _DROPOUT,
        },
        frozenset({"spatial_dims", "in_channels", "out_channels", "channels", "strides"}),
    ),
    Target(
        "SegResNet",
        Kind.NETWORK,
        {
            "spatial_dims": _DIMS,
            "init_filters": _whole(1, 128),
            "in_channels": _CHANNELS,
            "out_channels": _CHANNELS,
            "dropout_prob": _or_nothing(_DROPOUT),
            "act": _ACT,
            "norm": _NORM,
            "num_groups": _whole(1, 64),
            "use_conv_final": FLAG,
            "blocks_down": _wholes(1, 8, 6),
            "blocks_up": _wholes(1, 8, 6),
            "upsample_mode": _choice("deconv", "pixelshuffle", "nontrainable"),
        },
    ),
    Target(
        "DynUNet",
        Kind.NETWORK,
        {
            "spatial_dims": _DIMS,
            "in_channels": _CHANNELS,
            "out_channels": _CHANNELS,
            "kernel_size": _KERNELS,
            "strides": _STRIDES,
            "upsample_kernel_size": _STRIDES,
            "filters": _or_nothing(_WIDTHS),
            "dropout": _or_nothing(_DROPOUT),
            "norm_name": _NORM,
            "act_name": _ACT,
            "deep_supervision": FALSE,
            "res_block": FLAG,
            "trans_bias": FLAG,
        },
        frozenset({"spatial_dims", "in_channels", "out_channels", "kernel_size", "strides", "upsample_kernel_size"}),
    ),
    Target(
        "DenseNet121",
        Kind.NETWORK,
        {
            "spatial_dims": _DIMS,
            "in_channels": _CHANNELS,
            "out_channels": _CHANNELS,
            "init_features": _whole(1, 128),
            "growth_rate": _whole(1, 64),
            "bn_size": _whole(1, 8),
            "act": _ACT,
            "norm": _NORM,
            "dropout_prob": _DROPOUT,
            "pretrained": FALSE,  # true would fetch a file from the internet
        },
        frozenset({"spatial_dims", "in_channels", "out_channels"}),
    ),
    Target(
        "EfficientNetBN",
        Kind.NETWORK,
        {
            "model_name": _choice(*(f"efficientnet-b{size}" for size in range(8))),
            "pretrained": FALSE,
            "spatial_dims": _DIMS,
            "in_channels": _CHANNELS,
            "num_classes": _CHANNELS,
            "norm": _NORM,
        },
        frozenset({"model_name", "pretrained"}),
    ),
    Target(
        "UNETR",
        Kind.NETWORK,
        {
            "in_channels": _CHANNELS,
            "out_channels": _CHANNELS,
            "img_size": _wholes(16, 256, 3),
            "feature_size": _whole(4, 64),
            "hidden_size": _whole(4, 1536),
            "mlp_dim": _whole(4, 6144),
            "num_heads": _whole(1, 24),
            "norm_name": _NORM,
            "conv_block": FLAG,
            "res_block": FLAG,
            "dropout_rate": _DROPOUT,
            "spatial_dims": _DIMS,
            "qkv_bias": FLAG,
        },
        frozenset({"in_channels", "out_channels", "img_size"}),
    ),
    Target(
        "SwinUNETR",
        Kind.NETWORK,
        {
            "in_channels": _CHANNELS,
            "out_channels": _CHANNELS,
            "feature_size": Argument(
                "12, 24, 36, 48, 60, 72, 84 or 96", lambda v: type(v) is int and v in range(12, 97, 12)
            ),
            "norm_name": _NORM,
            "drop_rate": _DROPOUT,
            "attn_drop_rate": _DROPOUT,
            "spatial_dims": _DIMS,
        },
        frozenset({"in_channels", "out_channels"}),
    ),
    Target(
        "FlexibleUNet",
        Kind.NETWORK,
        {
            "in_channels": _CHANNELS,
            "out_channels": _CHANNELS,
            "backbone": _choice(*(f"efficientnet-b{size}" for size in range(8))),
            "pretrained": FALSE,
            "decoder_channels": _WIDTHS,
            "spatial_dims": _DIMS,
            "norm": _NORM,
            "act": _ACT,
            "dropout": _DROPOUT,
            "decoder_bias": FLAG,
            "upsample": _choice("deconv", "pixelshuffle", "nontrainable"),
            "pre_conv": NOTHING,
            "is_pad": FLAG,
        },
        frozenset({"in_channels", "out_channels", "backbone"}),
    ),
    Target(
        "SEResNet50",
        Kind.NETWORK,
        {
            "spatial_dims": _DIMS,
            "in_channels": _CHANNELS,
            "num_classes": _CHANNELS,
            "dropout_prob": _or_nothing(_DROPOUT),
            "pretrained": FALSE,
        },
        frozenset({"spatial_dims", "in_channels", "num_classes"}),
    ),
    Target(
        "ViT",
        Kind.NETWORK,
        {
            "in_channels": _CHANNELS,
            "img_size": _wholes(8, 512, 3),
            "patch_size": _wholes(4, 64, 3),
            "hidden_size": _whole(4, 1536),
            "mlp_dim": _whole(4, 6144),
            "num_layers": _whole(1, 24),
            "num_heads": _whole(1, 24),
            "proj_type": _choice("conv", "perceptron"),
            "pos_embed_type": _choice("learnable", "none"),
            "post_activation": _choice("Tanh", "none"),
            "classification": Argument("true", lambda v: v is True),
            "num_classes": _CHANNELS,
            "dropout_rate": _DROPOUT,
            "spatial_dims": _DIMS,
            "qkv_bias": FLAG,
        },
        frozenset({"in_channels", "img_size", "patch_size", "classification"}),
    ),
)

_DICE: Mapping[str, Argument] = {
    "include_background": FLAG,
    "to_onehot_y": FLAG,
    "sigmoid": FLAG,
    "softmax": FLAG,
    "squared_pred": FLAG,
    "jaccard": FLAG,
    "reduction": _choice("mean"),
    "smooth_nr": _number(0, 1),
    "smooth_dr": _number(1e-12, 1),
    "batch": FLAG,  # true is data like any other here; whether patients stay apart is asked in `fitting.py`
}
_LAMBDAS: Mapping[str, Argument] = {"lambda_dice": _number(0, 100)}
_LOSSES = (
    Target("DiceLoss", Kind.LOSS, _DICE),
    Target("DiceCELoss", Kind.LOSS, {**_DICE, **_LAMBDAS, "lambda_ce": _number(0, 100)}),
    Target(
        "DiceFocalLoss",
        Kind.LOSS,
        {**_DICE, **_LAMBDAS, "lambda_focal": _number(0, 100), "gamma": _number(0, 10)},
    ),
    Target(
        "CrossEntropyLoss",
        Kind.LOSS,
        {"reduction": _choice("mean", "sum"), "label_smoothing": _number(0, 0.99)},
    ),
    Target("BCEWithLogitsLoss", Kind.LOSS, {"reduction": _choice("mean", "sum")}),
)

_KEYED: Mapping[str, Argument] = {"keys": KEYS, "allow_missing_keys": FLAG}
_RANDOM: Mapping[str, Argument] = {**_KEYED, "prob": _PROBABILITY}
_TRANSFORMS: Mapping[str, Mapping[str, Argument]] = {
    "EnsureChannelFirstd": {
        **_KEYED,
        "strict_check": FLAG,
        "channel_dim": Argument("no_channel or a whole number", lambda v: v == "no_channel" or _is_whole(v, -4, 3)),
    },
    "EnsureTyped": {**_KEYED, "dtype": DTYPE, "track_meta": FLAG, "data_type": _choice("tensor")},
    "CastToTyped": {**_KEYED, "dtype": DTYPE},
    "Orientationd": {**_KEYED, "axcodes": _choice("RAS", "LPS", "RA", "LP", "RPI", "LPI", "RAI", "PLI")},
    "Spacingd": {
        **_KEYED,
        "pixdim": _numbers(0.01, 100, 3),
        "mode": _MODES,
        "padding_mode": _PADDING,
        "diagonal": FLAG,
    },
    "ScaleIntensityd": {**_KEYED, "minv": _number(-1e6, 1e6), "maxv": _number(-1e6, 1e6), "channel_wise": FLAG},
    "ScaleIntensityRanged": {
        **_KEYED,
        **{name: _number(-1e6, 1e6) for name in ("a_min", "a_max", "b_min", "b_max")},
        "clip": FLAG,
    },
    "NormalizeIntensityd": {
        **_KEYED,
        "subtrahend": _INTENSITY,
        "divisor": _numbers(1e-6, 1e6),
        "nonzero": FLAG,
        "channel_wise": FLAG,
    },
    "GaussianSmoothd": {**_KEYED, "sigma": _numbers(0, 20, 3)},
    "CropForegroundd": {
        **_KEYED,
        "source_key": ONE_KEY,
        "margin": _wholes(0, 256, 3),
        "k_divisible": _wholes(1, 256, 3),
        "allow_smaller": FLAG,
    },
    "Resized": {**_KEYED, "spatial_size": _SIZE, "mode": _MODES, "size_mode": _choice("all", "longest")},
    "SpatialPadd": {**_KEYED, "spatial_size": _SIZE, "method": _choice("symmetric", "end"), "mode": _PADDING},
    "ResizeWithPadOrCropd": {**_KEYED, "spatial_size": _SIZE},
    "CenterSpatialCropd": {**_KEYED, "roi_size": _SIZE},
    "DivisiblePadd": {**_KEYED, "k": _wholes(1, 256, 3), "mode": _PADDING},
    "ConvertToMultiChannelBasedOnBratsClassesd": _KEYED,
    "Activationsd": {**_KEYED, "sigmoid": FLAGS, "softmax": FLAGS},
    "AsDiscreted": {
        **_KEYED,
        "argmax": FLAGS,
        "to_onehot": Argument(
            "a whole number from 1 to 256, nothing, or a list of them",
            lambda v: _each(v, 8, lambda part: part is None or _is_whole(part, 1, 256)),
        ),
        "threshold": _numbers(-1e6, 1e6, 8),
    },
    "RandCropByPosNegLabeld": {
        **_KEYED,
        "label_key": ONE_KEY,
        "spatial_size": _SIZE,
        "pos": _number(0, 100),
        "neg": _number(0, 100),
        "num_samples": _whole(1, 64),  # more than one is asked about in `fitting.py`
        "image_key": _or_nothing(ONE_KEY),
        "image_threshold": _number(-1e6, 1e6),
        "allow_smaller": FLAG,
    },
    "RandSpatialCropd": {**_KEYED, "roi_size": _SIZE, "random_size": FLAG, "random_center": FLAG},
    "RandFlipd": {**_RANDOM, "spatial_axis": _or_nothing(_wholes(0, 2, 3))},
    "RandRotate90d": {**_RANDOM, "max_k": _whole(1, 3), "spatial_axes": _wholes(0, 2, 2)},
    "RandRotated": {
        **_RANDOM,
        **{name: _numbers(-7, 7, 2) for name in ("range_x", "range_y", "range_z")},
        "keep_size": FLAG,
        "mode": _MODES,
        "padding_mode": _PADDING,
    },
    "RandZoomd": {
        **_RANDOM,
        "min_zoom": _numbers(0.1, 10, 3),
        "max_zoom": _numbers(0.1, 10, 3),
        "mode": _MODES,
        "padding_mode": _PADDING,
        "keep_size": FLAG,
    },
    "RandAffined": {
        **_RANDOM,
        "spatial_size": _or_nothing(_SIZE),
        **{name: _numbers(-100, 100, 9) for name in ("rotate_range", "shear_range", "translate_range", "scale_range")},
        "mode": _MODES,
        "padding_mode": _PADDING,
        "cache_grid": FLAG,
    },
    "RandGaussianNoised": {**_RANDOM, "mean": _number(-1e3, 1e3), "std": _number(0, 1e3)},
    "RandGaussianSmoothd": {**_RANDOM, **{name: _numbers(0, 20, 2) for name in ("sigma_x", "sigma_y", "sigma_z")}},
    "RandScaleIntensityd": {**_RANDOM, "factors": _numbers(-10, 10, 2), "channel_wise": FLAG},
    "RandShiftIntensityd": {**_RANDOM, "offsets": _numbers(-1e3, 1e3, 2), "channel_wise": FLAG},
    "RandAdjustContrastd": {**_RANDOM, "gamma": _numbers(0.01, 20, 2)},
}
_TRANSFORMS_NEED: Mapping[str, tuple[str, ...]] = {
    "Spacingd": ("pixdim",),
    "ScaleIntensityRanged": ("a_min", "a_max"),
    "GaussianSmoothd": ("sigma",),
    "CropForegroundd": ("source_key",),
    "Resized": ("spatial_size",),
    "SpatialPadd": ("spatial_size",),
    "ResizeWithPadOrCropd": ("spatial_size",),
    "CenterSpatialCropd": ("roi_size",),
    "DivisiblePadd": ("k",),
    "RandCropByPosNegLabeld": ("label_key", "spatial_size"),
    "RandSpatialCropd": ("roi_size",),
    "RandScaleIntensityd": ("factors",),
    "RandShiftIntensityd": ("offsets",),
}

_INFERERS = (
    Target("SimpleInferer", Kind.INFERER, {}),
    Target(
        "SlidingWindowInferer",
        Kind.INFERER,
        {
            "roi_size": _SIZE,
            "sw_batch_size": _whole(1, 64),
            "overlap": _numbers(0, 0.9, 3),
            "mode": _choice("constant", "gaussian"),
            "padding_mode": _PADDING,
        },
        frozenset({"roi_size"}),
    ),
)

_RATE = _number(0, 10)
_OPTIMIZERS = (
    Target("SGD", Kind.OPTIMIZER, {"lr": _RATE, "momentum": _RATE, "nesterov": FLAG, "weight_decay": _RATE}),
    *(
        Target(
            name,
            Kind.OPTIMIZER,
            {"lr": _RATE, "betas": _numbers(0, 1, 2), "eps": _RATE, "weight_decay": _RATE, "amsgrad": FLAG},
        )
        for name in ("Adam", "AdamW", "Novograd")
    ),
)
_COUNT = _whole(1, 10_000_000)
_SCHEDULES = (
    Target("StepLR", Kind.SCHEDULE, {"step_size": _COUNT, "gamma": _RATE}, frozenset({"step_size"})),
    Target("CosineAnnealingLR", Kind.SCHEDULE, {"T_max": _COUNT, "eta_min": _RATE}, frozenset({"T_max"})),
    Target("PolynomialLR", Kind.SCHEDULE, {"total_iters": _COUNT, "power": _RATE}),
    Target(
        "WarmupCosineSchedule",
        Kind.SCHEDULE,
        {"warmup_steps": _whole(0, 10_000_000), "t_total": _COUNT},
        frozenset({"warmup_steps", "t_total"}),
    ),
)

WIRING: Mapping[Kind, frozenset[str]] = MappingProxyType(
    {
        Kind.NETWORK: frozenset({"use_checkpoint", "progress"}),
        Kind.OPTIMIZER: frozenset({"params"}),
        Kind.SCHEDULE: frozenset({"optimizer"}),
        Kind.INFERER: frozenset({"device", "sw_device", "progress"}),
    }
)
"""Arguments that are wired by the agent here, whatever the bundle says; they are neither computed nor passed on."""

_PACKAGES: Mapping[Kind, tuple[str, ...]] = {
    Kind.NETWORK: ("monai.networks.nets",),
    Kind.LOSS: ("monai.losses", "torch.nn"),
    Kind.TRANSFORM: ("monai.transforms",),
    Kind.INFERER: ("monai.inferers",),
    Kind.OPTIMIZER: ("torch.optim", "monai.optimizers"),
    Kind.SCHEDULE: ("torch.optim.lr_scheduler", "monai.optimizers"),
}
_ALL = (
    *_NETWORKS,
    *_LOSSES,
    *(
        Target(name, Kind.TRANSFORM, arguments, frozenset({"keys", *_TRANSFORMS_NEED.get(name, ())}))
        for name, arguments in _TRANSFORMS.items()
    ),
    *_INFERERS,
    *_OPTIMIZERS,
    *_SCHEDULES,
)
TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        name: target
        for target in _ALL
        for name in (target.name, *(f"{package}.{target.name}" for package in _PACKAGES[target.kind]))
    }
)
"""Every spelling that a bundle may use -> the target."""

_LOOPS = "loops: the agent has its own, with patients sampled and their gradients clipped"
_DATA = "reading data: the hospital's own data is read by site.yaml and the study's data section"
_SHOWING = "progress: the agent shows its own, and no figure leaves except as the study says"
_FILES = "files: models are kept by the agent, under their digest"
_METRICS = "figures: the study says which are computed, under the masks"
_LEFT_OUT_NAMES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "monai.engines": (_LOOPS, ("SupervisedTrainer", "SupervisedEvaluator")),
    "monai.data": (_DATA, ("Dataset", "CacheDataset", "PersistentDataset", "DataLoader", "ThreadDataLoader")),
    "monai.transforms": (_DATA, ("LoadImaged", "ToTensord", "SplitDimd", "SplitChanneld", "Identityd")),
    "monai.handlers": (
        _SHOWING,
        ("StatsHandler", "TensorBoardStatsHandler", "ValidationHandler", "LrScheduleHandler", "EarlyStopHandler"),
    ),
    "monai.handlers (files)": (_FILES, ("CheckpointSaver", "CheckpointLoader")),
    "monai.handlers (figures)": (
        _METRICS,
        ("MeanDice", "MeanIoUHandler", "ROCAUC", "HausdorffDistance", "SurfaceDistance", "ConfusionMatrix"),
    ),
    "ignite.metrics": (_METRICS, ("Accuracy", "Precision", "Recall")),
}
LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        spelling: reason
        for module, (reason, names) in _LEFT_OUT_NAMES.items()
        for name in names
        for spelling in ((name,) if module != "ignite.metrics" else ()) + (f"{module.partition(' ')[0]}.{name}",)
    }
)
"""Names that a bundle may have and that are never built -> why."""

COMPOSE = ("Compose", "monai.transforms.Compose")


def objections(target: Target, arguments: Mapping[str, Value]) -> list[tuple[str, str, str]]:
    """What is wrong with the arguments of a target: name, found, allowed."""
    found = []
    for name, value in arguments.items():
        argument = target.arguments.get(name)
        if argument is None:
            allowed = ", ".join(sorted(target.arguments)) or "no arguments"
            found.append((name, "an argument it may not be given here", allowed))
        elif not argument.holds(value):
            found.append((name, shown(value), argument.allowed))
    found += [
        (name, "nothing", target.arguments[name].allowed) for name in sorted(target.required) if name not in arguments
    ]
    return found

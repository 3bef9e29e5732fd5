"""The networks a study may name, their arguments, and the records each can take (pure; no torch).

Normalisation is not an argument: under DP-SGD statistics of a batch are not allowed, so every network is built with
group norm, its groups chosen layer by layer (`site_agent/networks/private_layers.py`). What draws random numbers is
dropout alone, where it is an argument; it acts on every record by itself.

Shapes are checked when a study file is read: a U-shaped network that halves an image four times needs sides of whole
multiples of 16, and says so before any hospital builds it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from annotated_types import Ge, Le, Len, Lt
from pydantic import AfterValidator, Field

from consortium.contract.errors import shown
from consortium.contract.global_model import ParameterLayout
from consortium.contract.names import is_digest
from consortium.contract.schema import Finding, Refused, Rule, Section, Words

_Width: TypeAlias = Annotated[int, Ge(2), Le(512)]
_Widths: TypeAlias = Annotated[tuple[_Width, ...], Len(2, 6)]
_Dropout: TypeAlias = Annotated[float, Ge(0), Lt(1)]
_Blocks: TypeAlias = Annotated[int, Ge(1), Le(8)]
_Heads: TypeAlias = Annotated[int, Ge(1), Le(64)]


def _heads_divide(hidden_size: int, heads: int) -> Iterator[Finding]:
    if hidden_size % heads:
        yield Finding("heads", shown(heads), f"a divisor of hidden_size, {hidden_size}")


# --- tables --------------------------------------------------------------------------------------------------------


class LogisticArgs(Section):
    """Logistic regression has no arguments."""


class Logistic(Section):
    """One weight per input and a bias."""

    network: Literal["logistic"]
    args: LogisticArgs = LogisticArgs()


class MlpArgs(Section):
    """The shape of a multilayer perceptron."""

    hidden: Annotated[tuple[Annotated[int, Ge(1), Le(4096)], ...], Len(1, 8)]  # units of each hidden layer
    activation: Literal["relu", "tanh", "gelu"]


class Mlp(Section):
    """A multilayer perceptron with one output."""

    network: Literal["mlp"]
    args: MlpArgs


# --- one label for an image ----------------------------------------------------------------------------------------


class CnnArgs(Section):
    """The network for small images has no arguments."""


class Cnn(Section):
    """Two convolutions for images of 28 by 28."""

    network: Literal["cnn"]
    args: CnnArgs = CnnArgs()


class ScatteringArgs(Section):
    """How finely directions are told apart."""

    orientations: Annotated[int, Ge(2), Le(16)] = 4  # of the waves; a picture has 1 + 2 n + n^2 coefficients at a place


class Scattering(Section):
    """Fixed scattering coefficients and a linear layer."""

    network: Literal["scattering"]
    args: ScatteringArgs = ScatteringArgs()


class DenseNet121Args(Section):
    """How wide a DenseNet of 121 layers is."""

    init_features: Annotated[int, Ge(2), Le(128)] = 64  # channels after the first convolution
    growth_rate: Annotated[int, Ge(2), Le(64)] = 32  # channels that every layer adds
    dropout: _Dropout = 0.0


class DenseNet121(Section):
    """MONAI's DenseNet121."""

    network: Literal["densenet121"]
    args: DenseNet121Args = DenseNet121Args()


class ResNetArgs(Section):
    """How deep and wide a ResNet is."""

    depth: Literal[10, 18, 50] = 18
    width: Annotated[int, Ge(2), Le(128)] = 64  # channels of the first stage; each of four stages has twice the last's
    small_images: bool = False  # begin with 3 by 3 at full resolution, not with 7 by 7 at a quarter of it


class ResNet(Section):
    """MONAI's ResNet."""

    network: Literal["resnet"]
    args: ResNetArgs = ResNetArgs()


class EfficientNetArgs(Section):
    """Which of the EfficientNets."""

    size: Literal["b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"] = "b0"
    dropout: _Dropout = 0.0


class EfficientNet(Section):
    """MONAI's EfficientNet, without stochastic depth."""

    network: Literal["efficientnet"]
    args: EfficientNetArgs = EfficientNetArgs()


class ViTArgs(Section):
    """The shape of a vision transformer."""

    patch_size: Annotated[int, Ge(2), Le(64)] = 16  # side of a patch; every side of an image is a multiple of it
    hidden_size: Annotated[int, Ge(8), Le(1024)] = 192
    mlp_size: Annotated[int, Ge(8), Le(4096)] = 768
    layers: Annotated[int, Ge(1), Le(24)] = 12
    heads: _Heads = 3
    dropout: _Dropout = 0.0

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("hidden_size", "heads"), check=_heads_divide),)


class ViT(Section):
    """MONAI's vision transformer."""

    network: Literal["vit"]
    args: ViTArgs = ViTArgs()


# --- a label at every place ----------------------------------------------------------------------------------------


class UNetArgs(Section):
    """The shape of a U-Net with residual units; every level halves the resolution."""

    channels: _Widths = (16, 32, 64, 128)  # of each level, the finest first
    res_units: Annotated[int, Ge(0), Le(4)] = 2  # convolutions of a residual unit; 0 for plain convolutions
    dropout: _Dropout = 0.0


class UNet(Section):
    """MONAI's UNet."""

    network: Literal["unet"]
    args: UNetArgs = UNetArgs()


class DynUNetArgs(Section):
    """The shape of a DynUNet, as nnU-Net has it; every level halves the resolution."""

    channels: Annotated[tuple[_Width, ...], Len(3, 6)] = (16, 32, 64, 128)
    residual: bool = False
    dropout: _Dropout = 0.0


class DynUNet(Section):
    """MONAI's DynUNet, without deep supervision."""

    network: Literal["dynunet"]
    args: DynUNetArgs = DynUNetArgs()


def _one_up_for_each_down(blocks_down: tuple[int, ...], blocks_up: tuple[int, ...]) -> Iterator[Finding]:
    if len(blocks_up) != len(blocks_down) - 1:
        yield Finding(
            "blocks_up", f"{len(blocks_up)} levels", f"{len(blocks_down) - 1}, one fewer than blocks_down has"
        )


class SegResNetArgs(Section):
    """The shape of a SegResNet; every level but the first halves the resolution."""

    width: Annotated[int, Ge(2), Le(64)] = 16  # channels of the finest level; each level has twice the last's
    blocks_down: Annotated[tuple[_Blocks, ...], Len(2, 5)] = (1, 2, 2, 4)
    blocks_up: Annotated[tuple[_Blocks, ...], Len(1, 4)] = (1, 1, 1)
    dropout: _Dropout = 0.0

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("blocks_down", "blocks_up"), check=_one_up_for_each_down),)


class SegResNet(Section):
    """MONAI's SegResNet."""

    network: Literal["segresnet"]
    args: SegResNetArgs = SegResNetArgs()


class AttentionUnetArgs(Section):
    """The shape of a U-Net with attention gates; every level halves the resolution."""

    channels: _Widths = (16, 32, 64, 128)
    dropout: _Dropout = 0.0


class AttentionUnet(Section):
    """MONAI's AttentionUnet."""

    network: Literal["attention-unet"]
    args: AttentionUnetArgs = AttentionUnetArgs()


class BasicUNetArgs(Section):
    """The shape of a U-Net of five levels."""

    channels: tuple[_Width, _Width, _Width, _Width, _Width, _Width] = (
        32,
        32,
        64,
        128,
        256,
        32,
    )  # of each level, then of the end
    dropout: _Dropout = 0.0


class BasicUNet(Section):
    """MONAI's BasicUNet."""

    network: Literal["basic-unet"]
    args: BasicUNetArgs = BasicUNetArgs()


def _twelfths(feature_size: int) -> Iterator[Finding]:
    if feature_size % 12:
        yield Finding("feature_size", shown(feature_size), "a multiple of 12")


def _heads_divide_stages(feature_size: int, heads: tuple[int, ...]) -> Iterator[Finding]:
    for stage, count in enumerate(heads):
        width = feature_size * 2**stage
        if width % count:
            yield Finding(f"heads[{stage}]", shown(count), f"a divisor of this stage's width, {width}")


class SwinUnetrArgs(Section):
    """The shape of a U-Net on a Swin transformer of four stages."""

    feature_size: Annotated[int, Ge(12), Le(96)] = 24  # a multiple of 12; each stage is twice as wide as the last
    depths: tuple[_Blocks, _Blocks, _Blocks, _Blocks] = (2, 2, 2, 2)  # blocks of each stage
    heads: tuple[_Heads, _Heads, _Heads, _Heads] = (3, 6, 12, 24)
    window: Annotated[int, Ge(2), Le(16)] = 7
    dropout: _Dropout = 0.0

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(reads=("feature_size",), check=_twelfths),
        Rule(reads=("feature_size", "heads"), check=_heads_divide_stages),
    )


class SwinUnetr(Section):
    """MONAI's SwinUNETR, without stochastic depth."""

    network: Literal["swin-unetr"]
    args: SwinUnetrArgs = SwinUnetrArgs()


class UnetrArgs(Section):
    """The shape of a U-Net on a vision transformer of twelve layers with patches of 16."""

    feature_size: Annotated[int, Ge(2), Le(64)] = 16
    hidden_size: Annotated[int, Ge(8), Le(1024)] = 192
    mlp_size: Annotated[int, Ge(8), Le(4096)] = 768
    heads: _Heads = 3
    dropout: _Dropout = 0.0

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("hidden_size", "heads"), check=_heads_divide),)


class Unetr(Section):
    """MONAI's UNETR."""

    network: Literal["unetr"]
    args: UnetrArgs = UnetrArgs()


# --- defined by a MONAI bundle -------------------------------------------------------------------------------------


def _sha256(text: str) -> str:
    if not is_digest(text):
        raise Refused
    return text


def _definition(text: str) -> str:
    if not text.isprintable() or not text.startswith("{") or len(text) > DEFINITION_CHARACTERS_MAX:
        raise Refused
    return text


DEFINITION_CHARACTERS_MAX = 4000
BundleDigest: TypeAlias = Annotated[
    str, AfterValidator(_sha256), Words("the SHA-256 of a bundle: 64 characters of 0-9 and a-f")
]


BundlePart: TypeAlias = Literal["loss", "augmentation", "patch"]
"""What else of a bundle a study may follow: `training.loss`, `data.augmentation` and `data.patch` are then its own."""


def _parts_differ(follows: tuple[str, ...] | None) -> Iterator[Finding]:
    for place, one in enumerate(follows or ()):
        if one in (follows or ())[:place]:
            yield Finding(f"follows[{place}]", f"{one} a second time", "every part once")


class BundleArgs(Section):
    """A network that a MONAI bundle defines; `site-agent bundle check` prints it all. Hospitals hold it to their copy.

    What the definition may say is checked where it is built (`site_agent/bundles`): a target and arguments from an
    allow-list, as data. Of the parts it follows, the study itself says what they are.
    """

    digest: BundleDigest
    definition: Annotated[
        str,
        AfterValidator(_definition),
        Words(f"a bundle's network in one line of JSON, at most {DEFINITION_CHARACTERS_MAX} characters"),
    ]
    follows: Annotated[tuple[BundlePart, ...], Len(1, 3)] | None = None

    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("follows",), check=_parts_differ),)


class BundleClassifier(Section):
    """A bundle's network that gives an image one label."""

    network: Literal["bundle-classifier"]
    args: BundleArgs


class BundleSegmenter(Section):
    """A bundle's network that gives every place of an image a label."""

    network: Literal["bundle-segmenter"]
    args: BundleArgs


Model: TypeAlias = (
    Logistic
    | Mlp
    | Cnn
    | Scattering
    | DenseNet121
    | ResNet
    | EfficientNet
    | ViT
    | UNet
    | DynUNet
    | SegResNet
    | AttentionUnet
    | BasicUNet
    | SwinUnetr
    | Unetr
    | BundleClassifier
    | BundleSegmenter
)
ModelChoice: TypeAlias = Annotated[Model, Field(discriminator="network")]
"""The `model` section of a study; its members are told apart by `network`."""

NetworkName: TypeAlias = Literal[
    "logistic", "mlp", "cnn", "scattering", "densenet121", "resnet", "efficientnet", "vit", "unet", "dynunet",
    "segresnet", "attention-unet", "basic-unet", "swin-unetr", "unetr", "bundle-classifier", "bundle-segmenter",
]  # fmt: skip


# --- what each takes -----------------------------------------------------------------------------------------------


def _any_side(_args: Any) -> int:
    return 1


def _halved_between_levels(args: Any) -> int:
    return 1 << (len(args.channels) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network a study may name."""

    section: type[Section]
    kinds: tuple[str, ...]  # the kinds of data it takes
    tasks: tuple[str, ...] = ()  # of images: one label each, or a mask
    axes: tuple[int, ...] = ()  # of images: 2 for pictures, 3 for volumes
    sides: tuple[int, int] = (0, 0)  # of images: the shortest and the longest side
    multiple: Callable[[Any], int] = _any_side  # args -> what every side is a whole multiple of
    summary: str  # one line for a steward


def _classifier(section: type[Section], summary: str, *, shortest: int, **further: Any) -> Network:
    fields = {"axes": (2, 3), "sides": (shortest, 1024), **further}
    return Network(section=section, kinds=("imaging",), tasks=("classification",), summary=summary, **fields)


def _segmenter(
    section: type[Section], summary: str, multiple: Callable[[Any], int] = _halved_between_levels, shortest: int = 8
) -> Network:
    return Network(
        section=section, kinds=("imaging",), tasks=("segmentation",), axes=(2, 3), sides=(shortest, 1024),
        multiple=multiple, summary=summary,
    )  # fmt: skip


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "logistic": Network(
            section=Logistic, kinds=("tabular",), summary="logistic regression: one weight per input and a bias"
        ),
        "mlp": Network(
            section=Mlp, kinds=("tabular",), summary="multilayer perceptron: fully connected layers, one output"
        ),
        "cnn": _classifier(Cnn, "two convolutions, for pictures of 28 by 28", shortest=28, axes=(2,), sides=(28, 28)),
        "scattering": _classifier(Scattering, "fixed scattering features, and a linear layer", shortest=16, axes=(2,)),
        "densenet121": _classifier(DenseNet121, "DenseNet of 121 layers", shortest=32),
        "resnet": _classifier(ResNet, "residual network of 10, 18 or 50 layers", shortest=8),
        "efficientnet": _classifier(EfficientNet, "EfficientNet B0 to B7: depthwise convolutions", shortest=32),
        "vit": _classifier(
            ViT, "vision transformer on square patches", shortest=8, multiple=lambda args: args.patch_size
        ),
        "unet": _segmenter(UNet, "U-Net with residual units"),
        "dynunet": _segmenter(DynUNet, "U-Net as nnU-Net configures it"),
        "segresnet": _segmenter(
            SegResNet, "residual encoder and decoder", lambda args: 1 << (len(args.blocks_down) - 1)
        ),
        "attention-unet": _segmenter(AttentionUnet, "U-Net with attention gates"),
        "basic-unet": _segmenter(BasicUNet, "U-Net of five levels", lambda _args: 16, 16),
        "swin-unetr": _segmenter(SwinUnetr, "U-Net on a Swin transformer", lambda _args: 32, 32),
        "unetr": _segmenter(Unetr, "U-Net on a vision transformer", lambda _args: 16, 16),
        "bundle-classifier": _classifier(BundleClassifier, "the classifier that a MONAI bundle defines", shortest=8),
        "bundle-segmenter": _segmenter(BundleSegmenter, "the U-Net or the like of a MONAI bundle", _any_side),
    }
)


def misfits_of_data(
    model: Model, *, kind: str, task: str | None = None, shape: tuple[int, ...] = ()
) -> Iterator[Finding]:
    """What keeps a network from taking the records of a study.

    Args:
        model: The `model` section.
        kind: Of the data.
        task: Of images.
        shape: Of images, without channels.
    """
    at, known = "model.network", NETWORKS[model.network]

    def fitting(fits: Callable[[Network], bool]) -> str:
        return "one of " + ", ".join(name for name, one in NETWORKS.items() if fits(one))

    if kind not in known.kinds:
        yield Finding(at, f"{model.network} with {kind} data", fitting(lambda one: kind in one.kinds))
        return
    if task is None:
        return
    if task not in known.tasks:
        yield Finding(at, f"{model.network} for {task}", fitting(lambda one: task in one.tasks))
        return
    if len(shape) not in known.axes:
        found = f"{model.network} with records of {len(shape)} axes"
        yield Finding(at, found, fitting(lambda one: task in one.tasks and len(shape) in one.axes))
        return
    (shortest, longest), multiple = known.sides, known.multiple(model.args)
    for axis, side in enumerate(shape):
        if side % multiple:
            near = max(multiple, -(-shortest // multiple) * multiple, side // multiple * multiple)
            yield Finding(
                f"data.shape[{axis}]", f"{side} with {model.network}",
                f"a whole multiple of {multiple}, such as {near} or {near + multiple}",
            )  # fmt: skip
        elif not shortest <= side <= longest:
            only = f"{shortest}" if shortest == longest else f"at least {shortest}"
            yield Finding(f"data.shape[{axis}]", f"{side} with {model.network}", only)


SCATTERING_SPACING = 4
"""Points of a picture between two scattering coefficients, along either side."""


def scattering_features(orientations: int, input_shape: tuple[int, ...]) -> int:
    """How many features `site_agent/networks/scattering.py` finds in a record: every coefficient stands there twice."""
    channels, *sides = input_shape
    places = math.prod(-(-side // SCATTERING_SPACING) for side in sides)
    return 2 * channels * (1 + 2 * orientations + orientations**2) * places


# --- parameters that are known without building --------------------------------------------------------------------


def parameters_of(model: Model, input_shape: tuple[int, ...], outputs: int) -> ParameterLayout | None:
    """Names and shapes of a network's parameters, as they are in its first global model.

    Fully connected layers stand at the even places of a torch `Sequential`, activations between them. A test compares
    this with what `site_agent/networks` builds.

    Returns:
        None for the networks of MONAI: their parameters are known where they are built, at a hospital.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    if isinstance(model, Logistic | Mlp):
        hidden = model.args.hidden if isinstance(model, Mlp) else ()
        for layer, (width_in, width_out) in enumerate(pairwise((*input_shape, *hidden, outputs))):
            shapes[f"{2 * layer}.weight"] = (width_out, width_in)
    elif isinstance(model, Cnn):
        shapes |= {"0.weight": (16, input_shape[0], 8, 8), "1.weight": (16,), "4.weight": (32, 16, 4, 4)}
        shapes |= {"5.weight": (32,), "9.weight": (32, 512), "11.weight": (outputs, 32)}
    elif isinstance(model, Scattering):
        shapes["1.weight"] = (outputs, scattering_features(model.args.orientations, input_shape))
    else:
        return None
    biases = {name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items()}
    return tuple(sorted((shapes | biases).items()))

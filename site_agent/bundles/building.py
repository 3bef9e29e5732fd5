"""A checked bundle -> a network, a loss, transforms and an inferer, built by name from fixed modules.

Everything else of training stays the agent's: patients are sampled and clipped by its own engine, noise and masks are
its own, the optimizer is the study's. `network_of`, `loss_of` and `transforms_of` are functions of the bundle and a
seed; the same bundle and seed give the same first weights at every hospital.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeAlias

import torch
from torch import nn

from site_agent.bundles.checking import Bundle, Component
from site_agent.bundles.expressions import DataType
from site_agent.bundles.fitting import misfits
from site_agent.bundles.refusals import BundleRefused
from site_agent.bundles.targets import Kind
from site_agent.gradients.losses import RecordLoss, record_loss
from site_agent.gradients.refusals import require_private
from site_agent.networks.drawing import drawn_from
from site_agent.networks.private_layers import with_private_layers
from site_agent.networks.transformers import without_unused_layers

PARAMETERS_MAX = 500_000_000
"""Of a network of a bundle: 2 GB as float32."""

_BOUNDED_BY_ARGUMENTS = frozenset({"SwinUNETR"})
"""Networks that cannot be made without memory, because they compute with numbers as they are made; at most 250 million
parameters with the arguments of the allow-list."""

_LOGITS_ALONE: Mapping[str, str] = {"ViT": "VisionTransformer"}
"""Networks that put out more than logits -> the same without the rest."""

NetworkBuilder: TypeAlias = Callable[[int], nn.Module]
"""A public seed -> the network with its first weights; raises BundleRefused, NetworkRefused."""

Transform: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""A record by key ("image", "label") -> the same, changed."""

_MODULES: Mapping[Kind, tuple[str, ...]] = {
    Kind.NETWORK: ("monai.networks.nets",),
    Kind.LOSS: ("monai.losses", "torch.nn"),
    Kind.TRANSFORM: ("monai.transforms",),
    Kind.INFERER: ("monai.inferers",),
}
_UNFIT = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


def network_of(bundle: Bundle) -> NetworkBuilder:
    """The builder of a bundle's network, with layers that DP-SGD allows in the place of others.

    The network is first made without memory, to count its parameters.

    Raises:
        BundleRefused: Its arguments do not go together, or it is too large.
    """
    component = bundle.network
    _require_bounded(component)

    def build(seed: int) -> nn.Module:
        with drawn_from(seed):
            module = _made(component)
        module = with_private_layers(without_unused_layers(module))
        require_private(module)
        return module

    return build


def made_within_bounds(network: Component) -> nn.Module:
    """A network as it is defined, with random first weights; raises BundleRefused as `network_of`."""
    _require_bounded(network)
    module: nn.Module = _made(network)
    return without_unused_layers(module)


def loss_of(bundle: Bundle) -> RecordLoss | None:
    """The bundle's loss, record by record; None if it names none.

    Raises:
        BundleRefused: It couples patients, or its arguments do not go together.
    """
    _require_fit(bundle)
    return None if bundle.loss is None else record_loss(_made(bundle.loss))


def transforms_of(bundle: Bundle, seed: int) -> tuple[Transform, Transform]:
    """What is done to a record after it was read: for training, with random numbers from a seed, and for validation.

    Raises:
        BundleRefused: They make several records of one, or their arguments do not go together.
    """
    _require_fit(bundle)
    return _chained(bundle.train_transforms, seed), _chained(bundle.validation_transforms, seed)


def inferer_of(bundle: Bundle) -> Any:
    """What applies the network to a whole image in evaluation, as MONAI has it; None if the bundle names none."""
    return None if bundle.inferer is None else _made(bundle.inferer)


def _require_bounded(component: Component) -> None:
    """Count a network's parameters before memory is taken for them; raises BundleRefused."""
    if component.target.name in _BOUNDED_BY_ARGUMENTS:
        return
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in _made(component).parameters())
    if count > PARAMETERS_MAX:
        raise BundleRefused(
            [component.finding("", f"{count:,} parameters", f"at most {PARAMETERS_MAX:,}", "Make it narrower.")]
        )


def _chained(components: tuple[Component, ...], seed: int) -> Transform:
    compose = import_module("monai.transforms").Compose
    chained: Transform = compose([_made(component) for component in components]).set_random_state(seed)
    return chained


def _require_fit(bundle: Bundle) -> None:
    findings = misfits(bundle)
    if findings:
        raise BundleRefused(findings)


def _made(component: Component) -> Any:
    """One component. Its class is that of the allow-list: no name of the bundle is imported."""
    name = component.target.name
    if name in _LOGITS_ALONE:
        maker = getattr(import_module("site_agent.networks.classifiers"), _LOGITS_ALONE[name])
    else:
        modules = (import_module(module) for module in _MODULES[component.target.kind])
        maker = next(getattr(module, name) for module in modules if hasattr(module, name))
    try:
        return maker(**{key: _native(key, value) for key, value in component.arguments.items()})
    except _UNFIT as error:
        found = f"arguments that do not go together ({type(error).__name__})"
        allowed = f"arguments that {name} takes together"
        raise BundleRefused([component.finding("", found, allowed, "Try them with MONAI.")]) from None


def _native(name: str, value: Any) -> Any:
    """A value as MONAI's classes take it."""
    if isinstance(value, DataType):
        return getattr(torch, value.name)
    if name == "dtype":
        return getattr(torch, value)
    return value

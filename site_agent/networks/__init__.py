"""The allow-list of networks a study may name, and the only place that builds one.

A study says a name and arguments (`consortium.contract.networks`, which also checks them here); the same study gives
the same weights at every site, so that all sites can agree on the first global model by its digest. Random weights come
from the study's public seed, inside a scope that leaves torch's global generator as it was.

Refused whatever its name: networks that keep statistics of the batches they saw (`gradients.refusals`).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError
from torch import nn

from consortium.contract import networks as contract
from consortium.contract.global_model import ParameterLayout
from consortium.contract.parameter_parts import parts_of
from consortium.contract.schema import problems_of
from site_agent.errors import NetworkRefused
from site_agent.gradients.refusals import require_private
from site_agent.networks import small
from site_agent.networks.adapters import with_adapter
from site_agent.networks.drawing import drawn_from
from site_agent.networks.initial import load_initial
from site_agent.networks.private_layers import with_private_layers
from site_agent.networks.records import RecordShape
from site_agent.networks.scattering import scattering_network
from site_agent.training_spec import NetworkSpec
from site_agent.update import divide, parameter_layout

_Builder: TypeAlias = Callable[[Any, RecordShape], nn.Module]


def _of_monai(module: str, name: str) -> _Builder:
    """A builder of a module that loads MONAI: that takes a second, which studies on tables need not wait for."""

    def builder(args: Any, shape: RecordShape) -> nn.Module:
        made: nn.Module = getattr(import_module(f"site_agent.networks.{module}"), name)(args, shape)
        return made

    return builder


NETWORKS: Mapping[str, _Builder] = {
    "logistic": small.logistic,
    "mlp": small.mlp,
    "cnn": small.cnn,
    "scattering": scattering_network,
    "densenet121": _of_monai("classifiers", "densenet121"),
    "resnet": _of_monai("classifiers", "resnet"),
    "efficientnet": _of_monai("classifiers", "efficientnet"),
    "vit": _of_monai("classifiers", "vit"),
    "unet": _of_monai("segmenters", "unet"),
    "dynunet": _of_monai("segmenters", "dynunet"),
    "segresnet": _of_monai("segmenters", "segresnet"),
    "attention-unet": _of_monai("segmenters", "attention_unet"),
    "basic-unet": _of_monai("segmenters", "basic_unet"),
    "swin-unetr": _of_monai("segmenters", "swin_unetr"),
    "unetr": _of_monai("segmenters", "unetr"),
    "bundle-classifier": _of_monai("bundled", "classifier"),
    "bundle-segmenter": _of_monai("bundled", "segmenter"),
}

_MODEL: TypeAdapter[contract.Model] = TypeAdapter(contract.ModelChoice)


def build(
    network: str, args: Mapping[str, object], *, input_shape: tuple[int, ...], outputs: int = 1, seed: int
) -> nn.Module:
    """The network a study names, with its first weights.

    It takes float32[records, *input_shape] and gives logits: float32[records, outputs], or for a network that makes
    masks float32[records, outputs, *sides].

    Args:
        network: A key of `NETWORKS`.
        args: The study's `model.args`.
        input_shape: Of one record: (inputs,) of a table, (channels, *sides) of an image.
        outputs: For each label.
        seed: The study's `training.seed`; it decides weights and nothing secret.

    Raises:
        NetworkRefused: The name or an argument is not on the allow-list, the network does not take such records, or it
            cannot be trained privately.
    """
    builder = NETWORKS.get(network)
    if builder is None:
        raise NetworkRefused("model.network", repr(network), ", ".join(NETWORKS))
    model = _checked(network, args)
    channels, *sides = input_shape
    _require_fit(model, tuple(sides))
    with drawn_from(seed):
        module = builder(model.args, RecordShape(channels=channels, sides=tuple(sides), outputs=outputs))
    module = with_private_layers(module)
    require_private(module)
    return module


def build_from(spec: NetworkSpec) -> nn.Module:
    """`build`, from a spec, with the study's initial weights and adapter, what it freezes frozen, what is kept marked.

    Raises:
        NetworkRefused: See `build`.
        WeightsRefused: The file of initial weights is missing, another one, or not this network's.
        AdapterRefused: The adapter does not fit the network.
        PartsRefused: The study's patterns do not fit the network.
    """
    module = build(spec.network, spec.args, input_shape=spec.input_shape, outputs=spec.outputs, seed=spec.seed)
    if spec.initial is not None:
        load_initial(module, spec.initial)
    if spec.adapter is not None:
        module = with_adapter(module, spec.adapter, seed=spec.seed)
    divide(module, spec.trainable, spec.site_kept)
    return module


def outline_of(spec: NetworkSpec) -> nn.Module:
    """`build_from` for names and shapes alone: initial weights are not read."""
    return build_from(replace(spec, initial=None))


def layout_of(spec: NetworkSpec) -> ParameterLayout:
    """Name and shape of every parameter of the network that is sent; the network is built for it once.

    Raises:
        NetworkRefused, AdapterRefused: See `build_from`.
        PartsRefused: The study's patterns do not fit the network.
    """
    adapter = None if spec.adapter is None else json.dumps(dict(spec.adapter), sort_keys=True)
    args = json.dumps(dict(spec.args), sort_keys=True)
    every = _layout(spec.network, args, spec.input_shape, spec.outputs, adapter)
    return parts_of(every, spec.trainable, spec.site_kept).sent


@lru_cache(maxsize=8)
def _layout(
    network: str, args: str, input_shape: tuple[int, ...], outputs: int, adapter: str | None
) -> ParameterLayout:
    module = build(network, _with_tuples(args), input_shape=input_shape, outputs=outputs, seed=0)
    return parameter_layout(module if adapter is None else with_adapter(module, _with_tuples(adapter), seed=0))


def _with_tuples(section: str) -> dict[str, object]:
    """A section of a study from JSON, with the tuples that it has."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(section).items()}


def _checked(network: str, args: Mapping[str, object]) -> contract.Model:
    """The `model` section of a study, from its parts."""
    section = {"network": network, "args": dict(args)}
    try:
        return _MODEL.validate_python(section)
    except ValidationError:
        problem = problems_of(contract.NETWORKS[network].section, section)[0]
        raise NetworkRefused(f"model.{problem.path}", problem.found, problem.allowed) from None


def _require_fit(model: contract.Model, sides: tuple[int, ...]) -> None:
    """Refuse records that the network does not take; a network takes the tasks it is listed for."""
    known = contract.NETWORKS[model.network]
    task = known.tasks[0] if known.tasks else None
    for misfit in contract.misfits_of_data(model, kind="imaging" if sides else "tabular", task=task, shape=sides):
        raise NetworkRefused(str(misfit.at), misfit.found, misfit.allowed)

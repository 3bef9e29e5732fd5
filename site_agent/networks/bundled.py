"""The network that a study takes over from a MONAI bundle; its layers are replaced as those of all others."""

import copy

import torch
from torch import nn

from consortium.contract.networks import BundleArgs
from site_agent.bundles.building import made_within_bounds
from site_agent.bundles.definition import FIELD, component_of
from site_agent.bundles.refusals import BundleRefused
from site_agent.errors import NetworkRefused
from site_agent.networks.records import RecordShape


def classifier(args: BundleArgs, shape: RecordShape) -> nn.Module:
    """A network with one label for an image."""
    return _fitting(args, shape, (1, shape.outputs))


def segmenter(args: BundleArgs, shape: RecordShape) -> nn.Module:
    """A network with a label for every place of an image."""
    return _fitting(args, shape, (1, shape.outputs, *shape.sides))


def _fitting(args: BundleArgs, shape: RecordShape, wanted: tuple[int, ...]) -> nn.Module:
    """The network, if it makes what the study's labels need of the study's records; tried without memory for them."""
    try:
        module = made_within_bounds(component_of(args.definition))
    except BundleRefused as refused:
        first = refused.findings[0]
        where = first.id if first.id.startswith(FIELD) else f"{FIELD}#{first.id}".rstrip("#")
        raise NetworkRefused(where, first.found, first.allowed) from None
    probe = copy.deepcopy(module).to("meta").eval()
    try:
        made = probe(torch.zeros((1, shape.channels, *shape.sides), device="meta"))
        found = f"outputs of shape {tuple(made.shape)}" if isinstance(made, torch.Tensor) else "several outputs"
        fits = isinstance(made, torch.Tensor) and tuple(made.shape) == wanted
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        found, fits = f"a network that does not take the study's records ({type(error).__name__})", False
    if not fits:
        raise NetworkRefused(FIELD, found, f"outputs of shape {wanted} of records of {(shape.channels, *shape.sides)}")
    return module

"""Files of weights that studies begin from or end with: drawn from the seed, converted, or a study's model made whole.

| made from | holds |
|---|---|
| a study's seed | every parameter of its network as the seed draws it |
| a `.pt` or `.safetensors` file, or a bundle | of its tensors those that are the study's network's |
| a model that a study released | every parameter, also those not trained; adapters worked into their layers |

All are safetensors under the names that the network has without an adapter, and can be a study's `initial_weights`.
The same input gives the same bytes on every machine, but for the first line: what the seed draws for convolutions
depends on the processor.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from consortium.contract.global_model import GlobalModel, ModelRefused
from consortium.contract.study import StudyFile
from site_agent.bundles.checking import check_bundle
from site_agent.bundles.reading import WEIGHTS_BYTES_MAX, read_bundle, read_weights
from site_agent.bundles.weights import read_state
from site_agent.errors import WeightsRefused
from site_agent.networks import build_from
from site_agent.networks.adapters import merged_parameters
from site_agent.training_spec import NO_FILES, WeightFiles, network_spec_of
from site_agent.update import load_vector, parameter_layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A file's tensors as a study's network has them, and what did not fit."""

    model: GlobalModel
    left_out: tuple[str, ...]  # tensors of the file that the network does not have, or has in another shape
    missing: tuple[str, ...]  # parameters of the network that the file lacks


def drawn(study: StudyFile) -> GlobalModel:
    """What the study's seed draws on this machine, whatever initial weights the study names."""
    return _model_of(_bare(study))


def converted(study: StudyFile, path: Path) -> Converted:
    """The weights in a file or a bundle, as those of a study's network. Nothing is unpickled that is not a tensor.

    Args:
        study: Which network; its own `initial_weights` are not looked at.
        path: A `.pt`, `.pth` or `.safetensors` file, or a bundle's folder or zip file.

    Raises:
        WeightsRefused: None of it is the network's, or a value is not finite.
        BundleRefused: It cannot be read as weights.
    """
    state = _state_at(path)
    wanted = {name: tuple(tensor.shape) for name, tensor in _bare(study).items()}
    fitting = {
        name: tensor.detach().to(torch.float32)
        for name, tensor in state.items()
        if wanted.get(name) == tuple(tensor.shape)
    }
    if not fitting:
        raise WeightsRefused(f"none of {len(state)} tensors under a name and shape of the network", "its parameters")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in fitting.values()):
        raise WeightsRefused("a value that is not finite", "finite values")
    return Converted(
        model=_model_of(fitting),
        left_out=tuple(sorted(state.keys() - fitting.keys())),
        missing=tuple(sorted(wanted.keys() - fitting.keys())),
    )


def whole(study: StudyFile, trained: Path, weights: WeightFiles = NO_FILES) -> GlobalModel:
    """A study's released model with everything that it leaves out: frozen parameters; adapters worked into layers.

    Parameters that hospitals keep to themselves are as they were before training.

    Raises:
        WeightsRefused: The model cannot be read or is not one of this study, or its initial weights are not here.
    """
    module = build_from(network_spec_of(study, weights))
    try:
        model = GlobalModel.open(trained)
    except ModelRefused as error:
        raise WeightsRefused(str(error), "a model that the study released") from None
    except OSError as error:
        raise _unreadable(error, "a model that the study released") from None
    if model.parameters != parameter_layout(module):
        raise WeightsRefused("a model with other parameters", "one that the study released")
    load_vector(module, model.vector)
    return _model_of(merged_parameters(module))


def write_new(path: Path, model: GlobalModel) -> str:
    """Write a model to a file that must not be there yet; its SHA-256. Raises WeightsRefused."""
    hasher = hashlib.sha256()
    try:
        with path.open("xb") as file:
            for part in model.file_parts():
                file.write(part)
                hasher.update(part)
    except FileExistsError:
        raise WeightsRefused("a file of that name", "the name of a new file after --out") from None
    except OSError as error:
        raise _unreadable(error, "a place this user may write to") from None
    return hasher.hexdigest()


def _bare(study: StudyFile) -> Mapping[str, torch.Tensor]:
    """Every parameter of the network as the seed draws it, without an adapter."""
    spec = replace(network_spec_of(study), initial=None, adapter=None, trainable=None, site_kept=None)
    return {name: parameter.detach() for name, parameter in build_from(spec).named_parameters()}


def _model_of(tensors: Mapping[str, torch.Tensor]) -> GlobalModel:
    names = sorted(tensors)
    vector = np.concatenate([tensors[name].numpy().ravel() for name in names])
    return GlobalModel(tuple((name, tuple(tensors[name].shape)) for name in names), vector)


def _state_at(path: Path) -> Mapping[str, torch.Tensor]:
    if path.is_dir() or path.suffix.lower() == ".zip":
        bundle = check_bundle(read_bundle(path))
        if bundle.weights is None:
            raise WeightsRefused("a bundle without weights", "models/model.pt or models/model.safetensors in it")
        return read_state(bundle.weights.name, read_weights(path, bundle.weights))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > WEIGHTS_BYTES_MAX:
                raise WeightsRefused("something that is no file, or a larger one", f"at most {WEIGHTS_BYTES_MAX} bytes")
            content = file.read(status.st_size)
    except OSError as error:
        raise _unreadable(error, "a file this user may read") from None
    return read_state(path.name, content)


def _unreadable(error: OSError, allowed: str) -> WeightsRefused:
    return WeightsRefused(f"nothing that can be read or written ({error.strerror or type(error).__name__})", allowed)

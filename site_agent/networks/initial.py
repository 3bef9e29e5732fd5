"""A network's first weights from a file that the study names by its SHA-256.

The file is the hospital's own copy, but its bytes may be anybody's: nothing of it is believed.

| what is looked at | before |
|---|---|
| that it is a file, and not larger than this network's weights can be | any of it is read |
| SHA-256 of the bytes | they are read as anything |
| that they are finite float32 tensors (`GlobalModel.from_safetensors`) | a tensor is made |
| their names and shapes against the network's own | a weight is changed |
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from consortium.contract.errors import shown
from consortium.contract.global_model import GlobalModel, ModelRefused
from site_agent.errors import WeightsRefused
from site_agent.training_spec import InitialFile

HEADER_BYTES_MAX = 16 * 2**20
"""What a file may have beyond the values: names and shapes."""

_VALUE_BYTES = 4


def load_initial(module: nn.Module, file: InitialFile) -> None:
    """Overwrite a network's parameters with those of a file; what it lacks stays as drawn if the study says so.

    Args:
        module: As it was built from the seed, before anything of it is frozen or an adapter stands beside it.
        file: What the study names, and where it lies here.

    Raises:
        WeightsRefused: It is not here, not the named one, or not this network's.
    """
    if file.path is None:
        raise WeightsRefused(f"no path of the file {file.sha256[:12]}", "one under `weights` in site.yaml")
    parameters = dict(module.named_parameters())
    model = read_weights_file(
        Path(file.path), sha256=file.sha256, values_max=sum(p.numel() for p in parameters.values())
    )
    _require_fit(model, {name: tuple(p.shape) for name, p in parameters.items()}, draw_missing=file.draw_missing)
    put_in(parameters, model)


def read_weights_file(path: Path, *, sha256: str, values_max: int) -> GlobalModel:
    """The tensors of a file, if it has this digest.

    Raises:
        WeightsRefused: It cannot be read, is too large for so many values, is another file, or is not one of weights.
    """
    content = _bytes_of(path, bytes_max=8 + HEADER_BYTES_MAX + _VALUE_BYTES * values_max)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise WeightsRefused(f"a file with the SHA-256 {found[:12]}", f"the one the study names, {sha256[:12]}")
    try:
        return GlobalModel.from_safetensors(content)
    except ModelRefused as error:
        raise WeightsRefused(str(error), "a safetensors file of finite float32 tensors") from None


def put_in(parameters: Mapping[str, nn.Parameter], model: GlobalModel) -> None:
    """Copy the tensors of a model to the parameters of their names."""
    start = 0
    with torch.no_grad():
        for name, shape in model.parameters:
            stop = start + parameters[name].numel()
            # torch warns of arrays that cannot be written to, as these cannot: it gets a copy.
            parameters[name].copy_(torch.from_numpy(model.vector[start:stop].copy()).reshape(shape))
            start = stop


def _bytes_of(path: Path, *, bytes_max: int) -> bytes:
    try:
        # A pipe or a device must neither block nor be read.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise WeightsRefused("something that is no file", "a file of weights")
            if status.st_size > bytes_max:
                raise WeightsRefused(
                    f"a file of {status.st_size} bytes", f"at most {bytes_max}: the network has no more weights"
                )
            content = file.read(status.st_size + 1)
    except OSError as error:
        raise WeightsRefused(
            f"a file that cannot be read ({error.strerror or type(error).__name__})", "one this user may read"
        ) from None
    if len(content) != status.st_size:
        raise WeightsRefused("a file that changes while it is read", "one that stays as it is")
    return content


def _require_fit(model: GlobalModel, wanted: Mapping[str, tuple[int, ...]], *, draw_missing: bool) -> None:
    if model.state:
        raise WeightsRefused("an optimizer's state among the weights", "the parameters of a network alone")
    found = dict(model.parameters)
    extra = sorted(found.keys() - wanted.keys())
    if extra:
        raise WeightsRefused(
            f"{len(extra)} tensors that the network does not have, the first {shown(extra[0])}", "its parameters alone"
        )
    for name, shape in found.items():
        if shape != wanted[name]:
            raise WeightsRefused(f"{shown(name)} of shape {shape}", f"shape {wanted[name]}, as the network has it")
    missing = sorted(wanted.keys() - found.keys())
    if missing and not draw_missing:
        raise WeightsRefused(
            f"{len(missing)} of {len(wanted)} parameters are not in the file, the first {shown(missing[0])}",
            "every parameter; or a study that says `missing: drawn` under initial_weights",
        )

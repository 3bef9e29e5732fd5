"""Networks and data pipelines that break the unit of privacy, refused by name. Losses: see `losses`.

| found | why | instead |
|---|---|---|
| any BatchNorm, also frozen, non-affine or untracked | its statistics mix patients or leave without noise | GroupNorm |
| instance norm that tracks, any other float buffer | buffers get no noise | the layer without tracking |
| several crops of one record | each would count as a patient: epsilon 2.77 would be 134 | crops in their patient |
"""

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from site_agent.errors import NetworkRefused


def require_private(module: nn.Module) -> None:
    """Refuse a network whose training under DP-SGD would not mean what the accountant is told.

    Raises:
        NetworkRefused: It mixes records or keeps statistics of batches; the message names the layer and what to use.
    """
    for name, part in module.named_modules():
        kind = type(part).__name__
        if isinstance(part, _BatchNorm):
            raise NetworkRefused("model.network", f"{kind} at {name!r}", "GroupNorm or LayerNorm instead")
        if isinstance(part, _NormBase) and part.track_running_stats:
            raise NetworkRefused(
                "model.network", f"{kind} at {name!r}, which tracks statistics", f"{kind} without track_running_stats"
            )
    for name, buffer in module.named_buffers():
        if buffer.is_floating_point():
            raise NetworkRefused("model.network", f"the float buffer {name!r}", "parameters only: buffers get no noise")


def require_one_crop(transform: Any) -> None:
    """Refuse a pipeline of transforms that makes several records of one, unless their patient groups them.

    Args:
        transform: A transform, or a `Compose` of them, as MONAI has them; whatever makes several says `num_samples`.

    Raises:
        NetworkRefused: With the transform's name.
    """
    for part in _parts(transform):
        inner = getattr(part, "cropper", part)
        for name in ("num_samples",):
            count = getattr(inner, name, 1)
            if isinstance(count, int) and count > 1:
                raise NetworkRefused(
                    "data.transforms",
                    f"{type(part).__name__} with {name}={count}",
                    "num_samples=1, or crops that are records of their patient, of which the patient is clipped as one",
                )


def _parts(transform: Any) -> Iterator[Any]:
    inner = getattr(transform, "transforms", None)
    if inner is None:
        yield transform
        return
    for part in inner:
        yield from _parts(part)

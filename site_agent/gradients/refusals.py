"""Networks that break the unit of privacy, refused by name. Losses: see `losses`.

| found | why | instead |
|---|---|---|
| any BatchNorm, also frozen, non-affine or untracked | its statistics mix patients or leave without noise | GroupNorm |
| instance norm that tracks, any other float buffer | buffers get no noise | the layer without tracking |
"""

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

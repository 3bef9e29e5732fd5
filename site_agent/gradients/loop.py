"""One patient after the other, by plain automatic differentiation: the reference that other engines are held to.

Works for every network, needs less memory than training without privacy, and no patient's gradient depends on who else
is in the batch. So it alone may run in bfloat16 (`engine`, "Lower precision"): weights and what is summed are float32
and float64 as ever, and a patient's norm is that of the very gradient that is summed.
"""

from typing import ClassVar

import torch
from torch import nn

from site_agent.device import Compute, Precision
from site_agent.gradients.engine import Batch, Engine, Tally, factors_of
from site_agent.gradients.losses import RecordLoss


class LoopEngine(Engine):
    """See above."""

    name: ClassVar[str] = "loop"

    def __init__(
        self, module: nn.Module, loss: RecordLoss, *, records_max: int = 2**31, precision: Precision = "float32"
    ) -> None:
        super().__init__(module, loss, records_max=records_max)
        self._compute = Compute(device=self.device, precision=precision)

    def add(self, part: Batch, clip_norm_l2: float, tally: Tally) -> None:
        """Forward, backward, clip and add, for each patient alone."""
        start = 0
        for size in part.sizes:
            rows = slice(start, start + size)
            start += size
            loss = self.loss(self._compute.outputs_of(self.module, part.features[rows]), part.labels[rows]).mean()
            gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            squares = torch.zeros(1, dtype=torch.float64, device=self.device)
            for gradient in gradients:
                if gradient is not None:
                    squares += gradient.double().square().sum()
            factor = float(factors_of(squares, clip_norm_l2, tally))
            if factor:
                self._add(gradients, factor, tally.total)

    def _add(self, gradients: tuple[torch.Tensor | None, ...], factor: float, total: torch.Tensor) -> None:
        place = 0
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            stop = place + parameter.numel()
            if gradient is not None:
                total[place:stop].add_(gradient.flatten().double(), alpha=factor)
            place = stop

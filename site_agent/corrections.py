"""What FedProx and SCAFFOLD add to the gradient of every local step, after its noise (torch).

| algorithm | added | reference |
|---|---|---|
| fedprox | mu (y - x), of the objective's term mu/2 ||y - x||^2 | Li et al. 2020, equation 2 |
| scaffold | c - c_i | Karimireddy et al. 2020, algorithm 1, line 10 |

x is the global model the round starts from, y the weights of the step.

Neither costs privacy, because both are added to a gradient that is already clipped and noised, and both are functions
of what is private already: x was published; y follows from x and the noisy gradients of the steps before; c is part of
the published model; and c_i follows from this hospital's earlier updates, which were private before they were masked
(`control_variates.py`). Post-processing of a differentially private value is as private as the value. Added before the
clip, the proximal term would be cut together with the patients' gradients, and no longer be what the paper proves.

Parameters that a hospital keeps have no global counterpart and are left alone.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from site_agent.errors import TrainingFailed
from site_agent.update import sent_parameters


class Correction:
    """One round's correction. Made when the module holds the global model; it keeps a copy of that if it needs one.

    Args:
        module: The network, with the weights the round starts from.
        mu: Of FedProx; 0 without.
        shift: float32[d] in the layout of the update, c - c_i of SCAFFOLD; None without.

    Raises:
        TrainingFailed: The shift has another length than the update.
    """

    def __init__(self, module: nn.Module, *, mu: float, shift: NDArray[np.float32] | None) -> None:
        self._parameters = tuple(p for _, p in sent_parameters(module))
        self._mu = mu
        self._anchors = [p.detach().clone() for p in self._parameters] if mu else []
        self._shifts = [] if shift is None else _cut(shift, self._parameters)

    def add_to_gradients(self) -> None:
        """Change `grad` of every parameter in place; a parameter without one gets the correction alone."""
        if not self._anchors and not self._shifts:
            return
        for index, parameter in enumerate(self._parameters):
            gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            if self._anchors:
                gradient.add_(parameter.detach() - self._anchors[index], alpha=self._mu)
            if self._shifts:
                gradient.add_(self._shifts[index])
            parameter.grad = gradient


def _cut(shift: NDArray[np.float32], parameters: Sequence[nn.Parameter]) -> list[torch.Tensor]:
    """The vector in the shapes of the parameters."""
    sizes = [p.numel() for p in parameters]
    if shift.shape != (sum(sizes),):
        raise TrainingFailed(f"a control variate of {shift.size} values for an update of {sum(sizes)}")
    parts = torch.split(torch.from_numpy(shift.copy()), sizes)
    return [part.view(p.shape).to(p.device) for part, p in zip(parts, parameters, strict=True)]

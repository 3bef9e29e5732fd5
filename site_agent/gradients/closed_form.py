"""Logistic regression by its formula: no graph, no hooks; a step of a small study costs less than a plain torch step.

The gradient of record x with label y is (sigmoid(w . x + b) - y) (1, x). Everything is in float64 from the inputs on,
and each patient's gradient is written down, so `engine`, part 1, holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from site_agent.gradients.engine import Batch, Tally
from site_agent.gradients.losses import ElementwiseLoss, RecordLoss

VALUES_MAX = 2**16
"""Values of a batch; for longer ones the time that this saves does not matter."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogisticRegression:
    """A network of one linear layer with one output, and where its parameters stand in the layout."""

    layer: nn.Linear
    weight: slice
    bias: slice

    @classmethod
    def of(cls, module: nn.Module, loss: RecordLoss, places: Mapping[Any, slice]) -> "LogisticRegression | None":
        """What this formula needs, if the network and its loss are of that form."""
        layers = [module] if type(module) is nn.Linear else [*module] if type(module) is nn.Sequential else []
        if len(layers) != 1 or type(layers[0]) is not nn.Linear or not isinstance(loss, ElementwiseLoss):
            return None
        layer = layers[0]
        plain = loss.is_cross_entropy_of_logits and layer.out_features == 1
        if not plain or layer.bias is None or {layer.weight, layer.bias} != set(places):
            return None
        return cls(layer=layer, weight=places[layer.weight], bias=places[layer.bias])

    def suits(self, part: Batch) -> bool:
        """Whether a batch is a table, short, and on the processor."""
        there = part.features.device.type == "cpu"
        return there and part.features.dim() == 2 and part.labels.dim() == 1 and part.features.numel() <= VALUES_MAX

    def add(self, part: Batch, clip_norm_l2: float, tally: Tally) -> None:
        """Gradients, norms, clipping and the sum."""
        inputs = part.features.numpy().astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is counted below
            logits = inputs @ self.layer.weight.detach().numpy()[0] + float(self.layer.bias.detach())
            slopes = 0.5 * (1 + np.tanh(0.5 * logits)) - part.labels.numpy()
            rows, ones = slopes[:, None] * inputs, slopes
            if len(part.sizes) != len(inputs):
                rows, ones = _means(rows, part.sizes), _means(ones, part.sizes)
            squares = np.einsum("ij,ij->i", rows, rows) + ones * ones
            factors = self._factors(squares, clip_norm_l2, tally)
        if (factors == 0).any():
            rows[factors == 0] = ones[factors == 0] = 0.0  # because 0 times NaN is NaN
        total = tally.total.numpy()
        total[self.weight] += factors @ rows
        total[self.bias] += factors @ ones

    @staticmethod
    def _factors(squares: NDArray[np.float64], clip_norm_l2: float, tally: Tally) -> NDArray[np.float64]:
        """As `engine.factors_of`, without the price of many small torch calls."""
        norms = np.sqrt(squares)
        finite = np.isfinite(norms)
        tally.clipped += int(np.count_nonzero(finite & (norms > clip_norm_l2)))
        tally.broken += len(norms) - int(np.count_nonzero(finite))
        factors: NDArray[np.float64] = np.where(finite, clip_norm_l2 / np.maximum(norms, clip_norm_l2), 0.0)
        return factors


def _means(records: NDArray[np.float64], sizes: tuple[int, ...]) -> NDArray[np.float64]:
    """Mean over each run of consecutive records."""
    counts = np.asarray(sizes)
    sums: NDArray[np.float64] = np.add.reduceat(records, np.cumsum(counts) - counts, axis=0)
    means: NDArray[np.float64] = sums / counts.reshape(-1, *(1,) * (records.ndim - 1))
    return means

"""One forward and one backward pass for the whole batch; gradients by patient come from what passes through the layers.

The forward pass keeps the input of every layer with parameters. The backward pass asks for no parameter's gradient, so
the library computes none; where it comes past a layer's output, `layers.gradients` makes the records' gradients of that
layer, either written down or as two factors. When all norms are known, the weighted sum is made from the same values,
without a second backward pass (Bu et al., ICML 2023).

A gradient stays in factors where that is less work: its squared norm is sum over t, s of (a_t . a_s)(b_t . b_s), and
the sum over patients is one matrix product in float64. The errors of both are bounded in `engine`, part 3.

Logistic regression has a formula (`closed_form`) and needs none of this.

Refuses layers without a rule, networks that call a layer with another number of records than the batch has, and inputs
that were overwritten after a layer saw them.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from site_agent.errors import EngineUnsuited
from site_agent.gradients.closed_form import LogisticRegression
from site_agent.gradients.engine import (
    Batch,
    Engine,
    Tally,
    add_rows,
    by_patient,
    factors_of,
    squares_of,
)
from site_agent.gradients.layers import Factors, Gradient, Rows, gradients, in_order, why_not
from site_agent.gradients.losses import RecordLoss

POSITIONS_MAX = 2**14
"""Terms in the sum that adds up factors: n in `engine`, part 3."""
PATIENTS_IN_FACTORS_MAX = 2**13
"""Patients of a step whose gradients may stay in factors: N in `engine`, part 3."""
POSITIONS_OF_PATIENT_MAX, VALUES_PER_SQUARED_POSITION = 16, 256
"""With more positions, or fewer values for them, it is faster to write the gradient down; found by measuring."""
_TINY = 1e-300
CANCELLATION_MAX = 2.0**8
"""How many clip norms the factors of a patient may amount to."""


class BookkeepingEngine(Engine):
    """See above."""

    name: ClassVar[str] = "bookkeeping"

    def __init__(self, module: nn.Module, loss: RecordLoss, *, records_max: int = 2**31) -> None:
        super().__init__(module, loss, records_max=records_max)
        self._places: dict[nn.Parameter, slice] = {}
        start = 0
        for parameter in self.parameters:
            self._places[parameter] = slice(start, start + parameter.numel())
            start += parameter.numel()
        self._formula = LogisticRegression.of(module, loss, self._places)
        self._book: _Book | None = None
        self._anchor = torch.zeros(0, requires_grad=True, device=self.device)
        followed = [
            layer for layer in module.modules() if any(p.requires_grad for p in layer.parameters(recurse=False))
        ]
        for layer in followed:
            reason = why_not(layer)
            if reason is not None:
                raise EngineUnsuited(self.name, reason)
        for layer in followed:
            layer.register_forward_hook(self._passed)

    def add(self, part: Batch, clip_norm_l2: float, tally: Tally) -> None:
        """One forward and one backward pass, then norms, then the weighted sum."""
        if self._formula is not None and self._formula.suits(part):
            self._formula.add(part, clip_norm_l2, tally)
            return
        book = self._book = _Book(part, factors_allowed=tally.batch_patients <= PATIENTS_IN_FACTORS_MAX)
        try:
            losses = self.loss(self.module(part.features), part.labels)
        finally:
            self._book = None
        torch.autograd.grad((losses * self.record_weights(part)).sum(), self._anchor)
        book.add_to(tally, clip_norm_l2, self._places)

    def _passed(self, layer: nn.Module, arguments: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        """A layer has been called: keep its input, and listen to what comes back to its output."""
        book = self._book
        if book is None:
            return None
        inputs: torch.Tensor = arguments[0].detach()
        if len(inputs) != book.records or len(output) != book.records:
            raise EngineUnsuited(self.name, f"{type(layer).__name__} was called with {len(inputs)} rows")
        listened: torch.Tensor = _Listen.apply(  # type: ignore[no-untyped-call]
            output,
            self._anchor,
            _Seen(book, layer, inputs, inputs._version),  # noqa: SLF001 - see `_Listen`
        )
        return listened


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A call of a layer."""

    book: "_Book"
    layer: nn.Module
    inputs: torch.Tensor
    version: int  # of the inputs, when the layer saw them


class _Listen(torch.autograd.Function):
    """The identity; its backward pass hands the gradient to the book."""

    @staticmethod
    def forward(context: Any, output: torch.Tensor, anchor: torch.Tensor, seen: "_Seen") -> torch.Tensor:
        """Nothing happens to the output."""
        context.seen = seen
        context.anchor = anchor.detach()
        context.mark_dirty(output)
        return output

    @staticmethod
    def backward(context: Any, slopes: torch.Tensor) -> tuple[Any, ...]:
        """Make the gradients of this layer's parameters while its input is at hand."""
        seen: _Seen = context.seen
        context.seen = None  # its input is not needed any longer
        if seen.inputs._version != seen.version:  # noqa: SLF001 - how torch itself finds overwritten tensors
            raise EngineUnsuited(BookkeepingEngine.name, f"the input of {type(seen.layer).__name__} was overwritten")
        seen.book.enter(seen.layer, seen.inputs, slopes)
        return slopes, torch.zeros_like(context.anchor), None


class _Book:
    """What one pass has found out. Mutable: a backward pass writes into it, layer by layer."""

    def __init__(self, part: Batch, *, factors_allowed: bool) -> None:
        self.records = len(part.features)
        self._sizes = part.sizes
        self._device = part.features.device
        self._most = max(part.sizes)
        self._factors_allowed = factors_allowed
        self._found: dict[nn.Parameter, list[Gradient]] = defaultdict(list)

    def enter(self, layer: nn.Module, inputs: torch.Tensor, slopes: torch.Tensor) -> None:
        """The gradients of one call of one layer."""
        with torch.no_grad():
            for parameter, gradient in gradients(layer, inputs, slopes):
                keep = isinstance(gradient, Factors) and self._stays_in_factors(gradient)
                self._found[parameter].append(gradient if keep else self._rows(gradient))

    def add_to(self, tally: Tally, clip_norm_l2: float, places: dict[nn.Parameter, slice]) -> None:
        """Norms over all layers, clip, and the sum."""
        with torch.no_grad():
            found = {parameter: self._together(parameter, uses) for parameter, uses in self._found.items()}
            squares = torch.zeros(len(self._sizes), dtype=torch.float64, device=self._device)
            spread = torch.zeros_like(squares)
            for gradient in found.values():
                if isinstance(gradient, Rows):
                    squares += squares_of(gradient.values)
                else:
                    gradient.add_squares(squares, spread)
            weights = factors_of(squares, clip_norm_l2, tally)
            # Part 3 of `engine`: what cancels inside one gradient is bounded too. A weight of 0 stays 0.
            weights = torch.minimum(weights, CANCELLATION_MAX * clip_norm_l2 / spread.clamp(min=_TINY))
            broken = ~torch.isfinite(squares)
            if broken.any():
                weights[broken] = 0.0
                for gradient in found.values():
                    if isinstance(gradient, Rows):
                        gradient.values[broken] = 0.0
                    else:
                        gradient.silence(broken)
            for parameter, gradient in found.items():
                out = tally.total[places[parameter]]
                kernel = gradient.kernel
                target = out if kernel == 1 else torch.zeros_like(out)
                if isinstance(gradient, Rows):
                    add_rows(gradient.values, weights, target)
                else:
                    gradient.add_to(target, weights)
                if kernel != 1:
                    out += in_order(target, parameter.shape, kernel)

    def _together(self, parameter: nn.Parameter, uses: list[Gradient]) -> "Rows | _PatientFactors":
        """The gradient of one parameter by patient; of one that is used more than once the sum, written down."""
        first = uses[0]
        if len(uses) > 1:
            rows = [self._rows(use) for use in uses]
            return Rows(values=torch.stack([in_order(r.values, parameter.shape, r.kernel) for r in rows]).sum(0))
        if isinstance(first, Rows):
            return first
        return _PatientFactors(self._padded(first.left.transpose(2, 3)), self._padded(first.right), first.kernel)

    def _rows(self, gradient: Gradient) -> Rows:
        """Written down, by patient."""
        rows = gradient.written() if isinstance(gradient, Factors) else gradient
        if len(rows.values) == len(self._sizes):
            return rows
        return Rows(values=by_patient(rows.values, self._sizes), kernel=rows.kernel)

    def _stays_in_factors(self, factors: Factors) -> bool:
        positions = factors.left.shape[3] * self._most
        return (
            self._factors_allowed
            and factors.left.shape[1] == 1
            and positions <= POSITIONS_OF_PATIENT_MAX
            and VALUES_PER_SQUARED_POSITION * positions**2 <= factors.left.shape[2] * factors.right.shape[3]
            and positions * len(self._sizes) <= POSITIONS_MAX
        )

    def _padded(self, factor: torch.Tensor) -> torch.Tensor:
        """float32[records, 1, positions, values] -> [patients, most records * positions, values], zeros at the end."""
        factor = factor.squeeze(1)
        if self._most == 1:
            return factor
        sizes = torch.tensor(self._sizes, device=self._device)
        patient = torch.repeat_interleave(torch.arange(len(sizes), device=self._device), sizes)
        slot = torch.arange(self.records, device=self._device) - (sizes.cumsum(0) - sizes)[patient]
        out = factor.new_zeros((len(sizes), self._most, *factor.shape[1:]))
        out[patient, slot] = factor
        return out.flatten(1, 2)


class _PatientFactors:
    """Factors by patient, in float64 from here on."""

    def __init__(self, left: torch.Tensor, right: torch.Tensor, kernel: int) -> None:
        self.kernel = kernel
        self._left = left.double()  # [patients, positions, rows]
        self._right = right.double()  # [patients, positions, columns]

    def add_squares(self, squares: torch.Tensor, spread: torch.Tensor) -> None:
        """Add an upper bound of the squared norms to `squares`, and E of `engine`, part 3, to `spread`."""
        if self._left.shape[1] == 1:  # one position: the norm of a product of two vectors, and nothing to cancel
            exact = self._left.square().sum((1, 2)) * self._right.square().sum((1, 2))
            squares += exact
            spread += exact.sqrt()
            return
        left = torch.bmm(self._left, self._left.transpose(1, 2))
        right = torch.bmm(self._right, self._right.transpose(1, 2))
        largest = left.diagonal(dim1=1, dim2=2).sum(1) * right.diagonal(dim1=1, dim2=2).sum(1)
        terms = left.shape[1] ** 2 + self._left.shape[2] + self._right.shape[2]
        squares += (left * right).sum((1, 2)).clamp(min=0) + 2 * terms * 2.0**-53 * largest
        spread += largest.sqrt()

    def silence(self, broken: torch.Tensor) -> None:
        """Zeros for the patients whose gradient is not finite, because 0 times NaN is NaN.

        Not in place: in float64 a factor may be the batch itself.
        """
        self._left = self._left.masked_fill(broken[:, None, None], 0.0)
        self._right = self._right.masked_fill(broken[:, None, None], 0.0)

    def add_to(self, out: torch.Tensor, weights: torch.Tensor) -> None:
        """Add the sum over patients and positions of weight * left^T right to `out`."""
        left = (self._left * weights[:, None, None]).flatten(0, 1)
        right = self._right.flatten(0, 1)
        out.view(left.shape[1], right.shape[1]).addmm_(left.t(), right)

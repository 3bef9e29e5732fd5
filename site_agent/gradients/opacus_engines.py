"""Per-record gradients as Opacus computes them: with its hooks, or with ghost clipping.

Of Opacus only the gradients are used. Its adaptive clipping is not: with ghost clipping it does not clip under a stock
CrossEntropyLoss, and with hooks it fails on empty batches. Its BatchMemoryManager is not: left early, it leaves sums of
half a batch behind. Its loaders are not: their rounded length decides how many steps there are. Nothing here or in the
trainer takes a clipping mode, a memory manager or a loader, so none of them can be asked for.
"""

import copy
import warnings
from typing import ClassVar

import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
from torch import nn

from site_agent.errors import EngineUnsuited
from site_agent.gradients.engine import Batch, Engine, Tally, add_all_rows, by_patient, factors_of
from site_agent.gradients.losses import RecordLoss
from site_agent.update import named_parameters


class HooksEngine(Engine):
    """Every record's gradient is written down by a hook on every layer."""

    name: ClassVar[str] = "hooks"
    begins_anew: ClassVar[bool] = False  # its hooks keep what a broken pass left

    def __init__(self, module: nn.Module, loss: RecordLoss, *, records_max: int = 2**31) -> None:
        super().__init__(module, loss, records_max=records_max)
        self._hooked = _wrapped(self.name, lambda: GradSampleModule(module, loss_reduction="sum"))
        _without_overwriting(module)

    def add(self, part: Batch, clip_norm_l2: float, tally: Tally) -> None:
        """Forward, backward, clip and add."""
        for parameter in self.parameters:
            parameter.grad_sample = None  # type: ignore[attr-defined]
        # Opacus listens to full backward hooks, which torch fires reliably only if the inputs ask for gradients.
        outputs = self._hooked(part.features.detach().requires_grad_())
        (self.loss(outputs, part.labels) * self.record_weights(part)).sum().backward()  # type: ignore[no-untyped-call]
        samples = [parameter.grad_sample for parameter in self.parameters]  # type: ignore[attr-defined]
        if any(not isinstance(sample, torch.Tensor) for sample in samples):
            raise EngineUnsuited(self.name, "a layer was used more than once, or not at all")
        with torch.no_grad():
            add_all_rows([by_patient(sample.flatten(1), part.sizes) for sample in samples], clip_norm_l2, tally)
        for parameter in self.parameters:
            parameter.grad = parameter.grad_sample = None  # type: ignore[attr-defined]


class GhostEngine(Engine):
    """Norms first, then a second backward pass over the weighted losses.

    The sum comes out of the library's own backward pass, so its errors can neither be bounded by a patient's norm nor
    seen. Everything is therefore computed in float64, where they are 2^29 times smaller than in float32. A norm is one
    record's: patients of several records are refused.
    """

    name: ClassVar[str] = "ghost"
    several_records: ClassVar[bool] = False
    begins_anew: ClassVar[bool] = False

    def __init__(self, module: nn.Module, loss: RecordLoss, *, records_max: int = 2**31) -> None:
        super().__init__(module, loss, records_max=records_max)
        self._double = copy.deepcopy(module).double()
        self._hooked = _wrapped(
            self.name,
            lambda: GradSampleModuleFastGradientClipping(
                self._double, max_grad_norm=1.0, use_ghost_clipping=True, loss_reduction="sum"
            ),
        )
        _without_overwriting(self._double)
        self._copies = tuple(parameter for _, parameter in named_parameters(self._double))

    def add(self, part: Batch, clip_norm_l2: float, tally: Tally) -> None:
        """One pass forward and two backward, for as many patients as have finite gradients."""
        if any(size != 1 for size in part.sizes):
            raise EngineUnsuited(self.name, "patients have several records")
        with torch.no_grad():
            for own, given in zip(self._copies, self.parameters, strict=True):
                own.copy_(given)
        self._double.train(self.module.training)
        features, labels = part.features.double(), part.labels.double()
        while len(features):
            losses = self.loss(self._hooked(features.detach().requires_grad_()), labels)
            losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
            squares = self._hooked.get_norm_sample().detach().double().square()
            self._clear()
            finite = torch.isfinite(squares)
            if finite.all():
                self._add_weighted(losses, factors_of(squares, clip_norm_l2, tally), tally.total)
                return
            # Broken patients would reach the sum as 0 times NaN: everybody else goes forward again, and is measured
            # again, because the random layers draw again.
            factors_of(squares[~finite], clip_norm_l2, tally)
            features, labels = features[finite], labels[finite]

    def _add_weighted(self, losses: torch.Tensor, weights: torch.Tensor, total: torch.Tensor) -> None:
        """The second pass runs backward through the very forward pass whose norms gave the weights.

        A second forward pass would draw other random numbers (dropout, stochastic depth), and no norm taken in the
        first would bound what a patient moves.
        """
        self._hooked.disable_hooks()
        try:
            (losses * weights).sum().backward()  # type: ignore[no-untyped-call]
        finally:
            self._hooked.enable_hooks()
        place = 0
        for parameter in self._copies:
            stop = place + parameter.numel()
            if parameter.grad is not None:
                total[place:stop] += parameter.grad.flatten()
            place = stop
        self._clear()

    def _clear(self) -> None:
        for parameter in self._copies:
            parameter.grad = None
            parameter._norm_sample = None  # type: ignore[attr-defined] # noqa: SLF001 - where Opacus keeps it


def _without_overwriting(module: nn.Module) -> None:
    """Layers that write into their input write beside it from now on: the same values, in more memory.

    What a hooked layer puts out must not be overwritten by the next one, as `ReLU(inplace=True)` does.
    """
    for part in module.modules():
        if getattr(part, "inplace", False) is True:
            part.inplace = False  # type: ignore[assignment] # not a submodule


def _wrapped(name: str, make):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - Opacus has no types
    """Opacus' wrapper, or the reason why it does not take the network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return make()
        except (NotImplementedError, ValueError, RuntimeError) as error:
            raise EngineUnsuited(name, str(error).partition("\n")[0][:200]) from error

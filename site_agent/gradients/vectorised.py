"""Per-patient gradients by `torch.func`: one function of the parameters and a record, differentiated and vectorised.

No hooks, so every layer that torch can vectorise is covered. Tensors that two layers share are given under both of
their names, from one variable, because otherwise the gradient through the second use would be lost.
"""

from typing import ClassVar

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from site_agent.errors import EngineUnsuited
from site_agent.gradients.engine import Batch, Engine, Tally, add_all_rows, by_patient
from site_agent.gradients.losses import RecordLoss
from site_agent.update import named_parameters


class VmapEngine(Engine):
    """See above."""

    name: ClassVar[str] = "vmap"

    def __init__(self, module: nn.Module, loss: RecordLoss, *, records_max: int = 2**31) -> None:
        super().__init__(module, loss, records_max=records_max)
        canonical = {parameter: name for name, parameter in named_parameters(module)}
        every = module.named_parameters(remove_duplicate=False)
        self._names = {alias: canonical[parameter] for alias, parameter in every if parameter in canonical}
        self._gradients = vmap(grad(self._loss_of_record), in_dims=(None, 0, 0, 0), randomness="different")

    def add(self, part: Batch, clip_norm_l2: float, tally: Tally) -> None:
        """Write all records' gradients down, then clip and add."""
        values = {name: parameter.detach() for name, parameter in named_parameters(self.module)}
        try:
            found = self._gradients(values, part.features, part.labels, self.record_weights(part))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise EngineUnsuited(self.name, str(error).partition("\n")[0][:200]) from error
        with torch.no_grad():
            add_all_rows([by_patient(found[name].flatten(1), part.sizes) for name in values], clip_norm_l2, tally)

    def _loss_of_record(
        self, values: dict[str, torch.Tensor], record: torch.Tensor, label: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        given = {alias: values[name] for alias, name in self._names.items()}
        outputs = functional_call(self.module, given, (record.unsqueeze(0),), tie_weights=False)
        return self.loss(outputs, label.unsqueeze(0))[0] * weight

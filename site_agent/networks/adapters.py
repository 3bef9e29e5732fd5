"""Low-rank adapters beside a transformer's linear layers, and their way into the layers for release.

Hu et al., "LoRA: low-rank adaptation of large language models" (ICLR 2022). An adapted layer gives

    W x + b + (alpha / rank) B A dropout(x)

with the names and conventions of Hugging Face's peft, so that what is trained here can be read there: the layer `x` has
`x.base_layer.weight` (not trained), `x.lora_A.default.weight` and `x.lora_B.default.weight`. A is drawn, B begins at
zero: the first model computes what the network computes without. docs/adr/0020 says why it is not peft itself.
"""

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn

from consortium.contract.starting_point import LoraAdapter
from site_agent.errors import AdapterRefused
from site_agent.networks.drawing import drawn_from

ADAPTER = "default"
"""What peft calls an adapter that has no name; it is part of the parameters' names."""

_BASE = ".base_layer."


class LoraLinear(nn.Module):
    """A linear layer with an adapter beside it. All parts are layers of torch, which gradient engines follow."""

    def __init__(self, layer: nn.Linear, adapter: LoraAdapter) -> None:
        super().__init__()
        self.base_layer = layer
        self.lora_dropout = nn.Dropout(adapter.dropout)
        self.lora_A = nn.ModuleDict({ADAPTER: nn.Linear(layer.in_features, adapter.rank, bias=False)})
        self.lora_B = nn.ModuleDict({ADAPTER: nn.Linear(adapter.rank, layer.out_features, bias=False)})
        nn.init.kaiming_uniform_(self._a.weight, a=math.sqrt(5))
        nn.init.zeros_(self._b.weight)
        self.scaling = adapter.alpha / adapter.rank

    @property
    def _a(self) -> nn.Linear:
        layer = self.lora_A[ADAPTER]
        assert isinstance(layer, nn.Linear)
        return layer

    @property
    def _b(self) -> nn.Linear:
        layer = self.lora_B[ADAPTER]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """float[..., inputs] -> float[..., outputs]."""
        beside: torch.Tensor = self._b(self._a(self.lora_dropout(inputs)))
        made: torch.Tensor = self.base_layer(inputs)
        return made + self.scaling * beside

    def merged_weight(self) -> torch.Tensor:
        """The weight of the one layer that does the same: W + (alpha / rank) B A, a copy."""
        return (self.base_layer.weight + self.scaling * self._b.weight @ self._a.weight).detach()


def with_adapter(module: nn.Module, section: Mapping[str, object], *, seed: int) -> nn.Module:
    """The network with matrices of low rank beside the layers that a study names; changed in place.

    All its parameters stay as trainable as they were: what is trained is for `update.divide`.

    Args:
        module: As it was built, with its first weights.
        section: The study's `adapter`.
        seed: Public, of the first A; torch's global generator stays as it was.

    Raises:
        AdapterRefused: A pattern names no linear layer, or the rank is too large for one.
    """
    adapter = LoraAdapter.model_validate(dict(section))
    layers = _layers_of(module, adapter)
    with drawn_from(seed):
        for name, layer in layers.items():
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, LoraLinear(layer, adapter))
    return module


def merged_parameters(module: nn.Module) -> Mapping[str, torch.Tensor]:
    """Every parameter of the network without its adapter, which is worked into the layers beside it.

    Copies, under the names that the network has without an adapter.
    """
    merged = {
        name.replace(_BASE, "."): parameter.detach().clone()
        for name, parameter in module.named_parameters()
        if ".lora_" not in name
    }
    for name, part in module.named_modules():
        if isinstance(part, LoraLinear):
            merged[f"{name}.weight"] = part.merged_weight()
    return merged


def _layers_of(module: nn.Module, adapter: LoraAdapter) -> Mapping[str, nn.Linear]:
    """The layers by name, each once; every pattern names at least one."""
    linear = {name: part for name, part in module.named_modules() if type(part) is nn.Linear}
    for index, pattern in enumerate(adapter.targets):
        if not any(fnmatchcase(name, pattern) for name in linear):
            allowed = f"one such as {', '.join(list(linear)[:4])}" if linear else "nothing: the network has none"
            raise AdapterRefused(f"adapter.targets[{index}]", "a name that no linear layer of the network has", allowed)
    found = {name: part for name, part in linear.items() if any(fnmatchcase(name, one) for one in adapter.targets)}
    for name, layer in found.items():
        most = min(layer.in_features, layer.out_features)
        if adapter.rank > most:
            raise AdapterRefused("adapter.rank", str(adapter.rank), f"at most {most}, a side of the matrix of {name}")
    return found

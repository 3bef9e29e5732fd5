"""Small networks with every layer that the bookkeeping engine has a rule for, and a few it must not be wrong about."""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from site_agent.networks import build


class Tied(nn.Module):
    """Two layers share a weight, and a third is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 1)
        self.twice = nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Every layer, `twice` twice."""
        return self.last(torch.tanh(self.twice(torch.tanh(self.twice(self.second(torch.tanh(self.first(inputs))))))))


class Words(nn.Module):
    """An embedding, layer norm over a sequence, and a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(11, 4, padding_idx=0), nn.LayerNorm(4)
        self.mix, self.last = nn.Linear(4, 4), nn.Linear(4, 1)
        self.unused = nn.Linear(2, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs are numbers that stand for words."""
        words = (inputs.abs() * 5).nan_to_num(0, posinf=0).long() % 11
        # The number times zero, so that a broken record breaks its gradient.
        return self.last(torch.relu(self.mix(self.norm(self.embedding(words)))).mean(1)) + 0 * inputs.sum(1, True)


def _convolutions(dimensions: int) -> nn.Module:
    kinds = {
        1: (nn.Conv1d, nn.ConvTranspose1d, nn.InstanceNorm1d),
        2: (nn.Conv2d, nn.ConvTranspose2d, nn.InstanceNorm2d),
        3: (nn.Conv3d, nn.ConvTranspose3d, nn.InstanceNorm3d),
    }
    convolution, transposed, norm = kinds[dimensions]
    return nn.Sequential(
        convolution(2, 4, 3, stride=2, padding=1),
        nn.GroupNorm(2, 4),
        nn.ReLU(inplace=True),
        convolution(4, 6, 3, padding="same", dilation=2, groups=2, bias=False),
        norm(6, affine=True),
        nn.PReLU(6),
        transposed(6, 4, 3, stride=2, padding=1, output_padding=1),
        nn.PReLU(),
        transposed(4, 4, 2, stride=2, groups=2),
        convolution(4, 2, 1),
        nn.Flatten(),
        nn.LazyLinear(1),
    )


def _made(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    network(torch.zeros(2, *shape))  # lazy layers take their shape
    return network


NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "logistic": (lambda: _bent(build("logistic", {}, input_shape=(5,), seed=1)), (5,)),
    "mlp": (lambda: build("mlp", {"hidden": (6, 3), "activation": "gelu"}, input_shape=(5,), seed=1), (5,)),
    "cnn": (lambda: build("cnn", {}, input_shape=(1, 28, 28), seed=1), (1, 28, 28)),
    "convolutions 1d": (lambda: _made(_convolutions(1), (2, 16)), (2, 16)),
    "convolutions 2d": (lambda: _made(_convolutions(2), (2, 8, 8)), (2, 8, 8)),
    "convolutions 3d": (lambda: _made(_convolutions(3), (2, 4, 4, 4)), (2, 4, 4, 4)),
    "tied": (Tied, (6,)),
    "words": (Words, (7,)),
}
"""Name -> how it is made, and the shape of one record."""


def _bent(network: nn.Module) -> nn.Module:
    """Weights that are not zero, so that records differ."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape))
    return network


def made(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A network of NETWORKS with the same weights every time, and torch's global generator as it was."""
    build_it, shape = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return build_it(), shape

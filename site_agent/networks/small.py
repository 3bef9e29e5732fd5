"""Networks of our own: for tables, and for small pictures."""

from collections.abc import Callable, Mapping
from itertools import pairwise

from torch import nn

from consortium.contract.networks import CnnArgs, LogisticArgs, MlpArgs
from site_agent.networks.records import RecordShape

_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def logistic(_args: LogisticArgs, shape: RecordShape) -> nn.Module:
    """One weight per input and a bias, all zero: there is no symmetry to break, and zero is everybody's first guess."""
    layer = nn.Linear(shape.channels, shape.outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer)


def mlp(args: MlpArgs, shape: RecordShape) -> nn.Module:
    """Fully connected layers."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise([shape.channels, *args.hidden]):
        layers += [nn.Linear(width_in, width_out), _ACTIVATIONS[args.activation]()]
    return nn.Sequential(*layers, nn.Linear(args.hidden[-1], shape.outputs))


def cnn(_args: CnnArgs, shape: RecordShape) -> nn.Module:
    """Two convolutions with group norm, for pictures of 28 by 28: the network most papers on DP-SGD report."""
    return nn.Sequential(
        nn.Conv2d(shape.channels, 16, 8, stride=2, padding=3),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.MaxPool2d(2, stride=1),
        nn.Conv2d(16, 32, 4, stride=2),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.MaxPool2d(2, stride=1),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.ReLU(),
        nn.Linear(32, shape.outputs),
    )

"""What a study may name: networks, losses, optimizers and metrics, with the arguments each takes.

A study is data, never code. Whatever is not in these lists cannot be asked for, and what is in them is described here
without importing any of it, so that a coordinator and a steward can read a study on a machine without torch.
`site_agent/networks.py` builds what is named; a test checks that it knows every name here and no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Literal, TypeAlias, get_args

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import Field

from consortium.contract.global_model import ParameterLayout
from consortium.contract.schema import NotYet, Section


class LogisticArgs(Section):
    """Logistic regression has no arguments."""


class Logistic(Section):
    """One weight per input and a bias."""

    network: Literal["logistic"]
    args: LogisticArgs = LogisticArgs()


class MlpArgs(Section):
    """The shape of a multilayer perceptron."""

    hidden: Annotated[tuple[Annotated[int, Ge(1), Le(4096)], ...], Len(1, 8)]  # units of each hidden layer
    activation: Literal["relu", "tanh", "gelu"]


class Mlp(Section):
    """A multilayer perceptron with one output."""

    network: Literal["mlp"]
    args: MlpArgs


ModelChoice: TypeAlias = Annotated[Logistic | Mlp, Field(discriminator="network")]
"""The `model` section of a study; its members are told apart by `network`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network a study may name."""

    section: type[Section]
    kinds: tuple[str, ...]  # the kinds of data it takes
    summary: str  # one line for a steward


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "logistic": Network(
            section=Logistic, kinds=("tabular",), summary="logistic regression: one weight per input and a bias"
        ),
        "mlp": Network(
            section=Mlp, kinds=("tabular",), summary="multilayer perceptron: fully connected layers, one output"
        ),
    }
)


def parameters_of(model: Logistic | Mlp, inputs: int) -> ParameterLayout:
    """Names and shapes of a network's parameters, as they are in its first global model.

    Fully connected layers stand at the even places of a torch `Sequential`, activations between them. A test compares
    this with what `site_agent/networks.py` builds.
    """
    hidden = model.args.hidden if isinstance(model, Mlp) else ()
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (width_in, width_out) in enumerate(pairwise((inputs, *hidden, 1))):
        shapes[f"{2 * layer}.bias"] = (width_out,)
        shapes[f"{2 * layer}.weight"] = (width_out, width_in)
    return tuple(sorted(shapes.items()))


class Sgd(Section):
    """Stochastic gradient descent, on the clipped and noised gradient."""

    name: Literal["sgd"]
    learning_rate: Annotated[float, Gt(0), Le(1000)]
    momentum: Annotated[float, Ge(0), Lt(1)]


class Adam(Section):
    """Adam with bias correction, on the noisy mean gradient: the coordinator's step, which every site repeats."""

    name: Literal["adam"]
    learning_rate: Annotated[float, Gt(0), Le(1000)]
    betas: tuple[Annotated[float, Ge(0), Lt(1)], Annotated[float, Ge(0), Lt(1)]] = (0.9, 0.999)
    eps: Annotated[float, Ge(1e-12), Le(1)] = 1e-8  # added to the root of the second moment


OptimizerChoice: TypeAlias = Annotated[Sgd | Adam, Field(discriminator="name")]
"""The `training.optimizer` of a study; its members are told apart by `name`."""


class Averaging(Section):
    """The running average of the global models, which the last round ends on."""

    decay: Annotated[float, Gt(0), Lt(1)]  # how much of the average a further round keeps


NetworkName: TypeAlias = Literal["logistic", "mlp"]
LossName: TypeAlias = Literal["binary-cross-entropy"]
MetricName: TypeAlias = Literal["auc", "accuracy", "loss", "brier", "calibration", "sensitivity"]
SuiteChoice: TypeAlias = Literal["hybrid-pq", "p256"]
"""The names of `privacy.secagg.suites.SuiteName`, as a study and a site file spell them."""

MechanismName: TypeAlias = Annotated[Literal["local-dp-sgd", "distributed-dp-sgd"], NotYet(("none",))]

LOSSES: tuple[str, ...] = get_args(LossName)
METRICS: tuple[str, ...] = get_args(MetricName)
OPTIMIZERS: tuple[str, ...] = ("sgd", "adam")
MECHANISMS: tuple[str, ...] = ("local-dp-sgd", "distributed-dp-sgd")
LABELS_OF_LOSS: Mapping[str, tuple[str, ...]] = MappingProxyType({"binary-cross-entropy": ("binary",)})

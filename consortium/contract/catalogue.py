"""What a study may name: networks, losses, optimizers and metrics, with the arguments each takes.

A study is data, never code. Whatever is not in these lists cannot be asked for, and what is in them is described here
without importing any of it, so that a coordinator and a steward can read a study on a machine without torch.
`site_agent/networks` builds what is named; a test checks that it knows every name here and no other. The networks
themselves stand in `networks.py`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, TypeAlias, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field

from consortium.contract.schema import Section


class Sgd(Section):
    """Stochastic gradient descent, on the clipped and noised gradient."""

    name: Literal["sgd"]
    learning_rate: Annotated[float, Gt(0), Le(1000)]
    momentum: Annotated[float, Ge(0), Lt(1)]


class Adam(Section):
    """Adam with bias correction, on the mean gradient that carries all its noise, whoever takes the step."""

    name: Literal["adam"]
    learning_rate: Annotated[float, Gt(0), Le(1000)]
    betas: tuple[Annotated[float, Ge(0), Lt(1)], Annotated[float, Ge(0), Lt(1)]] = (0.9, 0.999)
    eps: Annotated[float, Ge(1e-12), Le(1)] = 1e-8  # added to the root of the second moment


OptimizerChoice: TypeAlias = Annotated[Sgd | Adam, Field(discriminator="name")]
"""The `training.optimizer` of a study; its members are told apart by `name`."""


class Averaging(Section):
    """The running average of the global models, which the last round ends on."""

    decay: Annotated[float, Gt(0), Lt(1)]  # how much of the average a further round keeps


LossName: TypeAlias = Literal["binary-cross-entropy", "cross-entropy", "dice-cross-entropy"]
MetricName: TypeAlias = Literal["auc", "accuracy", "loss", "brier", "calibration", "sensitivity", "confusion", "dice"]
SuiteChoice: TypeAlias = Literal["hybrid-pq", "p256"]
"""The names of `privacy.secagg.suites.SuiteName`, as a study and a site file spell them."""

MechanismName: TypeAlias = Literal["local-dp-sgd", "distributed-dp-sgd"]
"""Mechanisms that give a patient differential privacy; a study without has `none` and a justification."""

LOSSES: tuple[str, ...] = get_args(LossName)
METRICS: tuple[str, ...] = get_args(MetricName)
OPTIMIZERS: tuple[str, ...] = ("sgd", "adam")
MECHANISMS: tuple[str, ...] = ("local-dp-sgd", "distributed-dp-sgd")
LABELS_OF_LOSS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "binary-cross-entropy": ("binary",),
        "cross-entropy": ("classes", "mask"),
        "dice-cross-entropy": ("mask",),
    }
)
"""Which types of labels a loss takes. Each is a mean over one record's own places; none compares records."""

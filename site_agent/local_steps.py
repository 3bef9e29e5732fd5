"""What the steps of a round have in common, with and without differential privacy: what goes in and comes out (torch).

A hospital brings three things to a round besides the global model: the parameters it keeps to itself, SCAFFOLD's
correction and, in a study that carries it, the state of its optimizer. All are arguments, and what is kept afterwards
is a result, so that a trainer holds nothing from round to round and a hospital that restarts goes on from its disk.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from privacy.dp.events import DpEvent
from site_agent.cohort import Records
from site_agent.device import PROCESSOR
from site_agent.errors import TrainingFailed
from site_agent.training_room import LocalFigures
from site_agent.training_spec import OptimizerSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LocalStart:
    """What a hospital brings to a round. It prints without its values."""

    round: int = 1  # which one it is: it decides the learning rate, where a study has a schedule
    kept: NDArray[np.float32] | None = field(default=None, repr=False)  # as the study builds them, if None
    shift: NDArray[np.float32] | None = field(default=None, repr=False)  # c - c_i, in the layout of the update
    optimizer: NDArray[np.float32] | None = field(default=None, repr=False)  # its state; from zero, if None


FRESH = LocalStart()
"""Nothing but the global model."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedUpdate:
    """The result of one round's training. It prints without its values."""

    # In the layout of `update.parameter_layout`: the model difference, float32; with shared noise the sum of gradients
    # plus this hospital's share, float64 in whole steps of the update's lane.
    update: NDArray[np.float32] | NDArray[np.float64] = field(repr=False)
    events: tuple[DpEvent, ...]  # what was executed, to settle the ledger with; none without differential privacy
    local: LocalFigures
    kept: NDArray[np.float32] | None = field(default=None, repr=False)  # what the hospital keeps after the round
    # The state of its optimizer after the round, in the layout of `optimizer_state.py`; None if the study carries none.
    optimizer: NDArray[np.float32] | None = field(default=None, repr=False)


def local_optimizer(spec: OptimizerSpec, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The study's optimizer. Under differential privacy it is given gradients that carry their noise already.

    Adam on noised gradients (DP-Adam) is post-processing like any other step; its second moment then measures the noise
    more than the gradient, so that its learning rate means something else than without noise.
    """
    if spec.betas is None:
        return torch.optim.SGD(parameters, lr=spec.learning_rate, momentum=spec.momentum)
    return torch.optim.Adam(parameters, lr=spec.learning_rate, betas=spec.betas, eps=spec.eps)


def set_rate(optimizer: torch.optim.Optimizer, spec: OptimizerSpec, round_number: int, step: int) -> None:
    """The learning rate of one step, where a study has a schedule; `step` counts from 0 in its round."""
    if spec.rates is not None:
        rate = spec.rates.at(round_number, step)
        for group in optimizer.param_groups:
            group["lr"] = rate


def tensors_of(train: Records, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features float32[records, *shape] and labels, on the processor; raises TrainingFailed unless they fit."""
    if train.features.shape != (len(train.labels), *shape):
        raise TrainingFailed(f"records of shape {train.features.shape[1:]} do not fit a network of inputs {shape}")
    features = torch.tensor(train.features, dtype=torch.float32, device=PROCESSOR)
    return features, torch.tensor(train.labels, dtype=torch.float32, device=PROCESSOR)


def rows_of_patients(patients: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """The rows of each patient, in the order of the patients' numbers."""
    order = np.argsort(patients, kind="stable")
    _, starts = np.unique(patients[order], return_index=True)
    return tuple(np.split(order, starts[1:])) if len(order) else ()

"""An engine held to `loop` on a study's own network, before it trains there.

Everything runs on copies and made-up records, in float64, where a difference is a mistake and not rounding. What draws
random numbers (dropout, stochastic depth) is off while sums are compared, because every patient has draws of its own;
it is on again in a last pass, which has to go through and to keep each patient within the clip norm.
"""

import copy
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from site_agent.device import Precision, device_of, generators_kept
from site_agent.errors import EngineUnsuited
from site_agent.gradients.engine import FLOAT_MARGIN, Batch, Engine
from site_agent.gradients.loop import LoopEngine
from site_agent.gradients.losses import RecordLoss
from site_agent.gradients.workload import Workload

TOLERANCE = 1e-5
"""Relative difference from `loop`, in L2, that an engine may show."""
PRECISION_TOLERANCE = 0.1
"""The same of a lower precision, from `loop` in float32, over all patients. bfloat16 has 8 significant bits."""
PATIENTS = 5
BESIDE = 0.97
_CHANCES = ("p", "dropout", "drop_prob", "drop_connect_rate")
"""What dropout and stochastic depth call the probability with which they drop something."""


def self_test(kind: type[Engine], module: nn.Module, loss: RecordLoss, workload: Workload) -> None:
    """Try an engine against `loop`.

    | what is tried | what must hold |
    |---|---|
    | patients of one record and of several, half of them clipped | the sum is that of `loop` to TOLERANCE |
    | one record with NaN | its patient is a zero and counted, and everybody else is as before |
    | the same batch without one patient | the sum differs by that patient's own gradient: nobody else's changed |
    | a batch cut in two | the same sum |
    | a batch without patients | zeros |
    | random layers on, float32, each patient alone | it goes through, and nobody moves more than the clip norm |

    Raises:
        EngineUnsuited: With the engine's name and the difference that was found.
    """
    name = kind.name
    each = (1, workload.records_each) if kind.several_records else (1,)
    sizes = tuple(each[patient % len(each)] for patient in range(PATIENTS))
    double = copy.deepcopy(module).double().train()  # Opacus listens only while training
    draw_nothing(double)
    reference = LoopEngine(copy.deepcopy(double), loss)
    tried = kind(copy.deepcopy(double), loss)
    batch = workload.batch(sizes, torch.float64)
    alone = [
        np.linalg.norm(reference.clipped_sum(one, math.inf).total) for one in batch.parts(1)
    ]  # every patient is a part of its own
    # Beside the median: a network whose first weights are zero may give many patients gradients of one length, and with
    # that as the clip norm rounding would decide who is clipped.
    clip = BESIDE * float(np.median(alone)) or 1.0
    _compare("", tried, reference, batch, clip)
    broken = Batch(features=batch.features.clone(), labels=batch.labels, sizes=sizes)
    broken.features[0].fill_(math.nan)
    _compare(" with a broken record", tried, reference, broken, clip)
    without = Batch(features=batch.features[sizes[0] :], labels=batch.labels[sizes[0] :], sizes=sizes[1:])
    first = Batch(features=batch.features[: sizes[0]], labels=batch.labels[: sizes[0]], sizes=sizes[:1])
    totals = [tried.clipped_sum(one, clip).total for one in (batch, without, first)]
    _require_close(name, " when a patient is left out", totals[0], totals[1] + totals[2], clip)
    cut = kind(copy.deepcopy(double), loss, records_max=2)
    _compare(" when a batch is cut", cut, reference, batch, clip)
    empty = Batch(features=batch.features[:0], labels=batch.labels[:0], sizes=())
    _compare(" without patients", tried, reference, empty, clip)
    _as_it_trains(kind, module, loss, workload.batch(sizes), clip)


def draw_nothing(module: nn.Module) -> None:
    """Switch random layers off, for as long as this copy of the network lives."""
    for part in module.modules():
        for name in _CHANCES:
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)


def _compare(case: str, tried: Engine, reference: Engine, batch: Batch, clip: float) -> None:
    name = tried.name
    found, expected = tried.clipped_sum(batch, clip), reference.clipped_sum(batch, clip)
    _require_close(name, case, found.total, expected.total, clip)
    counts = (found.patients, found.clipped, found.broken), (expected.patients, expected.clipped, expected.broken)
    # A norm that equals the clip norm but for rounding may count either way.
    if counts[0][::2] != counts[1][::2] or abs(found.clipped - expected.clipped) > 1:
        raise EngineUnsuited(name, f"patients, clipped, broken{case} are {counts[0]}; `loop` finds {counts[1]}")


def _require_close(name: str, case: str, found: NDArray[Any], expected: NDArray[Any], clip: float) -> None:
    distance = float(np.linalg.norm(found - expected))
    scale = float(np.linalg.norm(expected)) or clip
    if not distance <= TOLERANCE * scale:
        raise EngineUnsuited(name, f"its sum{case} differs from that of `loop` by {distance / scale:.1e} of it")


def _as_it_trains(kind: type[Engine], module: nn.Module, loss: RecordLoss, batch: Batch, clip: float) -> None:
    """The network as it is; what it draws from torch's global generator is drawn in a scope of its own.

    Each patient alone, because in a sum of several one may hide behind the others. Under a quarter of the clip norm of
    the other cases, because one who is not clipped shows nothing.
    """
    tight = clip / 4
    with generators_kept(device_of(module)):
        tried = kind(copy.deepcopy(module).float().train(), loss)
        _require_within(tried, batch, tight, "with its random layers on")


def _require_within(tried: Engine, batch: Batch, clip: float, how: str) -> None:
    """Nobody is broken, or moves the sum by more than the clip norm, alone or among the others."""
    for part in (*batch.parts(1), batch):
        one = tried.clipped_sum(part, clip)
        norm = float(np.linalg.norm(one.total))
        if one.broken or not norm <= one.patients * clip * (1 + FLOAT_MARGIN):
            who = "a patient" if one.patients == 1 else f"{one.patients} patients"
            raise EngineUnsuited(tried.name, f"{how}, {who} moved {norm / clip:.3g} C")


def precision_test(module: nn.Module, loss: RecordLoss, workload: Workload, precision: Precision) -> None:
    """Try `loop` in a lower precision against itself in float32.

    | what is tried | what must hold |
    |---|---|
    | random layers off, each patient alone, unclipped | the gradient is that of float32 to PRECISION_TOLERANCE |
    | random layers on, each patient alone and all | it goes through, and nobody moves more than the clip norm |

    The first is about whether a network learns in this precision; the second about what patients are promised.

    Raises:
        EngineUnsuited: With what was found.
    """
    each = (1, workload.records_each)
    batch = workload.batch(tuple(each[patient % 2] for patient in range(PATIENTS)))
    quiet = copy.deepcopy(module).float().train()
    draw_nothing(quiet)
    exact, rounded = LoopEngine(quiet, loss), LoopEngine(quiet, loss, precision=precision)
    alone = list(batch.parts(1))
    wanted = [exact.clipped_sum(part, math.inf).total for part in alone]
    found = [rounded.clipped_sum(part, math.inf).total for part in alone]
    scale = sum(float(np.linalg.norm(one)) for one in wanted)
    apart = sum(float(np.linalg.norm(one - other)) for one, other in zip(found, wanted, strict=True))
    if not apart <= PRECISION_TOLERANCE * scale:
        raise EngineUnsuited(
            LoopEngine.name, f"in {precision} its gradients differ by {apart / (scale or 1.0):.2g} of those in float32"
        )
    tight = float(np.median([np.linalg.norm(one) for one in wanted])) / 4 or 1.0
    with generators_kept(device_of(module)):
        tried = LoopEngine(copy.deepcopy(module).float().train(), loss, precision=precision)
        _require_within(tried, batch, tight, f"in {precision}")

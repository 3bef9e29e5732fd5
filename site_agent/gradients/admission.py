"""Which engine trains a study at this hospital: those that can do its network are tried, tested and timed.

All of it happens on invented records of the right shape, before training, so nothing is charged for it. A test runs in
float64, where a difference from the reference is a mistake and not rounding. Memory is estimated from what the layers
put out; an engine that could not hold one patient's records is passed over. `loop` needs the least and comes last.
"""

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from site_agent.errors import EngineUnsuited
from site_agent.gradients.bookkeeping import BookkeepingEngine
from site_agent.gradients.engine import Batch, Engine
from site_agent.gradients.loop import LoopEngine
from site_agent.gradients.losses import RecordLoss, record_loss
from site_agent.gradients.opacus_engines import GhostEngine, HooksEngine
from site_agent.gradients.vectorised import VmapEngine
from site_agent.networks import build_from
from site_agent.training_spec import NetworkSpec
from site_agent.update import parameter_count

ENGINES: Mapping[str, type[Engine]] = {
    kind.name: kind for kind in (BookkeepingEngine, VmapEngine, HooksEngine, GhostEngine, LoopEngine)
}
TOLERANCE = 1e-5
"""Relative difference from `loop`, in L2, that an engine may show."""
RECORDS_MAX = 512
PATIENTS_TIMED_MAX = 64
FAST_ENOUGH_S = 1e-3
"""An engine whose step takes less is taken without trying the others: nothing is left to gain."""
_REPEATS = 3
_MEMORY_DEFAULT_BYTES = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """An engine and how much it computes at a time."""

    name: str  # a key of `ENGINES`
    records_max: int = RECORDS_MAX

    def build(self, module: nn.Module, loss: RecordLoss) -> Engine:
        """The engine for a network and a loss; raises EngineUnsuited."""
        return ENGINES[self.name](module, loss, records_max=self.records_max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What an engine is tried on: shapes and constants of the study, nothing of the data."""

    input_shape: tuple[int, ...]  # of one record
    patients: int  # in an average step
    records_each: int  # at most, of one patient
    memory_bytes: int  # what the batch may take
    label_shape: tuple[int, ...] = ()  # of one record's label

    @classmethod
    def of(cls, input_shape: tuple[int, ...], *, expected_patients: float, records_each: int) -> "Workload":
        """For a study, on this machine: half of the memory that is free now."""
        return cls(
            input_shape=input_shape,
            patients=min(PATIENTS_TIMED_MAX, max(1, math.ceil(expected_patients))),
            records_each=records_each,
            memory_bytes=_free_bytes() // 2,
        )

    def batch(self, sizes: Sequence[int], dtype: torch.dtype = torch.float32) -> Batch:
        """Invented records; the same every time."""
        random = np.random.default_rng(len(sizes))
        records = sum(sizes)
        return Batch(
            features=torch.tensor(random.normal(size=(records, *self.input_shape)), dtype=dtype),
            labels=torch.tensor(random.integers(0, 2, size=(records, *self.label_shape)), dtype=dtype),
            sizes=tuple(sizes),
        )


def first_suited(module: nn.Module, loss: RecordLoss) -> Engine:
    """The first engine that can do the network, neither tested nor timed; `loop` can do every one."""
    try:
        return EngineChoice(name=BookkeepingEngine.name).build(module, loss)
    except EngineUnsuited:
        return EngineChoice(name=LoopEngine.name).build(module, loss)


def self_test(name: str, module: nn.Module, loss: RecordLoss, workload: Workload) -> None:
    """Try an engine against `loop`, on a copy of the network, with dropout off.

    | what is tried | what must hold |
    |---|---|
    | patients of one record and of several, half of them clipped | the sum is that of `loop` to TOLERANCE |
    | one record with NaN | its patient is a zero and counted, and everybody else is as before |
    | the same batch without one patient | the sum differs by that patient's own gradient: nobody else's changed |
    | a batch cut in two | the same sum |
    | a batch without patients | zeros |

    Raises:
        EngineUnsuited: With the engine's name and the difference that was found.
    """
    each = (1,) if name == GhostEngine.name else (1, workload.records_each)
    sizes = tuple(each[patient % len(each)] for patient in range(5))
    double = copy.deepcopy(module).double().train()  # Opacus listens only while training
    for part in double.modules():
        if isinstance(part, _DropoutNd):
            part.p = 0.0
    reference = LoopEngine(copy.deepcopy(double), loss)
    tried = ENGINES[name](copy.deepcopy(double), loss)
    batch = workload.batch(sizes, torch.float64)
    alone = [
        np.linalg.norm(reference.clipped_sum(one, math.inf).total) for one in batch.parts(1)
    ]  # every patient is a part of its own
    clip = float(np.median(alone)) or 1.0
    _compare("", tried, reference, batch, clip)
    broken = Batch(features=batch.features.clone(), labels=batch.labels, sizes=sizes)
    broken.features[0].fill_(math.nan)
    _compare(" with a broken record", tried, reference, broken, clip)
    without = Batch(features=batch.features[sizes[0] :], labels=batch.labels[sizes[0] :], sizes=sizes[1:])
    first = Batch(features=batch.features[: sizes[0]], labels=batch.labels[: sizes[0]], sizes=sizes[:1])
    totals = [tried.clipped_sum(one, clip).total for one in (batch, without, first)]
    _require_close(name, " when a patient is left out", totals[0], totals[1] + totals[2], clip)
    cut = ENGINES[name](copy.deepcopy(double), loss, records_max=2)
    _compare(" when a batch is cut", cut, reference, batch, clip)
    empty = Batch(features=batch.features[:0], labels=batch.labels[:0], sizes=())
    _compare(" without patients", tried, reference, empty, clip)


def _compare(case: str, tried: Engine, reference: Engine, batch: Batch, clip: float) -> None:
    name = tried.name
    found, expected = tried.clipped_sum(batch, clip), reference.clipped_sum(batch, clip)
    _require_close(name, case, found.total, expected.total, clip)
    counts = (found.patients, found.clipped, found.broken), (expected.patients, expected.clipped, expected.broken)
    # A norm that equals the clip norm but for rounding may count either way.
    if counts[0][::2] != counts[1][::2] or abs(found.clipped - expected.clipped) > 1:
        raise EngineUnsuited(name, f"patients, clipped, broken{case} are {counts[0]}; `loop` finds {counts[1]}")


def _require_close(
    name: str, case: str, found: np.ndarray[tuple[int], np.dtype[np.float64]],
    expected: np.ndarray[tuple[int], np.dtype[np.float64]], clip: float,
) -> None:  # fmt: skip
    distance = float(np.linalg.norm(found - expected))
    scale = float(np.linalg.norm(expected)) or clip
    if not distance <= TOLERANCE * scale:
        raise EngineUnsuited(name, f"its sum{case} differs from that of `loop` by {distance / scale:.1e} of it")


def _tried(name: str, module: nn.Module, loss: RecordLoss, workload: Workload) -> None:
    """`self_test`; what a library raises over a network it cannot do is a reason like any other."""
    try:
        self_test(name, module, loss, workload)
    except (RuntimeError, ValueError, AttributeError) as error:  # NotImplementedError is one of the first
        raise EngineUnsuited(name, str(error).partition("\n")[0][:200]) from error


def choose(module: nn.Module, loss: RecordLoss, workload: Workload, *, pinned: str | None = None) -> EngineChoice:
    """The fastest engine that can do the network, fits in memory and passes its test; or the pinned one.

    The first whose step takes less than FAST_ENOUGH_S ends the search.

    Raises:
        EngineUnsuited: The pinned engine cannot do the network, or failed its test.
    """
    found: list[tuple[float, EngineChoice]] = []
    for name in ENGINES if pinned is None else (pinned,):
        try:
            choice = _fitted(name, module, workload)
            _tried(name, module, loss, workload)
            found.append((_seconds(choice, module, loss, workload) if pinned is None else 0.0, choice))
            if found[-1][0] < FAST_ENOUGH_S:
                break
        except EngineUnsuited:
            if pinned is not None or name == LoopEngine.name:
                raise
    return min(found, key=lambda timed: timed[0])[1]


_CHOSEN: dict[tuple[object, ...], EngineChoice] = {}


def chosen_for(network: NetworkSpec, workload: Workload, pinned: str | None) -> EngineChoice:
    """`choose` for the network a study names, under its loss; remembered while the process lives.

    Raises:
        EngineUnsuited: See `choose`.
    """
    key = (network.network, repr(dict(network.args)), network.input_shape, workload, pinned)
    if key not in _CHOSEN:
        _CHOSEN[key] = choose(build_from(network), record_loss(nn.BCEWithLogitsLoss()), workload, pinned=pinned)
    return _CHOSEN[key]


def _fitted(name: str, module: nn.Module, workload: Workload) -> EngineChoice:
    """How many records an engine may hold at a time; raises EngineUnsuited if not those of one patient."""
    if name == LoopEngine.name:
        return EngineChoice(name=name)
    records = int(workload.memory_bytes // _record_bytes(name, module, workload))
    if records < workload.records_each:
        raise EngineUnsuited(name, "one patient's records would not fit in memory")
    return EngineChoice(name=name, records_max=min(RECORDS_MAX, records))


def _record_bytes(name: str, module: nn.Module, workload: Workload) -> int:
    """About what one more record takes: what layers put out, forwards and backwards, and its gradient if written down.

    The gradient is counted three times where a library makes copies of it, once for `bookkeeping`, which keeps those of
    large layers in factors. Ghost clipping computes in float64.
    """
    values = 0

    def count(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal values
        values += output.numel() if isinstance(output, torch.Tensor) else 0

    probe = copy.deepcopy(module).eval()
    for part in probe.modules():
        if not any(True for _ in part.children()):
            part.register_forward_hook(count)
    with torch.no_grad():
        probe(torch.zeros(1, *workload.input_shape))
    copies = {BookkeepingEngine.name: 1, VmapEngine.name: 3, HooksEngine.name: 3}.get(name, 0)
    size = 8 if name == GhostEngine.name else 4
    return size * (3 * values + math.prod(workload.input_shape)) + 4 * copies * parameter_count(module)


def _seconds(choice: EngineChoice, module: nn.Module, loss: RecordLoss, workload: Workload) -> float:
    """Least processor time of a few steps, on a copy."""
    engine = choice.build(copy.deepcopy(module).train(), loss)
    each = 1 if choice.name == GhostEngine.name else workload.records_each
    batch = workload.batch((each,) * workload.patients)
    times = []
    for _ in range(1 + _REPEATS):
        begun = time.process_time()
        engine.clipped_sum(batch, 1.0)
        times.append(time.process_time() - begun)
    return min(times[1:])


@lru_cache(maxsize=1)
def _free_bytes() -> int:
    """Memory that is free now, as Linux says it; a gibibyte where it does not."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return _MEMORY_DEFAULT_BYTES
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else _MEMORY_DEFAULT_BYTES

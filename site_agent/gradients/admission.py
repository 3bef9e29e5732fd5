"""Which engine trains a study at this hospital: those that can do its network are timed, and the fastest is tested.

All of it happens on made-up records of the right shape (`workload`), before training, so nothing is charged for it.

1. Those that refuse the network, or could not hold one patient's records in memory by an estimate of what the layers
   put out, are left out. `loop` needs the least, can do every network and comes last.
2. The others take steps in turns, so that a busy moment of the machine, and what one of them leaves behind in the
   memory allocator, meets all alike. What counts is the least time of this thread: everything that disturbs a step
   makes it longer. Steps are of fewer patients where they are slow, the turns are bounded, and who is clearly slower
   is not asked again.
   On a GPU it is the time until the GPU has done them.
3. The first within NEARLY of the fastest is taken, so that a tie is always decided alike. It is held to `loop`
   (`self_test`); if it fails, the next is.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from site_agent.device import ON_PROCESSOR, Compute, clock_of, device_of, generators_kept, growth_bytes
from site_agent.errors import EngineUnsuited
from site_agent.gradients.bookkeeping import BookkeepingEngine
from site_agent.gradients.engine import Engine
from site_agent.gradients.loop import LoopEngine
from site_agent.gradients.losses import RecordLoss, loss_of
from site_agent.gradients.opacus_engines import GhostEngine, HooksEngine
from site_agent.gradients.self_test import precision_test, self_test
from site_agent.gradients.vectorised import VmapEngine
from site_agent.gradients.workload import Workload
from site_agent.networks import build_from
from site_agent.training_spec import NetworkSpec
from site_agent.update import parameter_count

ENGINES: Mapping[str, type[Engine]] = {
    kind.name: kind for kind in (BookkeepingEngine, VmapEngine, HooksEngine, GhostEngine, LoopEngine)
}
"""In the order in which they are preferred where they are equally fast."""
RECORDS_MAX = 512
FAST_ENOUGH_S = 1e-3
"""An engine whose step takes less is taken without trying the others: nothing is left to gain."""
SHORT_STUDY_S = 10.0
"""The same holds for a step whose whole study takes less: trying the others takes as long as one could save."""
NEARLY = 1.05
"""Part of the least time within which engines count as equally fast."""
CLEARLY_SLOWER, FAR_SLOWER = 1.5, 3.0
"""Part of the least time above which an engine gets no further turn; the second until it has had TURNS_MIN of them.

One step says little: what a memory allocator does for the first of them can double its time.
"""
STEP_S = 2.0
"""A step is timed with so many patients that the first engine takes about this long, and with PATIENTS_MIN at least."""
PATIENTS_MIN = 2
TURNS_MIN, TURNS_MAX = 3, 9
TURNS_S = 10.0
"""No turn after TURNS_MIN begins when this much has been spent on them."""

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """An engine, how much it computes at a time, and where."""

    name: str  # a key of `ENGINES`
    records_max: int = RECORDS_MAX
    compute: Compute = ON_PROCESSOR

    def build(self, module: nn.Module, loss: RecordLoss) -> Engine:
        """The engine for a network, which it moves to the device, and a loss; raises EngineUnsuited."""
        kind, precision = ENGINES[self.name], self.compute.precision
        module = module.to(self.compute.device)
        if precision == "float32":
            return kind(module, loss, records_max=self.records_max)
        if kind is not LoopEngine:
            raise EngineUnsuited(self.name, _PATIENTS_TOGETHER)
        return LoopEngine(module, loss, records_max=self.records_max, precision=precision)


_PATIENTS_TOGETHER = "in bfloat16 one patient more would move the gradients of others, whom it computes together"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An engine that was tried. Of made-up records, so it may be shown to anybody."""

    engine: str
    unsuited: str = ""  # why it was not taken although it may be fast; empty if it may train the network
    seconds: float | None = None  # least time of a step; None if none was timed
    peak_bytes: int | None = None  # about what a step needed beyond what was there; None where that cannot be seen

    @property
    def words(self) -> str:
        """For the hospital's own log and console."""
        found = [] if self.seconds is None else [f"{1e3 * self.seconds:.3g} ms"]
        if self.peak_bytes is not None:
            found.append(_mib(self.peak_bytes))
        if self.unsuited:
            found.append(f"unsuited: {self.unsuited}")
        return f"{self.engine} {', '.join(found)}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What was tried, and what came of it."""

    choice: EngineChoice
    pinned: bool
    patients: int  # in a timed step; 0 if none was timed
    candidates: tuple[Candidate, ...]  # in the order of ENGINES; those left out had nothing to gain any more

    @property
    def words(self) -> str:
        """One line."""
        how = "pinned" if self.pinned else f"steps of {self.patients} made-up patients"
        return f"{self.choice.name} ({how}; {'; '.join(candidate.words for candidate in self.candidates)})"


def first_suited(module: nn.Module, loss: RecordLoss) -> EngineChoice:
    """The first engine that can do the network, neither tested nor timed; `loop` can do every one."""
    try:
        BookkeepingEngine(copy.deepcopy(module), loss)
    except EngineUnsuited:
        return EngineChoice(name=LoopEngine.name)
    return EngineChoice(name=BookkeepingEngine.name)


def choose(
    module: nn.Module,
    loss: RecordLoss,
    workload: Workload,
    *,
    pinned: str | None = None,
    compute: Compute | None = None,
    clock: Clock | None = None,
) -> Trial:
    """The fastest engine that can do the network, fits in memory and passes its test; or the pinned one.

    Args:
        module: The network, on the device; it stays as it is.
        loss: Of each record.
        workload: What to try it on.
        pinned: An engine of the hospital's own choice, which is tested and not timed.
        compute: The device and the precision; without it float32 where the network is.
        clock: Seconds of work; without it the device's.

    Raises:
        EngineUnsuited: The pinned engine cannot do the network, or failed its test; or none can.
    """
    torch.set_num_threads(1)  # as the trainer does; with more, a step would be timed that is never taken
    compute = Compute(device=device_of(module)) if compute is None else compute
    with generators_kept(compute.device):  # dropout draws from torch's global generator
        if pinned is None:
            return _Contest(module, loss, workload, compute, clock or clock_of(compute.device)).decide()
        choice = _fitted(pinned, module, workload, compute)
        _tested(pinned, module, loss, workload, compute)
    return Trial(choice=choice, pinned=True, patients=0, candidates=(Candidate(engine=pinned),))


_TRIALS: dict[tuple[object, ...], Trial] = {}


def chosen_for(network: NetworkSpec, workload: Workload, pinned: str | None, compute: Compute) -> Trial:
    """`choose` for the network a study names, under its loss; remembered while the process lives.

    Raises:
        EngineUnsuited: See `choose`.
    """
    key = (repr(replace(network, args=dict(network.args))), workload, pinned, compute)
    if key not in _TRIALS:
        module = build_from(network).to(compute.device)
        _TRIALS[key] = choose(module, loss_of(network), workload, pinned=pinned, compute=compute)
    return _TRIALS[key]


class _Runner:
    """An engine on a copy of the network, and the least time of its steps so far. Mutable."""

    def __init__(self, choice: EngineChoice, engine: Engine) -> None:
        self.choice = choice
        self.least_s = math.inf
        self.peak_bytes: int | None = None
        self._engine = engine

    def step(self, workload: Workload, patients: int) -> None:
        """One step that nobody times."""
        self._engine.clipped_sum(workload.batch((workload.records_each,) * patients), 1.0)

    def timed(self, workload: Workload, patients: int, clock: Clock) -> float:
        """One step, and the least time of all."""
        batch = workload.batch((workload.records_each,) * patients)
        begun = clock()
        self._engine.clipped_sum(batch, 1.0)
        self.least_s = min(self.least_s, clock() - begun)
        return self.least_s


class _Contest:
    """One choice. Mutable: it fills up, engine by engine."""

    def __init__(self, module: nn.Module, loss: RecordLoss, workload: Workload, compute: Compute, clock: Clock) -> None:
        self._module = module
        self._loss = loss
        self._workload = workload
        self._compute = compute
        self._clock = clock
        self._patients = 0  # in a timed step, known when the first engine has run
        self._runners: list[_Runner] = []
        self._unsuited: dict[str, str] = {}

    def decide(self) -> Trial:
        """See `choose`."""
        for name in ENGINES:
            runner = self._started(name)
            if runner is not None and self._is_fast_enough(runner) and self._passes(runner):
                return self._trial(runner)
        self._take_turns()
        while self._runners:
            runner = next(self._nearly_fastest())
            if self._passes(runner):
                return self._trial(runner)
        raise EngineUnsuited(LoopEngine.name, self._unsuited[LoopEngine.name])

    def _is_fast_enough(self, runner: _Runner) -> bool:
        """Whether there is nothing to gain by trying another; `least_s` is of the patients tried, of a step's."""
        step_s = runner.least_s * self._workload.patients / self._patients
        return runner.least_s < FAST_ENOUGH_S or step_s * self._workload.steps < SHORT_STUDY_S

    def _started(self, name: str) -> _Runner | None:
        """An engine that has taken its first steps: one of a single patient, one whose memory is watched, one timed."""
        try:
            choice = _fitted(name, self._module, self._workload, self._compute)
            runner = _Runner(choice, choice.build(copy.deepcopy(self._module).train(), self._loss))
            runner.step(self._workload, 1)  # what a library does once is not timed
            if not self._patients:
                pace_s = runner.timed(self._workload, 1, self._clock)
                affordable = STEP_S / pace_s if pace_s else math.inf
                self._patients = int(min(self._workload.patients, max(PATIENTS_MIN, affordable)))
                runner.least_s = math.inf
            step = partial(runner.step, self._workload, self._patients)
            runner.peak_bytes = growth_bytes(self._compute.device, step)
            self._require_room(name, runner.peak_bytes)
            runner.timed(self._workload, self._patients, self._clock)
        except EngineUnsuited as refused:
            self._unsuited[name] = refused.why
            return None
        except MemoryError:
            self._unsuited[name] = "there was not enough memory"
            return None
        except Exception as error:  # noqa: BLE001 - whatever a library raises over a network is a reason not to take it
            self._unsuited[name] = _first_line(error)
            return None
        self._runners.append(runner)
        return runner

    def _require_room(self, name: str, peak_bytes: int | None) -> None:
        """What was needed is within what may be used; `loop` is what is left where nothing is."""
        allowed = self._workload.memory_bytes
        if peak_bytes is not None and peak_bytes > allowed and name != LoopEngine.name:
            raise EngineUnsuited(name, f"a step needed {_mib(peak_bytes)}, of {_mib(allowed)} that it may use")

    def _take_turns(self) -> None:
        """Time everybody who may still be the fastest, one after the other, again and again."""
        begun = self._clock()
        for turn in range(1, TURNS_MAX):
            if turn >= TURNS_MIN and self._clock() - begun >= TURNS_S:
                return
            slower = CLEARLY_SLOWER if turn >= TURNS_MIN else FAR_SLOWER
            limit = slower * min((runner.least_s for runner in self._runners), default=0.0)
            for runner in self._runners:
                if runner.least_s <= limit:
                    runner.timed(self._workload, self._patients, self._clock)

    def _nearly_fastest(self) -> Iterator[_Runner]:
        least = min(runner.least_s for runner in self._runners)
        return (runner for runner in self._runners if runner.least_s <= NEARLY * least)

    def _passes(self, runner: _Runner) -> bool:
        """Whether it passes its test; if not, it is out."""
        try:
            _tested(runner.choice.name, self._module, self._loss, self._workload, self._compute)
        except EngineUnsuited as refused:
            self._unsuited[runner.choice.name] = refused.why
            self._runners.remove(runner)
            return False
        return True

    def _trial(self, chosen: _Runner) -> Trial:
        found = [
            Candidate(engine=runner.choice.name, seconds=runner.least_s, peak_bytes=runner.peak_bytes)
            for runner in self._runners
        ]
        found += [Candidate(engine=name, unsuited=why) for name, why in self._unsuited.items()]
        order = list(ENGINES)
        return Trial(
            choice=chosen.choice,
            pinned=False,
            patients=self._patients,
            candidates=tuple(sorted(found, key=lambda candidate: order.index(candidate.engine))),
        )


def _tested(name: str, module: nn.Module, loss: RecordLoss, workload: Workload, compute: Compute) -> None:
    """`self_test`, and `precision_test` where that is lower; what a library raises is a reason like any other."""
    try:
        self_test(ENGINES[name], module, loss, workload)
        if compute.precision != "float32":
            precision_test(module, loss, workload, compute.precision)
    except EngineUnsuited:
        raise
    except Exception as error:
        raise EngineUnsuited(name, _first_line(error)) from error


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _fitted(name: str, module: nn.Module, workload: Workload, compute: Compute) -> EngineChoice:
    """How many records an engine may hold at a time; raises EngineUnsuited if not those of one patient."""
    if compute.precision != "float32" and name != LoopEngine.name:
        raise EngineUnsuited(name, _PATIENTS_TOGETHER)
    if workload.records_each > 1 and not ENGINES[name].several_records:
        raise EngineUnsuited(name, "a patient may have several records in this study")
    if name == LoopEngine.name:
        return EngineChoice(name=name, compute=compute)
    records = int(workload.memory_bytes // _record_bytes(name, module, workload))
    if records < workload.records_each:
        raise EngineUnsuited(name, "one patient's records would not fit in memory")
    return EngineChoice(name=name, records_max=min(RECORDS_MAX, records), compute=compute)


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
        probe(torch.zeros(1, *workload.input_shape, device=device_of(module)))
    copies = {BookkeepingEngine.name: 1, VmapEngine.name: 3, HooksEngine.name: 3}.get(name, 0)
    size = 8 if name == GhostEngine.name else 4
    return size * (3 * values + math.prod(workload.input_shape)) + 4 * copies * parameter_count(module)

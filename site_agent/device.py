"""Where gradients are computed and in what precision: a GPU or the processor, float32 or bfloat16 (torch).

All that asks torch about a device is here; elsewhere a `torch.device` is passed on. Whatever a patient's protection
rests on stays on the processor and in our own generator: which patients are in a step, noise, rounding to the grid,
encoding and masks. What goes to the device are the network, the records of the part of a batch that is computed, and
the float64 sum of clipped gradients, which comes back whole.

TF32 is off. It rounds what every layer is given to 10 bits, so that a last bit that differs because one patient more is
in the batch becomes a difference 2^13 times as large, in everybody's gradient (`gradients.engine`, "Does not cover").

bfloat16 is for `loop` alone, because of the same: see `gradients.engine`, "Lower precision". float16 is not offered.
Its range needs a scale of the losses that follows what overflowed; whether a step is skipped, and the scale of every
later one, would then depend on single patients.
"""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import torch
from torch import nn

from site_agent.errors import SiteError
from site_agent.gradients import memory
from site_agent.processes import started_by_torchrun

Precision: TypeAlias = Literal["float32", "bfloat16"]
PROCESSOR = torch.device("cpu")


class DeviceMissing(SiteError):
    """site.yaml names a device that this machine does not have, or that cannot do what is asked of it."""

    def __init__(self, wanted: str, found: str, advice: str) -> None:
        super().__init__(f"device: found {wanted!r}, but {found}")
        self._advice = advice

    def advice(self) -> str:
        """What to do next."""
        return self._advice


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """A device, and the precision in which networks go forward and backward on it."""

    device: torch.device = PROCESSOR
    precision: Precision = "float32"

    @property
    def words(self) -> str:
        """For the hospital's own log and console."""
        return f"{described(self.device)}, {self.precision}"

    def outputs_of(self, module: nn.Module, features: torch.Tensor) -> torch.Tensor:
        """What a network on this device answers, for a loss that is computed in float32 whatever the precision."""
        if self.precision == "float32":
            found: torch.Tensor = module(features)
            return found
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            found = module(features)
        return found.float()


ON_PROCESSOR = Compute()
"""float32, as everywhere unless site.yaml says otherwise."""


def compute_for(device: str, precision: Precision) -> Compute:
    """What site.yaml asks for, on this machine.

    | `device` | what is taken |
    |---|---|
    | auto | a GPU if there is one, otherwise the processor |
    | cpu | the processor |
    | cuda | a GPU: of several processes that torchrun started, each has its own, by its local rank |
    | cuda:N | that GPU; not with several processes |

    Raises:
        DeviceMissing: There is no such device, or it has no bfloat16.
    """
    found = _device(device)
    if found.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        if precision == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise DeviceMissing(device, f"{described(found)} has no bfloat16", "Set `precision: float32` in site.yaml.")
    return Compute(device=found, precision=precision)


def _device(wanted: str) -> torch.device:
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return PROCESSOR
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise DeviceMissing(
            wanted,
            "torch finds no CUDA device on this machine",
            "Set `device: auto` in site.yaml, or install the driver and a torch built for CUDA.",
        )
    if not wanted.startswith("cuda:"):
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % count)
    if started_by_torchrun():
        raise DeviceMissing(wanted, "torchrun started several processes here", "Set `device: cuda` in site.yaml.")
    number = int(wanted.removeprefix("cuda:"))
    if number >= count:
        raise DeviceMissing(wanted, f"this machine has {count}, numbered from 0", "Name one of these in site.yaml.")
    return torch.device("cuda", number)


def device_of(module: nn.Module) -> torch.device:
    """Where a network's parameters are; the processor if it has none."""
    return next((parameter.device for parameter in module.parameters()), PROCESSOR)


def described(device: torch.device) -> str:
    """Its name, as `site-agent check` and the log say it."""
    if device.type != "cuda":
        return str(device)
    about = torch.cuda.get_device_properties(device)
    return f"{device} ({about.name}, {about.total_memory / 2**30:.0f} GiB)"


@lru_cache(maxsize=8)
def free_bytes(device: torch.device) -> int:
    """Memory that was free on the device when this was first asked."""
    if device.type != "cuda":
        return memory.free_bytes()
    free, _ = torch.cuda.mem_get_info(device)
    return int(free)


def growth_bytes(device: torch.device, work: Callable[[], object]) -> int | None:
    """Do the work; about how much more of the device's memory it took at its most. None where that cannot be seen."""
    if device.type != "cuda":
        return memory.growth_bytes(work)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds of work: of this thread on the processor; on a GPU of everything until what was queued there is done."""
    if device.type != "cuda":
        return time.thread_time

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def generators_kept(device: torch.device) -> AbstractContextManager[None]:
    """What random layers draw inside leaves torch's global generators as they were."""
    context: AbstractContextManager[None] = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    return context


def give_back(device: torch.device) -> None:
    """Memory that torch keeps for later is free again, before something smaller is tried."""
    if device.type == "cuda":
        torch.cuda.empty_cache()

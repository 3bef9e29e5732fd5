"""What every gradient engine does: a batch grouped by patient -> the sum of the patients' clipped gradients.

A patient's gradient is that of the mean loss over the patient's records in the batch, over all trainable tensors
together, in the order of `update.named_parameters`. It is clipped in L2 and added up in float64; rounding to the
mechanism's grid comes once, at the end of a step (`PatientSum.on_grid`).

A batch larger than memory is cut between patients, never inside one, and the parts are added up before anything is
handed out. The whole logical batch is one call, which returns the whole sum or raises; nothing is kept between calls.
A batch is on the processor; its parts go to the device of the network, one after the other, and the sum comes back. A
part that does not fit into a GPU's memory makes the whole call begin anew, with smaller parts.
So there is no state in which a step could go on with half a sum, no flag that says "this step is skipped", and no
loader whose length would decide how many steps there are.

Float arithmetic and sensitivity
--------------------------------
Adding or removing one patient must move the rounded sum by at most the clip norm C that the accountant is told. The
engines clip to `grid.clip_norm_l2 = C (1 - FLOAT_MARGIN) - spacing sqrt(d)`. The last term pays for rounding two sums
to the grid, half a spacing per coordinate each. FLOAT_MARGIN pays for what float arithmetic adds. With u = 2^-53, N
patients in a step and n terms in the longest inner sum of one part of a batch:

1. The vector that is summed. Engines that write a patient's gradient down (`loop`, `vmap`, `hooks`, and `bookkeeping`
   for most layers) take its norm in float64 from the very float32 values that they sum: no error of the gradient
   itself matters, and that of the norm is below d u <= 2^-26 for 10^8 parameters.
2. Sums over patients in float64: each is within N u sum_j ||c_j g_j|| <= N^2 u C of the exact one. For
   N <= PATIENTS_MAX = 2^17 that is 2^-19 C, and twice that for two neighbouring batches.
3. Layers whose gradient is never written down (`bookkeeping`: sum over positions t of b_t a_t^T, from its two factors)
   can cancel, so their errors are bounded by E_j >= sum_t ||b_t|| ||a_t|| instead of by the norm (Higham 2002,
   section 3.5). Their factors are float64 from there on; `bookkeeping` adds the error of the Gram matrices to the
   norm, and shortens a patient further until c_j E_j <= 2^8 C. The sums are then within n u sum_j c_j E_j of the exact
   ones, together n N 2^8 u C; n is kept to 2^14 and N to 2^13, or the gradient is written down after all: 2^-18 C, and
   twice that for two batches.

Together below 2^-16 = FLOAT_MARGIN, and no study loses more than that part of its clip norm.

Does not cover: a gradient that depends on who else is in the batch. No allowed layer mixes records, but a
library may pick another order of summation in float32 for another batch size, and then everybody's gradient moves in
its last bits. `loop` computes every patient alone and has no such effect. That nothing but rounding couples patients is
tried, in float64, by `self_test`.

Lower precision. In bfloat16 that effect would not be of last bits. Layers answer with 8 significant bits, so a float32
sum that differs in its last bit now and then rounds to another bfloat16, 2^-8 away, and what follows goes on from
there: one patient more could move everybody's gradient by some 2^-8 of it. Part 1 holds in any precision for what is
written down, but it is about one patient alone. So only `loop` runs in bfloat16, which never has two in one call.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, final

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import nn

from privacy.dp.mechanism import Grid
from site_agent.device import device_of, give_back
from site_agent.errors import TrainingFailed
from site_agent.gradients.losses import RecordLoss
from site_agent.update import named_parameters, parameter_count

log = structlog.get_logger(__name__)

FLOAT_MARGIN = 2.0**-16
"""Part of the clip norm that pays for float arithmetic; see above."""
PATIENTS_MAX = 2**17
"""Patients in one step."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """The records of one step, those of a patient one after the other. It prints without its values.

    Raises:
        TrainingFailed: The sizes do not add up to the records, or a patient has none.
    """

    features: torch.Tensor = field(repr=False)  # float32[records, *record shape]
    labels: torch.Tensor = field(repr=False)  # float32[records, ...]
    sizes: tuple[int, ...]  # records of each patient, each at least 1

    def __post_init__(self) -> None:
        if not sum(self.sizes) == len(self.features) == len(self.labels) or (self.sizes and min(self.sizes) < 1):
            raise TrainingFailed("the records of a step are not grouped by patient")
        if len(self.sizes) > PATIENTS_MAX:
            raise TrainingFailed(f"{len(self.sizes)} patients in one step; at most {PATIENTS_MAX} are allowed")

    def parts(self, records_max: int) -> Iterator["Batch"]:
        """The batch in pieces of at most `records_max` records; one patient with more is a piece of its own."""
        start = first = records = 0
        for patient, size in enumerate(self.sizes):
            if records and records + size > records_max:
                yield self._part(start, records, self.sizes[first:patient])
                start, first, records = start + records, patient, 0
            records += size
        if records:
            yield self if not start else self._part(start, records, self.sizes[first:])

    def on(self, device: torch.device) -> "Batch":
        """The same records on a device."""
        if self.features.device == device:
            return self
        return Batch(features=self.features.to(device), labels=self.labels.to(device), sizes=self.sizes)

    def _part(self, start: int, records: int, sizes: tuple[int, ...]) -> "Batch":
        stop = start + records
        return Batch(features=self.features[start:stop], labels=self.labels[start:stop], sizes=sizes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PatientSum:
    """Sum of clipped patients' gradients. It carries no noise, stays at the site, and prints without its values."""

    total: NDArray[np.float64] = field(repr=False)  # [d], in the order of `update.named_parameters`
    patients: int = field(repr=False)
    clipped: int = field(repr=False)  # patients whose gradient was shortened
    broken: int = field(repr=False)  # patients with a gradient that is not finite, who count as zero

    def on_grid(self, grid: Grid) -> NDArray[np.int64]:
        """The sum in whole grid spacings, for a grid made with `margin=FLOAT_MARGIN` and this sum's clip norm."""
        out = np.empty(len(self.total), dtype=np.int64)
        for start in range(0, len(out), _BLOCK):  # in blocks that stay in the cache
            steps = self.total[start : start + _BLOCK] / grid.spacing
            out[start : start + _BLOCK] = np.rint(steps, out=steps)
        return out


@dataclass(slots=True, kw_only=True, eq=False)
class Tally:
    """A sum in the making. Mutable: engines add to it, part by part of one batch."""

    total: torch.Tensor  # float64[d]
    batch_patients: int  # of the whole logical batch
    patients: int = 0
    clipped: int = 0
    broken: int = 0


class Engine(ABC):
    """One way to compute the sum; made for one network and one loss.

    Args:
        module: The network, on the device on which everything is computed. Its parameters are read at every call; what
            the engine hangs on it stays on it.
        loss: From `losses.record_loss`.
        records_max: Records computed at a time.

    Raises:
        EngineUnsuited: This engine cannot do the network.
    """

    name: ClassVar[str]
    several_records: ClassVar[bool] = True  # of one patient, in one step
    begins_anew: ClassVar[bool] = True  # whether a call that broke off leaves nothing behind

    def __init__(self, module: nn.Module, loss: RecordLoss, *, records_max: int = 2**31) -> None:
        self.module = module
        self.loss = loss
        self.records_max = records_max
        self.device = device_of(module)
        self.parameters: tuple[nn.Parameter, ...] = tuple(p for _, p in named_parameters(module))
        self.dimension = parameter_count(module)

    @final
    def clipped_sum(self, batch: Batch, clip_norm_l2: float, *, batch_patients: int | None = None) -> PatientSum:
        """The sum over the batch's patients, each clipped to `clip_norm_l2`; a batch without patients gives zeros.

        Args:
            batch: The patients of a step.
            clip_norm_l2: What each is clipped to.
            batch_patients: Of the whole step, where this is one process's share of it (`ddp`).

        Raises:
            EngineUnsuited: The network did something that this engine does not follow. Nothing was summed.
            TrainingFailed: The device has not enough memory for the smallest parts. Nothing was summed.
        """
        of_step = len(batch.sizes) if batch_patients is None else batch_patients
        while True:
            try:
                return self._summed(batch, clip_norm_l2, of_step)
            except torch.OutOfMemoryError:
                pass  # what it holds is let go before the next try
            self._take_less(batch)

    def _summed(self, batch: Batch, clip_norm_l2: float, of_step: int) -> PatientSum:
        total = torch.zeros(self.dimension, dtype=torch.float64, device=self.device)
        tally = Tally(total=total, batch_patients=of_step)
        for part in batch.parts(self.records_max):
            self.add(part.on(self.device), clip_norm_l2, tally)
            tally.patients += len(part.sizes)
        return PatientSum(
            total=tally.total.cpu().numpy(), patients=tally.patients, clipped=tally.clipped, broken=tally.broken
        )

    def _take_less(self, batch: Batch) -> None:
        """Parts of half as many records from now on; raises TrainingFailed if they cannot be made smaller."""
        taken = min(self.records_max, sum(batch.sizes))
        if not self.begins_anew or taken <= max(batch.sizes, default=1):
            raise TrainingFailed(
                f"{self.device} has not enough memory for the engine {self.name}; in site.yaml `engine: loop` computes "
                "one patient at a time, and `device: cpu` uses the processor's memory"
            )
        self.records_max = taken // 2
        give_back(self.device)
        log.warning("gradients.cut_smaller", engine=self.name, device=str(self.device))

    @abstractmethod
    def add(self, part: Batch, clip_norm_l2: float, tally: Tally) -> None:
        """Add the clipped gradients of `part`, which has at least one patient, and count what was clipped or broken."""

    def record_weights(self, part: Batch) -> torch.Tensor:
        """float32[records]: one over the number of records of the record's patient."""
        sizes = torch.tensor(part.sizes, device=part.features.device)
        return torch.repeat_interleave(1.0 / sizes, sizes)


def factors_of(squares: torch.Tensor, clip_norm_l2: float, tally: Tally) -> torch.Tensor:
    """What each patient's gradient is multiplied by, from its squared norm: float64[patients] -> float64[patients].

    A patient whose norm is not finite gets 0; the caller must see to it that 0 times such a gradient is 0.
    """
    norms = squares.sqrt()
    finite = torch.isfinite(norms)
    too_long = finite & (norms > clip_norm_l2)
    tally.clipped += int(too_long.sum())
    tally.broken += len(norms) - int(finite.sum())
    return torch.where(too_long, clip_norm_l2 / norms, finite.to(torch.float64))


def add_rows(rows: torch.Tensor, factors: torch.Tensor, out: torch.Tensor) -> None:
    """Add factors @ rows to `out`, in float64, in blocks that stay in the processor's cache.

    Args:
        rows: float32 or float64[patients, values], zero where the factor of a broken patient is.
        factors: float64[patients].
        out: float64[values].
    """
    width = max(1, _BLOCK // max(1, len(rows)))
    for start in range(0, rows.shape[1], width):
        part = rows[:, start : start + width]
        out[start : start + width] += factors @ part.double()


_BLOCK = 1 << 17


def squares_of(rows: torch.Tensor) -> torch.Tensor:
    """Squared L2 norm of each row, computed in float64; of a row with NaN or infinity it is not finite."""
    norms: torch.Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return norms.square()


def add_all_rows(rows: list[torch.Tensor], clip_norm_l2: float, tally: Tally) -> None:
    """Clip and add gradients that are written down: for each parameter, in order, float32[patients, values]."""
    squares = torch.zeros(len(rows[0]), dtype=torch.float64, device=rows[0].device)
    for values in rows:
        squares += squares_of(values)
    factors = factors_of(squares, clip_norm_l2, tally)
    broken = ~torch.isfinite(squares)
    place = 0
    for values in rows:
        if broken.any():
            values[broken] = 0.0  # because 0 times NaN is NaN
        stop = place + values.shape[1]
        add_rows(values, factors, tally.total[place:stop])
        place = stop


def by_patient(records: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """Sum over each run of consecutive records: [records, ...] -> [patients, ...]."""
    if len(sizes) == len(records):
        return records
    device = records.device
    patients = torch.repeat_interleave(torch.arange(len(sizes), device=device), torch.tensor(sizes, device=device))
    shape = (len(sizes), *records.shape[1:])
    return torch.zeros(shape, dtype=records.dtype, device=device).index_add_(0, patients, records)

"""What engines are tried on: a study's shapes and constants, and records that are made up. Nothing of the data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from site_agent.device import PROCESSOR, free_bytes
from site_agent.gradients.engine import Batch

PATIENTS_TRIED_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """An average step of a study, and the memory it may take."""

    input_shape: tuple[int, ...]  # of one record
    patients: int  # in an average step
    records_each: int  # at most, of one patient
    memory_bytes: int  # what the batch may take
    label_shape: tuple[int, ...] = ()  # of one record's label
    classes: int = 2  # labels are whole numbers below this
    steps: float = math.inf  # in the whole study, of so many patients

    @classmethod
    def of(
        cls,
        input_shape: tuple[int, ...],
        *,
        expected_patients: float,
        records_each: int,
        label_shape: tuple[int, ...] = (),
        classes: int = 2,
        device: torch.device = PROCESSOR,
        steps: float = math.inf,
    ) -> "Workload":
        """For a study of so many steps, on this machine: half of the memory that is free now on the device."""
        patients = min(PATIENTS_TRIED_MAX, max(1, math.ceil(expected_patients)))
        return cls(
            input_shape=input_shape,
            patients=patients,
            records_each=records_each,
            memory_bytes=free_bytes(device) // 2,
            label_shape=label_shape,
            classes=classes,
            steps=steps * max(1.0, expected_patients / patients),
        )

    def batch(self, sizes: Sequence[int], dtype: torch.dtype = torch.float32) -> Batch:
        """Made-up records for patients of so many records each, on the processor; the same every time."""
        random = np.random.default_rng(len(sizes))
        records = sum(sizes)
        features = random.normal(size=(records, *self.input_shape))
        labels = random.integers(0, self.classes, size=(records, *self.label_shape))
        return Batch(
            features=torch.tensor(features, dtype=dtype, device=PROCESSOR),
            labels=torch.tensor(labels, dtype=dtype, device=PROCESSOR),
            sizes=tuple(sizes),
        )

"""Records with masks, and what a study with augmentation and patches makes of them."""

from typing import Any

import numpy as np
from pydantic import TypeAdapter

from consortium.contract.record_views import Augmentation, Patch, Transform
from site_agent.cohort import Records
from site_agent.training_spec import NetworkSpec, ViewSpec

SHAPE = (12, 10)
EVERY: tuple[dict[str, Any], ...] = (
    {"transform": "flip", "axes": (0, 2)},
    {"transform": "rotate90", "axes": (1, 2)},
    {"transform": "rotate", "max_degrees": 15.0},
    {"transform": "zoom", "range": (0.8, 1.25)},
    {"transform": "affine", "degrees": (0.0, 0.0, 10.0), "shift": (2.0, 2.0, 0.0), "shear": 0.1, "zoom": (0.9, 1.1)},
    {"transform": "distort", "cells": 4, "limit": 0.1},
    {"transform": "shift-intensity", "limit": 0.2},
    {"transform": "scale-intensity", "limit": 0.2},
    {"transform": "gaussian-noise", "std": 0.1},
    {"transform": "gaussian-smooth", "sigma": (0.5, 1.0)},
    {"transform": "contrast", "gamma": (0.7, 1.5), "probability": 1.0},
)
"""Every transform, for volumes whose second and third axis have the same length."""
PATCH = Patch(shape=(8, 8), per_record=2, foreground=0.5)


def transforms(*records: dict) -> tuple[Transform, ...]:
    """Transforms as a study file has them."""
    found: tuple[Transform, ...] = TypeAdapter(Augmentation).validate_python(records)
    return found


MOVED = transforms(
    {"transform": "flip", "axes": (0, 1)}, {"transform": "affine", "degrees": (30.0,), "probability": 1.0}
)
SHIFTED = transforms({"transform": "shift-intensity", "limit": 0.5, "probability": 1.0})


def views(augmentation=MOVED, patch=None, site="north", seed=1) -> ViewSpec:
    """What a study asks for."""
    return ViewSpec(record_shape=(1, *SHAPE), augmentation=augmentation, patch=patch, seed=seed, site=site)


def network(patch=None) -> NetworkSpec:
    """A network for these records, or for patches of them."""
    sides = SHAPE if patch is None else patch.shape
    return NetworkSpec(
        network="unet", args={"channels": (3, 5)}, input_shape=(1, *sides), outputs=3, label_shape=sides,
        loss="dice-cross-entropy", seed=1,
    )  # fmt: skip


def masked(patients: int, *, records_each: int = 1, seed: int = 7) -> Records:
    """Noisy pictures with a bright square where their masks say 1 or 2."""
    random = np.random.default_rng(seed)
    count = patients * records_each
    labels = np.zeros((count, *SHAPE), dtype=np.float32)
    for record in range(count):
        row, column = random.integers(0, 7), random.integers(0, 5)
        labels[record, row : row + 5, column : column + 5] = 1 + record % 2
    features = (labels + 0.1 * random.normal(size=labels.shape)).astype(np.float32)[:, None]
    return Records(
        features=features,
        labels=labels,
        patients=np.repeat(np.arange(patients, dtype=np.int64), records_each),
        patient_count=patients,
    )

"""The two public data sets of `utility.py`, as the cohorts of four hospitals each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from site_agent.cohort import Records
from tests.benchmarks import heart_disease

SITES = 4
CONCENTRATION = 0.5  # of the Dirichlet distribution that divides every class among the sites
PARTITION_SEED = 0  # public; with it the sites hold 3167, 930, 124 and 487 radiographs
PIXEL_MEAN, PIXEL_STD = 127.5, 63.75  # public constants, of no data set


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hospital:
    """One site: what it trains on, and the patients it sets aside (none where the test set is common to all)."""

    train: Records
    test: Records


def heart() -> tuple[Hospital, ...]:
    """The cohorts of configs/heart-disease, in the order of the roster."""
    _, cohorts = heart_disease.load()
    return tuple(Hospital(train=cohort.train, test=cohort.test) for cohort in cohorts)


def pneumonia(path: Path) -> tuple[Hospital, ...]:
    """PneumoniaMNIST (Yang et al. 2023): the training part among four sites, the test part kept whole at the first.

    Every image is taken for one patient: the file does not say whose it is.

    Raises:
        OSError: The file cannot be read.
        KeyError, ValueError: It is not a MedMNIST file of 28 x 28 images with one binary label.
    """
    with np.load(path, allow_pickle=False) as file:
        images, labels = file["train_images"], file["train_labels"]
        test = _records(file["test_images"], file["test_labels"])
    parts = divided(labels.ravel(), sites=SITES, concentration=CONCENTRATION, seed=PARTITION_SEED)
    nobody = _records(images[:0], labels[:0])
    return tuple(
        Hospital(train=_records(images[part], labels[part]), test=nobody if site else test)
        for site, part in enumerate(parts)
    )


def divided(
    labels: NDArray[np.integer], *, sites: int, concentration: float, seed: int
) -> tuple[NDArray[np.int64], ...]:
    """Indices of each site's records: every class is shuffled and cut by shares drawn from a Dirichlet distribution.

    So sites differ in size and in how many of their patients are ill (Hsu, Qi, Brown 2019). Every index is in exactly
    one part.
    """
    generator = np.random.default_rng(seed)
    parts: list[list[NDArray[np.int64]]] = [[] for _ in range(sites)]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[generator.permutation(len(members))]
        shares = generator.dirichlet([concentration] * sites)
        cuts = (np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for part, piece in zip(parts, np.split(members, cuts), strict=True):
            part.append(piece)
    return tuple(np.sort(np.concatenate(part)) for part in parts)


def _records(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Records:
    """uint8[n, 28, 28] and uint8[n, 1] -> float32[n, 1, 28, 28], scaled by public constants, one record a patient."""
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28) or labels.shape != (len(images), 1):
        raise ValueError(f"not images of 28 x 28 with one label: {images.shape} of {images.dtype}, {labels.shape}")
    features = (images[:, None].astype(np.float32) - PIXEL_MEAN) / PIXEL_STD
    return Records(
        features=features.astype(np.float32),
        labels=labels.ravel().astype(np.float32),
        patients=np.arange(len(images), dtype=np.int64),
        patient_count=len(images),
    )

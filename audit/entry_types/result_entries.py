"""Entries about what leaves: a released model, what is promised about it, exported evidence."""

from dataclasses import dataclass
from typing import ClassVar

from audit.entry_types.frame import StudyEntry
from audit.fields import (
    Count,
    Digest,
    Epsilon,
    Label,
    Name,
    Names,
    Positive,
    Probability,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReleased(StudyEntry):
    """A global model left the consortium."""

    TYPE: ClassVar[str] = "model.released"
    model_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCertificate(StudyEntry):
    """What the sites' certificates together promise about a global model; anybody can compose them again.

    A patient of one hospital gets that hospital's promise, so the model's epsilon is the largest. For a patient of two
    hospitals they add; under distributed noise both parts are in one sum, and the bound is that of a group of two.
    """

    TYPE: ClassVar[str] = "model.certificate"
    model_digest: Digest
    unit: Label
    relation: Label
    trust: Label
    sites: Names  # whose certificates are in it
    missing: Names  # sites that spent and signed none: the figures do not speak for their patients
    epsilon: Epsilon
    delta: Probability
    epsilon_two_sites: Epsilon
    delta_two_sites: Probability
    epsilon_unmasked: Epsilon  # the largest that is left if secure aggregation fails
    log_size: Positive  # composed from the first so many entries of the log; a certificate may come at any time


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCreated(StudyEntry):
    """Evidence was exported; the hash is that of its manifest, which lists the hash of every file in it."""

    TYPE: ClassVar[str] = "export.created"
    manifest_sha256: Digest
    log_size: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDownloaded(StudyEntry):
    """A site fetched the model of a study that is over; what sites fetch during rounds is in the rounds."""

    TYPE: ClassVar[str] = "model.downloaded"
    site: Name
    model_digest: Digest

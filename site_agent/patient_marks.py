"""Which datasets are about the same patients: keyed hashes of their identifiers, kept at the hospital and nowhere else.

A dataset that is registered a second time under another name, or two datasets that have patients in common, would
each have a budget of its own, and such a patient would be charged twice while every cap looked kept. So the ledger
remembers for every dataset, for good, a keyed hash of each patient it has had, and datasets with even one patient in
common have one budget (ADR 12). What is counted against a dataset is then what was spent on it and on every dataset
that shares a patient with it: no patient of it can have been in more.

The hash is HMAC-SHA256 under the hospital's long-term secret, cut to 64 bits: without the secret it says nothing about
a patient; two patients of a million are taken for one with a chance of 1 in 40 million, and then budgets are shared
that need not be. Identifiers are compared as the files spell them, without blanks at either end.

Does not find: the same patients under other identifiers, such as another pseudonym in every extract (docs/limitations).
"""

from __future__ import annotations

import contextlib
import csv
import hmac
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from privacy.lazy_numpy import np
from privacy.secret import Secret
from site_agent.data_faults import DataInvalid, Faults
from site_agent.datasets import CsvDataset, Dataset, ParquetDataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LABEL = b"consortium/patient/v1\n"
_KEY_LABEL = b"consortium/patient-key/v1"
_MARK, _MARK_BYTES = "<u8", 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PatientMarks:
    """The patients of a dataset, as hashes that only this hospital can make."""

    key_id: str  # which secret made them; hashes under different ones cannot be compared
    marks: NDArray[np.uint64] = field(repr=False)  # sorted, each once


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Another dataset that has patients of this one, or may have."""

    dataset: str
    patients: int | None  # how many; None where it cannot be told, and is assumed


def marks_of(identifiers: Iterable[str], secret: Secret[bytes]) -> PatientMarks:
    """Hash patients' identifiers; an empty one is nobody."""
    key = secret.expose()
    hashes = (hmac.digest(key, _LABEL + name.encode(), "sha256")[:_MARK_BYTES] for name in set(identifiers) if name)
    return PatientMarks(
        key_id=hmac.digest(key, _KEY_LABEL, "sha256")[:8].hex(),
        marks=np.unique(np.frombuffer(b"".join(hashes), dtype=_MARK)),
    )


def identifiers_in(dataset: Dataset) -> Iterator[str]:
    """Who is in a dataset, record by record; nobody where it cannot be read as the cohort will read it.

    All of the dataset's patients, not only those with complete records: which ones a study can use differs from study
    to study, and the budget is of the dataset. An image that no patient is named for stands for one, by its content
    (MedMNIST) or its place on the disk (a datalist).
    """
    faults = Faults(path=Path(dataset.path), found=[])
    with contextlib.suppress(DataInvalid):  # what is wrong with it is said where data are checked
        match dataset:
            case CsvDataset():
                yield from _identifiers_in_csv(dataset)
            case ParquetDataset():
                from site_agent.parquet import parquet_columns  # noqa: PLC0415 - pandas

                table = parquet_columns(Path(dataset.path), {dataset.patient_id: "the patient"}, faults)
                yield from table.get(dataset.patient_id, ())
            case _:
                from site_agent.imaging.listing import patients_in  # noqa: PLC0415 - only for images

                yield from patients_in(dataset, faults)


def _identifiers_in_csv(dataset: CsvDataset) -> Iterator[str]:
    with Path(dataset.path).open(encoding="utf-8-sig", newline="", errors="replace") as file:
        rows = csv.reader(file)
        header = [name.strip() for name in next(rows, [])]
        if dataset.patient_id in header:
            place = header.index(dataset.patient_id)
            yield from (row[place].strip() for row in rows if place < len(row))


# --- in the ledger's file ------------------------------------------------------------------------------------------


def record_marks(connection: sqlite3.Connection, dataset: str, new: PatientMarks, at: float) -> None:
    """Add to the patients a dataset has had, and find out anew which datasets share some."""
    row = connection.execute("SELECT key_id, marks FROM patients WHERE dataset = ?", (dataset,)).fetchone()
    old = np.frombuffer(row[1], dtype=_MARK) if row is not None and row[0] == new.key_id else new.marks
    marks = np.union1d(old, new.marks)
    if row is not None and row[0] == new.key_id and marks.size == old.size:
        return  # the same patients as ever: their overlaps are known
    connection.execute(
        "INSERT OR REPLACE INTO patients VALUES (?, ?, ?, ?)", (dataset, new.key_id, marks.tobytes(), at)
    )
    connection.execute("DELETE FROM overlaps WHERE dataset = ?1 OR other = ?1", (dataset,))
    for other, blob in connection.execute(
        "SELECT dataset, marks FROM patients WHERE dataset != ? AND key_id = ?", (dataset, new.key_id)
    ).fetchall():
        common = np.intersect1d(marks, np.frombuffer(blob, dtype=_MARK), assume_unique=True).size
        if common:
            connection.executemany(
                "INSERT INTO overlaps VALUES (?, ?, ?)", [(dataset, other, common), (other, dataset, common)]
            )


def datasets_with(connection: sqlite3.Connection, wanted: PatientMarks) -> tuple[str, ...]:
    """The datasets that have, or once had, any of these patients, by name."""
    rows = connection.execute("SELECT dataset, marks FROM patients WHERE key_id = ?", (wanted.key_id,)).fetchall()
    return tuple(sorted(name for name, blob in rows if np.isin(wanted.marks, np.frombuffer(blob, dtype=_MARK)).any()))


def overlaps_of(connection: sqlite3.Connection, dataset: str) -> tuple[Overlap, ...]:
    """The datasets that share patients with `dataset`, by name.

    | the other dataset | result |
    |---|---|
    | shares patients | how many |
    | shares none | not there |
    | has spent, and its patients were never registered, or under another secret | assumed: None |
    | any, while `dataset` itself was never registered | only what is known |
    """
    found: dict[str, int | None] = dict(
        connection.execute("SELECT other, patients FROM overlaps WHERE dataset = ?", (dataset,))
    )
    for (other,) in connection.execute(
        "SELECT DISTINCT totals.dataset FROM totals JOIN patients AS own ON own.dataset = ?1"
        " LEFT JOIN patients ON patients.dataset = totals.dataset AND patients.key_id = own.key_id"
        " WHERE totals.rounds > 0 AND totals.dataset != ?1 AND patients.dataset IS NULL",
        (dataset,),
    ):
        found[other] = None
    return tuple(Overlap(dataset=name, patients=found[name]) for name in sorted(found))


def neighbours(connection: sqlite3.Connection, dataset: str) -> tuple[str, ...]:
    """The names of the datasets whose spending counts against `dataset`."""
    return tuple(overlap.dataset for overlap in overlaps_of(connection, dataset))

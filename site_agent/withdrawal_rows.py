"""Patients who withdrew, in the agent's memory (agent.db): marks, when, of which dataset; never who."""

import sqlite3
from dataclasses import dataclass, field

from consortium.contract.names import Digest

_MARKS = """CREATE TABLE IF NOT EXISTS withdrawn (
    mark BLOB PRIMARY KEY, key_id TEXT NOT NULL)"""
_TIMES = """CREATE TABLE IF NOT EXISTS withdrawals (
    id INTEGER PRIMARY KEY, dataset TEXT NOT NULL, at REAL NOT NULL)"""
_DUE = "CREATE TABLE IF NOT EXISTS snapshots_due (study_digest TEXT PRIMARY KEY)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """Patients of a dataset withdrew."""

    dataset: str
    at: float  # unix seconds
    key_id: str
    marks: frozenset[bytes] = field(repr=False)
    studies: tuple[Digest, ...]  # whose cohorts they are or were in: each is read, and signed for, again


@dataclass(frozen=True, slots=True, kw_only=True)
class Retaken:
    """A study's cohort was read without those who withdrew in so many withdrawals."""

    study_digest: Digest
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawalRow:
    """One of them, as it may be listed."""

    dataset: str
    at: float


def make(connection: sqlite3.Connection) -> None:
    """The tables."""
    for statement in (_MARKS, _TIMES, _DUE):
        connection.execute(statement)


def add(connection: sqlite3.Connection, made: Withdrawal) -> None:
    """Remember it."""
    rows = [(mark, made.key_id) for mark in sorted(made.marks)]
    connection.executemany("INSERT OR REPLACE INTO withdrawn VALUES (?, ?)", rows)
    connection.execute("INSERT INTO withdrawals (dataset, at) VALUES (?, ?)", (made.dataset, made.at))
    # What was never announced has no snapshot that is out of date.
    connection.executemany(
        "INSERT OR IGNORE INTO snapshots_due SELECT study_digest FROM announced WHERE study_digest = ?",
        [(digest,) for digest in made.studies],
    )


def marks(connection: sqlite3.Connection) -> tuple[frozenset[bytes], frozenset[str], int]:
    """All marks, the keys they are under, and how often patients withdrew."""
    rows = connection.execute("SELECT mark, key_id FROM withdrawn").fetchall()
    times = int(connection.execute("SELECT count(*) FROM withdrawals").fetchone()[0])
    return frozenset(row[0] for row in rows), frozenset(row[1] for row in rows), times


def read(connection: sqlite3.Connection) -> tuple[WithdrawalRow, ...]:
    """When patients withdrew, and of which dataset, oldest first."""
    rows = connection.execute("SELECT dataset, at FROM withdrawals ORDER BY id")
    return tuple(WithdrawalRow(dataset=row[0], at=row[1]) for row in rows)


def is_due(connection: sqlite3.Connection, study_digest: Digest) -> bool:
    """Whether a study's cohort is to be read and signed for again."""
    row = connection.execute("SELECT 1 FROM snapshots_due WHERE study_digest = ?", (study_digest,)).fetchone()
    return row is not None


def taken(connection: sqlite3.Connection, read: Retaken) -> bool:
    """A cohort is signed for; False if it was not due, or is out of date again."""
    return (
        connection.execute(
            "DELETE FROM snapshots_due WHERE study_digest = ? AND (SELECT count(*) FROM withdrawals) = ?",
            (read.study_digest, read.times),
        ).rowcount
        == 1
    )

"""What this hospital has signed that it spent: the last entry of each line of the ledger, beside the entries.

A line is a study's training (`dp.spent`) or its test figures (`figures.spent`, under the digest and name that
`figures_account.py` gives them); each is compared and signed for by itself.

It is written in the transaction that adds the entry, in the agent's own memory (`agent.db`), a file of its own. So it
answers two questions after a crash or a restored backup:

- Is the ledger older than its history? It is if it counts fewer steps than were signed (`require_current`).
- What counts and was never signed? Everything after the last one: training whose process died before the entry.

Nothing trained, and no noisy figure, leaves the building before its entry is signed, so what a restored ledger lacks
beyond this was seen by nobody.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from consortium.contract.names import Digest
from site_agent.errors import LedgerBehind

SCHEMA = """CREATE TABLE IF NOT EXISTS told (
    study_digest TEXT NOT NULL, dataset TEXT NOT NULL, study TEXT NOT NULL, round INTEGER NOT NULL,
    attempt INTEGER NOT NULL, steps INTEGER NOT NULL, PRIMARY KEY (study_digest, dataset))"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The last spend of a line of the ledger on a dataset that is in this hospital's signed entries."""

    study_digest: Digest
    study: str
    dataset: str
    round: int
    attempt: int
    steps: int  # all that were signed for, this one's included


NOTHING = (0, 0)
"""Before the first round and attempt."""


def require_current(told: Iterable[Told], counted: Mapping[tuple[str, str], int]) -> None:
    """Raise LedgerBehind if the ledger counts less than was signed.

    Args:
        told: What was signed.
        counted: Steps in the ledger, by dataset and study digest.
    """
    for one in told:
        found = counted.get((one.dataset, one.study_digest), 0)
        if found < one.steps:
            raise LedgerBehind(study=one.study, dataset=one.dataset, counted=found, signed=one.steps)


def is_news(connection: sqlite3.Connection, spent: Told) -> bool:
    """Whether nothing as late was signed for on the same line; asked in the transaction that adds the entry."""
    row = connection.execute(
        "SELECT round, attempt FROM told WHERE study_digest = ? AND dataset = ?", (spent.study_digest, spent.dataset)
    ).fetchone()
    return row is None or tuple(row) < (spent.round, spent.attempt)


def remember(connection: sqlite3.Connection, told: Told) -> None:
    """Write it down, in the transaction that adds its entry."""
    connection.execute(
        "INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?, ?)",
        (told.study_digest, told.dataset, told.study, told.round, told.attempt, told.steps),
    )


def read(connection: sqlite3.Connection) -> tuple[Told, ...]:
    """The last spend of every study on every dataset."""
    return tuple(
        Told(study_digest=Digest(row[0]), dataset=row[1], study=row[2], round=row[3], attempt=row[4], steps=row[5])
        for row in connection.execute("SELECT study_digest, dataset, study, round, attempt, steps FROM told")
    )


def make(connection: sqlite3.Connection) -> None:
    """The table, filled from the entries that are there: a memory of an earlier version had them alone."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'told'").fetchone() is not None:
        return
    connection.execute(SCHEMA)
    digests = dict(connection.execute("SELECT study, study_digest FROM decisions ORDER BY decision = 'approved', at"))
    for (data,) in connection.execute("SELECT entry FROM events ORDER BY sequence"):
        record = json.loads(data)
        if record["type"] == "dp.spent" and record["study"] in digests:
            remember(
                connection,
                Told(
                    study_digest=digests[record["study"]],
                    dataset=record["body"]["dataset"],
                    study=record["study"],
                    round=record["round"],
                    attempt=record["attempt"],
                    steps=record["body"]["steps_total"],
                ),
            )

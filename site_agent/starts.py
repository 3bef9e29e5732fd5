"""Which starts of the agent this home knows: a copy of the home does not know those of the other (threat S-24).

A row of agent.db for each start, written before the agent dials for the first time. A start that a coordinator has
welcomed makes the ones before it superfluous, but for a few: one that stood by, or was cut off from its database, may
remember an older start than the last. Of those after it that were not welcomed, or died before they heard so, the
newest are kept.
"""

import os
import sqlite3

from consortium.contract.messages import EARLIER_STARTS_MAX, START_BYTES

KEPT = EARLIER_STARTS_MAX // 2
"""The start that was welcomed last is among the oldest so many."""

_SCHEMA = "CREATE TABLE IF NOT EXISTS starts (number INTEGER PRIMARY KEY AUTOINCREMENT, start BLOB NOT NULL UNIQUE)"


def new_start() -> bytes:
    """The name of a start; no two are the same."""
    return os.urandom(START_BYTES)


def make(connection: sqlite3.Connection) -> None:
    """The table."""
    connection.execute(_SCHEMA)


def begin(connection: sqlite3.Connection, start: bytes) -> tuple[bytes, ...]:
    """Remember a start; returns earlier ones, oldest first: the last that was welcomed, some before, the newest."""
    earlier = [bytes(row[0]) for row in connection.execute("SELECT start FROM starts ORDER BY number")]
    connection.execute("INSERT INTO starts (start) VALUES (?)", (start,))
    return tuple(earlier[:KEPT] + earlier[KEPT:][KEPT - EARLIER_STARTS_MAX :])


def welcomed(connection: sqlite3.Connection, start: bytes) -> None:
    """The coordinator knows this start now, and will ask for it."""
    connection.execute(
        "DELETE FROM starts WHERE number <= (SELECT number FROM starts WHERE start = ?) AND number NOT IN "
        "(SELECT number FROM starts WHERE number <= (SELECT number FROM starts WHERE start = ?) "
        "ORDER BY number DESC LIMIT ?)",
        (start, start, KEPT),
    )

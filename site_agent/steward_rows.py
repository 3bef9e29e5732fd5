"""Stewards' public keys and signatures in the agent's memory (agent.db). Names of people are in the vault alone."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from audit.entry_types.steward_entries import StewardSignature
from consortium.contract.names import Digest

_KEYS = """CREATE TABLE IF NOT EXISTS stewards (
    key TEXT PRIMARY KEY, steward TEXT NOT NULL, at TEXT NOT NULL, standing INTEGER NOT NULL)"""
_SIGNATURES = """CREATE TABLE IF NOT EXISTS steward_signatures (
    study_digest TEXT NOT NULL, key TEXT NOT NULL, steward TEXT NOT NULL, decision TEXT NOT NULL, words TEXT NOT NULL,
    at TEXT NOT NULL, sig TEXT NOT NULL, PRIMARY KEY (study_digest, key))"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StewardRow:
    """One key that may sign decisions here, or that once might."""

    key: str  # 64 hexadecimal characters
    steward: str  # pseudonym
    at: str  # when it came
    standing: bool  # whether it counts now


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """A key comes or goes; `alone`: all others count no more."""

    row: StewardRow
    alone: bool = False


def make(connection: sqlite3.Connection) -> None:
    """The tables."""
    connection.execute(_KEYS)
    connection.execute(_SIGNATURES)


def change(connection: sqlite3.Connection, made: KeyChange) -> None:
    """Remember that a key came or went."""
    if made.alone:
        connection.execute("UPDATE stewards SET standing = 0")
    row = made.row
    values = (row.key, row.steward, row.at, row.standing)
    connection.execute("INSERT OR REPLACE INTO stewards VALUES (?, ?, ?, ?)", values)


def read(connection: sqlite3.Connection) -> tuple[StewardRow, ...]:
    """Every key there ever was, oldest first."""
    rows = connection.execute("SELECT key, steward, at, standing FROM stewards ORDER BY at, key")
    return tuple(StewardRow(key=row[0], steward=row[1], at=row[2], standing=bool(row[3])) for row in rows)


def sign(connection: sqlite3.Connection, study_digest: Digest, signed: StewardSignature) -> None:
    """Remember one steward's signature; it replaces an earlier one by the same key."""
    connection.execute(
        "INSERT OR REPLACE INTO steward_signatures VALUES (?, ?, ?, ?, ?, ?, ?)",
        (study_digest, signed.key, signed.steward, signed.decision, signed.words, signed.at, signed.sig),
    )


def replace(connection: sqlite3.Connection, study_digest: Digest, signed: Iterable[StewardSignature]) -> None:
    """These signatures stand under the decision about a study, and no others."""
    connection.execute("DELETE FROM steward_signatures WHERE study_digest = ?", (study_digest,))
    for one in signed:
        sign(connection, study_digest, one)


def signatures(connection: sqlite3.Connection, study_digest: Digest) -> tuple[StewardSignature, ...]:
    """The signatures about a study that count, or wait for others; the first one first."""
    rows = connection.execute(
        "SELECT steward, key, decision, words, at, sig FROM steward_signatures WHERE study_digest = ? ORDER BY at, key",
        (study_digest,),
    )
    return tuple(
        StewardSignature(steward=row[0], key=row[1], decision=row[2], words=row[3], at=row[4], sig=row[5])
        for row in rows
    )

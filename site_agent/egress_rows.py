"""What left the building and is not in the hospital's own log yet: rows of agent.db, written before anything leaves.

`egress_log.py` moves them. Beside them: which approval stands for a study, so that each row can say under which one it
left, and how long the log was when rows were moved last, so that a log that lost entries is found out.
"""

import hashlib
import json
import sqlite3
from dataclasses import dataclass, field

_EGRESS = """CREATE TABLE IF NOT EXISTS egress (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, study_digest TEXT NOT NULL,
    sha256 TEXT NOT NULL, size_bytes INTEGER NOT NULL, approval TEXT, entry BLOB)"""
_APPROVALS = "CREATE TABLE approvals (study_digest TEXT PRIMARY KEY, sha256 TEXT NOT NULL)"
_HEAD = """CREATE TABLE IF NOT EXISTS egress_head (
    id INTEGER PRIMARY KEY CHECK (id = 1), size INTEGER NOT NULL, root BLOB NOT NULL, lost INTEGER NOT NULL)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRecord:
    """One thing that left the building."""

    at: float  # unix seconds
    kind: str
    study_digest: str  # empty: it belongs to no single study
    sha256: str
    size_bytes: int
    approval: str | None = None  # SHA-256 of this site's study.approved entry that stood then
    number: int = field(default=0, compare=False)  # of the row; 0 before it has one
    entry: bytes | None = field(default=None, repr=False)  # an entry of another kind, ready to be appended


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHead:
    """How far the hospital's own log had come."""

    size: int
    root: bytes
    lost: int = 0  # entries of damaged logs that were set aside before it


def make(connection: sqlite3.Connection) -> None:
    """The tables; those of an earlier version become these."""
    connection.execute(_EGRESS)
    connection.execute(_HEAD)
    if "approval" not in {row[1] for row in connection.execute("PRAGMA table_info(egress)")}:
        connection.execute("ALTER TABLE egress ADD COLUMN approval TEXT")
        connection.execute("ALTER TABLE egress ADD COLUMN entry BLOB")
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'approvals'").fetchone() is None:
        connection.execute(_APPROVALS)
        for (data,) in connection.execute("SELECT entry FROM events ORDER BY sequence").fetchall():
            record = json.loads(data)
            if record["type"] in ("study.approved", "study.rejected"):
                decided(connection, record["body"]["study_digest"], record["type"] == "study.approved", data)


def decided(connection: sqlite3.Connection, study_digest: str, approved: bool, entry: bytes) -> None:  # noqa: FBT001 - what was decided
    """A steward decided about a study, by this signed entry; without one nothing says so to anybody else."""
    if approved and entry:
        sha256 = hashlib.sha256(entry).hexdigest()
        connection.execute("INSERT OR REPLACE INTO approvals VALUES (?, ?)", (study_digest, sha256))
    else:
        connection.execute("DELETE FROM approvals WHERE study_digest = ?", (study_digest,))


def add(connection: sqlite3.Connection, record: EgressRecord) -> None:
    """Something leaves, under the approval that stands now."""
    connection.execute(
        "INSERT INTO egress (at, kind, study_digest, sha256, size_bytes, approval, entry)"
        " VALUES (?1, ?2, ?3, ?4, ?5, (SELECT sha256 FROM approvals WHERE study_digest = ?3), ?6)",
        (record.at, record.kind, record.study_digest, record.sha256, record.size_bytes, record.entry),
    )


def read(connection: sqlite3.Connection, limit: int) -> tuple[EgressRecord, ...]:
    """The first rows, oldest first; a limit of -1 is none."""
    rows = connection.execute(
        "SELECT at, kind, study_digest, sha256, size_bytes, approval, id, entry FROM egress ORDER BY id LIMIT ?",
        (limit,),
    )
    return tuple(
        EgressRecord(
            at=row[0],
            kind=row[1],
            study_digest=row[2],
            sha256=row[3],
            size_bytes=row[4],
            approval=row[5],
            number=row[6],
            entry=row[7],
        )
        for row in rows
    )


def moved(connection: sqlite3.Connection, last: int, head: LogHead) -> None:
    """The log, which now stands at `head`, has every row up to this number."""
    connection.execute("DELETE FROM egress WHERE id <= ?", (last,))
    connection.execute("INSERT OR REPLACE INTO egress_head VALUES (1, ?, ?, ?)", (head.size, head.root, head.lost))


def head(connection: sqlite3.Connection) -> LogHead | None:
    """Where the log stood when rows were moved last; None before the first time."""
    row = connection.execute("SELECT size, root, lost FROM egress_head").fetchone()
    return LogHead(size=row[0], root=bytes(row[1]), lost=row[2]) if row else None

"""The ledger's file: its tables, how an older file becomes a new one, and its one open connection.

Version 2. A spend is a row for ever; what counts of it is added up in `totals` by triggers, in the transaction that
changes it, so that nobody has to read a hundred thousand rows to know a sum, and no writer can forget to add.

| table | what a row is |
|---|---|
| `spends` | one attempt at one round: mechanism, steps, reserved, settled or released. Never deleted |
| `totals` | of one mechanism in one study on one dataset: the steps and attempts of `spends` that count |
| `patients` | which patients a dataset has had, as keyed hashes (`patient_marks.py`) |
| `overlaps` | two datasets that have patients in common, both ways round |

SQLite, WAL with synchronous=FULL: what was committed survives a power cut. One connection stays open, because opening
one takes longer than what is done with it.
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from privacy.dp.events import DpEvent
from privacy.errors import UnknownEvent
from site_agent.errors import LedgerUnavailable
from site_agent.sqlite_trouble import passes, words_of

VERSION = 2
WAIT_S = 30.0
"""How long another process may hold the file; a transaction lasts about as long as one composition."""

SPENDS = """CREATE TABLE spends (
    id INTEGER PRIMARY KEY AUTOINCREMENT, dataset TEXT NOT NULL, study TEXT NOT NULL, study_digest TEXT NOT NULL,
    round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    mechanism TEXT NOT NULL, steps INTEGER NOT NULL CHECK (steps > 0), delta REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'settled', 'released')),
    reserved_at REAL NOT NULL, settled_at REAL,
    UNIQUE (dataset, study_digest, round, attempt))"""
_ADD = """INSERT INTO totals
    SELECT NEW.dataset, NEW.study_digest, NEW.mechanism, NEW.study, NEW.delta, NEW.id, NEW.steps, 1,
        NEW.state = 'reserved'
    WHERE NEW.state != 'released'
    ON CONFLICT (dataset, study_digest, mechanism) DO UPDATE SET
        steps = steps + excluded.steps, rounds = rounds + 1, open_rounds = open_rounds + excluded.open_rounds;"""
_TAKE = """UPDATE totals SET
        steps = steps - OLD.steps, rounds = rounds - 1, open_rounds = open_rounds - (OLD.state = 'reserved')
    WHERE OLD.state != 'released' AND dataset = OLD.dataset AND study_digest = OLD.study_digest
        AND mechanism = OLD.mechanism;"""
_REST = (
    """CREATE TABLE totals (
    dataset TEXT NOT NULL, study_digest TEXT NOT NULL, mechanism TEXT NOT NULL,
    study TEXT NOT NULL, delta REAL NOT NULL, first INTEGER NOT NULL,
    steps INTEGER NOT NULL CHECK (steps >= 0), rounds INTEGER NOT NULL, open_rounds INTEGER NOT NULL,
    PRIMARY KEY (dataset, study_digest, mechanism)) WITHOUT ROWID""",
    f"CREATE TRIGGER spend_added AFTER INSERT ON spends BEGIN {_ADD} END",
    f"CREATE TRIGGER spend_changed AFTER UPDATE ON spends BEGIN {_TAKE} {_ADD} END",
    "CREATE TRIGGER spend_kept BEFORE DELETE ON spends BEGIN SELECT RAISE(ABORT, 'a spend is never deleted'); END",
    """CREATE TABLE patients (
    dataset TEXT PRIMARY KEY, key_id TEXT NOT NULL, marks BLOB NOT NULL, at REAL NOT NULL)""",
    """CREATE TABLE overlaps (
    dataset TEXT NOT NULL, other TEXT NOT NULL, patients INTEGER NOT NULL, PRIMARY KEY (dataset, other))""",
    f"PRAGMA user_version = {VERSION}",
)


class LedgerFile:
    """The file at `path`, made if there is none; its mode becomes 0600. Safe to use from several threads.

    Raises (both methods):
        LedgerUnavailable: The file cannot be read or written; nothing was changed.
        UnknownEvent: A file of version 1 holds an event that this version has no rule for.
    """

    def __init__(self, path: Path, *, connect: Callable[..., sqlite3.Connection] = sqlite3.connect) -> None:
        self._path = path
        self._connect = connect
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None
        self._inode = 0  # of the file that is open
        try:
            path.touch(mode=0o600)  # before SQLite makes it, so that it is never readable by others
            path.chmod(0o600)
        except OSError as error:
            raise LedgerUnavailable(f"{path.name} could not be opened: {error.strerror}") from error
        with self.transaction() as connection:
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found > VERSION:
                raise LedgerUnavailable(f"{path.name} was written by a newer version of this software ({found})")
            if found < VERSION:
                _upgrade(connection)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: on disk when the block ends, as before if it raises."""
        with self._lock:
            connection = self._connection()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._close()
                raise self._refused(error) from error
            except BaseException:
                self._close()
                raise

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with self._lock:
            self._close()

    def _refused(self, error: sqlite3.Error) -> LedgerUnavailable:
        words = words_of(error, WAIT_S)
        return LedgerUnavailable(f"{self._path.name} could not be used: {words}", passes=passes(error))

    def _connection(self) -> sqlite3.Connection:
        try:
            identity = self._path.stat().st_ino
        except OSError as error:
            raise LedgerUnavailable(f"{self._path.name} is not there any more: {error.strerror}") from error
        if self._open is not None and identity != self._inode:
            raise LedgerUnavailable(f"{self._path.name} was replaced while the agent was using it; start it again")
        if self._open is None:
            self._inode = identity
            try:
                self._open = self._connect(self._path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
                self._open.execute("PRAGMA journal_mode=WAL")
                self._open.execute("PRAGMA synchronous=FULL")
            except sqlite3.Error as error:
                self._close()
                raise self._refused(error) from error
        return self._open

    def _close(self) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            connection.close()  # without COMMIT this rolls back


def _upgrade(connection: sqlite3.Connection) -> None:
    """An empty file, or one of version 1, becomes one of this version; in the caller's transaction, so wholly."""
    old = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'spends'").fetchone()
    if old is not None:
        connection.execute("ALTER TABLE spends RENAME TO spends_1")
    for statement in (SPENDS, *_REST):
        connection.execute(statement)
    if old is None:
        return
    for *row, event, delta, state, reserved_at, settled_at in connection.execute(
        "SELECT id, dataset, study, study_digest, round, attempt, event, delta, state, reserved_at, settled_at"
        " FROM spends_1 ORDER BY id"
    ).fetchall():
        mechanism, steps = encode(_event_1(event))
        connection.execute(
            "INSERT INTO spends VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, mechanism, steps, delta, state, reserved_at, settled_at),
        )
    connection.execute("DROP TABLE spends_1")


def _event_1(text: str) -> DpEvent:
    try:
        record = json.loads(text)
    except ValueError as error:
        raise UnknownEvent(text[:80]) from error
    if not isinstance(record, dict):
        raise UnknownEvent(text[:80])
    return DpEvent.from_dict(record)


def encode(event: DpEvent) -> tuple[str, int]:
    """An event as it is stored: all but its steps, which are added up, and its steps."""
    record = event.to_dict()
    steps = int(record.pop("steps"))
    return json.dumps(record, sort_keys=True, separators=(",", ":")), steps


def decode(mechanism: str, steps: int) -> DpEvent:
    """What `encode` was given; raises UnknownEvent."""
    try:
        record = json.loads(mechanism)
    except ValueError as error:
        raise UnknownEvent(mechanism[:80]) from error
    if not isinstance(record, dict) or "steps" in record:
        raise UnknownEvent(mechanism[:80])
    return DpEvent.from_dict({**record, "steps": steps})

"""What a log needs of a disk, and the usual way to have it: entries in SQLite, tiles and checkpoint as files.

Log format section 7. Entries are the truth, files are derived from them and can be written again. Every durable step
goes through `Storage`, so that a test can break each one.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from audit.errors import LogCorrupt, LogUnwritable
from audit.storage_files import LogFiles, sync_directory

CHECKPOINT = "checkpoint"

_NEVER_DELETED = """
CREATE TRIGGER IF NOT EXISTS entry_is_never_deleted BEFORE DELETE ON entry
    BEGIN SELECT RAISE(ABORT, 'entries are never deleted'); END;
"""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS entry (
    leaf INTEGER PRIMARY KEY CHECK (leaf >= 0),
    bytes BLOB NOT NULL
);
CREATE TRIGGER IF NOT EXISTS entry_is_never_changed BEFORE UPDATE ON entry
    BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END;
{_NEVER_DELETED}"""


class Storage(Protocol):
    """What a log needs of a disk. A method that returns has made its effect durable."""

    def append(self, first: int, entries: Sequence[bytes]) -> None:
        """Store entries at leaves first, first + 1, ...; all of them or none."""

    def count(self, since: int = 0) -> int:
        """How many entries are stored; that there is none missing is looked at from leaf `since` on."""

    def entries(self, start: int, stop: int) -> list[bytes]:
        """Stored bytes of leaves start..stop, read from the disk."""

    def rows(self, start: int, stop: int) -> list[tuple[int, bytes]]:
        """Those of leaves start..stop that are stored, in order; some may have been dropped."""

    def drop(self, runs: Sequence[tuple[int, int]]) -> None:
        """Remove the entries of these leaves, (first, last) of each run; all of them or none."""

    def read(self, path: str) -> bytes | None:
        """A file's bytes, or None when there is no such file."""

    def write(self, path: str, data: bytes) -> None:
        """Put a complete file in place, instead of an older one if there is one."""

    def write_all(self, files: Sequence[tuple[str, bytes]]) -> None:
        """`write` for each of several files, in any order; some may be in place when it fails."""

    def remove(self, path: str) -> None:
        """Remove a file; harmless when there is none."""

    def prune(self, path: str) -> None:
        """Remove the partial tiles beside a full one; not durable, and harmless when it fails."""

    def check(self) -> None:
        """Ask the database to examine itself; raises LogCorrupt."""

    def close(self) -> None:
        """Let go of the lock and the database."""


class DirectoryStorage(LogFiles):
    """A folder on a local disk, with the entries in it.

        entries.sqlite3   WAL, synchronous=FULL; triggers forbid UPDATE and DELETE (against mistakes, not a proof)
        lock, public/     see `LogFiles`

    Raises:
        LogLocked: another process writes this log.
        LogUnwritable: the disk refuses; also from every method that writes.
        LogCorrupt: the database is not one.
    """

    def __init__(self, directory: Path, *, writable: bool) -> None:
        super().__init__(directory, writable=writable)
        self._mutex = threading.Lock()  # one SQLite connection, used from several threads
        try:
            self._database = self._connect(writable=writable)
        except OSError as error:
            self.close()
            raise LogUnwritable(directory, error.strerror or str(error)) from error
        except sqlite3.DatabaseError as error:
            self.close()
            raise _database_error(directory, error) from error

    def _connect(self, *, writable: bool) -> sqlite3.Connection:
        path = self._directory / "entries.sqlite3"
        uri = f"{path.resolve().as_uri()}?mode={'rwc' if writable else 'ro'}"
        database = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            if writable:
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("PRAGMA synchronous=FULL")
                database.executescript(_SCHEMA)
                sync_directory(self._directory)
            database.execute("SELECT count(*) FROM entry").fetchone()
        except (OSError, sqlite3.DatabaseError):
            database.close()
            raise
        return database

    def append(self, first: int, entries: Sequence[bytes]) -> None:
        """One transaction; its commit is fsynced (WAL, synchronous=FULL)."""
        rows = [(first + offset, data) for offset, data in enumerate(entries)]
        with self._mutex:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany("INSERT INTO entry (leaf, bytes) VALUES (?, ?)", rows)
                self._database.execute("COMMIT")
            except sqlite3.DatabaseError as error:
                with contextlib.suppress(sqlite3.DatabaseError):
                    self._database.execute("ROLLBACK")
                raise _database_error(self._directory, error) from error

    def count(self, since: int = 0) -> int:
        """Highest leaf + 1; raises LogCorrupt when leaves from `since` on are missing below it.

        Counting all of them reads the whole table, so an append counts those that are new.
        """
        ((rows, highest),) = self._select(
            "SELECT count(*), coalesce(max(leaf) + 1, ?1) FROM entry WHERE leaf >= ?1", (since,)
        )
        if since + rows != highest:
            raise LogCorrupt("entries.sqlite3", f"{highest} entries without a gap", f"{since + rows} entries")
        return int(highest)

    def entries(self, start: int, stop: int) -> list[bytes]:
        """In order; raises LogCorrupt when one is missing."""
        rows = self._select("SELECT bytes FROM entry WHERE leaf >= ? AND leaf < ? ORDER BY leaf", (start, stop))
        if len(rows) != stop - start:
            raise LogCorrupt("entries.sqlite3", f"entries {start} to {stop - 1}", f"{len(rows)} entries")
        found = [data for (data,) in rows]
        if not set(map(type, found)) <= {bytes}:
            raise LogCorrupt("entries.sqlite3", "bytes in every row", "another type")
        return found

    def rows(self, start: int, stop: int) -> list[tuple[int, bytes]]:
        """What is there, in order."""
        rows = self._select("SELECT leaf, bytes FROM entry WHERE leaf >= ? AND leaf < ? ORDER BY leaf", (start, stop))
        if not all(isinstance(row[1], bytes) for row in rows):
            raise LogCorrupt("entries.sqlite3", "bytes in every row", "another type")
        return rows

    def drop(self, runs: Sequence[tuple[int, int]]) -> None:
        """One transaction, for which the trigger is away; what was in the rows is overwritten, in the WAL too."""
        with self._mutex:
            try:
                self._database.execute("PRAGMA secure_delete=ON")
                self._database.execute("BEGIN IMMEDIATE")
                self._database.execute("DROP TRIGGER IF EXISTS entry_is_never_deleted")
                self._database.executemany("DELETE FROM entry WHERE leaf BETWEEN ? AND ?", runs)
                self._database.execute(_NEVER_DELETED)
                self._database.execute("COMMIT")
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.DatabaseError as error:
                with contextlib.suppress(sqlite3.DatabaseError):
                    self._database.execute("ROLLBACK")
                raise _database_error(self._directory, error) from error

    def check(self) -> None:
        """PRAGMA integrity_check."""
        ((answer,),) = self._select("PRAGMA integrity_check(1)")
        if answer != "ok":
            raise LogCorrupt("entries.sqlite3", "a sound database", str(answer))

    def close(self) -> None:
        """Close the database, then let go of the lock."""
        if hasattr(self, "_database"):
            self._database.close()
        super().close()

    def _select(self, question: str, values: Sequence[int] = ()) -> list[Any]:
        with self._mutex:
            try:
                return self._database.execute(question, values).fetchall()
            except sqlite3.DatabaseError as error:
                raise _database_error(self._directory, error) from error


def open_storage(directory: Path, entries_url: str | None = None, *, writable: bool) -> Storage:
    """A log's folder, with its entries in it, or in PostgreSQL at `entries_url`.

    Raises:
        LogLocked, LogUnwritable, LogCorrupt: see `DirectoryStorage` and `audit.storage_postgres`.
    """
    if entries_url is None:
        return DirectoryStorage(directory, writable=writable)
    try:
        from audit.storage_postgres import PostgresStorage  # noqa: PLC0415 - psycopg is installed where it is wanted
    except ImportError as error:
        package = "pip install 'hospital-consortium[postgres]'"
        raise LogUnwritable(directory, f"its entries are in PostgreSQL, which needs psycopg: {package}") from error
    return PostgresStorage(directory, entries_url, writable=writable)


def _database_error(directory: Path, error: sqlite3.DatabaseError) -> LogCorrupt | LogUnwritable:
    """SQLite's errors: a refused write, or a database that is not one."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}:
        return LogCorrupt("entries.sqlite3", "the log's database", str(error))
    return LogUnwritable(directory, str(error))

"""The log on a disk: entries in SQLite, tiles and checkpoint as files. The only disk access of a log.

Log format section 7. Entries are the truth, files are derived from them and can be written again; a file is complete
and durable before anything that names it. Every durable step goes through `Storage`, so that a test can break each one.
"""

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from audit.errors import LogCorrupt, LogLocked, LogUnwritable

CHECKPOINT = "checkpoint"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    leaf INTEGER PRIMARY KEY CHECK (leaf >= 0),
    bytes BLOB NOT NULL
);
CREATE TRIGGER IF NOT EXISTS entry_is_never_changed BEFORE UPDATE ON entry
    BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END;
CREATE TRIGGER IF NOT EXISTS entry_is_never_deleted BEFORE DELETE ON entry
    BEGIN SELECT RAISE(ABORT, 'entries are never deleted'); END;
"""


class Storage(Protocol):
    """What a log needs of a disk. A method that returns has made its effect durable."""

    def append(self, first: int, entries: Sequence[bytes]) -> None:
        """Store entries at leaves first, first + 1, ...; all of them or none."""

    def count(self, since: int = 0) -> int:
        """How many entries are stored; that there is none missing is looked at from leaf `since` on."""

    def entries(self, start: int, stop: int) -> list[bytes]:
        """Stored bytes of leaves start..stop, read from the disk."""

    def read(self, path: str) -> bytes | None:
        """A file's bytes, or None when there is no such file."""

    def write(self, path: str, data: bytes) -> None:
        """Put a complete file in place, instead of an older one if there is one."""

    def prune(self, path: str) -> None:
        """Remove the partial tiles beside a full one; not durable, and harmless when it fails."""

    def check(self) -> None:
        """Ask the database to examine itself; raises LogCorrupt."""

    def close(self) -> None:
        """Let go of the lock and the database."""


class DirectoryStorage:
    """A folder on a local disk.

        entries.sqlite3   WAL, synchronous=FULL; triggers forbid UPDATE and DELETE (against mistakes, not a proof)
        lock              held with flock while the log may be written
        public/           checkpoint and tile/..., exactly as they may be served

    Raises:
        LogLocked: another process writes this log.
        LogUnwritable: the disk refuses; also from every method that writes.
        LogCorrupt: the database is not one.
    """

    def __init__(self, directory: Path, *, writable: bool) -> None:
        self._directory = directory
        self._public = directory / "public"
        self._lock_fd: int | None = None
        self._mutex = threading.Lock()  # one SQLite connection, used from several threads
        try:
            if writable:
                make_directories(self._public)
                self._lock_fd = _lock(directory)
            self._database = self._connect(writable=writable)
        except OSError as error:
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
        with self._mutex:
            rows, highest = self._database.execute(
                "SELECT count(*), coalesce(max(leaf) + 1, ?1) FROM entry WHERE leaf >= ?1", (since,)
            ).fetchone()
        if since + rows != highest:
            raise LogCorrupt("entries.sqlite3", f"{highest} entries without a gap", f"{since + rows} entries")
        return int(highest)

    def entries(self, start: int, stop: int) -> list[bytes]:
        """In order; raises LogCorrupt when one is missing."""
        with self._mutex:
            rows = self._database.execute(
                "SELECT bytes FROM entry WHERE leaf >= ? AND leaf < ? ORDER BY leaf", (start, stop)
            ).fetchall()
        if len(rows) != stop - start:
            raise LogCorrupt("entries.sqlite3", f"entries {start} to {stop - 1}", f"{len(rows)} entries")
        if not all(isinstance(row[0], bytes) for row in rows):
            raise LogCorrupt("entries.sqlite3", "bytes in every row", "another type")
        return [row[0] for row in rows]

    def read(self, path: str) -> bytes | None:
        """From `public/`."""
        try:
            return (self._public / PurePosixPath(path)).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LogCorrupt(path, "a readable file", error.strerror or str(error)) from error

    def write(self, path: str, data: bytes) -> None:
        """Temporary file, fsync, rename, fsync of the folder."""
        target = self._public / PurePosixPath(path)
        try:
            make_directories(target.parent)
            write_durably(target, data)
        except OSError as error:
            raise LogUnwritable(self._directory, error.strerror or str(error)) from error

    def prune(self, path: str) -> None:
        """Remove `<path>.p` and what is in it."""
        folder = self._public / PurePosixPath(f"{path}.p")
        with contextlib.suppress(OSError):
            for partial in folder.iterdir():
                partial.unlink()
            folder.rmdir()

    def check(self) -> None:
        """PRAGMA integrity_check."""
        with self._mutex:
            try:
                (answer,) = self._database.execute("PRAGMA integrity_check(1)").fetchone()
            except sqlite3.DatabaseError as error:
                raise _database_error(self._directory, error) from error
        if answer != "ok":
            raise LogCorrupt("entries.sqlite3", "a sound database", str(answer))

    def close(self) -> None:
        """Close the database, then let go of the lock."""
        if hasattr(self, "_database"):
            self._database.close()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None


def _lock(directory: Path) -> int:
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise LogLocked(directory) from error
    return descriptor


def _database_error(directory: Path, error: sqlite3.DatabaseError) -> LogCorrupt | LogUnwritable:
    """SQLite's errors: a refused write, or a database that is not one."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}:
        return LogCorrupt("entries.sqlite3", "the log's database", str(error))
    return LogUnwritable(directory, str(error))


def write_durably(target: Path, data: bytes) -> None:
    """Replace `target` by a complete, synced file; raises OSError and then leaves no temporary file behind."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        with open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor, not a path
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(target)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_directory(target.parent)


def make_directories(directory: Path) -> None:
    """Create a folder and its parents, each durable in its own parent."""
    if directory.is_dir():
        return
    make_directories(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Sync a folder, so that the names in it survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

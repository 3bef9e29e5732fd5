"""A log whose entries are in PostgreSQL; its tiles and checkpoint are files, as with every other log.

Log format section 7, ADR 29. What must not be lost is then where a hospital's or a university's database team backs
things up. The files stay in a folder: they are served as they are, and the checkpoint among them is what shows that the
database was set back to an older state. Those that cannot be derived again are in the database as well, so that a
machine without the folder, or with an older one, can go on.

One connection for the life of the log, never another in its place: with it goes the lock, so a process that lost it
stops, and another may have taken over by then.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from audit import tiles
from audit.checkpoint import parse_checkpoint
from audit.errors import LogCorrupt, LogLocked, LogUnwritable, VerificationError
from audit.storage_files import LogFiles

TABLE = "consortium_log_entry"
FILES = "consortium_log_file"
_CHECKPOINT = "checkpoint"
_DERIVED = "tile/"
_LOCK = 0x636F6E73
"""Which advisory lock: this and the schema's name, in one database."""
_CONNECT_S = 10
_PUT = f"INSERT INTO {FILES} VALUES (%s, %s) ON CONFLICT (path) DO UPDATE SET bytes = excluded.bytes"  # noqa: S608  # a constant

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (leaf bigint PRIMARY KEY CHECK (leaf >= 0), bytes bytea NOT NULL);
CREATE TABLE IF NOT EXISTS {FILES} (path text PRIMARY KEY, bytes bytea NOT NULL);
CREATE OR REPLACE FUNCTION {TABLE}_is_never_changed() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'entries are never changed or deleted'; END $$;
CREATE OR REPLACE TRIGGER row_is_never_changed BEFORE UPDATE OR DELETE ON {TABLE}
    FOR EACH ROW EXECUTE FUNCTION {TABLE}_is_never_changed();
CREATE OR REPLACE TRIGGER table_is_never_emptied BEFORE TRUNCATE ON {TABLE}
    FOR EACH STATEMENT EXECUTE FUNCTION {TABLE}_is_never_changed();
"""


class PostgresStorage(LogFiles):
    """A folder for the files, and two tables in the schema that the address leads to: entries, and files kept twice.

    The triggers forbid UPDATE, DELETE and TRUNCATE: against mistakes, not a proof. Two processes cannot write at once,
    not even on two machines: an advisory lock of the database is held, besides the one of the folder.

    Raises:
        LogLocked: another process writes this log.
        LogUnwritable: the disk or the database refuses, or the database would not make a commit durable.
        LogCorrupt: there is no such table.
    """

    def __init__(self, directory: Path, url: str, *, writable: bool) -> None:
        super().__init__(directory, writable=writable)
        self._mutex = threading.Lock()  # one connection, used from several threads
        try:
            address = url.replace("postgresql+psycopg://", "postgresql://", 1)
            self._connection = psycopg.connect(address, autocommit=True, connect_timeout=_CONNECT_S)
            self._prepare(writable=writable)
        except psycopg.Error as error:
            self.close()
            raise self._refused(error) from error
        except (LogLocked, LogUnwritable):
            self.close()
            raise

    def _prepare(self, *, writable: bool) -> None:
        ((durable,),) = self._ask("SHOW fsync")
        if durable != "on":
            raise LogUnwritable(self._directory, "PostgreSQL runs with fsync off, and would lose what was acknowledged")
        if not writable:
            self._connection.execute("SET default_transaction_read_only = on")
            self._connection.execute(f"SELECT FROM {TABLE} LIMIT 1")
            return
        self._connection.execute("SET synchronous_commit = on")
        ((alone,),) = self._ask("SELECT pg_try_advisory_lock(%s, hashtext(current_schema()))", (_LOCK,))
        if not alone:
            raise LogLocked(self._directory)
        self._connection.execute("SET client_min_messages = warning")  # not that the table is there already
        self._connection.execute(_SCHEMA)
        self._reconcile()

    def _reconcile(self) -> None:
        """The newer of the folder's files and the database's are in both. Which is newer, their checkpoints say.

        A folder that is ahead of the database shows that the database was set back: the log finds that out by itself.
        """
        kept = dict(self._ask(f"SELECT path, bytes FROM {FILES}"))  # noqa: S608  # a constant
        here = _size_in(super().read(_CHECKPOINT))
        if here > _size_in(kept.get(_CHECKPOINT)):
            files = (path for path in self._public.rglob("*") if path.is_file())
            paths = [path.relative_to(self._public).as_posix() for path in files]
            for path in paths:
                if not path.startswith(_DERIVED) and (data := super().read(path)) is not None:
                    self._connection.execute(_PUT, (path, data))
            return
        changed = [(path, data) for path, data in kept.items() if super(PostgresStorage, self).read(path) != data]
        changed.sort(key=lambda file: file[0] == _CHECKPOINT)  # that last: half of it is begun again
        for path, data in changed:
            super().write_all([(path, data)])

    def write_all(self, files: Sequence[tuple[str, bytes]]) -> None:
        """In the folder, and before that in the database what cannot be derived from entries."""
        kept = [file for file in files if not file[0].startswith(_DERIVED)]
        if kept:
            with self._mutex:
                try:
                    with self._connection.cursor() as cursor:
                        cursor.executemany(_PUT, kept)
                except psycopg.Error as error:
                    raise self._refused(error) from error
        super().write_all(files)

    def remove(self, path: str) -> None:
        """From the database, then from the folder."""
        with self._mutex:
            try:
                self._connection.execute(f"DELETE FROM {FILES} WHERE path = %s", (path,))  # noqa: S608  # a constant
            except psycopg.Error as error:
                raise self._refused(error) from error
        super().remove(path)

    def append(self, first: int, entries: Sequence[bytes]) -> None:
        """One transaction, whose commit PostgreSQL syncs before it answers."""
        with self._mutex:
            try:
                with (
                    self._connection.transaction(),
                    self._connection.cursor() as cursor,
                    cursor.copy(f"COPY {TABLE} (leaf, bytes) FROM STDIN (FORMAT BINARY)") as copy,
                ):
                    copy.set_types(["int8", "bytea"])
                    for offset, data in enumerate(entries):
                        copy.write_row((first + offset, data))
            except psycopg.Error as error:
                raise self._refused(error) from error

    def count(self, since: int = 0) -> int:
        """Highest leaf + 1; raises LogCorrupt when leaves from `since` on are missing below it."""
        ((rows, highest),) = self._select(
            f"SELECT count(*), coalesce(max(leaf) + 1, %s) FROM {TABLE} WHERE leaf >= %s",  # noqa: S608  # a constant
            (since, since),
        )
        if since + rows != highest:
            raise LogCorrupt(TABLE, f"{highest} entries without a gap", f"{since + rows} entries")
        return int(highest)

    def entries(self, start: int, stop: int) -> list[bytes]:
        """In order; raises LogCorrupt when one is missing."""
        rows = self._select(
            f"SELECT bytes FROM {TABLE} WHERE leaf >= %s AND leaf < %s ORDER BY leaf",  # noqa: S608  # a constant
            (start, stop),
        )
        if len(rows) != stop - start:
            raise LogCorrupt(TABLE, f"entries {start} to {stop - 1}", f"{len(rows)} entries")
        return [row[0] for row in rows]

    def rows(self, start: int, stop: int) -> list[tuple[int, bytes]]:
        """What is there, in order."""
        return self._select(
            f"SELECT leaf, bytes FROM {TABLE} WHERE leaf >= %s AND leaf < %s ORDER BY leaf",  # noqa: S608  # a constant
            (start, stop),
        )

    def drop(self, runs: Sequence[tuple[int, int]]) -> None:
        """One transaction, for which the trigger is off. The database's own VACUUM overwrites what was in the rows.

        The hashes of what goes cannot be derived any more: their tiles come into the database with it.
        """
        numbers = {leaf // tiles.WIDTH for first, last in runs for leaf in range(first, last + 1, tiles.WIDTH)}
        numbers |= {last // tiles.WIDTH for _, last in runs}
        paths = [tiles.Tile(level=0, number=number, width=tiles.WIDTH).path() for number in sorted(numbers)]
        hashes = [(path, data) for path in paths if (data := self.read(path)) is not None]
        with self._mutex:
            try:
                with self._connection.transaction(), self._connection.cursor() as cursor:
                    cursor.executemany(_PUT, hashes)
                    cursor.execute(f"ALTER TABLE {TABLE} DISABLE TRIGGER row_is_never_changed")
                    cursor.executemany(f"DELETE FROM {TABLE} WHERE leaf BETWEEN %s AND %s", runs)  # noqa: S608  # a constant
                    cursor.execute(f"ALTER TABLE {TABLE} ENABLE TRIGGER row_is_never_changed")
            except psycopg.Error as error:
                raise self._refused(error) from error

    def check(self) -> None:
        """Nothing of its own: that no entry is missing, and what is in them, the log compares with its root."""

    def close(self) -> None:
        """Close the connection, and with it let go of its lock, then of the folder's."""
        if hasattr(self, "_connection"):
            self._connection.close()
        super().close()

    def _select(self, question: str, values: Sequence[int]) -> list[Any]:
        with self._mutex:
            try:
                return self._ask(question, values)
            except psycopg.Error as error:
                raise self._refused(error) from error

    def _ask(self, question: str, values: Sequence[int] = ()) -> list[Any]:
        with self._connection.cursor(binary=True) as cursor:
            return cursor.execute(question, values).fetchall()

    def _refused(self, error: psycopg.Error) -> LogCorrupt | LogUnwritable:
        """A database without the table is no log; everything else may pass: a server that restarts, a full disk."""
        if isinstance(error, psycopg.errors.UndefinedTable):
            return LogCorrupt(TABLE, "the log's table", "none")
        return LogUnwritable(self._directory, f"PostgreSQL: {' '.join(str(error).split())[:300]}")


def _size_in(checkpoint: bytes | None) -> int:
    """How many entries a checkpoint covers; -1 without one. The log verifies it later, this only compares."""
    if checkpoint is None:
        return -1
    try:
        return parse_checkpoint(checkpoint).checkpoint.size
    except VerificationError:
        return -1

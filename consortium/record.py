"""State and log move together: entries are written with the state they describe, then moved to the log.

1. Within the transaction that changes state, entries go to the `outbox` table.
2. After the commit they are appended to the log, durably, in order.
3. Only then are they deleted from the outbox.
A crash between 2 and 3 is seen at the next start: entries whose bytes are already in the log's tail are not appended
twice. Every entry has an identity of its own, so equal bytes are the same entry.
"""

import os
import time
from collections.abc import Sequence
from threading import Lock
from typing import Any

import sqlalchemy as sa

from audit import entries
from audit.log import Log
from consortium.database import Database, outbox

_TAIL = 4096
"""How far back in the log an entry of the outbox may already be; more if the outbox itself is longer."""

LINE_CHARACTERS_MAX = 200


class Recorder:
    """The only writer of the log."""

    def __init__(self, database: Database, log: Log) -> None:
        self._database = database
        self._log = log
        self._lock = Lock()
        self._recover()

    @property
    def log(self) -> Log:
        """The log, to read."""
        return self._log

    def add(self, connection: sa.Connection, entries: Sequence[bytes]) -> None:
        """Step 1: queue entries inside the caller's transaction."""
        if entries:
            connection.execute(sa.insert(outbox), [{"entry": entry} for entry in entries])

    def flush(self) -> None:
        """Steps 2 and 3, for whatever is queued; entries that another thread queued are moved along."""
        with self._lock:
            rows = self._queued()
            if rows:
                self._log.append([row.entry for row in rows])
                self._forget([row.id for row in rows])

    def record(self, *entries: bytes) -> None:
        """All three steps, for entries that go with no other state."""
        with self._database.transaction() as connection:
            self.add(connection, entries)
        self.flush()

    def _recover(self) -> None:
        rows = self._queued()
        if not rows:
            return
        size = self._log.size
        tail = set(self._log.entries(max(0, size - max(_TAIL, 2 * len(rows))), size))
        self._forget([row.id for row in rows if row.entry in tail])
        self.flush()

    def _queued(self) -> list[sa.Row[Any]]:
        with self._database.transaction() as connection:
            return list(connection.execute(sa.select(outbox.c.id, outbox.c.entry).order_by(outbox.c.id)))

    def _forget(self, ids: Sequence[int]) -> None:
        if ids:
            with self._database.transaction() as connection:
                connection.execute(
                    sa.delete(outbox).where(outbox.c.id == sa.bindparam("done")), [{"done": i} for i in ids]
                )


def now_stamp() -> entries.Stamp:
    """Identity and time of an entry that is made now."""
    return entries.stamp(time.time_ns() // 1_000_000, os.urandom(10))


def one_line(text: str) -> str:
    """Text from elsewhere, short and printable enough for an entry's Line."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable[:LINE_CHARACTERS_MAX].strip() or "unspecified"

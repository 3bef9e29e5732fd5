"""State and log move together: entries are written with the state they describe, then moved to the log.

1. Within the transaction that changes state, entries go to the `outbox` table.
2. After the commit they are appended to the log, durably, in order.
3. Only then are they deleted from the outbox.
A crash between 2 and 3 is seen at the next start: entries whose bytes are already in the log's tail are not appended
twice. Every entry has an identity of its own, so equal bytes are the same entry.

What need not be in the log at once is appended in the background (`flush_soon`): it is durable in the outbox by then,
and nothing that is queued later overtakes it. An append costs as much as a small round, however long, so there is
about one in a second while rounds follow each other fast (ADR 13). Whoever reads the log through this class sees
everything in it.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event, Lock
from typing import Any

import sqlalchemy as sa
import structlog

from audit import entries
from audit.checkpoint import SignedCheckpoint
from audit.errors import AuditError
from audit.log import Log
from consortium.database import Database, outbox
from consortium.errors import ConsortiumError

log = structlog.get_logger(__name__)

GATHER_S = 0.01
"""The background waits so long for entries of other hospitals, which come at nearly the same time."""
APPEND_EVERY_S = 1.0
"""And so long after it appended last."""
_TAIL = 4096
"""How far back in the log an entry of the outbox may already be; more if the outbox itself is longer."""


class Recorder:
    """The only writer of the log."""

    def __init__(self, database: Database, log: Log, *, held: bool = False) -> None:
        """`held`: what is recorded is durable, and nothing is signed, until `release` (`start_check.py`)."""
        self._database = database
        self._log = log
        self._lock = Lock()
        self._background = ThreadPoolExecutor(1, thread_name_prefix="log")
        self._soon: Future[None] | None = None
        self._closed = Event()
        self._held = held
        self._appended_s = 0.0  # when the background appended last
        self._appended: list[int] = []  # rows of the outbox that are in the log and not deleted yet
        self.recovered = 0  # entries that an earlier process had queued and not appended
        self._recover()

    @property
    def log(self) -> Log:
        """The log, to read, with everything in it that was recorded before."""
        self.flush()
        return self._log

    @property
    def database(self) -> Database:
        """The state that moves together with the log."""
        return self._database

    @property
    def written(self) -> Log:
        """The log as of its present checkpoint, without waiting for what is queued."""
        return self._log

    def latest(self) -> SignedCheckpoint:
        """The newest checkpoint that is signed and durable."""
        return self._log.checkpoint()

    @property
    def appended(self) -> int:
        """How many entries the log has, without those that are queued: nothing is waited for."""
        return self._log.size

    def close(self) -> None:
        """Finish what is being appended; what is still queued then is appended at the next start."""
        self._closed.set()
        self._background.shutdown(cancel_futures=True)

    def add(self, connection: sa.Connection, entries: Sequence[bytes]) -> None:
        """Step 1: queue entries inside the caller's transaction."""
        if entries:
            connection.execute(sa.insert(outbox), [{"entry": entry} for entry in entries])

    def release(self) -> None:
        """Sign from now on; what was recorded while nothing was goes into the log."""
        self._held = False
        self.flush()

    def flush(self) -> None:
        """Steps 2 and 3, for whatever is queued; entries that another thread queued are moved along."""
        if self._held:
            return
        with self._lock:
            self._append()
            if self._appended:
                self._queued()

    def flush_soon(self) -> None:
        """Step 2, in the background; step 3 with the next. One that has not begun yet serves everybody."""
        if self._held:
            return
        if not self._closed.is_set() and (self._soon is None or self._soon.running() or self._soon.done()):
            self._soon = self._background.submit(self._append_quietly)

    def _append_quietly(self) -> None:
        self._closed.wait(max(GATHER_S, self._appended_s + APPEND_EVERY_S - time.monotonic()))
        try:
            with self._lock:
                self._append()
            self._appended_s = time.monotonic()
        # Nobody waits for this: the entries stay queued, and the next flush raises for its caller.
        except (AuditError, ConsortiumError) as error:
            log.error("log.append_failed", reason=str(error), advice=error.advice())  # noqa: TRY400 - no defect here
        except Exception as error:
            log.exception("log.append_failed", reason=str(error), error=type(error).__name__)

    def record(self, *entries: bytes) -> None:
        """All three steps, for entries that go with no other state."""
        with self._database.transaction() as connection:
            self.add(connection, entries)
        self.flush()

    def record_soon(self, *entries: bytes) -> None:
        """Step 1 now and the others in the background, for entries that go with no other state."""
        with self._database.transaction() as connection:
            self.add(connection, entries)
        self.flush_soon()

    def _recover(self) -> None:
        rows = self._queued()
        if not rows:
            return
        size = self._log.size
        tail = set(self._log.known(max(0, size - max(_TAIL, 2 * len(rows))), size))
        self._appended = [row.id for row in rows if row.entry in tail]
        self.recovered = len(rows) - len(self._appended)
        self.flush()

    def _append(self) -> None:
        rows = self._queued()
        if rows:
            self._log.append([row.entry for row in rows])
            self._appended = [row.id for row in rows]

    def _queued(self) -> list[sa.Row[Any]]:
        """What is to be appended, oldest first; what has been is deleted in the same transaction."""
        wanted = sa.select(outbox.c.id, outbox.c.entry).order_by(outbox.c.id)
        if not self._appended:
            with self._database.reading() as connection:
                return list(connection.execute(wanted))
        with self._database.transaction() as connection:
            done = [{"done": number} for number in self._appended]
            connection.execute(sa.delete(outbox).where(outbox.c.id == sa.bindparam("done")), done)
            rows: list[sa.Row[Any]] = list(connection.execute(wanted))
        self._appended = []
        return rows


def now_stamp() -> entries.Stamp:
    """Identity and time of an entry that is made now."""
    return entries.stamp(time.time_ns() // 1_000_000, os.urandom(10))

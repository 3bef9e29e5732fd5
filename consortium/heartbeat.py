"""Signs of life: a `heartbeat` when the coordinator begins to serve, at every interval, and when it stops in order.

What `audit.heartbeats` finds missing later is missing for everybody to see.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from audit import entries
from audit.errors import AuditError
from consortium.access_record import AccessRecord
from consortium.errors import ConsortiumError
from consortium.record import Recorder, now_stamp

log = structlog.get_logger(__name__)


class Heartbeats:
    """Writes them, and with each what was only counted of denied access. Clocks are in seconds."""

    def __init__(
        self,
        recorder: Recorder,
        access: AccessRecord,
        interval_s: int,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._recorder = recorder
        self._access = access
        self._interval_s = interval_s
        self._monotonic, self._wall = monotonic, wall
        self._started = self._last = (monotonic(), wall())

    def write(self, state: str) -> None:
        """One heartbeat: "started", "alive" or "stopping"; durable when this returns."""
        now = (self._monotonic(), self._wall())
        moved_s = (now[1] - self._last[1]) - (now[0] - self._last[0])
        beat = entries.Heartbeat(
            **now_stamp(),
            state=state,
            uptime_s=int(now[0] - self._started[0]),
            interval_s=self._interval_s,
            clock_moved_ms=round(moved_s * 1000),
        )
        self._last = now
        self._access.settle()
        self._recorder.record(entries.entry_bytes(beat))

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """From "started" to "stopping"; a body that raises ends without a word, and the log will show that."""
        await asyncio.to_thread(self.write, "started")
        task = asyncio.create_task(self._go_on())
        try:
            yield
            await asyncio.to_thread(self.write, "stopping")
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _go_on(self) -> None:
        while self._interval_s:
            await asyncio.sleep(self._interval_s)
            try:
                await asyncio.to_thread(self.write, "alive")
            # A disk that is full now may not be in an hour; until then the gap says so.
            except (AuditError, ConsortiumError) as error:
                log.error("heartbeat.not_written", reason=str(error), advice=error.advice())  # noqa: TRY400 - no defect
            except Exception:
                log.exception("heartbeat.not_written")

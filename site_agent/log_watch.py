"""The hospital as a witness: follow the log over the wire, hold it against what is known here, cosign it.

The shell around `log_mirror.py` and `followed_log.py`. Whatever the coordinator says or keeps silent about, the log is
asked for when a session begins and every `POLL_S` after that; what is broken ends the agent with LogBroken.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Protocol

import structlog

from audit import entries
from audit.errors import AuditError
from audit.mirror import Growth
from consortium.contract.messages import LogGrowth
from consortium.contract.names import SiteId
from consortium.wire.client import CoordinatorClient
from consortium.wire.errors import WireError, WireViolation
from consortium.wire.limits import LOG_GAP_MAX
from site_agent.followed_log import LogBroken
from site_agent.heartbeat import ClockSeen
from site_agent.home import AgentHome
from site_agent.log_mirror import LogMirror
from site_agent.log_objection import object_to
from site_agent.signed_events import SignedEvents
from site_agent.store import Store

log = structlog.get_logger(__name__)

POLL_S = 30.0
"""The log is asked for this often, told of a new checkpoint or not."""
MERGE_DELAY_S = 60.0
"""An entry that was handed over is in every checkpoint fetched later than this. An honest log has it in seconds."""
OBJECTION_S = 2.0
"""How long an agent that stops over the log takes to tell the coordinator so."""
READ_PATIENCE_S, READ_EVERY_S = 10.0, 0.2
"""How long a plan with other keys than this hospital knows waits for the log to say why."""
PATIENCE_S = 120.0
"""A log that is not witnessed for so long, while this hospital is connected, is no ground for another round."""
LOOK_AGAIN_S = 20.0
"""Before a round is declined for it the log is asked for once more, and the answer waited for so long."""


class HandedOver(Protocol):
    """The connection, as far as it knows what was handed over when."""

    def acknowledged_before(self, moment_s: float) -> int:
        """The counter of the last entry that the coordinator had taken in by then (monotonic clock)."""

    async def submit_events(self) -> None:
        """Hand over what is signed and not in the log yet."""


class LogWatch:
    """This hospital's part in watching the log."""

    def __init__(self, home: AgentHome, store: Store, line: HandedOver) -> None:
        self._home = home
        self._store = store
        self._line = line
        self._mirror: LogMirror | None = None
        self._opening: asyncio.Task[LogMirror] | None = None  # the copy, while it is read back from the disk
        self._woken = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []  # for the log to have been asked for once more
        self._marks: deque[tuple[float, int]] = deque([(0.0, 1)], maxlen=4096)  # when the copy had how many entries
        self._connected_s: float | None = None
        self._is_running = False  # whether the log is followed, or about to be
        self.cosigned = 0  # entries of the copy that were cosigned last, by this process
        self.clock = ClockSeen()

    def wake(self) -> None:
        """There is a checkpoint to cosign."""
        self._woken.set()

    async def look_again(self) -> None:
        """Have the log asked for now and come back when that is done, or has failed, or takes `LOOK_AGAIN_S`.

        What others cosigned a moment ago is known here once the log was asked for after that.
        """
        asked = asyncio.get_running_loop().create_future()
        self._waiting.append(asked)
        self._woken.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AGAIN_S):
                await asked

    async def run(self, client: CoordinatorClient) -> None:
        """Follow the log for as long as this connection lives.

        Raises:
            LogBroken: The log contradicts itself, or this hospital.
            LogLocked, LogCorrupt, LogFork: The copy here cannot be used.
        """
        self._is_running = True
        try:
            if self._mirror is None:
                self._mirror = await self._open()
            self._connected_s = time.monotonic()
            while True:
                self._woken.clear()
                waiting, self._waiting = self._waiting, []
                try:
                    await self._enrol_key(self._mirror)
                    await self._follow(self._mirror, client)
                except (WireError, WireViolation) as error:
                    log.warning("log.not_followed", reason=str(error))
                except LogBroken as broken:
                    await self._object(self._mirror, broken)
                    raise
                except AuditError as error:  # a full disk, most likely: nothing is cosigned that is not kept
                    log.warning("log.not_kept", reason=str(error), advice=error.advice())
                finally:
                    for one in waiting:
                        if not one.done():  # who waited has given up
                            one.set_result(None)
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._woken.wait()
        finally:
            self._connected_s, self._is_running = None, False

    async def _open(self) -> LogMirror:
        """Open the copy, once: a connection that ends meanwhile leaves it to the next, and does not open it twice."""
        if self._opening is None:
            self._opening = asyncio.create_task(asyncio.to_thread(LogMirror, self._home, self._store))
        try:
            mirror = await asyncio.shield(self._opening)
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._opening = None
            raise
        self._opening = None
        return mirror

    async def _object(self, mirror: LogMirror, broken: LogBroken) -> None:
        """Say so in this hospital's own chain, and to the coordinator if it still listens."""
        news = await asyncio.to_thread(
            object_to,
            self._home,
            self._store,
            broken,
            witness=mirror.signer.key.name,
            cosigned=self.cosigned or None,
            missing=mirror.read.own_entries + 1,
            keys=mirror.read.keys.accepted,
        )
        if news:
            with suppress(WireError, WireViolation, TimeoutError):  # it is kept, and handed over when one answers again
                async with asyncio.timeout(OBJECTION_S):
                    await self._line.submit_events()

    async def _enrol_key(self, mirror: LogMirror) -> None:
        """Tell the log which key this hospital cosigns with, once."""
        vkey = mirror.signer.key.vkey()
        if mirror.read.enrolled_key == vkey:
            return

        def say() -> None:
            if not any(vkey.encode() in entry for entry in self._store.signed_entries()):
                SignedEvents(self._home, self._store).add(entries.WitnessEnrolled, vkey=vkey)

        await asyncio.to_thread(say)
        await self._line.submit_events()

    async def _follow(self, mirror: LogMirror, client: CoordinatorClient) -> None:
        """Fetch what the copy lacks, judge it, cosign it."""
        asked_s, before = time.monotonic(), mirror.read.coordinator_ts
        parts = client.follow_log(mirror.position())
        growth = await anext(parts)
        assert isinstance(growth, LogGrowth)  # follow_log sees to the order
        with await _begun(mirror, growth) as growing:
            _require_bounded(growing)
            async for part in parts:
                assert not isinstance(part, LogGrowth)
                await asyncio.to_thread(mirror.add, growing, part)
            await asyncio.to_thread(mirror.complete, growing)
        self._marks.append((time.monotonic(), mirror.size))
        if mirror.read.coordinator_ts != before:
            self.clock.take(mirror.read.coordinator_ts, time.time())
        handed_over = self._line.acknowledged_before(asked_s - MERGE_DELAY_S)
        note = await asyncio.to_thread(self._judge, mirror, growth.cosigned, handed_over)
        size = mirror.size
        await client.cosign_log(note)
        self.cosigned = size

    def _judge(self, mirror: LogMirror, cosigned: Iterable[bytes], handed_over: int) -> bytes:
        mirror.hear(cosigned)
        mirror.require_own(handed_over)
        note = mirror.cosign()
        mirror.hear([note])
        mirror.keep_cosignatures()
        return note

    def unwitnessed_s(self, roster: Iterable[SiteId], needed: int) -> float:
        """For how long, while connected, this hospital has seen more of the log than so many hospitals cosigned."""
        if self._connected_s is None:
            return 0.0
        covered = self._mirror.read.covered(roster, needed) if self._mirror is not None else 0
        since = next((at for at, size in self._marks if size > covered), None)
        return 0.0 if since is None else time.monotonic() - max(since, self._connected_s)

    async def read_until(self, holds: Callable[[], bool]) -> None:
        """Read the log again until something holds, for at most READ_PATIENCE_S and while there is a connection."""
        until_s = time.monotonic() + READ_PATIENCE_S
        while time.monotonic() < until_s and self._is_running:
            self._woken.set()
            await asyncio.sleep(READ_EVERY_S)
            if await asyncio.to_thread(holds):
                return

    def endorsed_before(self) -> Mapping[str, str]:
        """See `FollowedLog.endorsed_before`."""
        return {} if self._mirror is None else self._mirror.read.endorsed_before

    async def close(self) -> None:
        """Let go of the copy."""
        if self._opening is not None:
            with suppress(AuditError, LogBroken):
                self._mirror = await self._open()
        if self._mirror is not None:
            await asyncio.to_thread(self._mirror.close)
            self._mirror = None


async def _begun(mirror: LogMirror, growth: LogGrowth) -> Growth:
    """See `LogMirror.begin`; if the connection ends meanwhile, nothing of it stays open."""
    beginning = asyncio.create_task(asyncio.to_thread(mirror.begin, growth))
    try:
        return await asyncio.shield(beginning)
    except asyncio.CancelledError:
        beginning.add_done_callback(_let_go)
        raise


def _let_go(beginning: "asyncio.Task[Growth]") -> None:
    if not beginning.cancelled() and beginning.exception() is None:
        beginning.result().close()


def _require_bounded(growing: Growth) -> None:
    if growing.missing > LOG_GAP_MAX:
        found = f"{growing.missing} entries to come"
        raise WireViolation("growth.note", found=found, allowed=f"at most {LOG_GAP_MAX} at a time")

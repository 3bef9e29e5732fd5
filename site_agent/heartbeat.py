"""Signs of life of this hospital's agent: signed into its own chain, so that its silence is provable.

One when it is connected first, one at every interval while it is connected, one when it stops in order. A hospital
cannot be said to have been silent when it was not, nor say later that it was there when it was not: each has its place
in the hospital's chain, and in a log that others witness. `audit.heartbeats` finds what is missing.
"""

import time
from collections.abc import Callable
from datetime import datetime

from audit import entries
from consortium import __version__
from site_agent.home import AgentHome
from site_agent.signed_events import SignedEvents
from site_agent.store import Store

STARTS_EVERY_S = 600.0
"""A start sooner than this after the last one that was written is not written: an agent that somebody starts again and
again must not fill the log."""


class ClockSeen:
    """How far the coordinator's clock was ahead of this machine's, as its entries show when they come. Mutable.

    An entry was written before it came: what is above zero is a difference of clocks, and no smaller than it looks.
    """

    def __init__(self) -> None:
        self._offset_ms: int | None = None

    def take(self, written: str, now_s: float) -> None:
        """A time that the coordinator wrote, and when it came; what is no time says nothing."""
        try:
            offset_ms = round((datetime.fromisoformat(written).timestamp() - now_s) * 1000)
        except (ValueError, OverflowError):
            return
        self._offset_ms = offset_ms if self._offset_ms is None else max(offset_ms, self._offset_ms)

    def taken(self) -> int | None:
        """The most since this was asked last; None where nothing came."""
        found, self._offset_ms = self._offset_ms, None
        return found


class SiteHeartbeats:
    """Signs them when they are due; mutable. Its methods wait for the disk. Clocks are in seconds."""

    def __init__(
        self,
        home: AgentHome,
        store: Store,
        clock: ClockSeen,
        cosigned: Callable[[], int],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`cosigned`: how many entries of the log this hospital cosigned last."""
        self._home = home
        self._store = store
        self._clock = clock
        self._cosigned = cosigned
        self._monotonic, self._wall = monotonic, wall
        self._began_s = monotonic()
        self._last = (monotonic(), wall())
        self._begun = False  # whether a start was written, or need not be
        self._interval_s = 0  # of site.yaml, as it was when the agent began
        self._promised = False  # whether this process has written any: then a stop is worth a word

    def due_in_s(self) -> float | None:
        """Seconds until the next one; None for never."""
        if not self._begun:
            return 0.0
        return max(0.0, self._last[0] + self._interval_s - self._monotonic()) if self._interval_s else None

    def step(self) -> bool:
        """Sign what is due now; whether anything was. Call it while there is a connection."""
        due_s = self.due_in_s()
        if due_s is None or due_s > 0:
            return False
        state = "alive" if self._begun else "started"
        if not self._begun:
            self._interval_s = 60 * self._home.config.heartbeat_minutes
            self._begun = True
        if state == "started" and self._started_lately():
            return False
        self._sign(state)
        return True

    def stop(self) -> bool:
        """Sign that the agent stops in order, if it has said that it is there; whether it had."""
        if self._promised:
            self._sign("stopping")
        return self._promised

    def _started_lately(self) -> bool:
        named, started = f'"type":"{entries.SiteHeartbeat.TYPE}"'.encode(), b'"state":"started"'
        for data in reversed(self._store.signed_entries()):
            if named in data and started in data:
                entry = entries.parse_entry(data)
                return 0 <= self._wall() - datetime.fromisoformat(entry.ts).timestamp() < STARTS_EVERY_S
        return False

    def _sign(self, state: str) -> None:
        now = (self._monotonic(), self._wall())
        moved_s = (now[1] - self._last[1]) - (now[0] - self._last[0])
        SignedEvents(self._home, self._store).add(
            entries.SiteHeartbeat,
            state=state,
            uptime_s=int(now[0] - self._began_s),
            interval_s=self._interval_s,
            clock_moved_ms=round(moved_s * 1000),
            clock_offset_ms=self._clock.taken(),
            agent_version=__version__,
            log_size=self._cosigned(),
        )
        self._last = now
        self._promised = True

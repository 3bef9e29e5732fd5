"""Who is connected now: one session per site, and a way to wait for that to change.

The newest session of a site wins. A second agent with the same identity therefore ends the first one, which is told
why and stops, so that two of them cannot take turns.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from consortium.contract.messages import CoordinatorMessage
from consortium.contract.names import Digest, SiteId
from consortium.errors import SiteConflict

OUTGOING_MAX = 256
"""Messages that may wait for a site that does not read; with one more it is cut off."""


class SessionReplaced(SiteConflict):
    """Another agent opened a session under the same certificate."""

    def __init__(self, site: SiteId) -> None:
        super().__init__(f"another agent opened a session as {site}; this one is closed")

    def advice(self) -> str:
        """What to do next."""
        return "Run one agent per certificate. If you started only one, somebody else holds your keys: revoke the site."


@dataclass(eq=False, slots=True)
class Session:
    """A connected site. Messages are queued; whoever serves the stream drains the queue until `ended` is set."""

    site: SiteId
    outgoing: asyncio.Queue[CoordinatorMessage] = field(default_factory=lambda: asyncio.Queue(OUTGOING_MAX))
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    prepared: dict[Digest, tuple[Digest, int]] = field(default_factory=dict)  # study -> (model digest, parameters)
    replaced: bool = False

    def send(self, message: CoordinatorMessage) -> None:
        """Queue a message; a site that does not read for OUTGOING_MAX messages is cut off."""
        try:
            self.outgoing.put_nowait(message)
        except asyncio.QueueFull:
            self.close()

    def close(self) -> None:
        """End the session, whatever is still queued."""
        self.ended.set()


class Sessions:
    """The connected sites."""

    def __init__(self) -> None:
        self._by_site: dict[SiteId, Session] = {}
        self._next_change = asyncio.Event()

    @contextmanager
    def opened(self, site: SiteId) -> Iterator[Session]:
        """The session of `site` for as long as its stream lives."""
        session = Session(site)
        previous = self._by_site.get(site)
        if previous is not None:
            previous.replaced = True
            previous.close()
        self._by_site[site] = session
        self.notify()
        try:
            yield session
        finally:
            if self._by_site.get(site) is session:
                del self._by_site[site]
            self.notify()

    def get(self, site: SiteId) -> Session | None:
        """The site's session, or None while it is away."""
        return self._by_site.get(site)

    def connected(self) -> frozenset[SiteId]:
        """The sites that are here."""
        return frozenset(self._by_site)

    def current(self, session: Session) -> bool:
        """Whether this is still the site's session, and may be heard."""
        return self._by_site.get(session.site) is session and not session.ended.is_set()

    def notify(self) -> None:
        """Something changed: wake whoever waits."""
        self._next_change.set()
        self._next_change = asyncio.Event()

    def next_change(self) -> asyncio.Event:
        """Set at the next change after this call; take it before looking at what may change, and nothing is missed."""
        return self._next_change

    async def changed(self, timeout_s: float | None = None) -> None:
        """Return at the next change, or after `timeout_s`."""
        event = self.next_change()
        try:
            await asyncio.wait_for(event.wait(), timeout_s)
        except TimeoutError:
            return

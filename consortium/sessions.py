"""Who is connected now: one session per site, and a way to wait for that to change.

The newest session of a site wins: it may be the same agent, whose old connection nobody has missed yet, or one that was
started again. Two agents with the same keys (a home that was copied) cannot take turns, because each says which starts
of its home it knows (threat S-24). One that does not know the newest is a copy from before it, and is refused; the one
that was replaced is told why, stops, and is refused if it is started again.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from consortium.contract.messages import CoordinatorMessage, Hello
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


class AgentCopied(SiteConflict):
    """An agent runs on a copy of its home, and another agent has been at work with these keys since it was made."""

    def __init__(self, site: SiteId, found: str) -> None:
        super().__init__(f"this agent of {site} runs on a copy of its home: {found}")

    def advice(self) -> str:
        """What to do next."""
        return (
            "The other one goes on; stop this one and keep one home only. If the other will never run again and has "
            "spent nothing since, start this one once with `site-agent run --take-over`."
        )


@dataclass(eq=False, slots=True)
class Session:
    """A connected site. Messages are queued; whoever serves the stream drains the queue until `ended` is set."""

    site: SiteId
    outgoing: asyncio.Queue[CoordinatorMessage] = field(default_factory=lambda: asyncio.Queue(OUTGOING_MAX))
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    prepared: dict[Digest, tuple[Digest, int]] = field(default_factory=dict)  # study -> (model digest, parameters)
    replaced: bool = False
    refused: Exception | None = None  # why the site may not go on, if that is why the session ended

    def send(self, message: CoordinatorMessage) -> None:
        """Queue a message; a site that does not read for OUTGOING_MAX messages is cut off."""
        try:
            self.outgoing.put_nowait(message)
        except asyncio.QueueFull:
            self.close()

    def close(self, because: Exception | None = None) -> None:
        """End the session, whatever is still queued; the site is told why, if that is for it to know."""
        self.refused = self.refused or because
        self.ended.set()


class Sessions:
    """The connected sites."""

    def __init__(self) -> None:
        self._by_site: dict[SiteId, Session] = {}
        self._newest_start: dict[SiteId, bytes] = {}  # of a site's agent, as this process has welcomed it
        self._next_change = asyncio.Event()

    def take_note(self, site: SiteId, hello: Hello, in_log: int) -> bool:
        """An agent is about to open a session; returns whether another one, which is connected, makes room for it.

        Args:
            site: Whose certificate it has.
            hello: What it said. Agents from before there were starts in it are not told apart.
            in_log: How many signed entries the log has of this site. An agent that remembers fewer while another is
                connected would end one that does; if none is connected it finds out by itself, and says more about it.

        Raises:
            AgentCopied: It must not take the place of the other.
        """
        if not hello.start:
            return site in self._by_site
        newest = self._newest_start.get(site)
        known = newest is None or newest == hello.start or newest in hello.earlier_starts
        if not known and not hello.takes_over:
            raise AgentCopied(site, "another agent with the same keys was started after it was made")
        if site in self._by_site and hello.signed_entries < in_log:
            raise AgentCopied(
                site, f"it remembers {hello.signed_entries} of {in_log} signed entries, and another agent is connected"
            )
        self._newest_start[site] = hello.start
        return site in self._by_site and newest != hello.start

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
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await event.wait()

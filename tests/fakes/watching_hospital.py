"""A hospital that watches a log over the real wire: its real home, store and copy, and a coordinator that may lie.

async with watching(tmp_path) as world:
    await world.follows()              # the coordinator tells the truth so far
    world.service.log = world.service.log.forked(at=2)
    broken = await world.breaks()      # the LogBroken that ends the agent
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import entries
from audit.cosignature import WitnessKey, WitnessSigner
from audit.note import parse_note
from consortium.contract.certificates import PeerIdentity
from consortium.contract.messages import DroppedLeaves, EventReceipt, LogGrowth, LogPosition
from consortium.contract.names import SiteId
from consortium.record import now_stamp
from consortium.wire.client import CoordinatorClient
from site_agent.agent import CoordinatorLine
from site_agent.followed_log import LogBroken
from site_agent.home import AgentHome
from site_agent.log_watch import LogWatch
from site_agent.signed_events import SignedEvents
from site_agent.store import Store
from tests.fakes.growing_log import SIGNER, GrowingLog
from tests.fakes.site_world import make_home, small_study
from tests.fakes.wire_world import RecordingService, coordinator

WAIT_S = 60.0
LOOKS = 4
"""At the log: the first that begins after it has become what it must not be is enough to see it."""


@dataclass
class LogService(RecordingService):
    """A coordinator that keeps a log in memory, and shows what a test tells it to show."""

    log: GrowingLog = field(default_factory=GrowingLog)
    gossip: list[bytes] = field(default_factory=list)  # what it says that other hospitals cosigned
    swallows: str = ""  # entries of this type are taken in and never appear
    served: int = 0

    async def follow_log(
        self, peer: PeerIdentity, position: LogPosition
    ) -> tuple[LogGrowth, AsyncIterator[tuple[bytes, ...] | DroppedLeaves]]:
        self.positions.append(position)
        growth, missing = self.log.since(position.size, *self.gossip)
        self.served += 1
        following = list(self.log.parts(position.size, missing))

        async def parts() -> AsyncIterator[tuple[bytes, ...] | DroppedLeaves]:
            for part in following:
                yield part

        return growth, parts()

    async def submit_events(self, peer: PeerIdentity, events: tuple[bytes, ...]) -> EventReceipt:
        new = [event for event in events if event not in self.events]
        self.log.add(*(event for event in new if json.loads(event)["type"] != self.swallows))
        return await super().submit_events(peer, events)


@dataclass
class Watched:
    """The hospital, the coordinator, and the connection between them."""

    service: LogService
    home: AgentHome
    store: Store
    line: CoordinatorLine
    watch: LogWatch
    task: asyncio.Task[None]

    @property
    def site(self) -> SiteId:
        return self.home.site

    def signs(self, kind: type[entries.SiteEntry], **fields: object) -> None:
        """The hospital signs another entry of its chain."""
        SignedEvents(self.home, self.store).add(kind, **fields)

    async def follows(self) -> WitnessKey:
        """Wait until the hospital has cosigned the log as it is now; its witness key."""
        note = ""
        async with asyncio.timeout(WAIT_S):
            while note != parse_note(self.service.log.note()).text:
                if self.task.done():
                    self.task.result()
                self.watch.wake()
                await asyncio.sleep(0.02)
                note = parse_note(self.service.cosigned[-1][1]).text if self.service.cosigned else ""
        enrolled = [json.loads(entry) for entry in self.service.log.entries]
        vkey = next(one["body"]["vkey"] for one in enrolled if one["type"] == entries.WitnessEnrolled.TYPE)
        return WitnessKey.from_vkey(vkey)

    async def looks(self, times: int) -> None:
        """Wait until the hospital has asked for the log so often, or has ended."""
        before = self.service.served
        async with asyncio.timeout(WAIT_S):
            while not self.task.done() and self.service.served < before + times:
                self.watch.wake()
                await asyncio.sleep(0.02)

    async def breaks(self) -> LogBroken:
        """Wake the hospital until it has seen what is wrong; one that does not see it is not waited for."""
        await self.looks(LOOKS)
        assert self.task.done(), "the hospital has looked at the log, and goes on"
        error = self.task.exception()
        assert isinstance(error, LogBroken), error
        return error

    def kept(self) -> set[bytes]:
        """The signed checkpoints that were kept as evidence."""
        return {path.read_bytes() for path in (self.home.folder / "evidence").glob("checkpoint-*")}


def named_witness(site: str, signing_key: Ed25519PrivateKey, signer: WitnessSigner) -> bytes:
    """A site's first entry, which says what key it cosigns with."""
    entry = entries.WitnessEnrolled(
        **now_stamp(), actor=f"site:{site}", site_seq=1, site_prev=entries.NO_ENTRY, vkey=signer.key.vkey()
    )
    return entries.sign_site_entry(entry, signing_key)


def enrolled(site: str, signing_key: bytes) -> bytes:
    """A coordinator's entry that a site is there."""
    return entries.entry_bytes(
        entries.SiteEnrolled(
            **now_stamp(),
            site=site,
            certificate_sha256="0" * 64,
            spki_sha256="0" * 64,
            signing_key=signing_key.hex(),
        )
    )


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[Watched]:
    """A hospital connected to a coordinator whose log begins with that hospital's enrolment."""
    home = make_home(folder / "home", small_study())
    home = replace(home, identity=home.identity.model_copy(update={"log_vkey": SIGNER.verifier.vkey()}))
    store = Store(home.folder / "agent.db")
    service = LogService()
    service.log.add(enrolled(home.site, home.signing_key.public_key().public_bytes_raw()))
    async with coordinator(service) as wire, wire.connect(home.site) as client:
        world = _connected(home, store, service, client)
        try:
            yield world
        finally:
            world.task.cancel()
            with suppress(asyncio.CancelledError, LogBroken):
                await world.task
            await world.watch.close()


def _connected(home: AgentHome, store: Store, service: LogService, client: CoordinatorClient) -> Watched:
    line = CoordinatorLine(store)
    line.bind(client, None)
    watch = LogWatch(home, store, line)
    return Watched(service, home, store, line, watch, asyncio.create_task(watch.run(client)))

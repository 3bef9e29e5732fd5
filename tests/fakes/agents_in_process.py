"""A real coordinator and real hospital agents in one process, over loopback gRPC: studies from approval to evidence.

    async with hospitals_of(tmp_path, study) as world:
        await world.run_to_the_end()
        result = await world.verified()

Every hospital has a home of its own, an agent as `site-agent run` has it, made-up patients and a steward who approved.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audit import verify
from consortium.commands import execute
from consortium.contract import certificates
from consortium.contract.digest import canonical_bytes
from consortium.contract.names import Digest
from consortium.contract.study import StudyFile
from site_agent.agent import Agent
from site_agent.app import open_ledger
from site_agent.deciding import decide_study
from site_agent.home import AgentHome, Identity, open_home
from site_agent.room_in_process import RoomInProcess
from site_agent.store import Store
from site_agent.training_room import Rooms
from tests.fakes.coordinator_home import Hospital
from tests.fakes.scripted_site import World, serving
from tests.fakes.site_world import Member, make_home
from tests.fakes.stewards import in_log, registered

WAIT_S = 200.0  # loading torch takes its time on a busy machine


@dataclass(eq=False)
class RunningAgent:
    """One hospital's agent. Mutable: it can be stopped and started again."""

    home: AgentHome
    store: Store
    rooms: Rooms = RoomInProcess  # a process for each study would load torch in each
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """As `site-agent run`."""
        self.stop = asyncio.Event()
        agent = Agent(self.home, self.store, open_ledger(self.home.folder, self.store), rooms=self.rooms)
        self.task = asyncio.create_task(agent.run(self.stop))

    async def end(self) -> None:
        """As SIGTERM."""
        self.stop.set()
        if self.task is not None:
            await asyncio.gather(self.task, return_exceptions=True)
        self.task = None


@dataclass(eq=False)
class Consortium:
    """What `hospitals_of` gives."""

    world: World
    study: StudyFile
    agents: dict[str, RunningAgent]

    async def run_to_the_end(self) -> None:
        """Start the study and wait until it is complete and every hospital has heard so."""
        await self.world.command("study.start", study=self.study.id)
        await self.until("completed")

    async def until(self, state: str) -> None:
        """Wait for the study to be in a state."""
        async with asyncio.timeout(WAIT_S):
            while self.world.state(self.study) != state:
                for agent in self.agents.values():
                    if agent.task is not None and agent.task.done():
                        agent.task.result()
                await asyncio.sleep(0.02)

    async def certified(self) -> None:
        """Wait until every hospital's certificate is in the log: the last that an agent signs."""
        async with asyncio.timeout(WAIT_S):
            while self.world.home.types().count("dp.certificate") < len(self.agents):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.02)

    async def verified(self) -> dict[str, Any]:
        """What a stranger finds in the study's evidence."""
        asked = canonical_bytes({"study": self.study.id})
        answer = json.loads(await execute(self.world.home.coordinator, "audit.export", asked))
        return await asyncio.to_thread(verify.check, answer["path"], answer["policy"].encode())


@asynccontextmanager
async def hospitals_of(
    folder: Path, study: StudyFile, *, stewards_in_log: bool = False, **policy: Any
) -> AsyncIterator[Consortium]:
    """A coordinator that serves in `folder` and an agent for each hospital of the study, all of which approved it.

    With `stewards_in_log` the log has the stewards' keys, too, as `site-agent stewards add` puts them there.
    """
    async with serving(folder) as world:
        world.home.submit(study)
        agents: dict[str, RunningAgent] = {}
        for name in study.sites.roster:
            home = home_of(folder / name, world, world.home.enrol(name), study, policy)
            store = Store(home.folder / "agent.db")
            key = in_log(home, store, f"Dr {name}") if stewards_in_log else registered(home, store, f"Dr {name}")
            await decide_study(home.folder, study.id, "approved", steward=f"Dr {name}", statement="Approved.", key=key)
            agents[name] = RunningAgent(home=home, store=store)
        try:
            for agent in agents.values():
                agent.start()
            yield Consortium(world=world, study=study, agents=agents)
        finally:
            await asyncio.gather(*(agent.end() for agent in agents.values()))


def home_of(folder: Path, world: World, hospital: Hospital, study: StudyFile, policy: dict[str, Any]) -> AgentHome:
    """What `site-agent enrol` and the hospital would have left."""
    coordinator = world.home.coordinator.home
    member = Member(
        site=hospital.site,
        certificate_pem=hospital.certificate_pem,
        tls_key_pem=hospital.tls_key_pem,
        signing_key=hospital.signing_key,
        ecdsa_key=hospital.ecdsa_key,
        spki_sha256=Digest(hospital.identity.spki_sha256.hex()),
    )
    make_home(folder, study, authority=coordinator.authority, member=member, address=world.address, **policy)
    path = folder / "identity.json"
    identity = Identity.model_validate_json(path.read_bytes())
    known = {
        "log_vkey": coordinator.log_vkey,
        "coordinator_signing_key": coordinator.signing_key_hex,
        "ca_sha256": certificates.fingerprint(coordinator.ca_certificate),
    }
    path.write_text(identity.model_copy(update=known).model_dump_json())
    return open_home(folder)

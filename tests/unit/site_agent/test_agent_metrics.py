"""An agent's figures for its hospital's monitoring say what the agent does."""

import asyncio
import http.client
import os
import signal
from contextlib import suppress

import pytest

from consortium.contract.messages import PrepareStudy
from consortium.contract.names import Digest
from privacy.dp import accountant
from site_agent import agent as agent_module
from site_agent import app
from site_agent.agent import Agent
from site_agent.ledger import Ledger
from site_agent.ledger_caps import Limits
from site_agent.metrics import BUDGETS_EVERY_S, AgentFigures
from site_agent.store import Store
from site_agent.training_spec import spec_of
from tests.e2e.world import free_port
from tests.fakes.site_wire import STUDY, StudyService, dialled
from tests.fakes.site_world import make_home

EVENT = spec_of(STUDY, declared_patients=100).privacy.round_event()
LIMITS = Limits(study_epsilon=9, study_delta=1e-3, total_epsilon=9, total_delta=1e-3)


def samples(figures):
    return {(s.name, *s.labels.values()): s.value for family in figures() for s in family.samples}


def spend(ledger, number):
    reservation = ledger.reserve(
        dataset="ward",
        study=STUDY.study_id,
        study_digest=Digest("a" * 64),
        round_number=number,
        attempt=1,
        event=EVENT,
        limits=LIMITS,
    )
    ledger.settle(reservation, EVENT)


async def test_connection_bytes_and_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(agent_module, "next_pause_s", lambda *_: 0.05)
    service = StudyService()
    service.outgoing.append(PrepareStudy(study_digest=Digest("c" * 64)))  # it is refused, so something leaves
    now = [0.0]
    async with dialled(tmp_path, service) as (_, home):
        store = Store(tmp_path / "agent.db")
        ledger = Ledger(tmp_path / "ledger.db", told=store.told)
        agent = Agent(home, store, ledger)
        figures = AgentFigures(home, ledger, agent, monotonic=lambda: now[0])
        assert samples(figures)["site_agent_connected",] == 0
        assert figures.problems() == ("there is no session with the coordinator",)
        stop = asyncio.Event()
        running = asyncio.create_task(agent.run(stop))
        async with asyncio.timeout(60):
            while not service.heard:  # noqa: ASYNC110 - what is waited for is no event
                await asyncio.sleep(0.01)
        assert figures.problems() == ()
        found = samples(figures)
        assert found["site_agent_connected",] == 1
        sent = {kind for name, *kind in found if name == "site_agent_sent_bytes_total" for kind in kind}
        assert {"hello", "refusal"} <= sent  # what it asks for by name alone, such as a list of studies, has 0 bytes
        assert all(found["site_agent_sent_bytes_total", kind] > 0 for kind in ("hello", "refusal"))
        assert found["site_agent_line_bytes_total", "up"] > 0 < found["site_agent_line_bytes_total", "down"]
        spend(ledger, 1)
        assert samples(figures)["site_agent_epsilon_spent", "ward"] == 0  # composed a moment ago
        now[0] = BUDGETS_EVERY_S
        found = samples(figures)
        expected = accountant.epsilon([EVENT], delta=home.config.policy.max_delta)
        assert found["site_agent_epsilon_spent", "ward"] == expected
        assert found["site_agent_epsilon_left", "ward"] == max(0, home.config.policy.max_epsilon_total - expected)
        assert found["site_agent_rounds_total", "ward", STUDY.id] == 1
        stop.set()
        await asyncio.wait_for(running, 60)


async def test_an_agent_opens_the_port_that_site_yaml_names_and_closes_it_when_it_stops(tmp_path):
    port = free_port()
    make_home(tmp_path, STUDY)
    with (tmp_path / "site.yaml").open("a") as file:
        file.write(f'monitor_address: "127.0.0.1:{port}"\n')
    running = asyncio.create_task(app.run_until_stopped(tmp_path))

    def ask():
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        line.request("GET", "/readyz")
        return line.getresponse().status

    async with asyncio.timeout(60):
        while True:
            with suppress(ConnectionRefusedError):
                assert await asyncio.to_thread(ask) == 503  # nobody is at the coordinator's address
                break
            await asyncio.sleep(0.02)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 60)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(ask)

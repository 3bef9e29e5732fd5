"""The shell of a running agent, against a real coordinator's wire: what it sends, when it dials again, what ends it."""

import asyncio
import dataclasses
import hashlib
import os

import pytest
from structlog.testing import capture_logs

from audit import entries
from consortium.contract.digest import digest_of
from consortium.contract.messages import (
    EventReceipt,
    PrepareStudy,
    Refusal,
    ResultVerified,
    RoundAborted,
    StudyEnded,
    StudyOutcome,
    VectorKind,
)
from consortium.contract.names import Digest
from consortium.contract.plan import context_of
from consortium.wire import codec
from consortium.wire.errors import (
    CallRefused,
    ConnectionLost,
    CoordinatorUnreachable,
    RefusalCode,
    ServiceRefusal,
    TlsProblem,
    TlsRefused,
    WireViolation,
)
from site_agent import agent as agent_module
from site_agent.agent import Agent, CoordinatorLine, next_pause_s
from site_agent.egress_log import read_egress
from site_agent.ledger import Ledger
from site_agent.log_mirror import LogMirror
from site_agent.signed_events import SignedEvents
from site_agent.store import Store, StoreUnwritable
from tests.fakes.site_wire import STUDY, StudyService, dialled
from tests.fakes.site_world import hospital, make_world
from tests.fakes.wire_world import vector_header


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(agent_module, "PAUSE_FIRST_S", 0.01)
    monkeypatch.setattr(agent_module, "PAUSE_LONGEST_S", 0.08)


def agent_of(home):
    return Agent(home, Store(home.folder / "agent.db"), Ledger(home.folder / "ledger.db"))


def signed_entry(home, store):
    events = SignedEvents(home, store)
    events.add(entries.StudyRejected, study=STUDY.id, study_digest="a" * 64, steward=events.pseudonym("x"), reason="no")


def cosigning_key_told(home, store):
    mirror = LogMirror(home, store)
    SignedEvents(home, store).add(entries.WitnessEnrolled, vkey=mirror.signer.key.vkey())
    mirror.close()


class Running:
    """An agent as `site-agent run` has it."""

    def __init__(self, home):
        self.stop = asyncio.Event()
        self.agent = agent_of(home)

    async def __aenter__(self):
        self.task = asyncio.create_task(self.agent.run(self.stop))
        return self

    async def __aexit__(self, *_):
        self.stop.set()
        await asyncio.wait_for(asyncio.gather(self.task, return_exceptions=True), 60)


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.01)


async def test_it_connects_hands_over_its_entries_and_answers(tmp_path):
    service = StudyService()
    unknown = Digest("c" * 64)
    service.outgoing.append(PrepareStudy(study_digest=unknown))
    async with dialled(tmp_path, service) as (_, home):
        store = Store(tmp_path / "agent.db")
        signed_entry(home, store)
        cosigning_key_told(home, store)  # else the agent tells it whenever it gets to it
        async with Running(home) as running:
            await until(lambda: service.heard)
            assert not running.task.done()
        (refusal,) = service.heard
        assert isinstance(refusal, Refusal)
        assert (refusal.study_digest, refusal.rule) == (unknown, "require_approval")
        assert len(service.events) == 2
        assert store.pending_events() == ()
        # The list of what left is what arrived, to the byte.
        assert store.egress() == ()  # moved to the hospital's own log
        left = [line.sent for line in read_egress(home, store).lines if line.sent.kind != "log-position"]  # at any time
        assert [(sent.kind, sent.study_digest) for sent in left] == [
            ("hello", None),
            ("events", None),
            ("refusal", unknown),
        ]
        assert left[2].sha256 == digest_of(codec.encode_site_message(refusal))
        assert running.task.exception() is None


async def test_it_dials_through_the_proxy_of_site_yaml(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://elsewhere.example.org:1")
    seen = []

    async def unreachable(address, *_args, **_kwargs):
        seen.append((address, os.environ["https_proxy"]))
        raise CoordinatorUnreachable(address, "nobody there")

    monkeypatch.setattr(agent_module.CoordinatorClient, "connect", unreachable)
    async with dialled(tmp_path) as (_, home):
        with (home.folder / "site.yaml").open("a") as file:
            file.write("coordinator: {address: 'hub.example.org:8443'}\nproxy: http://proxy.example.org:3128\n")
        async with Running(home):
            await until(lambda: bool(seen))
    assert seen[0] == ("hub.example.org:8443", "http://proxy.example.org:3128")


async def test_it_dials_again_with_growing_pauses(tmp_path, monkeypatch):
    tries = []

    async def unreachable(address, *_args, **_kwargs):
        tries.append(address)
        raise CoordinatorUnreachable(address, "nobody there")

    monkeypatch.setattr(agent_module.CoordinatorClient, "connect", unreachable)
    async with dialled(tmp_path) as (_, home):
        with capture_logs() as logs:
            async with Running(home):
                await until(lambda: len(tries) >= 6)
    away = [log for log in logs if log["event"] == "coordinator.away"]
    assert len(away) >= 5
    assert all("nobody there" in log["reason"] for log in away)


def test_pauses_grow_up_to_the_longest_and_begin_again_after_a_steady_session(monkeypatch):
    monkeypatch.undo()
    pauses = [0.0]
    for lasted_s in (0, 1, 0, 0, *[0] * 9, 60, 0):
        pauses.append(next_pause_s(pauses[-1], lasted_s))
    assert pauses[1:5] == [0.5, 0.75, 1.125, 1.6875]
    assert sum(pauses[:5]) < 5  # a coordinator that was killed is met again soon after it is back
    assert pauses[-4:] == [30, 30, 0.5, 0.75]


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (CallRefused("X", "revoked", "", RefusalCode.REFUSED), True),
        (CallRefused("X", "replaced", "", RefusalCode.CONFLICT), True),
        (CallRefused("X", "too old", "", RefusalCode.INVALID), True),
        (CallRefused("X", "gone", "", RefusalCode.NOT_FOUND), True),
        (CallRefused("X", "busy", "", RefusalCode.TRY_LATER), False),
        (CallRefused("X", "defect", "", RefusalCode.INTERNAL, "i-1"), False),
        (TlsRefused("h:1", TlsProblem.FOREIGN_AUTHORITY), True),
        (CoordinatorUnreachable("h:1", "x"), False),
        (ConnectionLost("x"), False),
        (WireViolation("field", found="x", allowed="y"), False),
        (StoreUnwritable("agent.db could not be used: full"), True),
    ],
)
async def test_what_ends_it(tmp_path, monkeypatch, error, ends):
    tries = []

    async def fails(*_args, **_kwargs):
        tries.append(1)
        raise error

    monkeypatch.setattr(agent_module.CoordinatorClient, "connect", fails)
    async with dialled(tmp_path) as (_, home):
        async with Running(home) as running:
            await until(lambda: running.task.done() or len(tries) >= 3)
            assert running.task.done() is ends
        if ends:
            assert running.task.exception() is error


async def test_a_refusal_over_the_wire_ends_it_in_the_coordinators_words(tmp_path):
    service = StudyService()
    service.failing["run_session"] = ServiceRefusal("this agent is too old", advice="Install the new version.")
    async with dialled(tmp_path, service) as (_, home), Running(home) as running:
        await until(running.task.done)
        error = running.task.exception()
        assert isinstance(error, CallRefused)
        assert (str(error), error.advice()) == ("this agent is too old", "Install the new version.")


async def test_it_comes_back_when_the_session_breaks(tmp_path):
    service = StudyService()
    service.failing["run_session"] = ServiceRefusal("not now", code=RefusalCode.TRY_LATER)
    async with dialled(tmp_path, service) as (_, home), Running(home):
        await asyncio.sleep(0.1)
        del service.failing["run_session"]
        await until(lambda: service.sessions)


async def test_stopping_while_it_waits(tmp_path):
    async with dialled(tmp_path) as (world, home):
        async with Running(home) as running:
            await until(lambda: world.service.sessions)
        assert running.task.exception() is None
        assert running.agent._tasks == set()


async def test_entries_the_coordinator_does_not_acknowledge_stay_pending(tmp_path):
    class Deaf(StudyService):
        async def submit_events(self, peer, events):
            return EventReceipt(last_sequence=0)

    async with dialled(tmp_path, Deaf()) as (_, home):
        store = Store(tmp_path / "agent.db")
        signed_entry(home, store)
        with capture_logs() as logs:
            async with Running(home):
                await until(lambda: any("acknowledge" in str(log.get("reason")) for log in logs))
        assert len(store.pending_events()) == 1


async def test_a_study_that_ended_is_let_go(tmp_path):
    world = make_world(tmp_path)
    agent = Agent(world.home, world.store, world.ledger)
    work = agent._work(world.digest)
    ended = StudyEnded(
        study=world.study.study_id,
        study_digest=world.digest,
        outcome=StudyOutcome.ABORTED,
        model_digest=Digest("0" * 64),
        reason="",
    )
    assert agent._works == {world.digest: work}
    await agent._hear(ended)
    await until(lambda: not agent._works)
    assert agent._tasks == set()


async def test_a_result_finds_its_study_after_a_restart(tmp_path):
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(result=False)
        await world.idle()
    agent = Agent(world.home, world.store, world.ledger)
    agent._line = world.line
    await agent._hear(dataclasses.replace(outcome.result, context=b"e" * 32))
    assert agent._works == {}
    await agent._hear(outcome.result)
    assert isinstance(await world.hear(), ResultVerified)
    for task in agent._tasks:
        task.cancel()
    await asyncio.gather(*agent._tasks, return_exceptions=True)


# --- the line --------------------------------------------------------------------------------------------------------


async def test_vectors_up_and_down(tmp_path):
    async with dialled(tmp_path) as (world, home):
        store = Store(tmp_path / "agent.db")
        line = CoordinatorLine(store)
        data = bytes(range(256)) * 10_000  # more than one chunk
        sha256 = hashlib.sha256(data).hexdigest()
        async with await agent_module.CoordinatorClient.connect(
            home.identity.address, home.ca_pem, home.certificate_pem, home.tls_key_pem, on_sent=line.record
        ) as client:
            line.bind(client, None)
            await line.upload(vector_header(data), memoryview(data))
            assert world.service.vectors[sha256] == data
            received = bytearray()

            async def keep(chunk: bytes) -> None:
                await asyncio.sleep(0)
                received.extend(chunk)

            await line.download(VectorKind.AGGREGATE, Digest(sha256), len(data), keep)
            assert received == data
            with pytest.raises(WireViolation):
                await line.download(VectorKind.AGGREGATE, Digest(sha256), len(data) - 1, keep)
            with pytest.raises(ConnectionLost):
                await line.send(PrepareStudy(study_digest=Digest(sha256)), Digest(sha256))
            line.unbind()
            with pytest.raises(ConnectionLost):
                await line.upload(vector_header(data), data)
        whole = [record for record in store.egress() if record.kind == "initial-model"]
        assert [(record.sha256, record.size_bytes) for record in whole] == [(sha256, len(data))]


# --- told to stop ----------------------------------------------------------------------------------------------------


class AtWork:
    """A study at work, as far as an agent that stops asks."""

    def __init__(self):
        self.rests = asyncio.Event()
        self.delivered = []

    def session_ended(self):
        pass

    async def deliver(self, message):
        self.delivered.append(message)


@pytest.mark.parametrize("way", ["the round ends", "no time is left", "a second signal", "the connection ends"])
async def test_an_agent_that_is_told_to_stop_lets_a_round_end(tmp_path, way):
    async with dialled(tmp_path) as (world, home):
        agent, work, stop, at_once = agent_of(home), AtWork(), asyncio.Event(), asyncio.Event()
        agent._works[STUDY.digest()] = work
        drain_s = 0.05 if way == "no time is left" else 60
        with capture_logs() as logs:
            running = asyncio.create_task(agent.run(stop, drain_s=drain_s, at_once=at_once))
            await until(lambda: world.service.sessions and agent.line.is_connected)
            stop.set()
            await until(lambda: agent._draining)
            await agent._hear(PrepareStudy(study_digest=STUDY.digest()))
            assert work.delivered == []
            if way != "no time is left":
                assert not running.done()
            match way:
                case "the round ends":
                    work.rests.set()
                case "a second signal":
                    at_once.set()
                case "the connection ends":
                    await world.server.stop(0)
            await asyncio.wait_for(running, 60)
        left = [one for one in logs if one["event"] == "agent.left_a_round"]
        assert bool(left) is (way == "no time is left")


async def test_an_agent_without_a_round_stops_at_once(tmp_path):
    async with dialled(tmp_path) as (world, home):
        agent, work, stop = agent_of(home), AtWork(), asyncio.Event()
        work.rests.set()
        agent._works[STUDY.digest()] = work
        running = asyncio.create_task(agent.run(stop, drain_s=60))
        await until(lambda: world.service.sessions)
        stop.set()
        await asyncio.wait_for(running, 60)


async def test_a_study_rests_between_attempts_and_not_within_one(tmp_path):
    async with hospital(tmp_path) as world:
        assert world.work.rests.is_set()
        plan = world.plan()
        await world.tell(world.invitation(plan))
        await world.hear()  # its key bundle
        assert not world.work.rests.is_set()
        await world.tell(RoundAborted(context=context_of(plan).digest(), reason="the coordinator is being stopped"))
        await world.idle()
        assert world.work.rests.is_set()
        await world.attempt(world.plan(attempt=2))
        await world.idle()
        assert world.work.rests.is_set()
        await world.tell(world.invitation(world.plan(round=2)))
        await world.hear()
        assert not world.work.rests.is_set()
        world.work.session_ended()
        assert world.work.rests.is_set()

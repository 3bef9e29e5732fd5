"""A study during which certificates come to their end: one hospital's is renewed, another's is past saving."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from consortium import server_certificate
from consortium.contract.certificates import (
    certificate_der,
    issue_server,
    issue_site,
    new_tls_key,
    site_request,
    verify_certificate,
)
from consortium.contract.private_files import write_private
from consortium.wire.errors import CallRefused, RefusalCode, TlsProblem, TlsRefused
from consortium.wire.server import ServerCredentials
from site_agent import agent as agent_module
from site_agent.agent import Agent
from site_agent.app import open_ledger
from site_agent.renewal import due_at, keep_certified
from site_agent.store import Store
from tests.fakes.agents_in_process import home_of
from tests.fakes.coordinator_home import NAME
from tests.fakes.scripted_site import HELLO, serving
from tests.fakes.small_study import SITES, small_study

AMBER, BIRCH = SITES[0], SITES[1]


async def until(holds, *tasks):
    async with asyncio.timeout(60):
        while not holds():
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)


def agent_of(folder, world, hospital, study):
    home = home_of(folder, world, hospital, study, {})
    store = Store(home.folder / "agent.db")
    return home, store, Agent(home, store, open_ledger(home.folder, store))


async def test_an_agent_renews_its_certificate_and_goes_on_with_it_between_rounds(tmp_path, monkeypatch):
    study = small_study()
    async with serving(tmp_path) as world:
        home, store, agent = agent_of(tmp_path / AMBER, world, world.home.enrol(AMBER), study)
        old = home.connection

        async def two_months_on(home, client, shown):
            clock = (lambda: due_at(old)) if shown == old else (lambda: datetime.now(UTC))
            await keep_certified(home, client, shown, clock)

        monkeypatch.setattr(agent_module, "keep_certified", two_months_on)
        stop = asyncio.Event()
        running = asyncio.create_task(agent.run(stop))
        try:
            await until(lambda: world.home.sites.get(AMBER).spki_sha256 != old.spki_sha256, running)
            await until(lambda: AMBER in world.home.rooms.sessions.connected(), running)
        finally:
            stop.set()
            await running
            store.close()
        row = world.home.sites.get(AMBER)
        assert row.spki_sha256 == home.connection.spki_sha256
        assert row.previous_spki_sha256 == old.spki_sha256
        assert home.connection.not_after > datetime.now(UTC) + timedelta(days=89)
        assert len(world.home.bodies("site.renewed")) == 1
        assert world.home.bodies("authz.denied") == []


async def test_a_study_runs_on_over_a_renewal(tmp_path):
    """Every hospital's certificate is replaced between its rounds, and each round has all of them."""
    study = small_study(rounds=3)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        await world.command("study.start", study=study.id)
        await world.until(lambda: len(world.history(study)) >= 1)
        for name in SITES:
            hospital = sites[name].hospital
            request = site_request(
                tls_key=new_tls_key(),
                signing_key=hospital.signing_key,
                ecdsa_key=hospital.ecdsa_key,
                site=hospital.site,
                consortium=NAME,
            )
            pem = world.home.sites.renew(hospital.identity, request).certificate_pem
            following = verify_certificate(
                certificate_der(pem), world.home.coordinator.home.ca_certificate, datetime.now(UTC)
            )
            world.home.sites.authenticate(following)
        await world.until(lambda: world.state(study) == "completed")
        assert world.dropouts() == []
        assert len(world.home.bodies("site.renewed")) == len(SITES)


async def test_one_that_was_away_for_too_long_is_told_what_to_do(tmp_path):
    study = small_study()
    async with serving(tmp_path) as world:
        hospital = world.home.enrol(BIRCH)
        hospital.certificate_pem = expired(world, hospital)
        _, store, agent = agent_of(tmp_path / BIRCH, world, hospital, study)
        with pytest.raises(TlsRefused, match="ended") as caught:
            await agent.run(asyncio.Event())
        assert caught.value.problem is TlsProblem.OWN_CERTIFICATE
        assert "new kit" in caught.value.advice()
        assert world.home.bodies("site.renewed") == []
        store.close()


def expired(world, hospital):
    request = world.home.request(hospital, "0" * 64).request_der
    return issue_site(
        world.home.coordinator.home.authority,
        hospital.site,
        request,
        now=datetime.now(UTC) - timedelta(minutes=4),
        valid_for=timedelta(minutes=1),
    )


async def heard(session):
    while True:
        await anext(session)


async def test_a_session_lasts_no_longer_than_its_certificate(tmp_path):
    async with serving(tmp_path) as world:
        hospital = world.home.enrol(BIRCH)
        world.home.sites.clock = lambda: hospital.identity.not_after - timedelta(milliseconds=50)
        async with world.connect(hospital) as client, client.session(HELLO) as session:
            with pytest.raises(CallRefused, match="the certificate of birch-hospital ended") as caught:
                await asyncio.wait_for(heard(session), 60)
            assert caught.value.code is RefusalCode.REFUSED


async def test_a_suspended_hospitals_agent_says_so_in_one_line_and_comes_back(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(agent_module, "SUSPENDED_S", 0.02)
    study = small_study()
    async with serving(tmp_path) as world:
        hospital = world.home.enrol(AMBER)
        _, store, agent = agent_of(tmp_path / AMBER, world, hospital, study)
        await world.command("site.suspend", site=AMBER, reason="its contract ended")
        stop = asyncio.Event()
        running = asyncio.create_task(agent.run(stop))
        try:
            await until(lambda: len(world.home.bodies("authz.denied")) >= 2, running)
            await world.command("site.reinstate", site=AMBER)
            await until(lambda: AMBER in world.home.rooms.sessions.connected(), running)
        finally:
            stop.set()
            await running
            store.close()
    said = [line for line in capsys.readouterr().out.splitlines() if "site.suspended" in line]
    assert said
    assert all("amber" in line and "is suspended: its contract ended" in line for line in said)


async def test_the_coordinator_renews_its_own_certificate_and_shows_it_to_the_next_caller(tmp_path):
    async with serving(tmp_path) as world:
        home, hospital = world.home.coordinator.home, world.home.enrol(AMBER)
        old = issue_server(home.authority, home.dialled_as, now=datetime.now(UTC), valid_for=timedelta(minutes=3))
        write_private(home.serving_path, old.key_pem + old.certificate_pem)
        assert server_certificate.current(home, datetime.now(UTC)) == old
        shown = []

        def show(issued):
            shown.append(issued)
            world.server.show(
                ServerCredentials(ca_pem=home.ca_pem, certificate_pem=issued.certificate_pem, key_pem=issued.key_pem)
            )

        async with world.connect(hospital) as client:
            async with server_certificate.watched(home, show, lambda: datetime.now(UTC) + timedelta(minutes=4)):
                await until(lambda: bool(shown))
            await client.list_studies()  # what is connected stays
        assert home.server_pem == (shown[0].key_pem, shown[0].certificate_pem) != (old.key_pem, old.certificate_pem)
        async with world.connect(hospital) as client:
            await client.list_studies()
        verify_certificate(certificate_der(await seen(world)), home.ca_certificate, datetime.now(UTC))
        assert certificate_der(await seen(world)) == certificate_der(shown[0].certificate_pem)


async def seen(world):
    """The certificate that a new caller is shown, PEM."""
    host, _, port = world.address.rpartition(":")
    return (await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))).encode()

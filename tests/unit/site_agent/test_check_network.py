"""The way to the coordinator: what is in it, by its name, and what the firewall team is told."""

import asyncio
import contextlib
import socket
import ssl
from datetime import timedelta

import pytest

from consortium import __version__
from consortium.contract.certificates import create_authority, issue_server
from consortium.wire.errors import RefusalCode, ServiceRefusal
from site_agent import check_coordinator, check_network
from site_agent.check_coordinator import Offset, ask_coordinator
from site_agent.check_network import look_at_network
from site_agent.home import open_home
from tests.fakes.site_wire import STUDY, StudyService
from tests.fakes.site_world import make_home
from tests.fakes.wire_world import YEAR, clock, coordinator, listening, pki, server_credentials

HOST = "hub.example.org"


def home_at(folder, address):
    return make_home(folder, STUDY, authority=pki().authority, address=address)


def shown(looked):
    return {result.name: (result.status.value, result.found) for result in looked.results}


async def test_a_way_that_is_open(tmp_path):
    async with coordinator() as world:
        looked = await look_at_network(home_at(tmp_path, world.address))
    found = shown(looked)
    assert found["dns"] == ("ok", "127.0.0.1 is 127.0.0.1")
    assert found["proxy"] == ("ok", "none: the coordinator is dialled directly")
    assert found["port"] == ("ok", f"TCP port {world.server.port} of 127.0.0.1 answers")
    status, words = found["tls"]
    assert status == "ok"
    assert words.startswith("TLS 1.3; the certificate is signed by this consortium's authority, ")
    assert looked.firewall.to_json() == {
        "direction": "outbound",
        "host": "127.0.0.1",
        "port": world.server.port,
        "transport": "tcp",
        "protocol": "TLS 1.3, HTTP/2 (gRPC)",
        "addresses": ["127.0.0.1"],
        "proxy": None,
        "inbound": [],
        "intercept_tls": False,
        "keepalive_s": 10.0,
    }


@pytest.mark.parametrize("version", ["TLS 1.3", "TLS 1.2"])
async def test_whoever_opens_tls_is_named(tmp_path, version):
    """A box in the way signs a certificate for the right host with an authority of its own."""
    box = create_authority("hospital-web-gateway", now=clock(), valid_for=YEAR)
    forged = issue_server(box, ("127.0.0.1",), now=clock(), valid_for=YEAR)
    pem = tmp_path / "forged.pem"
    pem.write_bytes(forged.certificate_pem + forged.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.set_alpn_protocols(["h2"])
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_3 if version == "TLS 1.3" else ssl.TLSVersion.TLSv1_2

    async def answer(reader, writer):
        with contextlib.suppress(OSError):
            await reader.read(1)

    async with listening(answer, ssl=context) as port:
        looked = await look_at_network(home_at(tmp_path / "home", f"127.0.0.1:{port}"))
    status, words = shown(looked)["tls"]
    (told,) = (result for result in looked.results if result.name == "tls")
    assert status == "failed"
    assert words.startswith("TLS is intercepted: the certificate shown for 127.0.0.1 was signed by 'CN=")
    assert "hospital-web-gateway" in words
    assert "hospital-web-gateway" in told.advice
    assert "exempt 127.0.0.1 from TLS inspection" in told.advice


async def test_what_is_wrong_with_the_real_coordinator_is_no_interception(tmp_path):
    home = home_at(tmp_path, "127.0.0.1:9")
    old = pki().server(now=clock() - timedelta(minutes=4), valid_for=timedelta(minutes=3))
    for issued, words in ((old, "has expired"), (pki().server("elsewhere.example.org"), "for another host")):
        async with coordinator(credentials=server_credentials(issued)) as world:
            status, found = shown(await look_at_network(home_at(tmp_path, world.address)))["tls"]
        assert (status, words in found) == ("failed", True)
        assert "intercepted" not in found

    async def web(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with listening(web) as port:
        home = home_at(tmp_path, f"127.0.0.1:{port}")
        assert "it does not speak TLS" in shown(await look_at_network(home))["tls"][1]
    soon = server_credentials(pki().server(valid_for=timedelta(days=5)))
    async with coordinator(credentials=soon) as world:
        status, found = shown(await look_at_network(home_at(tmp_path, world.address)))["tls"]
    assert status == "warning"
    assert "good for 4 days" in found


@pytest.mark.parametrize("answer", ["403 Forbidden", "407 Proxy Authentication Required"])
async def test_a_proxy_that_says_no(tmp_path, monkeypatch, answer):
    asked = []

    async def proxy(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(f"HTTP/1.1 {answer}\r\n\r\n".encode())
        writer.close()

    monkeypatch.setenv("https_proxy", "http://elsewhere.example.org:1")
    async with listening(proxy) as port:
        home = home_at(tmp_path, f"{HOST}:8443")
        with (tmp_path / "site.yaml").open("a") as file:
            file.write(f"proxy: http://127.0.0.1:{port}\n")
        looked = await look_at_network(home)
    found = shown(looked)
    assert found["dns"] == ("ok", f"the proxy 127.0.0.1 is 127.0.0.1; it looks up {HOST} itself")
    assert found["proxy"] == ("failed", f"the proxy 127.0.0.1:{port} answered 'HTTP/1.1 {answer}'")
    assert found["port"][0] == found["tls"][0] == "not checked"
    assert f"HTTP CONNECT to {HOST}:8443" in looked.results[1].advice
    assert asked == [f"CONNECT {HOST}:8443 HTTP/1.1".encode()]
    assert looked.firewall.proxy == f"127.0.0.1:{port}"
    assert f"127.0.0.1:{port}, by HTTP CONNECT to {HOST}:8443" in dict(looked.firewall.lines())["proxy"]


async def test_a_proxy_that_tunnels(tmp_path, monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)

    async def copy(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def tunnel(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", world.server.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    named = server_credentials(pki().server(HOST))
    async with listening(tunnel) as port, coordinator(credentials=named) as world:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        found = shown(await look_at_network(home_at(tmp_path, f"{HOST}:8443")))
    assert {status for status, _ in found.values()} == {"ok"}
    assert found["proxy"][1] == f"127.0.0.1:{port} opened a tunnel to {HOST}:8443 (HTTP CONNECT)"


async def test_a_name_that_nobody_knows_and_a_firewall_that_drops(tmp_path, monkeypatch):
    home = home_at(tmp_path, f"{HOST}:8443")
    monkeypatch.delenv("https_proxy", raising=False)

    async def unknown(_host, _port, _wait_s):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(check_network, "_addresses", unknown)
    looked = await look_at_network(home)
    assert shown(looked)["dns"] == ("failed", f"{HOST} has no address here: Name or service not known")
    assert {result.status.value for result in looked.results[1:]} == {"not checked"}
    assert looked.firewall.addresses == ()

    async def known(_host, _port, _wait_s):
        return ("192.0.2.1",)

    async def dropped(_address, _host, _port):
        await asyncio.Event().wait()

    monkeypatch.setattr(check_network, "_addresses", known)
    monkeypatch.setattr(check_network.tls, "dialled", dropped)
    looked = await look_at_network(home, wait_s=0.01)
    assert shown(looked)["port"] == ("failed", "no answer within 0.01 s")
    assert "a firewall drops" in looked.results[2].advice


# --- the clock and the release ---------------------------------------------------------------------------------------


async def told(folder, service):
    async with coordinator(service) as world:
        home_at(folder, world.address)
        return {result.name: result for result in await ask_coordinator(open_home(folder))}


@pytest.mark.parametrize(("ahead_s", "words"), [(3600.0, "ahead of"), (-3600.0, "behind")])
async def test_a_clock_that_is_an_hour_off(tmp_path, ahead_s, words):
    result = (await told(tmp_path, StudyService(clock_ahead_s=ahead_s)))["clock"]
    assert not result.ok
    assert words in result.found
    assert "allowed: 60 s" in result.found
    assert "NTP" in result.advice


def test_the_time_a_question_takes_is_no_offset():
    """Half of it is uncertain: an answer that took four minutes says nothing about 100 seconds."""
    offset = Offset.of(asked_s=1000.0, told_s=1220.0, answered_s=1240.0)
    assert (offset.ahead_s, offset.uncertainty_s, offset.certain_s) == (100.0, 120.0, 0.0)
    assert Offset.of(asked_s=1000.0, told_s=900.0, answered_s=1000.0).certain_s == 100.0


@pytest.mark.parametrize(
    ("service", "status"),
    [
        ({}, "ok"),
        ({"minimum_agent_version": "99.0.0"}, "failed"),
        ({"version": "99.0.0"}, "warning"),
        ({"minimum_agent_version": "no number"}, "ok"),
    ],
)
async def test_releases_that_do_not_go_together(tmp_path, service, status):
    result = (await told(tmp_path, StudyService(**service)))["versions"]
    assert result.status == status
    assert result.found.startswith(f"agent {__version__}; coordinator ")


async def test_what_a_hospital_needs_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(check_coordinator, "HOSPITAL_PACKAGES", ("torch", "no_such_package"))
    result = (await told(tmp_path, StudyService()))["versions"]
    assert (result.ok, result.found) == (False, "not installed: no_such_package")


async def test_a_coordinator_of_an_older_release_does_not_tell_its_clock(tmp_path):
    service = StudyService()
    service.failing["greet"] = ServiceRefusal("no such method", code=RefusalCode.NOT_FOUND)
    results = await told(tmp_path, service)
    assert results["coordinator"].ok
    assert results["clock"].status == "warning"
    assert results["versions"].ok

"""A no, told precisely: who is at fault, what was found, what to do; and nothing of our insides."""

# ruff: noqa: PT012 - sessions are blocks, and refused ones end by raising from inside

import asyncio
import contextlib
import errno
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consortium.contract.certificates import Issued, new_ecdsa_key, new_signing_key, new_tls_key, site_request
from consortium.contract.messages import EnrolmentRequest, VectorKind
from consortium.contract.names import Digest
from consortium.wire.client import CoordinatorClient, _answered, enrol
from consortium.wire.errors import (
    AddressUnusable,
    CallRefused,
    ConnectionLost,
    CoordinatorUnreachable,
    PortInUse,
    RefusalCode,
    ServiceRefusal,
    TlsProblem,
    TlsRefused,
    WireViolation,
)
from consortium.wire.server import ServerCredentials, serve
from tests.fakes.wire_world import (
    HELLO,
    NAME,
    SITE,
    TOKEN,
    RecordingService,
    clock,
    coordinator,
    listening,
    new_pki,
    pki,
    server_credentials,
    vector_header,
)


class RoomError(Exception):
    """As another room would write it: no base class of the wire's."""

    code = "conflict"

    def advice(self) -> str:
        return "Pause the study first."


@pytest.mark.parametrize(
    ("code", "status", "retryable"),
    [
        (RefusalCode.REFUSED, "PERMISSION_DENIED", False),
        (RefusalCode.NOT_FOUND, "NOT_FOUND", False),
        (RefusalCode.TRY_LATER, "UNAVAILABLE", True),
        (RefusalCode.INVALID, "INVALID_ARGUMENT", False),
        (RefusalCode.CONFLICT, "FAILED_PRECONDITION", False),
    ],
)
async def test_a_refusal_arrives_as_it_was_meant(code: RefusalCode, status: str, retryable: bool) -> None:
    refusal = ServiceRefusal("zu spät: round 3 is over", code=code, advice="Wait for round 4: it is coming.")
    async with coordinator(RecordingService(failing={"submit_events": refusal})) as world, world.connect() as client:
        with pytest.raises(CallRefused) as caught:
            await client.submit_events((b"one",))
    error = caught.value
    assert (error.status, error.code, error.retryable) == (status, code, retryable)
    assert (str(error), error.advice()) == ("zu spät: round 3 is over", "Wait for round 4: it is coming.")


@pytest.mark.parametrize("method", ["list_studies", "open_vector", "upload_limit", "run_session", "submit_events"])
async def test_an_error_of_another_room_needs_no_base_class(method: str) -> None:
    service = RecordingService(failing={method: RoomError("the study is running")})
    async with coordinator(service) as world, world.connect() as client:
        with pytest.raises(CallRefused, match=r"^the study is running$") as caught:
            match method:
                case "list_studies":
                    await client.list_studies()
                case "open_vector":
                    await client.download_vector(VectorKind.AGGREGATE, Digest("00" * 32), 10, bytearray().extend)
                case "upload_limit":
                    await client.upload_vector(vector_header(b"x"), [b"x"])
                case "run_session":
                    async with client.session(HELLO) as session:
                        await anext(session)
                case _:
                    await client.submit_events((b"one",))
    assert (caught.value.code, caught.value.advice()) == (RefusalCode.CONFLICT, "Pause the study first.")


@pytest.mark.parametrize("method", ["execute", "watch"])
async def test_an_operator_is_told_too(method: str) -> None:
    service = RecordingService(failing={method: RoomError("the study is running")})
    async with coordinator(service) as world, world.connect_operator() as client:
        with pytest.raises(CallRefused, match="the study is running"):
            if method == "execute":
                await client.execute("study.pause", b"{}")
            else:
                await anext(client.watch())


async def test_a_wrong_token_is_told() -> None:
    refusal = ServiceRefusal("the token was used before", advice="Ask for a new kit.")
    async with coordinator(RecordingService(failing={"enrol": refusal})) as world:
        with pytest.raises(CallRefused, match="the token was used before"):
            await enrol(world.address, pki().authority.certificate_pem, pki().invitation(), _request())


async def test_a_revoked_site_is_told_at_every_call() -> None:
    service = RecordingService(denied={SITE: ServiceRefusal("north-clinic was revoked", advice="Ask the lead.")})
    async with coordinator(service) as world, world.connect() as client:
        with pytest.raises(CallRefused, match="revoked"):
            await client.submit_events((b"one",))
        with pytest.raises(CallRefused, match="revoked"):
            async with client.session(HELLO) as session:
                await anext(session)
        with pytest.raises(CallRefused, match="revoked"):
            await client.upload_vector(vector_header(b"x"), [b"x"])
    assert (service.events, service.sessions, service.headers) == ([], [], [])


async def test_a_full_disk_is_a_matter_of_time() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/home/consortium/vectors")
    async with coordinator(RecordingService(failing={"submit_events": full})) as world, world.connect() as client:
        with capture_logs() as logs, pytest.raises(CallRefused, match="disk") as caught:
            await client.submit_events((b"one",))
    assert caught.value.retryable
    assert [entry["event"] for entry in logs] == ["wire.disk"]


async def test_an_upload_that_is_not_wanted_is_refused_before_its_bytes_leave() -> None:
    asked: list[int] = []

    async def chunks() -> AsyncIterator[bytes]:
        asked.append(1)
        yield b"x"

    refusal = ServiceRefusal("the round is over", code=RefusalCode.CONFLICT)
    service = RecordingService(failing={"upload_limit": refusal})
    async with coordinator(service) as world, world.connect() as client:
        with pytest.raises(CallRefused, match="the round is over"):
            await client.upload_vector(vector_header(b"x"), chunks())
    assert asked == []


async def test_an_upload_refused_half_way_still_says_why() -> None:
    """gRPC forgets the reason if a write is waiting when the call is closed; so the rest is drained."""
    data = b"y" * 20_000_000
    refusal = ServiceRefusal("the deadline has passed", code=RefusalCode.CONFLICT)
    service = RecordingService(failing={"receive_vector": refusal})
    async with coordinator(service) as world, world.connect() as client:
        for _ in range(5):
            with pytest.raises(CallRefused, match="the deadline has passed"):
                await client.upload_vector(vector_header(data), [data])
    assert service.vectors == {}


async def test_what_a_release_does_not_know() -> None:
    async with coordinator() as world, world.connect() as client:
        call = client._line.unary_unary("/consortium.wire.v1.Coordinator/Dance")
        with pytest.raises(CallRefused) as caught:
            await _answered(call(b""))
    assert caught.value.code is RefusalCode.NOT_FOUND
    assert "release" in caught.value.advice()


async def test_our_own_limits_are_kept_before_anything_is_sent() -> None:
    async with coordinator() as world, world.connect() as client:
        with pytest.raises(WireViolation, match="1025 entries"):
            await client.submit_events((b"e",) * 1025)
        with pytest.raises(WireViolation, match="canonical"):
            await client.execute("study.list", b'{"b":1, "a":2}')
    assert world.sent == []


# --- ports ---------------------------------------------------------------------------------------------------------


async def test_a_port_in_use() -> None:
    async with coordinator() as world:
        with pytest.raises(PortInUse, match="another program") as caught:
            await serve(RecordingService(), address=world.address, credentials=server_credentials())
        assert world.address in caught.value.advice()
        with pytest.raises(PortInUse):
            await serve(
                RecordingService(),
                address="127.0.0.1:0",
                people_address=world.address,
                credentials=server_credentials(),
            )


async def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(AddressUnusable, match=r"192\.0\.2\.1:8443"):
        await serve(RecordingService(), address="192.0.2.1:8443", credentials=server_credentials())


@pytest.mark.parametrize("address", ["", "localhost", "localhost:70000", "http://x:1", "a b:1", ":443"])
async def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        await serve(RecordingService(), address=address, credentials=server_credentials())


# --- who answers ---------------------------------------------------------------------------------------------------


async def _problem(address: str, *, ca_pem: bytes | None = None, own: Issued | None = None) -> TlsProblem:
    own = own or pki().site(SITE)
    with pytest.raises(TlsRefused) as caught:
        await CoordinatorClient.connect(
            address, ca_pem or pki().authority.certificate_pem, own.certificate_pem, own.key_pem, timeout_s=30
        )
    assert caught.value.advice()
    assert not caught.value.retryable
    return caught.value.problem


async def test_a_coordinator_of_another_authority() -> None:
    other = new_pki()
    async with coordinator() as world:
        own = other.site(SITE)
        problem = await _problem(world.address, ca_pem=other.authority.certificate_pem, own=own)
    assert problem is TlsProblem.FOREIGN_AUTHORITY


async def test_a_coordinator_whose_certificate_has_expired() -> None:
    old = pki().server(now=clock() - timedelta(minutes=4), valid_for=timedelta(minutes=3))
    async with coordinator(credentials=server_credentials(old)) as world:
        assert await _problem(world.address) is TlsProblem.EXPIRED


async def test_a_coordinator_under_another_name() -> None:
    elsewhere = pki().server("coordinator.example.org")
    async with coordinator(credentials=server_credentials(elsewhere)) as world:
        assert await _problem(world.address) is TlsProblem.WRONG_HOST
        async with world.connect(server_name_override="coordinator.example.org") as client:
            await client.list_studies()


async def test_our_own_certificate_has_expired_or_is_foreign() -> None:
    expired = pki().site(SITE, now=clock() - timedelta(minutes=4), valid_for=timedelta(minutes=3))
    async with coordinator() as world:
        assert await _problem(world.address, own=expired) is TlsProblem.OWN_CERTIFICATE
        assert await _problem(world.address, own=new_pki().site(SITE)) is TlsProblem.OWN_CERTIFICATE


async def test_our_own_certificate_begins_later_by_our_clock() -> None:
    ahead = pki().site(SITE, now=clock() + timedelta(hours=1))
    async with coordinator() as world:
        assert await _problem(world.address, own=ahead) is TlsProblem.OWN_NOT_YET_VALID


async def test_our_certificate_is_not_accepted_over_there() -> None:
    """The coordinator's authority was made anew; only its server certificate is still the one we know."""
    server = pki().server()
    mixed = ServerCredentials(
        ca_pem=new_pki().authority.certificate_pem,
        certificate_pem=server.certificate_pem,
        key_pem=server.key_pem,
    )
    async with coordinator(credentials=mixed) as world:
        assert await _problem(world.address) is TlsProblem.OWN_CERTIFICATE


async def test_something_that_does_not_speak_tls() -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with listening(web) as port:
        assert await _problem(f"127.0.0.1:{port}") is TlsProblem.NOT_TLS


async def test_something_that_speaks_tls_but_is_no_coordinator(tmp_path: Path) -> None:
    async with _tls_server(tmp_path, ssl.TLSVersion.TLSv1_3) as port:
        assert await _problem(f"127.0.0.1:{port}") is TlsProblem.NOT_A_COORDINATOR


async def test_a_token_at_the_port_for_certificates_and_a_certificate_at_the_port_for_tokens() -> None:
    async with coordinator(people_address="127.0.0.1:0") as world:
        with pytest.raises(TlsRefused) as caught:
            await CoordinatorClient.connect_with_token(world.address, pki().authority.certificate_pem, "a.b.c")
        assert caught.value.problem is TlsProblem.NOT_FOR_TOKENS
        assert "people_address" in caught.value.advice()
        people = f"127.0.0.1:{world.server.people_port}"
        async with world.connect(address=people) as client:
            with pytest.raises(CallRefused):
                await client.list_studies()
        with pytest.raises(CallRefused):  # nor does anybody enrol there
            await enrol(people, pki().authority.certificate_pem, pki().invitation(), _request())
    assert world.service.enrolled == []


async def test_a_clock_that_is_wrong_is_found_before_the_token_is_shown() -> None:
    early = pki().invitation(now=clock() + timedelta(hours=2))
    async with coordinator() as world:
        with pytest.raises(TlsRefused, match="not yet valid") as caught:
            await enrol(world.address, pki().authority.certificate_pem, early, _request())
    assert caught.value.problem is TlsProblem.OWN_NOT_YET_VALID
    assert "clock" in caught.value.advice()
    assert world.service.peers == []


async def test_a_proxy_is_used_and_named_when_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        writer.close()

    own = pki().site(SITE)
    async with listening(proxy) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        with pytest.raises(CoordinatorUnreachable, match=r"proxy 127\.0\.0\.1.*407"):
            await CoordinatorClient.connect(
                "coordinator.example.org:8443", pki().authority.certificate_pem, own.certificate_pem, own.key_pem
            )
        # A coordinator on this very computer is never looked for through a proxy.
        async with coordinator() as world, world.connect() as client:
            await client.list_studies()
    assert asked[0] == b"CONNECT coordinator.example.org:8443 HTTP/1.1"
    assert len(asked) >= 2  # gRPC's own, and the one that finds out why


async def test_a_proxy_that_tunnels_carries_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", world.server.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

    named = server_credentials(pki().server("coordinator.example.org"))
    async with listening(tunnel) as port, coordinator(credentials=named) as world:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        async with world.connect(address="coordinator.example.org:8443") as client, client.session(HELLO) as session:
            await anext(session)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def _tls_server(tmp_path: Path, version: ssl.TLSVersion) -> AsyncIterator[int]:
    own = pki().server()
    path = tmp_path / "server.pem"
    path.write_bytes(own.certificate_pem + own.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(path)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(1)
        writer.close()

    async with listening(answer, ssl=context) as port:
        yield port


def _request() -> EnrolmentRequest:
    der = site_request(
        tls_key=new_tls_key(),
        signing_key=new_signing_key(),
        ecdsa_key=new_ecdsa_key(),
        site=SITE,
        consortium=NAME,
    )
    return EnrolmentRequest(site=SITE, token=TOKEN, request_der=der)


async def test_a_line_lost_before_the_first_call() -> None:
    async with coordinator() as world, world.connect() as client:
        await world.server.stop(0.1)
        with pytest.raises(ConnectionLost):
            await client.list_studies()

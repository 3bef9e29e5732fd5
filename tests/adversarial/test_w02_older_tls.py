"""W-02: TLS 1.2 cannot be negotiated, in either direction, on either port: that of certificates and that of tokens.

Tried: row w02 of `mutations.py`.
"""

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from consortium import wire
from consortium.contract.certificates import CertificateRefused
from consortium.contract.messages import EnrolmentRequest
from consortium.wire import server, tls
from consortium.wire.client import CoordinatorClient, enrol
from consortium.wire.errors import CallRefused, TlsNotPinned, TlsProblem, TlsRefused
from consortium.wire.server import _check_version, serve
from tests.fakes.raw_tls import first_bytes
from tests.fakes.wire_world import SITE, TOKEN, RecordingService, coordinator, pki, server_credentials


async def test_the_server_speaks_1_3(tmp_path: Path) -> None:
    async with coordinator(people_address="127.0.0.1:0") as world:
        assert await first_bytes(world.server.port, tmp_path, own=pki().site(SITE), version=ssl.TLSVersion.TLSv1_3)
        assert await first_bytes(world.server.people_port or 0, tmp_path, version=ssl.TLSVersion.TLSv1_3)


async def test_the_server_does_not_speak_1_2(tmp_path: Path) -> None:
    async with coordinator(people_address="127.0.0.1:0") as world:
        with pytest.raises(OSError):
            await first_bytes(world.server.port, tmp_path, own=pki().site(SITE), version=ssl.TLSVersion.TLSv1_2)
        with pytest.raises(OSError):
            await first_bytes(world.server.people_port or 0, tmp_path, version=ssl.TLSVersion.TLSv1_2)


async def test_the_client_does_not_speak_1_2(tmp_path: Path) -> None:
    own = pki().server()
    (tmp_path / "server.pem").write_bytes(own.certificate_pem + own.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(tmp_path / "server.pem")
    spoken: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve_old, args=(listener, context, spoken), daemon=True).start()
        site = pki().site(SITE)
        with pytest.raises(TlsRefused) as caught:
            await CoordinatorClient.connect(
                f"127.0.0.1:{listener.getsockname()[1]}",
                pki().authority.certificate_pem,
                site.certificate_pem,
                site.key_pem,
                timeout_s=5,
            )
        listener.shutdown(socket.SHUT_RDWR)
    assert caught.value.problem is TlsProblem.OLD_TLS
    assert spoken == []


def _serve_old(listener: socket.socket, context: ssl.SSLContext, spoken: list[str]) -> None:
    """Accept, shake hands in an older version if the caller will, and say what gRPC waits for."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as line:
                spoken.append(str(line.version()))
                line.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                line.recv(1)


async def test_nothing_opens_if_grpc_was_loaded_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "TLS13_ONLY", False)
    site = pki().site(SITE)
    with pytest.raises(TlsNotPinned):
        await serve(RecordingService(), address="127.0.0.1:0", credentials=server_credentials())
    with pytest.raises(TlsNotPinned):
        await CoordinatorClient.connect(
            "127.0.0.1:1", pki().authority.certificate_pem, site.certificate_pem, site.key_pem
        )


@pytest.mark.parametrize(("first", "second", "pinned"), [("grpc", "wire", False), ("wire", "grpc", True)])
def test_the_order_of_imports_is_noticed(first: str, second: str, pinned: bool) -> None:
    names = {"grpc": "import grpc", "wire": "import consortium.wire"}
    program = f"{names[first]}; {names[second]}; from consortium import wire; print(wire.TLS13_ONLY)"
    environment = {key: value for key, value in os.environ.items() if key != "GRPC_SSL_CIPHER_SUITES"}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment, cwd=Path.cwd()
    )
    assert ran.stdout.strip() == str(pinned)


def test_a_call_over_an_older_line_would_be_refused() -> None:
    _check_version({"ssl_tls_version": [b"TLSv1.3"]})
    _check_version({})  # a gRPC that does not say
    with pytest.raises(CertificateRefused, match=r"TLS 1\.3"):
        _check_version({"ssl_tls_version": [b"TLSv1.2"]})


async def test_every_call_on_both_ports_asks_for_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_TLS13", b"TLSv1.4")  # as if this line were an older one
    request, ca_pem = EnrolmentRequest(site=SITE, token=TOKEN, request_der=b"x"), pki().authority.certificate_pem
    async with coordinator(people_address="127.0.0.1:0") as world, world.connect() as client:
        with pytest.raises(CallRefused, match=r"TLSv1\.3"):
            await client.list_studies()
        with pytest.raises(CallRefused, match=r"TLSv1\.3"):
            await enrol(world.address, ca_pem, pki().invitation(), request)
        people = f"127.0.0.1:{world.server.people_port}"
        async with await CoordinatorClient.connect_with_token(people, ca_pem, "a.b.c") as person:
            with pytest.raises(CallRefused, match=r"TLSv1\.3"):
                await person.execute("status", b"{}")
    assert world.service.peers == []
    assert world.service.enrolled == []


def test_this_very_process_is_pinned() -> None:
    tls.require_pinned()

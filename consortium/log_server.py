"""The log over HTTPS, read-only, under the paths of C2SP tlog-tiles: `log_address` in coordinator.yaml.

    GET /checkpoint, /tile/<L>/<N>[.p/<W>], /tile/entries/<N>[.p/<W>]

Readers are members, with a certificate of this consortium (`log_readers: members`), or anybody. Answers come from the
running coordinator's log, never from a path on the disk (`audit.tile_requests`), and nothing a reader sends is kept.

Holds against: paths that lead elsewhere, bodies, large headers, slow readers and writers, more connections than there
are places, a certificate that was revoked while its connection lasts (threat W-10).
Does not hold against: a flood that fills the network before it. Who answers strangers puts a web server in front.

HTTP/1.1 is read by h11, which has no sockets; a connection here is a loop over its events.
"""

import asyncio
import errno
import os
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any

import h11
import structlog

from audit.dropped import EntriesDropped
from audit.errors import AuditError
from audit.log import LogView
from audit.storage import CHECKPOINT
from audit.tile_requests import tile_bytes, wanted
from consortium.contract.certificates import (
    CertificateRefused,
    PeerIdentity,
    Role,
    load_authority_certificate,
    verify_certificate,
)
from consortium.contract.kit import split_address
from consortium.errors import ConsortiumError
from consortium.wire.errors import AddressUnusable, PortInUse

log = structlog.get_logger(__name__)

CONNECTIONS_MAX, CONNECTIONS_PER_HOST_MAX = 64, 16
"""At the same time, counted from before the handshake."""
REQUESTS_MAX = 10_000
"""On one connection; a whole log of a million entries is read with fewer."""
HEAD_BYTES_MAX = 8 * 1024
HANDSHAKE_S, HEAD_S, WRITE_S, CLOSE_S = 10.0, 20.0, 60.0, 5.0
"""What a reader has for the handshake, for the next request, for taking an answer, and for taking the last of it."""
STOP_S = 1.0
_READ = 4 * 1024
_TEXT, _BYTES = "text/plain; charset=utf-8", "application/octet-stream"
_ALLOWED = (b"GET", b"HEAD")
_MEMBERS = (Role.SITE, Role.ACCOUNT, Role.OPERATOR)
"""Who is a member; a kit's certificate is not one's yet."""


class LogNotServed(ConsortiumError):
    """The log cannot be served over HTTPS with these files; the fault is in the coordinator's home."""

    code = "invalid"

    def __init__(self, found: str) -> None:
        super().__init__(f"the log cannot be served over HTTPS: {found}")

    def advice(self) -> str:
        """What to do next."""
        return (
            "Put keys/server.pem and certificates/server.pem back as `consortium init` made them, or take log_address "
            "out of coordinator.yaml."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """Who may read: those with a certificate of `ca_pem` whom `authenticate` does not refuse, or all if it is None."""

    ca_pem: bytes
    authenticate: Callable[[PeerIdentity], Awaitable[None]] | None  # raises for a certificate that counts no more


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    status: int
    body: bytes
    content_type: str = _TEXT
    cache: str = "no-store"


async def serve_log(
    source: LogView,
    *,
    checkpoint: Callable[[], bytes],
    address: str,
    certificate: Path,
    key: Path,
    readers: Readers,
) -> "RunningLogServer":
    """Open the port and serve until stopped.

    Args:
        source: The log.
        checkpoint: The note that `/checkpoint` gives: of the log's present tree or an earlier one, cosigned or not.
        address: HOST:PORT of coordinator.yaml.
        certificate: The coordinator's, PEM.
        key: Of the certificate, PEM.
        readers: Who may read.

    Raises:
        PortInUse, AddressUnusable, LogNotServed: Nothing was opened.
    """
    server = RunningLogServer(source, checkpoint, _context(certificate, key, readers), readers)
    await server.open(address)
    return server


def _context(certificate: Path, key: Path, readers: Readers) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise LogNotServed(f"{certificate.name} and its key do not fit ({error.reason or 'not PEM'})") from error
    except OSError as error:
        raise LogNotServed(f"the certificate or its key cannot be read ({error.strerror})") from error
    if readers.authenticate is not None:
        context.load_verify_locations(cadata=readers.ca_pem.decode("ascii"))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class RunningLogServer:
    """The open port, and who is connected. `port` is the one really used (an address may ask for port 0)."""

    def __init__(
        self, source: LogView, checkpoint: Callable[[], bytes], context: ssl.SSLContext, readers: Readers
    ) -> None:
        self._source, self._checkpoint = source, checkpoint
        self._context, self._readers = context, readers
        self._authority = load_authority_certificate(readers.ca_pem)
        self._tasks: set[asyncio.Task[None]] = set()
        self._hosts: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def open(self, address: str) -> None:
        """Bind and accept; raises as `serve_log`."""
        host, port = split_address(address)
        try:
            self._server = await asyncio.start_server(self._accepted, host, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(address) from error
            raise AddressUnusable(address, error.strerror or os.strerror(error.errno or 0)) from error
        self.port = int(self._server.sockets[0].getsockname()[1])

    def show(self, pair: Path) -> None:
        """Show another certificate from the next handshake on: a PEM file with its key."""
        self._context.load_cert_chain(pair)

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_S)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = str((writer.get_extra_info("peername") or ("",))[0])
        if self._hosts.total() >= CONNECTIONS_MAX or self._hosts[host] >= CONNECTIONS_PER_HOST_MAX:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._hosts[host] += 1
        self._tasks.add(task)
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await writer.start_tls(self._context)
            await _Conversation(self, reader, writer).run()
            writer.close()  # what was sent last still leaves
            async with asyncio.timeout(CLOSE_S):
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError, asyncio.CancelledError):
            pass  # the reader left, was too slow, or is told to go: there is nobody to tell, and nothing to undo
        finally:
            writer.transport.abort()
            self._tasks.discard(task)
            self._hosts[host] -= 1
            if not self._hosts[host]:
                del self._hosts[host]

    async def reply_to(self, request: h11.Request, certificate: bytes | None) -> _Reply:
        """The answer to one request of a reader who showed this certificate (DER)."""
        refused = await self._refused(certificate)
        if refused is not None:
            return _Reply(status=403, body=refused.encode() + b"\n")
        if request.method not in _ALLOWED:
            return _Reply(status=405, body=b"the log is only read: GET or HEAD\n")
        path = request.target.decode("latin-1").removeprefix("/")
        try:
            return await asyncio.to_thread(self._answer, path)  # it may wait for an append, or for the disk
        except AuditError as error:
            log.exception("log.not_read", reason=str(error))
            return _Reply(status=503, body=b"the log cannot be read now\n")

    async def _refused(self, certificate: bytes | None) -> str | None:
        """Why this reader may not read, in words; TLS has verified the certificate, perhaps long ago."""
        if self._readers.authenticate is None:
            return None
        try:
            peer = verify_certificate(certificate or b"", self._authority, datetime.now(UTC), role=_MEMBERS)
            await self._readers.authenticate(peer)
        except (CertificateRefused, ConsortiumError) as error:
            return str(error)
        return None

    def _answer(self, path: str) -> _Reply:
        if path == CHECKPOINT:
            # Mutable: a copy may be kept, but is asked for again each time.
            return _Reply(status=200, body=self._checkpoint(), cache="no-cache")
        asked = wanted(path)
        try:
            body = None if asked is None else tile_bytes(self._source, asked)
        except EntriesDropped as error:
            return _Reply(status=410, body=f"{error}\n".encode())
        if body is None:
            return _Reply(status=404, body=b"there is nothing of that name\n")
        whose = "public" if self._readers.authenticate is None else "private"
        return _Reply(status=200, body=body, content_type=_BYTES, cache=f"{whose}, max-age=31536000, immutable")


class _Conversation:
    """One connection, request after request."""

    def __init__(self, server: RunningLogServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server, self._reader, self._writer = server, reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._certificate: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)

    async def run(self) -> None:
        """Until the reader has had enough, or breaks a rule."""
        try:
            for _ in range(REQUESTS_MAX):
                async with asyncio.timeout(HEAD_S):
                    request = await self._next_request()
                if request is None:
                    return
                reply = await self._server.reply_to(request, self._certificate)
                await self._send(reply, body=request.method != b"HEAD")
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            with suppress(h11.LocalProtocolError):
                await self._send(_Reply(status=error.error_status_hint, body=b"this is no request of a log's reader\n"))

    async def _next_request(self) -> h11.Request | None:
        """The next request, whole; None at the end."""
        request: h11.Request | None = None
        while True:
            event: Any = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(_READ))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage):
                return request
            elif isinstance(event, h11.Data):
                raise h11.RemoteProtocolError("a request with a body", error_status_hint=413)
            else:  # the connection was closed
                return None

    async def _send(self, reply: _Reply, *, body: bool = True) -> None:
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", reply.content_type),
            ("Content-Length", str(len(reply.body))),
            ("Cache-Control", reply.cache),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if reply.status == 405:
            headers.append(("Allow", "GET, HEAD"))
        data = self._http.send(h11.Response(status_code=reply.status, headers=headers)) or b""
        if body:
            data += self._http.send(h11.Data(data=reply.body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        self._writer.write(data)
        async with asyncio.timeout(WRITE_S):
            await self._writer.drain()

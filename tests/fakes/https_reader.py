"""A log served over HTTPS, and readers whose requests are byte for byte what a test wants: real TLS on the loopback."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from audit.log import Log
from consortium.contract.certificates import Issued, PeerIdentity
from consortium.errors import AccessDenied
from consortium.log_server import Readers, RunningLogServer, serve_log
from tests.fakes.wire_world import pki
from tests.interop.grown_logs import grown

SIZE = 70


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


class Reader:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, raw: bytes, *, body: bool = True) -> Reply:
        """Send these bytes and read one answer."""
        self._writer.write(raw)
        await self._writer.drain()
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 60)
        status, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers["content-length"]) if body else 0
        return Reply(status=int(status.split()[1]), headers=headers, body=await self._reader.readexactly(length))

    async def get(self, path: str, method: str = "GET") -> Reply:
        """An ordinary request."""
        return await self.ask(f"{method} {path} HTTP/1.1\r\nHost: hub\r\n\r\n".encode(), body=method != "HEAD")

    async def at_end(self) -> bool:
        """Whether the other side has closed the connection."""
        return await asyncio.wait_for(self._reader.read(1), 60) == b""


@asynccontextmanager
async def served(
    folder: Path, *, members: bool = False, denied: Collection[str] = (), size: int = SIZE
) -> AsyncIterator[tuple[Log, RunningLogServer]]:
    """A log of some entries at a free port; `denied` are names whose certificates were revoked."""

    async def authenticate(peer: PeerIdentity) -> None:
        if peer.name in denied:
            raise AccessDenied(f"the certificate of {peer.name} was revoked")

    log, _ = grown(folder / "log", (size,))
    own = pki().server("127.0.0.1")
    (folder / "server.pem").write_bytes(own.certificate_pem)
    (folder / "server.key").write_bytes(own.key_pem)
    server = await serve_log(
        log,
        checkpoint=lambda: log.checkpoint().to_bytes(),
        address="127.0.0.1:0",
        certificate=folder / "server.pem",
        key=folder / "server.key",
        readers=Readers(ca_pem=pki().authority.certificate_pem, authenticate=authenticate if members else None),
    )
    try:
        yield log, server
    finally:
        await server.stop()
        log.close()


@asynccontextmanager
async def stranger(server: RunningLogServer, folder: Path, own: Issued | None = None) -> AsyncIterator[Reader]:
    """A connection, with a certificate of one's own or without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pki().authority.certificate_pem.decode())
    if own is not None:
        for name, pem in {"own.pem": own.certificate_pem, "own.key": own.key_pem}.items():
            (folder / name).write_bytes(pem)
        context.load_cert_chain(folder / "own.pem", folder / "own.key")
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    try:
        yield Reader(reader, writer)
    finally:
        writer.transport.abort()

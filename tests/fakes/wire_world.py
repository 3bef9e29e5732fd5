"""A consortium's wire in one process: a throw-away authority, a coordinator that remembers, and callers.

    async with coordinator() as world:
        async with world.connect("north-clinic") as client:
            await client.submit_events((b"...",))

Everything is real (keys, certificates, TLS on the loopback interface, gRPC) but the decisions: `RecordingService` says
yes to everything, keeps it, and can be told to say no.
"""

import asyncio
import hashlib
import ssl as ssl_module
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from consortium import __version__
from consortium.contract.certificates import (
    Authority,
    Issued,
    PeerIdentity,
    create_authority,
    issue_account,
    issue_invitation,
    issue_operator,
    issue_server,
    issue_site,
    new_ecdsa_key,
    new_signing_key,
    new_tls_key,
    private_pem,
    site_request,
)
from consortium.contract.messages import (
    AccountRequest,
    CoordinatorMessage,
    EnrolmentGrant,
    EnrolmentRequest,
    EventReceipt,
    Greeting,
    Hello,
    LogGrowth,
    LogPosition,
    SiteMessage,
    StudyDocument,
    VectorHeader,
    VectorKind,
    Welcome,
)
from consortium.contract.names import Digest, SiteId, StudyId
from consortium.wire.client import CoordinatorClient, SentRecord
from consortium.wire.errors import RefusalCode, ServiceRefusal
from consortium.wire.server import RunningServer, ServerCredentials, serve
from consortium.wire.transfer import Begun
from privacy.secagg.messages import UploadHeader

NAME = "alpine-heart"
SITE = SiteId("north-clinic")
TOKEN = "one-time-token-42"
YEAR = timedelta(days=365)
HELLO = Hello(agent_version="0.1.0", protocol_version=1)
STUDY_DIGEST = Digest("5d" * 32)


@dataclass(frozen=True, kw_only=True)
class Pki:
    """An authority and the certificates it gives out."""

    authority: Authority

    def server(self, *hosts: str, now: datetime | None = None, valid_for: timedelta = YEAR) -> Issued:
        """The coordinator's certificate, for this computer unless told otherwise."""
        return issue_server(
            self.authority, hosts or ("127.0.0.1", "localhost"), now=now or clock(), valid_for=valid_for
        )

    def site(self, name: str, *, now: datetime | None = None, valid_for: timedelta = YEAR) -> Issued:
        """A site's certificate, by the same request a hospital makes."""
        key = new_tls_key()
        der = site_request(
            tls_key=key,
            signing_key=new_signing_key(),
            ecdsa_key=new_ecdsa_key(),
            site=SiteId(name),
            consortium=NAME,
        )
        pem = issue_site(self.authority, SiteId(name), der, now=now or clock(), valid_for=valid_for)
        return Issued(certificate_pem=pem, key_pem=private_pem(key))

    def invitation(self, token: str = TOKEN, *, now: datetime | None = None, valid_for: timedelta = YEAR) -> Issued:
        """What lies in the kit with this token."""
        return issue_invitation(self.authority, token, now=now or clock(), valid_for=valid_for)

    def operator(self, name: str = "lead") -> Issued:
        """An operator's certificate."""
        return issue_operator(self.authority, name, now=clock(), valid_for=YEAR)


def clock() -> datetime:
    """The time the tests run at."""
    return datetime.now(UTC)


def new_pki() -> Pki:
    """An authority nobody else has."""
    return Pki(authority=create_authority(NAME, now=clock(), valid_for=10 * YEAR))


@cache
def pki() -> Pki:
    """The consortium's authority, one for all tests of a run."""
    return new_pki()


@dataclass
class RecordingService:
    """A CoordinatorService that agrees to everything and remembers it."""

    denied: dict[str, Exception] = field(default_factory=dict)  # peer name -> what authenticate raises
    failing: dict[str, Exception] = field(default_factory=dict)  # method -> what it raises
    upload_bytes_max: int = 1 << 30
    vectors: dict[str, bytes] = field(default_factory=dict)  # digest -> bytes, only whole ones
    headers: list[VectorHeader] = field(default_factory=list)
    broken_uploads: list[Exception] = field(default_factory=list)
    sessions: list[tuple[str, Hello]] = field(default_factory=list)
    heard: list[SiteMessage] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # a session came to its end
    session_error: BaseException | None = None
    outgoing: list[CoordinatorMessage] = field(default_factory=list)  # said after Welcome
    echo: Callable[[SiteMessage], CoordinatorMessage] | None = None
    peers: list[PeerIdentity] = field(default_factory=list)
    events: list[bytes] = field(default_factory=list)
    enrolled: list[EnrolmentRequest] = field(default_factory=list)
    positions: list[LogPosition] = field(default_factory=list)
    growth: LogGrowth | None = None  # what it says of its log; none: it has none to show
    log_parts: list[tuple[bytes, ...]] = field(default_factory=list)
    cosigned: list[tuple[str, bytes]] = field(default_factory=list)
    largest_chunk: int = 0
    clock_ahead_s: float = 0.0
    version: str = __version__
    minimum_agent_version: str = "0.1.0"
    turned: list[tuple[str | None, str, str]] = field(default_factory=list)  # who, which method, which error

    def _maybe_fail(self, method: str) -> None:
        if method in self.failing:
            raise self.failing[method]

    async def authenticate(self, peer: PeerIdentity) -> None:
        self.peers.append(peer)
        if peer.name in self.denied:
            raise self.denied[peer.name]

    async def run_session(
        self,
        peer: PeerIdentity,
        hello: Hello,
        incoming: AsyncIterator[SiteMessage],
        send: Callable[[CoordinatorMessage], Awaitable[None]],
    ) -> None:
        self._maybe_fail("run_session")
        self.sessions.append((peer.name, hello))
        try:
            await send(Welcome(consortium=NAME, coordinator_version="0.1.0", protocol_version=1))
            for instruction in self.outgoing:
                await send(instruction)
            async for message in incoming:
                self.heard.append(message)
                if self.echo is not None:
                    await send(self.echo(message))
        except BaseException as error:
            self.session_error = error
            raise
        finally:
            self.ended.set()

    def upload_limit(self, peer: PeerIdentity, header: VectorHeader) -> int:
        self._maybe_fail("upload_limit")
        return self.upload_bytes_max

    async def begin_vector(self, peer: PeerIdentity, header: VectorHeader, *, resumes: bool) -> Begun:
        return Begun()

    async def receive_vector(self, peer: PeerIdentity, header: VectorHeader, chunks: AsyncIterator[bytes]) -> None:
        self.headers.append(header)
        received = bytearray()
        try:
            async for chunk in chunks:
                self.largest_chunk = max(self.largest_chunk, len(chunk))
                received += chunk
                self._maybe_fail("receive_vector")
        except Exception as error:
            self.broken_uploads.append(error)
            raise
        self.vectors[hashlib.sha256(received).hexdigest()] = bytes(received)

    async def open_vector(
        self, peer: PeerIdentity, kind: VectorKind, digest: Digest
    ) -> tuple[VectorHeader, AsyncIterator[bytes]]:
        self._maybe_fail("open_vector")
        if digest not in self.vectors:
            raise ServiceRefusal("no such vector", code=RefusalCode.NOT_FOUND, advice="Wait for the next instruction.")
        data = self.vectors[digest]
        return vector_header(data, kind), _once(data)

    async def follow_log(
        self, peer: PeerIdentity, position: LogPosition
    ) -> tuple[LogGrowth, AsyncIterator[tuple[bytes, ...]]]:
        self._maybe_fail("follow_log")
        self.positions.append(position)
        if self.growth is None:
            raise ServiceRefusal("there is no log here", code=RefusalCode.TRY_LATER, advice="Ask again.")

        async def parts() -> AsyncIterator[tuple[bytes, ...]]:
            for part in self.log_parts:
                yield part

        return self.growth, parts()

    async def cosign_log(self, peer: PeerIdentity, note: bytes) -> None:
        self._maybe_fail("cosign_log")
        self.cosigned.append((peer.name, note))

    async def submit_events(self, peer: PeerIdentity, events: tuple[bytes, ...]) -> EventReceipt:
        self._maybe_fail("submit_events")
        self.events += [event for event in events if event not in self.events]  # what it has, it has
        return EventReceipt(last_sequence=len(self.events))

    async def list_studies(self, peer: PeerIdentity) -> tuple[StudyDocument, ...]:
        self._maybe_fail("list_studies")
        return (study_document(b'{"id":"heart-disease"}'), study_document(b'{"id":"heart-disease","v":2}'))

    async def greet(self, peer: PeerIdentity) -> Greeting:
        self._maybe_fail("greet")
        return Greeting(
            unix_time_ms=round(1000 * (clock().timestamp() + self.clock_ahead_s)),
            coordinator_version=self.version,
            protocol_version=1,
            minimum_agent_version=self.minimum_agent_version,
        )

    async def turned_away(self, peer: PeerIdentity | None, method: str, error: Exception) -> None:
        self.turned.append((str(peer.name) if peer is not None else None, method, type(error).__name__))

    async def execute(self, peer: PeerIdentity, command: str, arguments: bytes) -> bytes:
        self._maybe_fail("execute")
        return b'{"command":"%s","got":%s}' % (command.encode(), arguments)

    async def watch(self, peer: PeerIdentity) -> AsyncIterator[bytes]:
        self._maybe_fail("watch")
        for number in range(3):
            yield b'{"round":%d}' % number
        if peer.name == "patient-lead":
            await asyncio.Event().wait()

    async def renew(self, peer: PeerIdentity, request_der: bytes) -> EnrolmentGrant:
        self._maybe_fail("renew")
        pem = issue_site(pki().authority, peer.site, request_der, now=clock(), valid_for=YEAR)
        return EnrolmentGrant(consortium=NAME, certificate_pem=pem)

    async def enrol_account(self, peer: PeerIdentity, request: AccountRequest) -> EnrolmentGrant:
        self._maybe_fail("enrol_account")
        now = clock()
        pem = issue_account(pki().authority, request.account, request.request_der, now=now, valid_for=YEAR)
        return EnrolmentGrant(consortium=NAME, certificate_pem=pem)

    async def enrol(self, peer: PeerIdentity, request: EnrolmentRequest) -> EnrolmentGrant:
        self._maybe_fail("enrol")
        self.enrolled.append(request)
        pem = issue_site(pki().authority, request.site, request.request_der, now=clock(), valid_for=YEAR)
        return EnrolmentGrant(consortium=NAME, certificate_pem=pem)


@dataclass
class World:
    """A running coordinator and how to reach it."""

    service: RecordingService
    server: RunningServer
    sent: list[SentRecord] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @asynccontextmanager
    async def connect(
        self, name: str = SITE, *, credentials: Issued | None = None, address: str | None = None, **options: Any
    ) -> AsyncIterator[CoordinatorClient]:
        """A site's client."""
        own = credentials or pki().site(name)
        client = await CoordinatorClient.connect(
            address or self.address,
            pki().authority.certificate_pem,
            own.certificate_pem,
            own.key_pem,
            on_sent=self.sent.append,
            **options,
        )
        async with client:
            yield client

    def connect_operator(self, name: str = "lead") -> Any:
        """An operator's client."""
        return self.connect(name, credentials=pki().operator(name))


@asynccontextmanager
async def coordinator(
    service: RecordingService | None = None, *, credentials: ServerCredentials | None = None, **options: Any
) -> AsyncIterator[World]:
    """A coordinator on a free port of the loopback interface."""
    service = service or RecordingService()
    server = await serve(
        service,
        address=options.pop("address", "127.0.0.1:0"),
        credentials=credentials or server_credentials(),
        **options,
    )
    try:
        yield World(service=service, server=server)
    finally:
        await server.stop(0.2)


@asynccontextmanager
async def forwarder(port: int) -> AsyncIterator["Forwarder"]:
    """A TCP line to `port` that can be cut or go silent."""
    line = Forwarder(port)
    try:
        async with listening(line.accept) as own_port:
            line.address = f"127.0.0.1:{own_port}"
            try:
                yield line
            finally:
                line.cut()
    finally:
        line.cut()  # also what was accepted while the line was being closed


@asynccontextmanager
async def listening(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    *,
    ssl: ssl_module.SSLContext | None = None,
) -> AsyncIterator[int]:
    """The port of a server that answers as told. At the end nothing of it is open, nor what came at the last moment."""
    writers: list[asyncio.StreamWriter] = []

    async def noted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            await answer(reader, writer)

    server = await asyncio.start_server(noted, "127.0.0.1", 0, ssl=ssl)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for _ in range(2):  # a connection that was just accepted is not among them yet
            await asyncio.sleep(0.02)
            for writer in writers:
                writer.transport.abort()
        await asyncio.sleep(0)


class Forwarder:
    """Bytes in, bytes out, until told otherwise."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._left_bytes: int | None = None
        self.carried_bytes = 0  # to the port
        self.address = ""

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, far_writer]
        self._tasks += [
            asyncio.create_task(self._copy(reader, far_writer, counts=True)),
            asyncio.create_task(self._copy(far_reader, writer)),
        ]

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counts: bool = False) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                if counts:
                    self.carried_bytes += len(data)
                    if self._left_bytes is not None and self.carried_bytes >= self._left_bytes:
                        self._left_bytes = None
                        self._break()
                        return
                writer.write(data)
                await writer.drain()

    def cut_after(self, size_bytes: int) -> None:
        """Break every connection once so much more has been carried to the port; what comes later is carried again."""
        self._left_bytes = self.carried_bytes + size_bytes

    def _break(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def silence(self) -> None:
        """From now on nothing arrives, and nobody is told."""
        self._flowing.clear()

    def cut(self) -> None:
        """Reset every connection, as a killed process or a rebooting router does."""
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()


def server_credentials(issued: Issued | None = None) -> ServerCredentials:
    """What the coordinator shows."""
    own = issued or pki().server()
    return ServerCredentials(
        ca_pem=pki().authority.certificate_pem, certificate_pem=own.certificate_pem, key_pem=own.key_pem
    )


def vector_header(
    data: bytes, kind: VectorKind = VectorKind.INITIAL_MODEL, *, site: str = SITE, **changes: Any
) -> VectorHeader:
    """The true header of `data`, unless changed."""
    sha256 = hashlib.sha256(data).digest()
    upload = None
    if kind is VectorKind.MASKED_UPDATE:
        upload = UploadHeader(
            context=b"c" * 32,
            site=SiteId(site),
            keying_hash=b"k" * 32,
            masked_update_hash=changes.get("sha256", sha256),
            signature=b"s" * 64,
        )
    fields = {"kind": kind, "sha256": sha256, "size_bytes": len(data), "study_digest": STUDY_DIGEST, "upload": upload}
    return VectorHeader(**{**fields, **changes})


def study_document(document: bytes) -> StudyDocument:
    """A study with its true digest."""
    digest = Digest(hashlib.sha256(document).hexdigest())
    return StudyDocument(study=StudyId("heart-disease"), study_digest=digest, document=document, state="running")


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data

"""The coordinator's port: bytes to calls of the service, answers to bytes. No decisions.

The port asks every caller for a certificate of this consortium, within TLS 1.3. Who is calling is read from that
certificate and from nothing else; sites may call Coordinator's methods, accounts and the operator Operator's, and who
was invited, with the certificate of a kit, Enrolment's. A second port, where there is one, is for people who show a
token instead.

Each handler does the same four things: identify, let the service admit, decode within bounds, hand over. What goes
wrong leaves as one entry of the table in `status.py`.
"""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

import grpc

from consortium.contract.bearer import METADATA, Bearer, bearer_of
from consortium.contract.certificates import (
    CertificateRefused,
    Fault,
    PeerIdentity,
    Role,
    certificate_der,
    load_authority_certificate,
    verify_certificate,
)
from consortium.contract.kit import split_address
from consortium.contract.messages import (
    CoordinatorMessage,
    Hello,
    MaskedUpdate,
    SiteMessage,
    VectorHeader,
    VectorKind,
)
from consortium.wire import channel, codec, limits, log_codec, status, tls
from consortium.wire import consortium_pb2 as pb
from consortium.wire.errors import (
    AddressUnusable,
    PortInUse,
    RefusalCode,
    ServiceRefusal,
    SessionBroken,
    WireViolation,
)
from consortium.wire.places import Place, Places
from consortium.wire.service import CoordinatorService
from consortium.wire.traffic import Traffic, counter
from consortium.wire.transfer import CheckedChunks, pieces
from privacy.secagg.messages import Confirmation, KeyBundle, SealedShares, UnmaskShares

T = TypeVar("T")
Context = Any  # grpc.aio.ServicerContext; gRPC carries no types

_TLS13 = b"TLSv1.3"
_UPLOADABLE = (VectorKind.MASKED_UPDATE, VectorKind.INITIAL_MODEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCredentials:
    """What the coordinator shows its callers, and what it asks of theirs."""

    ca_pem: bytes
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)


class _Shown:
    """The certificate that the ports show: another one from the next handshake on."""

    def __init__(self, credentials: ServerCredentials) -> None:
        self.credentials = credentials

    def for_port(self, *, mutual: bool) -> Any:
        """Credentials of a port; `mutual`: whether the caller has to show a certificate too."""
        told = self.credentials

        def fetch() -> Any:
            nonlocal told
            if told is self.credentials:
                return None  # as before
            told = self.credentials
            return _configuration(told, mutual=mutual)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(told, mutual=mutual), fetch, require_client_authentication=mutual
        )


def _configuration(credentials: ServerCredentials, *, mutual: bool) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(credentials.key_pem, credentials.certificate_pem)],
        root_certificates=credentials.ca_pem if mutual else None,
    )


class RunningServer:
    """The open ports. `port` and `people_port` are the ones really used (an address may ask for port 0)."""

    def __init__(
        self, servers: list[Any], stopping: asyncio.Event, shown: _Shown, *, port: int, people_port: int | None
    ) -> None:
        self._servers = servers
        self._shown = shown
        self._stopping = stopping
        self.port = port
        self.people_port = people_port

    def show(self, credentials: ServerCredentials) -> None:
        """Show another certificate of the same authority from the next handshake on; connections stay."""
        self._shown.credentials = credentials

    async def stop(self, grace_s: float = 5.0) -> None:
        """End the sessions in order, let calls finish for `grace_s`, then close the ports."""
        self._stopping.set()
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))


async def serve(
    service: CoordinatorService,
    *,
    address: str,
    credentials: ServerCredentials,
    people_address: str | None = None,
    keepalive_s: float = limits.KEEPALIVE_S,
    traffic: Traffic | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> RunningServer:
    """Open the ports and serve until stopped. HOST may be 0.0.0.0, [::] or an address of this computer.

    What passes between here and hospitals is counted in `traffic`.

    Raises:
        PortInUse, AddressUnusable: nothing was opened.
        TlsNotPinned: see `consortium.wire`.
        ValueError: an address, a certificate or a key that is none.
    """
    tls.require_pinned()
    stopping = asyncio.Event()
    handlers = _Handlers(service, credentials.ca_pem, stopping, clock)
    shown = _Shown(credentials)
    main = grpc.aio.server(
        handlers=handlers.for_members(traffic or Traffic()),
        options=channel.server(message_bytes_max=limits.MESSAGE_BYTES_MAX, keepalive_s=keepalive_s),
        maximum_concurrent_rpcs=limits.CALLS_MAX,
    )
    servers, port = [main], _listen(main, address, shown.for_port(mutual=True))
    people_port = None
    if people_address is not None:
        people = grpc.aio.server(
            handlers=handlers.for_bearers(),
            options=channel.server(message_bytes_max=limits.MESSAGE_BYTES_MAX, keepalive_s=keepalive_s),
            maximum_concurrent_rpcs=limits.CALLS_PER_CONNECTION_MAX,
        )
        servers.append(people)
        try:
            people_port = _listen(people, people_address, shown.for_port(mutual=False))
        except AddressUnusable:
            await main.stop(None)
            raise
    for server in servers:
        await server.start()
    return RunningServer(servers, stopping, shown, port=port, people_port=people_port)


def _listen(server: Any, address: str, credentials: Any) -> int:
    """Bind, and say precisely what is in the way: gRPC only says that it failed."""
    host, port = split_address(address)
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen(1)  # on Linux two sockets may both be bound; only one may listen
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(address) from error
        reason = error.strerror or os.strerror(error.errno or 0)
        raise AddressUnusable(address, reason) from error
    try:
        return int(server.add_secure_port(address, credentials))
    except RuntimeError as error:
        raise AddressUnusable(address, "the port, the certificate or its key was not accepted") from error


class _Handlers:
    """The methods, as gRPC calls them."""

    def __init__(
        self,
        service: CoordinatorService,
        ca_pem: bytes,
        stopping: asyncio.Event,
        clock: Callable[[], datetime],
    ) -> None:
        self._service = service
        self._authority = load_authority_certificate(ca_pem)
        self._stopping = stopping
        self._clock = clock
        self._uploads = Places(limits.UPLOADS_MOVING_MAX)
        self._downloads = Places(limits.DOWNLOADS_MOVING_MAX)

    def for_members(self, traffic: Traffic) -> tuple[Any, ...]:
        """The services of the main port."""
        site, operator, invited = (Role.SITE,), (Role.OPERATOR, Role.ACCOUNT), (Role.INVITED,)
        return (
            _registered(
                "Coordinator",
                {
                    "Session": grpc.stream_stream_rpc_method_handler(self._member(site, self._session, "Session")),
                    "UploadVector": grpc.stream_unary_rpc_method_handler(
                        self._member(site, self._upload, "UploadVector")
                    ),
                    "DownloadVector": grpc.unary_stream_rpc_method_handler(
                        self._member(site, self._download, "DownloadVector")
                    ),
                    "SubmitEvents": grpc.unary_unary_rpc_method_handler(
                        self._member(site, self._submit_events, "SubmitEvents")
                    ),
                    "FollowLog": grpc.unary_stream_rpc_method_handler(
                        self._member(site, self._follow_log, "FollowLog")
                    ),
                    "CosignLog": grpc.unary_unary_rpc_method_handler(self._member(site, self._cosign_log, "CosignLog")),
                    "ListStudies": grpc.unary_stream_rpc_method_handler(
                        self._member(site, self._list_studies, "ListStudies")
                    ),
                    "Greet": grpc.unary_unary_rpc_method_handler(self._member(site, self._greet, "Greet")),
                    "Renew": grpc.unary_unary_rpc_method_handler(self._member(site, self._renew, "Renew")),
                },
                traffic,
            ),
            _registered(
                "Operator",
                {
                    "Execute": grpc.unary_unary_rpc_method_handler(self._member(operator, self._execute, "Execute")),
                    "Watch": grpc.unary_stream_rpc_method_handler(self._member(operator, self._watch, "Watch")),
                },
            ),
            _registered(
                "Enrolment",
                {
                    "Enrol": grpc.unary_unary_rpc_method_handler(self._member(invited, self._enrol, "Enrol")),
                    "EnrolAccount": grpc.unary_unary_rpc_method_handler(
                        self._member(invited, self._enrol_account, "EnrolAccount")
                    ),
                },
            ),
        )

    def for_bearers(self) -> tuple[Any, ...]:
        """The one service of the port for people with tokens."""
        methods = {
            "Execute": grpc.unary_unary_rpc_method_handler(self._bearer(self._execute, "Execute")),
            "Watch": grpc.unary_stream_rpc_method_handler(self._bearer(self._watch, "Watch")),
        }
        return (_registered("Operator", methods),)

    def _bearer(
        self, body: Callable[[Bearer, Any, Context], Awaitable[bytes | None]], method: str
    ) -> Callable[[Any, Context], Awaitable[bytes | None]]:
        """As `_member`, for a caller whose token the service looks at with every call."""

        async def handler(request: Any, context: Context) -> bytes | None:
            bearer = None
            try:
                _check_version(context.auth_context())
                bearer = bearer_of(_values(context, METADATA))
                return await body(bearer, request, context)
            except Exception as error:  # noqa: BLE001 - the table decides; nothing may pass it
                answer = status.answer_to(error, method=method, peer=str(context.peer()))
                await self._service.turned_away(bearer, method, error)
            return await _refuse(context, answer)

        return handler

    def _member(
        self,
        roles: tuple[Role, ...],
        body: Callable[[PeerIdentity, Any, Context], Awaitable[bytes | None]],
        method: str,
    ) -> Callable[[Any, Context], Awaitable[bytes | None]]:
        """Identify and admit the caller, run the method, turn what goes wrong into an answer."""

        async def handler(request: Any, context: Context) -> bytes | None:
            caller, peer, admitted = str(context.peer()), None, False
            try:
                peer = self._identify(context, roles)
                caller = f"{peer.role} {peer.name}"
                await self._to_its_end(self._service.authenticate(peer))
                admitted = True
                return await body(peer, request, context)
            except Exception as error:  # noqa: BLE001 - the table decides; nothing may pass it
                answer = status.answer_to(error, method=method, peer=caller)
                if admitted or peer is None:
                    await self._service.turned_away(peer, method, error)
            return await _refuse(context, answer)

        return handler

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a method of the service so that a caller who hangs up cannot cancel it half-way.

        gRPC cancels the handler of a call whose caller is gone. A service that is just writing to its journal must
        not be: it runs in a task of its own, and the handler waits for it, for a while.
        """
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task}, timeout=1 if self._stopping.is_set() else limits.FINISH_WAIT_S)
            if task.done() and not task.cancelled():
                task.exception()  # seen: nobody is left to be told
            raise
        finally:
            task.cancel()

    def _identify(self, context: Context, roles: tuple[Role, ...]) -> PeerIdentity:
        """The caller, from the certificate of this very connection; raises CertificateRefused."""
        facts = context.auth_context()
        _check_version(facts)
        chain = facts.get("x509_pem_cert") or [b""]
        # TLS has verified this certificate when the connection was made. That may be long ago, and TLS knows
        # nothing of roles, so it is checked again, by the same function as everywhere else.
        return verify_certificate(certificate_der(chain[0]), self._authority, self._clock(), role=roles)

    # --- Coordinator -----------------------------------------------------------------------------------------------

    async def _session(self, peer: PeerIdentity, _: Any, context: Context) -> None:
        try:
            async with asyncio.timeout(limits.HELLO_WAIT_S):
                first = await context.read()
        except TimeoutError:
            found = f"nothing within {limits.HELLO_WAIT_S:g} s"
            raise WireViolation("Session", found=found, allowed="Hello first") from None
        if first is grpc.aio.EOF:
            return
        hello = codec.decode_site_message(first, limit_bytes=limits.HELLO_BYTES_MAX)
        if not isinstance(hello, Hello):
            raise WireViolation("Session", found=type(hello).__name__, allowed="Hello first")
        writer = _Writer(context)

        async def send(message: CoordinatorMessage) -> None:
            await writer.write(codec.encode_coordinator_message(message))

        incoming = self._incoming(peer, context)
        await self._to_its_end(self._service.run_session(peer, hello, incoming, send))

    async def _incoming(self, peer: PeerIdentity, context: Context) -> AsyncIterator[SiteMessage]:
        while (data := await self._read_until_stopping(context)) is not None:
            message = codec.decode_site_message(data)
            if isinstance(message, Hello):
                raise WireViolation("Session", found="Hello again", allowed="Hello once")
            if isinstance(message, KeyBundle | SealedShares | MaskedUpdate | Confirmation | UnmaskShares):
                _check_site(peer, message.site)
            yield message

    async def _read_until_stopping(self, context: Context) -> bytes | None:
        """The next message; None when the site has left or the coordinator is stopping."""
        reading = asyncio.ensure_future(_read(context))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else None
        finally:
            reading.cancel()
            stopping.cancel()

    async def _upload(self, peer: PeerIdentity, _: Any, context: Context) -> bytes:
        parts = _parts(context)
        first = await anext(parts, None)
        if first is None:
            raise WireViolation("UploadVector", found="nothing", allowed="a header, then chunks")
        header = codec.decode_vector_header(first)
        if header.kind not in _UPLOADABLE:
            raise WireViolation("header.kind", found=str(header.kind), allowed=", ".join(_UPLOADABLE))
        if header.upload is not None:
            _check_site(peer, header.upload.site)
        self._admit(peer, header)
        async with self._uploads.taken(peer.name) as place:
            self._admit(peer, header)  # again: what was wanted may be over by the time there is a place
            begun = await self._to_its_end(self._service.begin_vector(peer, header, resumes=_resumes(context)))
            # The go-ahead: an honest site sends nothing more before it, so a refusal costs nobody the vector.
            await context.send_initial_metadata((*channel.GO_AHEAD, (channel.RECEIVED, str(begun.size_bytes))))
            chunks = CheckedChunks(header, _chunks(parts, place), begun)
            try:
                await self._to_its_end(self._service.receive_vector(peer, header, chunks))
            except Exception:
                place.give_up()
                await _drain(parts, header.size_bytes - begun.size_bytes)
                raise
        if not chunks.complete:
            raise RuntimeError("the service accepted a vector without reading it to its end")
        return codec.encode_upload_receipt(header.sha256)

    def _admit(self, peer: PeerIdentity, header: VectorHeader) -> None:
        """Raise unless the service takes this upload now, at the size it announces."""
        allowed = min(self._service.upload_limit(peer, header), limits.VECTOR_BYTES_MAX)
        if header.size_bytes > allowed:
            found = f"{header.size_bytes} bytes announced"
            raise WireViolation("header.size_bytes", found=found, allowed=f"at most {allowed} bytes")

    async def _download(self, peer: PeerIdentity, request: bytes, context: Context) -> None:
        kind, digest = codec.decode_vector_request(request)
        header, chunks = await self._to_its_end(self._service.open_vector(peer, kind, digest))
        writer = _Writer(context)
        async with self._downloads.taken(peer.name) as place:
            await writer.write(codec.encode_vector_header(header))
            async for piece in pieces(chunks):
                await writer.write(codec.encode_chunk(piece))
                place.moved(len(piece))

    async def _submit_events(self, peer: PeerIdentity, request: bytes, _: Context) -> bytes:
        events = codec.decode_events(request)
        return codec.encode_event_receipt(await self._to_its_end(self._service.submit_events(peer, events)))

    async def _follow_log(self, peer: PeerIdentity, request: bytes, context: Context) -> None:
        position = log_codec.decode_position(request)
        growth, parts = await self._to_its_end(self._service.follow_log(peer, position))
        writer = _Writer(context)
        await writer.write(log_codec.encode_growth(growth))
        async for entries in parts:
            await writer.write(log_codec.encode_entries(entries))

    async def _cosign_log(self, peer: PeerIdentity, request: bytes, _: Context) -> bytes:
        await self._to_its_end(self._service.cosign_log(peer, log_codec.decode_cosigned(request)))
        return b""  # CosignReceipt has no fields

    async def _list_studies(self, peer: PeerIdentity, request: bytes, context: Context) -> None:
        codec.decode_empty("ListStudies", request)
        writer = _Writer(context)
        for study in await self._to_its_end(self._service.list_studies(peer)):
            await writer.write(codec.encode_study(study))

    async def _greet(self, peer: PeerIdentity, request: bytes, _: Context) -> bytes:
        codec.decode_empty("Greet", request)
        return codec.encode_greeting(await self._to_its_end(self._service.greet(peer)))

    async def _renew(self, peer: PeerIdentity, request: bytes, _: Context) -> bytes:
        request_der = codec.decode_renewal_request(request)
        return codec.encode_enrolment_grant(await self._to_its_end(self._service.renew(peer, request_der)))

    # --- Operator --------------------------------------------------------------------------------------------------

    async def _execute(self, peer: PeerIdentity | Bearer, request: bytes, _: Context) -> bytes:
        command, arguments = codec.decode_command(request)
        return codec.encode_answer(await self._to_its_end(self._service.execute(peer, command, arguments)))

    async def _watch(self, peer: PeerIdentity | Bearer, request: bytes, context: Context) -> None:
        codec.decode_empty("Watch", request)
        writer = _Writer(context)
        statuses = aiter(self._service.watch(peer))
        stopping = asyncio.ensure_future(self._stopping.wait())
        following: asyncio.Future[bytes] | None = None
        try:
            while True:
                following = asyncio.ensure_future(anext(statuses))
                await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    return
                await writer.write(codec.encode_status(following.result()))
        except StopAsyncIteration:
            return
        finally:
            stopping.cancel()
            if following is not None:
                following.cancel()

    # --- Enrolment -------------------------------------------------------------------------------------------------

    async def _enrol(self, peer: PeerIdentity, request: bytes, _: Context) -> bytes:
        enrolment = codec.decode_enrolment_request(request)
        return codec.encode_enrolment_grant(await self._to_its_end(self._service.enrol(peer, enrolment)))

    async def _enrol_account(self, peer: PeerIdentity, request: bytes, _: Context) -> bytes:
        enrolment = codec.decode_account_request(request)
        return codec.encode_enrolment_grant(await self._to_its_end(self._service.enrol_account(peer, enrolment)))


# --- the parts -----------------------------------------------------------------------------------------------------


class _Writer:
    """One message at a time to one peer, and none that it does not take in time."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._turn = asyncio.Lock()

    async def write(self, data: bytes) -> None:
        """Send; raises SessionBroken if the peer is gone or does not read."""
        try:
            async with asyncio.timeout(limits.SEND_WAIT_S), self._turn:
                await self._context.write(data)
        except TimeoutError:
            raise SessionBroken(f"the peer took nothing for {limits.SEND_WAIT_S:g} s") from None
        except (grpc.aio.UsageError, grpc.aio.InternalError) as error:
            raise SessionBroken("the peer is gone") from error


async def _read(context: Context) -> bytes | None:
    """The next message of a stream; None at its end, however it came."""
    try:
        data = await context.read()
    except (grpc.aio.UsageError, grpc.aio.InternalError):
        return None
    return None if data is grpc.aio.EOF else bytes(data)


def _resumes(context: Context) -> bool:
    """Whether the sender of an upload can go on in the middle."""
    return any(tuple(pair) == (channel.RESUMES, "1") for pair in context.invocation_metadata() or ())


def _values(context: Context, name: str) -> list[str]:
    """What a call's metadata says under a name."""
    return [str(value) for key, value in context.invocation_metadata() or () if key == name]


async def _parts(context: Context) -> AsyncIterator[bytes]:
    """The messages of an upload; raises if none comes for too long."""
    while True:
        try:
            async with asyncio.timeout(limits.CHUNK_WAIT_S):
                data = await _read(context)
        except TimeoutError:
            raise ServiceRefusal(
                f"the upload brought nothing for {limits.CHUNK_WAIT_S:g} s",
                code=RefusalCode.TRY_LATER,
                advice="Check the network; the upload goes on where it stopped, if the attempt still waits for it.",
            ) from None
        if data is None:
            return
        yield data


async def _chunks(parts: AsyncIterator[bytes], place: Place) -> AsyncIterator[bytes]:
    async for data in parts:
        place.moved(len(data))
        yield codec.decode_chunk(data)


async def _drain(parts: AsyncIterator[bytes], announced_bytes: int) -> None:
    """Throw the rest of a refused upload away for a moment, so that its sender is not cut off before it hears why.

    Never more than was announced: a sender who does not keep to that need not hear why.
    """
    left_bytes = announced_bytes
    try:
        async with asyncio.timeout(limits.DRAIN_WAIT_S):
            async for data in parts:
                left_bytes -= len(data)
                if left_bytes < 0:
                    return
    except (TimeoutError, ServiceRefusal):
        return


async def _refuse(context: Context, answer: status.Answer) -> NoReturn:
    await context.abort(answer.status, answer.details(), trailing_metadata=answer.metadata())
    raise AssertionError("abort raises")


def _check_version(facts: dict[str, Iterable[bytes]]) -> None:
    """The version this connection really has, in gRPC's own words (where it says so)."""
    for version in facts.get("ssl_tls_version", ()):
        if version != _TLS13:
            raise CertificateRefused(Fault.WRONG_ROLE, found=version.decode("ascii", "replace"), allowed="TLS 1.3")


def _check_site(peer: PeerIdentity, site: str) -> None:
    """Who is speaking is in the certificate: a message in another site's name goes no further."""
    if site != peer.name:
        raise WireViolation("site", found=f"a message in the name of {site}", allowed=f"the certificate's, {peer.name}")


def _registered(service: str, methods: dict[str, Any], traffic: Traffic | None = None) -> Any:
    """Bind methods to a service of the schema; a method the schema does not have is our own mistake."""
    described = pb.DESCRIPTOR.services_by_name[service]
    assert set(methods) == {method.name for method in described.methods}
    if traffic is not None:
        counting = {
            "request_deserializer": counter(traffic.received),
            "response_serializer": counter(traffic.sent),
        }
        methods = {name: method._replace(**counting) for name, method in methods.items()}
    return grpc.method_handlers_generic_handler(described.full_name, methods)

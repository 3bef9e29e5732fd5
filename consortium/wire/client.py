"""The caller's end: for a hospital's agent, and for the consortium's own commands.

A client is one outbound TLS 1.3 connection. It proves whom it speaks to with the kit's authority and nothing else (the
system's own authorities are not asked), and who it is with its certificate. Whatever it sends is first shown to
`on_sent`, so that a hospital's record of what has left the building is complete: a record is made before the first
byte goes, and stays even if the line breaks.
"""

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from consortium.contract.bearer import METADATA
from consortium.contract.certificates import (
    CertificateRefused,
    Fault,
    Issued,
    certificate_der,
    load_authority_certificate,
    verify_certificate,
)
from consortium.contract.digest import digest_of
from consortium.contract.kit import split_address
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
    MaskedUpdate,
    SiteMessage,
    StudyDocument,
    VectorHeader,
    VectorKind,
)
from consortium.contract.names import Digest
from consortium.wire import channel, codec, limits, log_codec, tls
from consortium.wire import consortium_pb2 as pb
from consortium.wire.errors import (
    ConnectionLost,
    SessionEnded,
    TlsProblem,
    TlsRefused,
    WireError,
    WireViolation,
)
from consortium.wire.status import error_from
from consortium.wire.traffic import Traffic, counter
from consortium.wire.transfer import CheckedChunks, pieces

T = TypeVar("T")

_GOODBYE_WAIT_S = 2.0
_HANDSHAKES_MAX = 3
"""So many handshakes must fail, with nothing wrong with the other side after each, before our certificate is blamed."""
_LINE_BROKEN = (grpc.aio.UsageError, grpc.aio.InternalError, asyncio.InvalidStateError)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRecord:
    """Something that leaves: a message of the session, a call, or a whole vector."""

    kind: str  # the message's or vector's name, such as "key-bundle" or "masked-update"
    sha256: Digest  # of the bytes as they travel; of the whole vector for a vector
    size_bytes: int
    study_digest: Digest | None  # None where the message does not belong to one study


OnSent = Callable[[SentRecord], None]


async def enrol(
    address: str,
    ca_pem: bytes,
    invitation: Issued,
    request: EnrolmentRequest,
    *,
    server_name_override: str | None = None,
    on_sent: OnSent | None = None,
    timeout_s: float = limits.CALL_WAIT_S,
) -> EnrolmentGrant:
    """Ask for a certificate, as the holder of the one in a kit. The grant is not checked here.

    Raises:
        CoordinatorUnreachable, TlsRefused, ConnectionLost: nothing was asked, or no answer came.
        CallRefused: the invitation, the token or the request was not accepted.
    """
    line = await _open_invited(address, ca_pem, invitation, server_name=server_name_override)
    try:
        data = codec.encode_enrolment_request(request)
        _report(on_sent, "enrolment-request", data, None)
        call = line.unary_unary(_path("Enrolment", "Enrol"))(data, timeout=timeout_s)
        return codec.decode_enrolment_grant(await _answered(call))
    finally:
        await line.close()


async def enrol_account(
    address: str,
    ca_pem: bytes,
    invitation: Issued,
    request: AccountRequest,
    *,
    server_name_override: str | None = None,
    timeout_s: float = limits.CALL_WAIT_S,
) -> EnrolmentGrant:
    """`enrol` for a person's account; raises as it does."""
    line = await _open_invited(address, ca_pem, invitation, server_name=server_name_override)
    try:
        call = line.unary_unary(_path("Enrolment", "EnrolAccount"))(
            codec.encode_account_request(request), timeout=timeout_s
        )
        return codec.decode_enrolment_grant(await _answered(call))
    finally:
        await line.close()


async def _open_invited(address: str, ca_pem: bytes, invitation: Issued, *, server_name: str | None) -> Any:
    """A channel with the certificate of a kit. A clock that is wrong here is found before the token is shown."""
    _check_own_certificate(address, ca_pem, invitation.certificate_pem, datetime.now(UTC))
    credentials = grpc.ssl_channel_credentials(
        root_certificates=ca_pem, private_key=invitation.key_pem, certificate_chain=invitation.certificate_pem
    )
    return await _open(address, ca_pem, credentials, server_name=server_name)


class CountedLine:
    """A gRPC channel whose messages are counted, each as it goes and comes."""

    def __init__(self, line: Any, traffic: Traffic) -> None:
        self._line = line
        self._counting = {
            "request_serializer": counter(traffic.sent),
            "response_deserializer": counter(traffic.received),
        }

    def unary_unary(self, method: str) -> Any:
        """As the channel's."""
        return self._line.unary_unary(method, **self._counting)

    def unary_stream(self, method: str) -> Any:
        """As the channel's."""
        return self._line.unary_stream(method, **self._counting)

    def stream_unary(self, method: str) -> Any:
        """As the channel's."""
        return self._line.stream_unary(method, **self._counting)

    def stream_stream(self, method: str) -> Any:
        """As the channel's."""
        return self._line.stream_stream(method, **self._counting)

    async def close(self) -> None:
        """As the channel's."""
        await self._line.close()


class CoordinatorClient:
    """An open connection, as one site or one operator. Use with `async with`, or call `close`."""

    def __init__(self, line: Any, address: str, on_sent: OnSent | None, traffic: Traffic | None = None) -> None:
        self._line = line if traffic is None else CountedLine(line, traffic)
        self._address = address
        self._on_sent = on_sent
        self._metadata: tuple[tuple[str, str], ...] = ()  # of commands: the token, where there is one

    @classmethod
    async def connect(
        cls,
        address: str,
        ca_pem: bytes,
        certificate_pem: bytes,
        key_pem: bytes,
        *,
        server_name_override: str | None = None,
        on_sent: OnSent | None = None,
        traffic: Traffic | None = None,
        keepalive_s: float = limits.KEEPALIVE_S,
        timeout_s: float = limits.CONNECT_WAIT_S,
        now: datetime | None = None,
    ) -> Self:
        """Connect, and return only once the handshake is through in both directions. `traffic` counts what passes.

        Raises:
            CoordinatorUnreachable: the network, a proxy, a name, or nobody there.
            TlsRefused: whoever answered is not this consortium's coordinator, or does not accept our certificate.
            TlsNotPinned: see `consortium.wire`.
            ValueError: `address` is not HOST:PORT, or `ca_pem` no authority's certificate.
        """
        _check_own_certificate(address, ca_pem, certificate_pem, now or datetime.now(UTC))
        credentials = grpc.ssl_channel_credentials(
            root_certificates=ca_pem, private_key=key_pem, certificate_chain=certificate_pem
        )
        line = await _open(
            address, ca_pem, credentials, server_name=server_name_override, keepalive_s=keepalive_s, timeout_s=timeout_s
        )
        return cls(line, address, on_sent, traffic)

    @classmethod
    async def connect_with_token(cls, address: str, ca_pem: bytes, token: str) -> Self:
        """Connect to the port for people with tokens: only the coordinator proves who it is within TLS.

        Raises:
            CoordinatorUnreachable, TlsRefused, TlsNotPinned, ValueError: as `connect`.
        """
        credentials = grpc.ssl_channel_credentials(root_certificates=ca_pem)
        line = await _open(address, ca_pem, credentials, server_name=None, anonymous=True)
        client = cls(line, address, None)
        client._metadata = ((METADATA, f"Bearer {token}"),)
        return client

    async def close(self) -> None:
        """Close the connection; calls under way are broken off."""
        await self._line.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- for sites -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def session(self, hello: Hello) -> AsyncIterator["Session"]:
        """Open the session and say Hello. Leaving the block ends it; the coordinator's Welcome is its first message."""
        call = self._line.stream_stream(_path("Coordinator", "Session"))()
        session = Session(call, self._on_sent)
        try:
            await session.send(hello)
            yield session
            with suppress(WireError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_WAIT_S):
                    await session.finish()
        finally:
            session.close()

    async def upload_vector(
        self,
        header: VectorHeader,
        chunks: bytes | memoryview | Iterable[bytes | memoryview] | AsyncIterable[bytes | memoryview],
        *,
        again: bool = False,
    ) -> None:
        """Upload a vector; returns when the coordinator has it whole, with the right SHA-256.

        Chunks may be of any size (a whole vector is copied piece by piece as it goes), and are asked for only after the
        coordinator has agreed to the header. Of a whole vector only what the coordinator lacks is sent.

        Args:
            header: What it is.
            chunks: The vector, whole or in pieces.
            again: Whether an upload of the same was broken off before: then what leaves is written down as its rest.

        Raises:
            CallRefused: not wanted, too large, too late, or not what the header said.
            ConnectionLost: half an upload counts as none; its rest may be sent over another connection.
        """
        if not again:
            self._record_vector(header, header.kind, header.size_bytes)
        whole = memoryview(chunks).cast("B") if isinstance(chunks, bytes | memoryview) else None
        metadata = None if whole is None else ((channel.RESUMES, "1"),)
        call = self._line.stream_unary(_path("Coordinator", "UploadVector"))(metadata=metadata)
        try:
            await _written(call, codec.encode_vector_header(header))
            # Not before the go-ahead: gRPC forgets why a call was refused if a write is under way at that moment.
            agreed = await call.initial_metadata()
            if _agreed(agreed):
                rest: Iterable[bytes | memoryview] | AsyncIterable[bytes | memoryview]
                if whole is None:
                    assert not isinstance(chunks, bytes | memoryview)  # then there is a whole
                    rest = chunks
                else:
                    start = _received(agreed, header.size_bytes)
                    rest = (whole[start:],)
                    if again:
                        self._record_vector(header, f"{header.kind}-rest", header.size_bytes - start)
                async for piece in pieces(rest):
                    if call.done():
                        break
                    await _written(call, codec.encode_chunk(piece))
                if not call.done():
                    await call.done_writing()
            received = codec.decode_upload_receipt(await _answered(call))
        except _LINE_BROKEN as error:
            raise await _why(call) from error
        except asyncio.CancelledError:
            _raise_if_closed_here()
            raise
        finally:
            call.cancel()
        if received != header.sha256:
            raise WireViolation("receipt.sha256", found="another hash", allowed="the hash of what was uploaded")

    def _record_vector(self, header: VectorHeader, kind: str, size_bytes: int) -> None:
        if self._on_sent is not None:
            sha256 = Digest(header.sha256.hex())
            self._on_sent(SentRecord(kind=kind, sha256=sha256, size_bytes=size_bytes, study_digest=header.study_digest))

    async def download_vector(
        self, kind: VectorKind, digest: Digest, limit_bytes: int, into: Callable[[bytes], object]
    ) -> VectorHeader:
        """Download a vector of at most `limit_bytes`, chunk by chunk.

        Each chunk is handed to `into` (a file's write, a bytearray's extend); what it got counts only if this returns.
        If `into` gives something to wait for (a write in a thread), nothing more is read meanwhile.

        Raises:
            CallRefused: there is no such vector, or it is not for this site.
            WireViolation: another vector, a larger one, or other bytes than announced.
            ConnectionLost: begin again.
        """
        request = codec.encode_vector_request(kind, digest)
        _report(self._on_sent, "vector-request", request, None)
        call = self._line.unary_stream(_path("Coordinator", "DownloadVector"))(request)
        try:
            parts = _messages(call)
            first = await anext(parts, None)
            if first is None:
                raise WireViolation("DownloadVector", found="nothing", allowed="a header, then chunks")
            header = codec.decode_vector_header(first)
            # A global model is named by the digest of its values, not of its file: whoever asked for it checks that.
            named = kind is VectorKind.GLOBAL_MODEL or header.sha256.hex() == digest
            if header.kind is not kind or not named:
                raise WireViolation("header", found="another vector", allowed=f"{kind} {digest}")
            if header.size_bytes > limit_bytes:
                found = f"{header.size_bytes} bytes announced"
                raise WireViolation("header.size_bytes", found=found, allowed=f"at most {limit_bytes} bytes")
            async for chunk in CheckedChunks(header, _decoded(parts, codec.decode_chunk)):
                taken = into(chunk)
                if inspect.isawaitable(taken):
                    await taken
        except asyncio.CancelledError:
            _raise_if_closed_here()
            raise
        finally:
            call.cancel()
        return header

    async def submit_events(
        self, events: tuple[bytes, ...], *, study_digest: Digest | None = None, timeout_s: float = limits.CALL_WAIT_S
    ) -> EventReceipt:
        """Put the site's signed entries into the log; returns when they are durable there."""
        data = codec.encode_events(events)
        _report(self._on_sent, "events", data, study_digest)
        call = self._line.unary_unary(_path("Coordinator", "SubmitEvents"))(data, timeout=timeout_s)
        return codec.decode_event_receipt(await _answered(call))

    async def follow_log(self, position: LogPosition) -> AsyncIterator[log_codec.LogPart]:
        """How the log grew from this site's copy, first and once, then the entries it added. Nothing is checked here.

        Raises:
            CallRefused, ConnectionLost, WireViolation: what came before counts for nothing.
        """
        data = log_codec.encode_position(position)
        _report(self._on_sent, "log-position", data, None)
        call = self._line.unary_stream(_path("Coordinator", "FollowLog"))(data)
        try:
            first = True
            async for part in _decoded(_messages(call), log_codec.decode_part):
                if first is not isinstance(part, LogGrowth):
                    raise WireViolation("FollowLog", found="parts out of order", allowed="growth, then entries")
                first = False
                yield part
            if first:
                raise WireViolation("FollowLog", found="nothing", allowed="growth, then entries")
        except asyncio.CancelledError:
            _raise_if_closed_here()
            raise
        finally:
            call.cancel()

    async def cosign_log(self, note: bytes, *, timeout_s: float = limits.CALL_WAIT_S) -> None:
        """Hand over a checkpoint with this site's cosignature; returns when it is durable there."""
        data = log_codec.encode_cosigned(note)
        _report(self._on_sent, "cosigned-checkpoint", data, None)
        await _answered(self._line.unary_unary(_path("Coordinator", "CosignLog"))(data, timeout=timeout_s))

    async def list_studies(self, *, timeout_s: float = limits.CALL_WAIT_S) -> tuple[StudyDocument, ...]:
        """The studies this site is named in."""
        _report(self._on_sent, "list-studies", b"", None)
        call = self._line.unary_stream(_path("Coordinator", "ListStudies"))(b"", timeout=timeout_s)
        studies: list[StudyDocument] = []
        try:
            async for study in _decoded(_messages(call), codec.decode_study):
                if len(studies) == limits.STUDIES_MAX:
                    found = f"more than {limits.STUDIES_MAX} studies"
                    raise WireViolation("ListStudies", found=found, allowed=f"at most {limits.STUDIES_MAX}")
                studies.append(study)
        finally:
            call.cancel()
        return tuple(studies)

    async def greet(self, *, timeout_s: float = limits.CALL_WAIT_S) -> Greeting:
        """Ask the coordinator for its clock and its release; no session is opened.

        Raises:
            CallRefused: also if the coordinator is of a release that does not know the question.
        """
        _report(self._on_sent, "greet", b"", None)
        call = self._line.unary_unary(_path("Coordinator", "Greet"))(b"", timeout=timeout_s)
        return codec.decode_greeting(await _answered(call))

    async def renew(self, request_der: bytes, *, timeout_s: float = limits.CALL_WAIT_S) -> EnrolmentGrant:
        """Ask for this site's next certificate. The grant is not checked here."""
        data = codec.encode_renewal_request(request_der)
        _report(self._on_sent, "renewal-request", data, None)
        call = self._line.unary_unary(_path("Coordinator", "Renew"))(data, timeout=timeout_s)
        return codec.decode_enrolment_grant(await _answered(call))

    # --- for operators ---------------------------------------------------------------------------------------------

    async def execute(self, command: str, arguments: bytes, *, timeout_s: float = limits.COMMAND_WAIT_S) -> bytes:
        """Give a command; arguments and answer are canonical JSON objects."""
        data = codec.encode_command(command, arguments)
        _report(self._on_sent, "command", data, None)
        method = self._line.unary_unary(_path("Operator", "Execute"))
        call = method(data, timeout=timeout_s, metadata=self._metadata)
        return codec.decode_answer(await _answered(call))

    async def watch(self) -> AsyncIterator[bytes]:
        """A canonical JSON object now and whenever something changed; ends when the coordinator stops."""
        call = self._line.unary_stream(_path("Operator", "Watch"))(b"", metadata=self._metadata)
        try:
            async for current in _decoded(_messages(call), codec.decode_status):
                yield current
        finally:
            call.cancel()


class Session:
    """A site's open session. Iterate over it for the coordinator's messages; `send` may be called meanwhile.

    The iteration never ends quietly. It raises SessionEnded if the coordinator closed the session in order, CallRefused
    if it closed it with a reason, ConnectionLost if the line broke, WireViolation for a message that breaks a bound.
    """

    def __init__(self, call: Any, on_sent: OnSent | None) -> None:
        self._call = call
        self._on_sent = on_sent
        self._turn = asyncio.Lock()
        self._reading: asyncio.Future[bytes | None] | None = None

    async def send(self, message: SiteMessage, *, study_digest: Digest | None = None) -> None:
        """Send one message; `study_digest` is for the record of what left, where the message itself does not say.

        Raises:
            ConnectionLost, CallRefused, SessionEnded: as the iteration.
        """
        data = codec.encode_site_message(message)
        # A vector is recorded as one, whatever it travels in.
        sent = message.values if isinstance(message, MaskedUpdate) else data
        _report(self._on_sent, _kind(message), sent, getattr(message, "study_digest", study_digest))
        async with self._turn:
            try:
                await _written(self._call, data)
            except _LINE_BROKEN as error:
                raise await _why(self._call) from error
            except asyncio.CancelledError:
                _raise_if_closed_here()
                raise

    def __aiter__(self) -> AsyncIterator[CoordinatorMessage]:
        return self

    async def __anext__(self) -> CoordinatorMessage:
        """The coordinator's next message. Giving up waiting (a timeout, a cancellation) loses nothing."""
        # gRPC breaks a call off when a read is cancelled, so the read lives in a task that is not.
        if self._reading is None:
            self._reading = asyncio.ensure_future(_next_of(self._call))
        reading = self._reading
        try:
            data = await asyncio.shield(reading)
        except asyncio.CancelledError:
            if reading.cancelled() and not _is_cancelling():
                raise ConnectionLost("the session was closed on this side") from None
            raise
        self._reading = None
        if data is None:
            raise SessionEnded
        return codec.decode_coordinator_message(data)

    async def finish(self) -> None:
        """Tell the coordinator that nothing more will come, and wait for it to close."""
        await self._call.done_writing()
        with suppress(SessionEnded):
            async for _ in self:
                pass

    def close(self) -> None:
        """Break the session off."""
        self._call.cancel()
        reading = self._reading
        if reading is not None and not reading.cancel() and not reading.cancelled():
            reading.exception()  # seen: whoever was reading has stopped


# --- the parts -----------------------------------------------------------------------------------------------------


async def _open(
    address: str,
    ca_pem: bytes,
    credentials: Any,
    *,
    server_name: str | None,
    anonymous: bool = False,
    keepalive_s: float = limits.KEEPALIVE_S,
    timeout_s: float = limits.CONNECT_WAIT_S,
) -> Any:
    """A channel whose handshake is through, or the precise reason why there is none."""
    tls.require_pinned()
    load_authority_certificate(ca_pem)
    host, _ = split_address(address)
    options = channel.client(keepalive_s=keepalive_s, through_proxy=not tls.is_loopback(host), server_name=server_name)
    for _attempt in range(_HANDSHAKES_MAX):
        line = grpc.aio.secure_channel(address, credentials, options=options)
        try:
            if await _is_ready(line, timeout_s):
                return line
            problem = await tls.diagnose(address, ca_pem, server_name=server_name, timeout_s=timeout_s)
        except BaseException:
            await line.close()
            raise
        await line.close()
        if problem is not None:
            raise problem
        # Nothing is wrong with the other side now. It may have begun to listen only between the handshake and the
        # diagnosis, and an agent that takes that for a verdict ends for good: so the verdict needs a later handshake.
    # As far as a stranger can see all is well: then it is our certificate it does not like.
    raise TlsRefused(address, TlsProblem.NOT_FOR_TOKENS if anonymous else TlsProblem.OWN_CERTIFICATE)


async def _is_ready(line: Any, timeout_s: float) -> bool:
    """Whether the channel connects at the first attempt. The other side's settings have come by then."""
    try:
        async with asyncio.timeout(timeout_s):
            state = line.get_state(try_to_connect=True)
            while state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
                await line.wait_for_state_change(state)
                state = line.get_state(try_to_connect=True)
    except TimeoutError:
        return False
    return state is grpc.ChannelConnectivity.READY


def _check_own_certificate(address: str, ca_pem: bytes, certificate_pem: bytes, now: datetime) -> None:
    """Find out here what the coordinator would only answer with a closed connection."""
    try:
        verify_certificate(certificate_der(certificate_pem), load_authority_certificate(ca_pem), now)
    except CertificateRefused as error:
        early = error.fault is Fault.NOT_YET_VALID
        problem = TlsProblem.OWN_NOT_YET_VALID if early else TlsProblem.OWN_CERTIFICATE
        raise TlsRefused(address, problem, str(error)) from error


async def _next_of(call: Any) -> bytes | None:
    """The next message of a stream that is read and written; None when it ended well."""
    try:
        data = await call.read()
    except grpc.aio.AioRpcError as error:
        raise error_from(error) from None
    return None if data is grpc.aio.EOF else bytes(data)


async def _written(call: Any, data: bytes) -> None:
    """Write one message; a call that is over already is left for its status to be read."""
    try:
        await call.write(data)
    except grpc.aio.AioRpcError as error:
        raise error_from(error) from None


async def _answered(call: Any) -> bytes:
    """The one answer of a call."""
    try:
        return bytes(await call)
    except grpc.aio.AioRpcError as error:
        raise error_from(error) from None
    except asyncio.CancelledError:
        _raise_if_closed_here()
        raise


def _agreed(metadata: Any) -> bool:
    """Whether an upload's initial metadata is the go-ahead."""
    return any(tuple(pair) == channel.GO_AHEAD[0] for pair in metadata or ())


def _received(metadata: Any, size_bytes: int) -> int:
    """How many bytes of a vector the coordinator says that it has; raises WireViolation for more than there are."""
    found = next((str(value) for key, value in metadata or () if key == channel.RECEIVED), "0")
    if not found.isdecimal() or len(found) > len(str(size_bytes)) or int(found) > size_bytes:
        raise WireViolation("received", found=found[:40], allowed=f"0 to {size_bytes}")
    return int(found)


async def _messages(call: Any) -> AsyncIterator[bytes]:
    """The answers of a call, until it ends well."""
    try:
        async for data in call:
            yield data
    except grpc.aio.AioRpcError as error:
        raise error_from(error) from None


async def _decoded(messages: AsyncIterator[bytes], decode: Callable[[bytes], T]) -> AsyncIterator[T]:
    async for data in messages:
        yield decode(data)


async def _why(call: Any) -> WireError:
    """The error for a call that turned out to be over."""
    if not call.done():
        return ConnectionLost("the call was closed on this side")
    if await call.code() is grpc.StatusCode.OK:
        return SessionEnded()
    return error_from(
        grpc.aio.AioRpcError(
            await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
        )
    )


def _raise_if_closed_here() -> None:
    """Closing a channel cancels its calls. Whoever made one is not cancelled by that: it has lost its line."""
    if not _is_cancelling():
        raise ConnectionLost("the call was closed on this side") from None


def _is_cancelling() -> bool:
    """Whether it is the caller's own task that is being cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _report(on_sent: OnSent | None, kind: str, data: bytes, study_digest: Digest | None) -> None:
    if on_sent is not None:
        on_sent(SentRecord(kind=kind, sha256=digest_of(data), size_bytes=len(data), study_digest=study_digest))


def _kind(message: SiteMessage) -> str:
    """KeyBundle -> key-bundle."""
    name = type(message).__name__
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).removeprefix("-")


def _path(service: str, method: str) -> str:
    described = pb.DESCRIPTOR.services_by_name[service]
    return f"/{described.full_name}/{described.methods_by_name[method].name}"

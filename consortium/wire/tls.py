"""Why a connection was not made or not trusted, in words.

gRPC reports every failed handshake alike. When one fails, the same connection is made once more with Python's own TLS,
which says exactly what was wrong: another authority, a date, a name, an old version, or no TLS at all.
"""

import asyncio
import os
import socket
import ssl
from dataclasses import dataclass

from consortium import wire
from consortium.contract.kit import split_address
from consortium.wire.errors import CoordinatorUnreachable, TlsNotPinned, TlsProblem, TlsRefused, WireError

_PROBE_BYTES_MAX = 4096
_EXPIRED, _NOT_YET_VALID = {10}, {9}  # OpenSSL's X509_V_ERR numbers
_UNKNOWN_ISSUER = {2, 7, 18, 19, 20, 21, 24, 27, 30}
_WRONG_NAME = {62, 64}
_CLOSED = "the connection was closed during the handshake"
"""Just what a coordinator looks like that stops at this very moment, so it may be there again soon."""
_OLD = ("UNSUPPORTED_PROTOCOL", "PROTOCOL_VERSION", "HANDSHAKE_FAILURE", "NO_PROTOCOLS_AVAILABLE")


def require_pinned() -> None:
    """Raises TlsNotPinned if gRPC was loaded before this package could restrict it to TLS 1.3."""
    if not wire.TLS13_ONLY:
        raise TlsNotPinned


def is_loopback(host: str) -> bool:
    """Whether a host is this computer itself: no proxy can be meant for it."""
    return host == "localhost" or host.startswith("127.") or host == "::1"


async def diagnose(address: str, ca_pem: bytes, *, server_name: str | None, timeout_s: float) -> WireError | None:
    """Why the coordinator at HOST:PORT is not reached or trusted; None if a handshake shows nothing wrong with it.

    One connection, made the way gRPC makes them (through the same proxy), without a certificate of ours: all that can
    be learnt about the other side is learnt before it asks for one.
    """
    host, port = split_address(address)
    try:
        async with asyncio.timeout(timeout_s):
            return await _probe(address, host, port, ca_pem, server_name or host)
    except TimeoutError:
        return CoordinatorUnreachable(address, f"no answer within {timeout_s:g} s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peeked:
    """What whoever answers shows of itself in a handshake that verifies nothing."""

    certificate_der: bytes
    tls_version: str  # as Python names it, such as "TLSv1.3"


async def peek(address: str, *, server_name: str | None, timeout_s: float) -> Peeked | None:
    """The certificate that is shown under HOST:PORT, whoever shows it; None where there is none to see.

    For naming who opens a connection that should not be opened. Nothing is sent but the handshake, older TLS is
    spoken too, and nothing may be concluded from it about whom to trust: that is `diagnose`.
    """
    host, port = split_address(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(timeout_s):
            writer = await dialled(address, host, port)
            try:
                await writer.start_tls(context, server_hostname=server_name or host)
                shown = writer.get_extra_info("ssl_object")
                der = shown.getpeercert(binary_form=True)
                return Peeked(certificate_der=der, tls_version=shown.version() or "") if der else None
            finally:
                writer.transport.abort()
    except (WireError, OSError, EOFError):  # TimeoutError and every error of ssl among them
        return None


async def dialled(address: str, host: str, port: int) -> asyncio.StreamWriter:
    """A bare TCP line to HOST:PORT, through the proxy that gRPC would use; raises CoordinatorUnreachable."""
    proxy = proxy_for(host)
    try:
        if proxy is None:
            _, writer = await asyncio.open_connection(host, port)
            return writer
        reader, writer = await asyncio.open_connection(*split_address(proxy))
        refused = await _through(proxy, f"{host}:{port}", reader, writer)
    except OSError as error:
        where = "" if proxy is None else f" (proxy {proxy})"
        raise CoordinatorUnreachable(address, in_words(error) + where) from error
    if refused:
        writer.close()
        raise CoordinatorUnreachable(address, refused)
    return writer


async def _probe(address: str, host: str, port: int, ca_pem: bytes, server_name: str) -> WireError | None:
    try:
        writer = await dialled(address, host, port)
    except CoordinatorUnreachable as error:
        return error
    try:
        await writer.start_tls(_context(ca_pem), server_hostname=server_name)
        chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    except ssl.SSLCertVerificationError as error:
        return TlsRefused(address, _certificate_problem(error.verify_code), error.verify_message)
    except ssl.SSLEOFError:
        return CoordinatorUnreachable(address, _CLOSED)
    except ssl.SSLError as error:
        reason = error.reason or ""
        old = any(mark in reason for mark in _OLD)
        return TlsRefused(address, TlsProblem.OLD_TLS if old else TlsProblem.NOT_TLS, reason)
    except (OSError, EOFError):
        return CoordinatorUnreachable(address, _CLOSED)
    finally:
        writer.transport.abort()
    if chosen != "h2":
        return TlsRefused(address, TlsProblem.NOT_A_COORDINATOR)
    return None


def in_words(error: OSError) -> str:
    """The system's own words; asyncio replaces them by its own, but keeps the number."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or "the connection failed"
    return os.strerror(error.errno)


def _context(ca_pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cadata=ca_pem.decode("ascii"))
    return context


def _certificate_problem(code: int) -> TlsProblem:
    if code in _EXPIRED:
        return TlsProblem.EXPIRED
    if code in _NOT_YET_VALID:
        return TlsProblem.NOT_YET_VALID
    if code in _UNKNOWN_ISSUER:
        return TlsProblem.FOREIGN_AUTHORITY
    if code in _WRONG_NAME:
        return TlsProblem.WRONG_HOST
    return TlsProblem.OTHER


def proxy_for(host: str) -> str | None:
    """HOST:PORT of the HTTP proxy that gRPC would use for `host`, from the same variables."""
    import urllib.request  # noqa: PLC0415 - seldom needed, and it brings HTTP and mail with it

    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies_environment()
    url = proxies.get("grpc") or proxies.get("https") or proxies.get("http")
    if not url:
        return None
    place = url.partition("://")[2] or url
    place = place.partition("/")[0].rpartition("@")[2]
    return place if ":" in place else f"{place}:80"


async def _through(proxy: str, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Ask an HTTP proxy for a tunnel; the reason if it does not give one, else empty."""
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("ascii"))
    await writer.drain()
    try:
        answer = (await reader.readuntil(b"\r\n\r\n"))[:_PROBE_BYTES_MAX]
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return f"the proxy {proxy} gave no answer"
    status = answer.split(b"\r\n", 1)[0].decode("latin-1")
    words = status.split(" ", 2)
    if len(words) < 2 or words[1] != "200":
        return f"the proxy {proxy} answered {status[:80]!r}"
    return ""

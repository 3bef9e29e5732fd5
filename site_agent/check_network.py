"""The way to the coordinator, one stretch after the other: its name, a proxy, the port, TLS and who signs it.

Nothing of the hospital is sent but a TLS handshake without a certificate. A stretch is tried only if those before it
hold, so that the first line that fails is the one to mend. What the firewall has to let through is said at the end,
whatever was found.
"""

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509

from consortium.contract.certificates import fingerprint
from consortium.contract.kit import split_address
from consortium.wire import tls
from consortium.wire.errors import CoordinatorUnreachable, WireError
from consortium.wire.limits import KEEPALIVE_S
from site_agent.agent import use_proxy
from site_agent.check_result import CheckFailed, CheckResult, CheckWarns, broken, not_checked, passed
from site_agent.home import AgentHome

NAMES = ("dns", "proxy", "port", "tls")
LOOK_WAIT_S = 10.0
"""For each stretch; a firewall that drops packets in silence takes all of it."""
SERVER_DAYS_MIN = 14
NAME_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall:
    """What the hospital's network has to let through, and nothing else."""

    host: str
    port: int
    proxy: str | None  # HOST:PORT
    addresses: tuple[str, ...]  # of the host, as this computer's name service has them now

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "direction": "outbound",
            "host": self.host,
            "port": self.port,
            "transport": "tcp",
            "protocol": "TLS 1.3, HTTP/2 (gRPC)",
            "addresses": list(self.addresses),
            "proxy": self.proxy,
            "inbound": [],
            "intercept_tls": False,
            "keepalive_s": KEEPALIVE_S,
        }

    def lines(self) -> tuple[tuple[str, str], ...]:
        """The same for people: what, and what about it."""
        to = f"{self.host}, TCP port {self.port}"
        if self.addresses:
            to += f" (today {', '.join(self.addresses)}; allow the name, addresses may change)"
        way = "none; the connection is direct"
        if self.proxy is not None:
            way = f"{self.proxy}, by HTTP CONNECT to {self.host}:{self.port}, without a password"
        return (
            ("direction", "outbound only, from this computer; nothing inbound is needed, the agent listens on no port"),
            ("to", to),
            ("protocol", "TLS 1.3 carrying HTTP/2 (gRPC); both sides show certificates of the consortium's authority"),
            ("proxy", way),
            ("inspection", f"do not intercept TLS to {self.host}: exempt it, an opened connection is refused"),
            ("timeouts", f"one connection stays open; a ping passes at least every {KEEPALIVE_S:g} s of silence"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was found on the way."""

    results: tuple[CheckResult, ...]
    firewall: Firewall | None  # None if it is not known where the coordinator is


async def look_at_network(home: AgentHome, *, wait_s: float = LOOK_WAIT_S) -> Looked:
    """Every stretch of the way, in order."""
    try:
        address = home.address
        use_proxy(home)
    except Exception as error:  # noqa: BLE001 - site.yaml is wrong, which a check of its own says in full
        return Looked(results=tuple(not_checked(name, f"site.yaml: {error}") for name in NAMES), firewall=None)
    host, port = split_address(address)
    way = _Way(home=home, address=address, host=host, port=port, proxy=tls.proxy_for(host), wait_s=wait_s)
    results: list[CheckResult] = []
    for name, stretch in zip(NAMES, (way.dns, way.through_proxy, way.tcp, way.tls), strict=True):
        failed = next((one for one in results if not one.ok), None)
        if failed is not None:
            results.append(not_checked(name, failed.name))
            continue
        try:
            results.append(passed(name, await stretch()))
        except Exception as error:  # noqa: BLE001 - a check that cannot be made has failed, whatever the reason
            results.append(broken(name, error))
    addresses: tuple[str, ...] = ()
    with contextlib.suppress(OSError):
        addresses = await _addresses(host, port, wait_s)
    return Looked(results=tuple(results), firewall=Firewall(host=host, port=port, proxy=way.proxy, addresses=addresses))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """From here to the coordinator."""

    home: AgentHome
    address: str
    host: str
    port: int
    proxy: str | None
    wait_s: float

    async def dns(self) -> str:
        host, port = (self.host, self.port) if self.proxy is None else split_address(self.proxy)
        try:
            found = await _addresses(host, port, self.wait_s)
        except TimeoutError as error:
            raise CheckFailed(
                f"the name service did not answer for {host} within {self.wait_s:g} s",
                "Check this computer's name service (resolv.conf), and that DNS is let through.",
            ) from error
        except OSError as error:
            raise CheckFailed(
                f"{host} has no address here: {tls.in_words(error)}",
                "Check the spelling in site.yaml, and that this computer's name service knows outside names.",
            ) from error
        shown = ", ".join(found)
        if self.proxy is None:
            return f"{host} is {shown}"
        return f"the proxy {host} is {shown}; it looks up {self.host} itself"

    async def through_proxy(self) -> str:
        if self.proxy is None:
            return "none: the coordinator is dialled directly"
        await self._dial(
            f"Have the proxy {self.proxy} allow HTTP CONNECT to {self.host}:{self.port} for this computer, without a "
            "password: the agent has none to give."
        )
        return f"{self.proxy} opened a tunnel to {self.host}:{self.port} (HTTP CONNECT)"

    async def tcp(self) -> str:
        if self.proxy is not None:
            return f"TCP port {self.port} of {self.host} was reached by the proxy"
        await self._dial(
            f"Have the firewall let this computer open TCP connections to {self.host}:{self.port}. Refused means that "
            "something answered with a no, no answer that a firewall drops what is sent."
        )
        return f"TCP port {self.port} of {self.host} answers"

    async def _dial(self, advice: str) -> None:
        try:
            async with asyncio.timeout(self.wait_s):
                writer = await tls.dialled(self.address, self.host, self.port)
        except TimeoutError as error:
            raise CheckFailed(f"no answer within {self.wait_s:g} s", advice) from error
        except CoordinatorUnreachable as error:
            raise CheckFailed(error.reason, advice) from error
        writer.transport.abort()

    async def tls(self) -> str:
        problem = await tls.diagnose(self.address, self.home.ca_pem, server_name=None, timeout_s=self.wait_s)
        seen = await tls.peek(self.address, server_name=None, timeout_s=self.wait_s)
        shown = _parsed(seen.certificate_der) if seen is not None else None
        authority = self.home.ca_certificate
        if problem is not None:
            raise _explained(problem, self.host, shown, authority)
        signer = f"{_name(authority.subject)} (SHA-256 {fingerprint(authority)[:16]})"
        if shown is None:
            return f"TLS 1.3; the certificate is signed by this consortium's authority, {signer}"
        days = (shown.not_valid_after_utc - datetime.now(UTC)).days
        found = f"TLS 1.3; the certificate is signed by this consortium's authority, {signer}, and good for {days} days"
        if days < SERVER_DAYS_MIN:
            raise CheckWarns(found, "Tell the consortium lead: the coordinator's certificate has to be renewed.")
        return found


def _explained(
    problem: WireError, host: str, shown: x509.Certificate | None, authority: x509.Certificate
) -> CheckFailed:
    """Who signed what was shown, if it was not the consortium: there is a box that opens TLS, and this is its name."""
    if shown is None or _is_signed_by(shown, authority):
        return CheckFailed(str(problem), problem.advice())
    return CheckFailed(
        f"TLS is intercepted: the certificate shown for {host} was signed by {_name(shown.issuer)}, and not by this "
        f"consortium's authority, {_name(authority.subject)} (SHA-256 {fingerprint(authority)[:16]})",
        f"Have whoever runs {_name(shown.issuer)} exempt {host} from TLS inspection. Nothing else helps: the agent "
        "believes the authority of its kit alone. If nobody here inspects TLS, this may be another consortium's "
        "coordinator: compare the authority's fingerprint with the consortium lead by telephone.",
    )


def _is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001 - a stranger's certificate may be broken in any way; then it is not ours
        return False
    return True


def _parsed(der: bytes) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError:
        return None


def _name(name: x509.Name) -> str:
    """A distinguished name as text for one line; a stranger wrote it."""
    text = "".join(c if c.isprintable() else "?" for c in name.rfc4514_string())
    return repr(text[:NAME_CHARACTERS_MAX])


async def _addresses(host: str, port: int, wait_s: float) -> tuple[str, ...]:
    async with asyncio.timeout(wait_s):
        found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(place[0]) for *_, place in found))

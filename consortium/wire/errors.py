"""What goes wrong between two machines: whose fault, whether to try again, what to do next.

Errors of the coordinator's own rooms need not derive from anything here. To be told to a caller as they are, they carry
`code` (one of RefusalCode's values) and `advice()`; anything else reaches the caller as an incident number only.
"""

from enum import StrEnum
from typing import Protocol, runtime_checkable


class RefusalCode(StrEnum):
    """What kind of no a caller got."""

    REFUSED = "refused"  # not allowed, and will not be
    NOT_FOUND = "not_found"
    SUSPENDED = "suspended"  # not allowed until somebody decides otherwise
    TRY_LATER = "try_later"  # nothing is wrong with the request
    INVALID = "invalid"  # the request itself is wrong
    CONFLICT = "conflict"  # right, but not in this state
    INTERNAL = "internal"  # the coordinator's fault


@runtime_checkable
class Answerable(Protocol):
    """An error that may be told to the caller: its words are meant for people and hold no secrets."""

    code: str

    def advice(self) -> str:
        """What to do next, in one sentence."""
        ...


class ServiceRefusal(Exception):
    """A ready-made Answerable, for a service that has no error class of its own for the case."""

    def __init__(self, message: str, *, code: RefusalCode = RefusalCode.REFUSED, advice: str = "") -> None:
        super().__init__(message)
        self.code = code
        self._advice = advice

    def advice(self) -> str:
        """What to do next."""
        return self._advice


class WireViolation(Exception):
    """A message that breaks a bound or a rule of the schema; the fault is its sender's."""

    code = RefusalCode.INVALID

    def __init__(self, field: str, *, found: str, allowed: str) -> None:
        super().__init__(f"{field}: found {found}; allowed: {allowed}")
        self.field = field
        self.found = found
        self.allowed = allowed

    def advice(self) -> str:
        """What to do next."""
        return "Run the same release on both sides; if they are, this is a defect of the sender: report it."


class AddressUnusable(Exception):
    """The server cannot listen where it was told to; the fault is in the configuration of this computer."""

    code = RefusalCode.CONFLICT

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot listen on {address}: {reason}")
        self.address = address
        self.reason = reason

    def advice(self) -> str:
        """What to do next."""
        return "Give an address of this computer and a port it may use, in coordinator.yaml."


class PortInUse(AddressUnusable):
    """Something else listens there already."""

    def __init__(self, address: str) -> None:
        super().__init__(address, "another program is using the port")

    def advice(self) -> str:
        """What to do next."""
        return (
            f"Stop the other program (is a coordinator running already?), or choose another port than {self.address}."
        )


class TlsNotPinned(Exception):
    """gRPC was imported before this package could restrict it to TLS 1.3; the fault is in the program that did it."""

    code = RefusalCode.INTERNAL

    def __init__(self) -> None:
        super().__init__("gRPC was loaded before consortium.wire, so TLS 1.2 could not be switched off")

    def advice(self) -> str:
        """What to do next."""
        return "Import consortium.wire before anything that imports grpc."


# --- seen by the caller --------------------------------------------------------------------------------------------


class WireError(Exception):
    """A call that did not come through. `retryable`: the same call may succeed later without anybody changing it."""

    code = RefusalCode.TRY_LATER
    retryable = True

    def advice(self) -> str:
        """What to do next."""
        return "Try again in a minute."


class CallRefused(WireError):
    """The coordinator understood the call and said no."""

    def __init__(self, status: str, message: str, advice: str, code: RefusalCode, incident: str = "") -> None:
        super().__init__(message)
        self.status = status  # the gRPC status by name
        self.message = message
        self.code = code
        self.incident = incident  # set with INTERNAL: the number under which the coordinator logged what happened
        self.retryable = code is RefusalCode.TRY_LATER
        self._advice = advice

    def advice(self) -> str:
        """What to do next, in the coordinator's words."""
        return self._advice


class CoordinatorUnreachable(WireError):
    """No connection came about: the network, a proxy, a name, or nobody listening there."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"the coordinator at {address} cannot be reached: {reason}")
        self.address = address
        self.reason = reason

    def advice(self) -> str:
        """What to do next."""
        return (
            "Check that the coordinator runs, and that this computer may open that one outbound TLS connection "
            "(firewall; https_proxy and no_proxy are honoured)."
        )


class TlsProblem(StrEnum):
    """Why a connection was made but not trusted."""

    FOREIGN_AUTHORITY = "its certificate was issued by another authority"
    EXPIRED = "its certificate has expired"
    NOT_YET_VALID = "its certificate is not valid yet"
    WRONG_HOST = "its certificate is for another host"
    NOT_TLS = "it does not speak TLS"
    OLD_TLS = "it does not speak TLS 1.3"
    NOT_A_COORDINATOR = "it speaks TLS but is not a Consortium coordinator"
    OWN_CERTIFICATE = "this side's certificate was not accepted"
    OWN_NOT_YET_VALID = "this side's certificate is not valid yet"
    NOT_FOR_TOKENS = "it asks for a certificate, so it is not the port for people with tokens"
    OTHER = "the TLS handshake failed"


_TLS_ADVICE = {
    TlsProblem.FOREIGN_AUTHORITY: "Use the kit of this very consortium. A box that opens TLS connections causes the "
    "same: `site-agent check` names it; have it pass this host through.",
    TlsProblem.EXPIRED: "Check this computer's clock; if it is right, the consortium lead renews the certificate.",
    TlsProblem.NOT_YET_VALID: "Set this computer's clock.",
    TlsProblem.WRONG_HOST: "Dial the name the coordinator was made for (`consortium init --address`).",
    TlsProblem.NOT_TLS: "Check the port: something other than the coordinator answers there.",
    TlsProblem.OLD_TLS: "Check the address: a coordinator never speaks older TLS, so this is something else.",
    TlsProblem.NOT_A_COORDINATOR: "Check the port: another service answers there.",
    TlsProblem.OWN_CERTIFICATE: "Enrol again with a new kit, and check this computer's clock.",
    TlsProblem.OWN_NOT_YET_VALID: "Set this computer's clock.",
    TlsProblem.NOT_FOR_TOKENS: "Use the coordinator's `people_address`, or an account's keys.",
    TlsProblem.OTHER: "Check the address, the proxy and this computer's clock.",
}


class TlsRefused(WireError):
    """Somebody answered, but not with proof of being this consortium's coordinator (or did not accept ours)."""

    code = RefusalCode.REFUSED
    retryable = False

    def __init__(self, address: str, problem: TlsProblem, detail: str = "") -> None:
        super().__init__(f"no trusted connection to {address}: {problem}" + (f" ({detail})" if detail else ""))
        self.address = address
        self.problem = problem
        self.detail = detail

    def advice(self) -> str:
        """What to do next."""
        return _TLS_ADVICE[self.problem]


class ConnectionLost(WireError):
    """An established connection broke, or went silent. What was under way counts as not done."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the connection to the coordinator broke: {reason}")
        self.reason = reason

    def advice(self) -> str:
        """What to do next."""
        return (
            "The agent reconnects by itself; if this keeps happening, check the network and any proxy's idle timeout."
        )


class SessionEnded(WireError):
    """The coordinator closed the session in order, for example because it is being stopped."""

    def __init__(self) -> None:
        super().__init__("the coordinator ended the session")

    def advice(self) -> str:
        """What to do next."""
        return "Nothing is wrong; the agent reconnects when the coordinator is back."


class SessionBroken(Exception):
    """Seen by the coordinator: the site of this session is gone, so it cannot be told anything."""

    code = RefusalCode.TRY_LATER

    def advice(self) -> str:
        """What to do next."""
        return "Wait for the site to connect again."

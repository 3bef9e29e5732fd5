"""One table from errors to gRPC status, and the way back.

An error travels as its gRPC status and a small JSON record in the trailing metadata: {code, message, advice, incident}.
Nothing else leaves: no traceback, no class name. What the table does not know is our own fault, and the caller learns
only the number under which it was logged.
"""

import errno
import json
import secrets
import traceback
from dataclasses import dataclass

import grpc
import structlog

from consortium.wire.errors import Answerable, CallRefused, ConnectionLost, RefusalCode, WireError
from consortium.wire.fields import clipped
from consortium.wire.limits import ERROR_DETAIL_BYTES_MAX

DETAIL_KEY = "consortium-error-bin"
# Even in the longest UTF-8 they fit, twice encoded, into the 8 KiB that gRPC allows for all metadata together.
_MESSAGE_CHARACTERS_MAX, _ADVICE_CHARACTERS_MAX = 500, 300
_DETAILS_CHARACTERS_MAX = 150
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

_STATUS = {
    RefusalCode.REFUSED: grpc.StatusCode.PERMISSION_DENIED,
    RefusalCode.SUSPENDED: grpc.StatusCode.PERMISSION_DENIED,
    RefusalCode.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    RefusalCode.TRY_LATER: grpc.StatusCode.UNAVAILABLE,
    RefusalCode.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    RefusalCode.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    RefusalCode.INTERNAL: grpc.StatusCode.INTERNAL,
}

_CODES = {str(code): code for code in RefusalCode if code is not RefusalCode.INTERNAL}

# What gRPC itself says no with, before any of our code has run; anything else without our record is a broken line.
_BARE = {
    grpc.StatusCode.UNAUTHENTICATED: RefusalCode.REFUSED,
    grpc.StatusCode.PERMISSION_DENIED: RefusalCode.REFUSED,
    grpc.StatusCode.UNIMPLEMENTED: RefusalCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RefusalCode.INVALID,
    grpc.StatusCode.INVALID_ARGUMENT: RefusalCode.INVALID,
}
_BARE_ADVICE = "Check the address and that both sides run the same release."

_log = structlog.get_logger("consortium.wire")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An error as it leaves the coordinator."""

    status: grpc.StatusCode
    code: RefusalCode
    message: str
    advice: str
    incident: str = ""

    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        """The record beside the status, for the trailing metadata."""
        record = {"code": self.code, "message": self.message, "advice": self.advice, "incident": self.incident}
        return ((DETAIL_KEY, json.dumps(record, ensure_ascii=False).encode()),)

    def details(self) -> str:
        """The beginning of the message, for tools that show nothing but gRPC's own status."""
        return self.message[:_DETAILS_CHARACTERS_MAX]


def answer_to(error: Exception, *, method: str, peer: str) -> Answer:
    """What a caller is told about an error; logs the ones that are our own fault."""
    if isinstance(error, Answerable) and (known := _CODES.get(error.code)):
        code, message, advice = known, str(error), error.advice()
    elif isinstance(error, OSError) and error.errno in _DISK_FULL:
        _log.error("wire.disk", method=method, peer=peer, errno=error.errno)
        code, message = RefusalCode.TRY_LATER, "the coordinator cannot write to its disk"
        advice = "Tell the consortium lead that the coordinator's disk is full or read-only, then try again."
    else:
        incident = secrets.token_hex(4)
        # Places, never values: the words of an unforeseen error may quote what a hospital sent.
        frames = traceback.extract_tb(error.__traceback__)[-6:]
        where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames]
        _log.error(
            "wire.internal", incident=incident, method=method, peer=peer, error=type(error).__name__, where=where
        )
        return Answer(
            status=grpc.StatusCode.INTERNAL,
            code=RefusalCode.INTERNAL,
            message=f"the coordinator failed (incident {incident})",
            advice=f"Give the consortium lead the number {incident}; the coordinator's log has the rest under it.",
            incident=incident,
        )
    return Answer(
        status=_STATUS[code],
        code=code,
        message=clipped(message, _MESSAGE_CHARACTERS_MAX),
        advice=clipped(advice, _ADVICE_CHARACTERS_MAX),
    )


def error_from(error: grpc.aio.AioRpcError) -> WireError:
    """The typed error for what gRPC reports at the caller's end."""
    status = error.code()
    for key, value in error.trailing_metadata() or ():
        if key == DETAIL_KEY and isinstance(value, bytes):
            refused = _refused(status.name, value)
            if refused is not None:
                return refused
    details = clipped(error.details() or "", 200)
    if status in _BARE:
        return CallRefused(status.name, details or status.name, _BARE_ADVICE, _BARE[status])
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ConnectionLost("no answer in time")
    return ConnectionLost(details or status.name)


def _refused(status: str, record: bytes) -> CallRefused | None:
    """Our own record, if it is one: it comes from outside like everything else."""
    if len(record) > ERROR_DETAIL_BYTES_MAX:
        return None
    try:
        parsed = json.loads(record)
        code = RefusalCode(parsed["code"])
        message, advice, incident = str(parsed["message"]), str(parsed["advice"]), str(parsed["incident"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return CallRefused(
        status,
        clipped(message, _MESSAGE_CHARACTERS_MAX),
        clipped(advice, _ADVICE_CHARACTERS_MAX),
        code,
        clipped(incident, 16),
    )

"""The table of errors, both ways, without a network."""

import errno
import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from consortium.contract.certificates import CertificateRefused, Fault
from consortium.wire import fields, status
from consortium.wire.errors import CallRefused, ConnectionLost, RefusalCode, ServiceRefusal, WireViolation

grpc: Any = vars(status)["grpc"]  # by way of the package, which restricts it to TLS 1.3 first
StatusCode = grpc.StatusCode


def _reported(code: Any, details: str = "", metadata: tuple[tuple[str, bytes], ...] = ()) -> Any:
    rpc_error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), details=details)
    return status.error_from(rpc_error)


def _answer(error: Exception) -> status.Answer:
    return status.answer_to(error, method="SubmitEvents", peer="site north-clinic")


@pytest.mark.parametrize("code", [code for code in RefusalCode if code is not RefusalCode.INTERNAL])
def test_there_and_back(code: RefusalCode) -> None:
    answer = _answer(ServiceRefusal("what", code=code, advice="then"))
    back = _reported(answer.status, answer.details(), answer.metadata())
    assert isinstance(back, CallRefused)
    assert (back.code, back.message, back.advice(), back.status) == (code, "what", "then", answer.status.name)


def test_errors_of_the_contract_need_no_base_class() -> None:
    refused = CertificateRefused(Fault.EXPIRED, found="yesterday", allowed="today")
    assert _answer(refused).status is StatusCode.PERMISSION_DENIED
    assert _answer(refused).advice == refused.advice()
    assert _answer(WireViolation("x", found="1", allowed="2")).status is StatusCode.INVALID_ARGUMENT


class Pretender(Exception):
    def __init__(self, code: Any) -> None:
        super().__init__("secret words")
        self.code = code

    def advice(self) -> str:
        return "secret advice"


@pytest.mark.parametrize("error", [Pretender("internal"), Pretender("whatever"), Pretender(7), ValueError("secret")])
def test_what_the_table_does_not_know_is_an_incident(error: Exception) -> None:
    with capture_logs() as logs:
        answer = _answer(error)
    assert answer.status is StatusCode.INTERNAL
    assert "secret" not in answer.message + answer.advice + json.dumps(logs)
    assert logs[0]["incident"] == answer.incident
    assert (logs[0]["method"], logs[0]["peer"]) == ("SubmitEvents", "site north-clinic")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_nothing(number: int) -> None:
    with capture_logs():
        assert _answer(OSError(number, "x", "/secret/path")).code is RefusalCode.TRY_LATER
        assert "secret" not in _answer(OSError(number, "x", "/secret/path")).message
        assert _answer(OSError(errno.EIO, "x")).code is RefusalCode.INTERNAL


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"{}",
        b'{"code":"refused"}',
        b'{"code":"unheard-of","message":"m","advice":"a","incident":""}',
        b"[" * 2000,
        b"\xff",
        b" " * 5000,
    ],
)
def test_a_record_that_is_none_is_ignored(record: bytes) -> None:
    back = _reported(StatusCode.PERMISSION_DENIED, "denied", ((status.DETAIL_KEY, record),))
    assert (back.code, back.message) == (RefusalCode.REFUSED, "denied")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (StatusCode.UNIMPLEMENTED, RefusalCode.NOT_FOUND),
        (StatusCode.RESOURCE_EXHAUSTED, RefusalCode.INVALID),
        (StatusCode.UNAUTHENTICATED, RefusalCode.REFUSED),
    ],
)
def test_what_grpc_itself_refuses(code: Any, expected: RefusalCode) -> None:
    back = _reported(code, "no")
    assert isinstance(back, CallRefused)
    assert back.code is expected
    assert not back.retryable


@pytest.mark.parametrize(
    "code", [StatusCode.UNAVAILABLE, StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.CANCELLED]
)
def test_a_broken_line(code: Any) -> None:
    back = _reported(code, "Socket closed\x1b")
    assert isinstance(back, ConnectionLost)
    assert back.retryable
    assert "\x1b" not in str(back)
    assert "no answer in time" in str(_reported(StatusCode.DEADLINE_EXCEEDED))


def test_words_are_cut_to_fit() -> None:
    assert fields.clipped("x" * 10, 10) == "x" * 10
    assert fields.clipped("x" * 11, 10) == "x" * 7 + "..."
    assert fields.clipped("a\x1bb\nc\ud800d", 10) == "a b\nc d"
    assert fields.text("t", fields.clipped("\x00\x9b\u2066" * 9000)) is not None

"""What a log asks of a witness and hears from it, as bytes, in both directions."""

import pytest

from audit import witness_protocol
from audit.errors import VerificationError
from audit.witness import CheckpointRefused, Request
from audit.witness_protocol import (
    Answer,
    cosignature_answer,
    cosigned,
    other_size,
    parse_request,
    refusal_answer,
    request_bytes,
)
from tests.interop.grown_logs import NOW, WITNESSES

TEXT = "fl.example.org/log\n3\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
NOTE = (TEXT + "\n— fl.example.org/log AAAA\n").encode()
HASHES = (bytes(32), b"\x01" * 32)
ANNA, BERG = WITNESSES[:2]


@pytest.mark.parametrize("proof", [(), HASHES, (bytes(32),) * 63])
def test_a_request_is_read_as_it_was_written(proof: tuple[bytes, ...]) -> None:
    request = Request(old_size=2 if proof else 0, proof=proof, note=NOTE)
    assert parse_request(request_bytes(request)) == request


def test_a_request_is_the_lines_of_the_specification() -> None:
    written = request_bytes(Request(old_size=2, proof=HASHES, note=NOTE))
    zeros, ones = "A" * 43 + "=", "AQEB" * 10 + "AQE="
    assert written == f"old 2\n{zeros}\n{ones}\n\n".encode() + NOTE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"old 1\n" + NOTE,  # no blank line before the note's own: the note's text is not base64
        b"old 01\n\n" + NOTE,
        b"old -1\n\n" + NOTE,
        b"old 9223372036854775808\n\n" + NOTE,
        b"size 1\n\n" + NOTE,
        b"old 1\nAAAA\n\n" + NOTE,
        b"old 1\n" + b"A" * 42 + b"B=\n\n" + NOTE,
        b"old 1\n" + (b"A" * 43 + b"=\n") * 64 + b"\n" + NOTE,
        b"old \xc2\xb2\n\n" + NOTE,
        b"old 1\n\n" + b"x" * witness_protocol.REQUEST_BYTES_MAX,
    ],
)
def test_what_is_no_request_is_the_askers_fault(data: bytes) -> None:
    with pytest.raises(CheckpointRefused) as refused:
        parse_request(data)
    assert refused.value.status == 400
    assert refusal_answer(refused.value, remembered_size=7).body.startswith(b"the log's checkpoint is not cosigned")


def test_no_log_has_a_proof_of_64_hashes() -> None:
    with pytest.raises(VerificationError, match="at most 63"):
        request_bytes(Request(old_size=1, proof=(bytes(32),) * 64, note=NOTE))


def test_a_cosignature_counts_once_it_verifies() -> None:
    lines = cosignature_answer(BERG.cosign(TEXT, NOW), ANNA.cosign(TEXT, NOW), ANNA.cosign(TEXT, NOW + 5))
    found = cosigned(lines, text=TEXT, size=3, witness=ANNA.key)
    assert (found.size, found.time_s) == (3, NOW + 5)
    assert found.line() == ANNA.cosign(TEXT, NOW + 5).line()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "a text, a blank line and signature lines"),
        (b"sorry\n", "an em dash"),
        (BERG.cosign(TEXT, NOW).line().encode(), "lines of other keys"),
        (ANNA.cosign(TEXT.replace("\n3\n", "\n4\n"), NOW).line().encode(), "one that fails"),
        (b"x\n\n" + ANNA.cosign(TEXT, NOW).line().encode(), "signature lines and nothing else"),
        (b"x" * (witness_protocol.ANSWER_BYTES_MAX + 1), "at most 65536 bytes"),
    ],
)
def test_what_does_not_verify_does_not_count(body: bytes, words: str) -> None:
    with pytest.raises(VerificationError, match=words):
        cosigned(Answer(status=200, content_type="text/plain", body=body), text=TEXT, size=3, witness=ANNA.key)


def test_a_size_that_is_told() -> None:
    refused = CheckpointRefused(409, "another size")
    answer = refusal_answer(refused, remembered_size=12)
    assert (answer.status, answer.content_type, answer.body) == (409, "text/x.tlog.size", b"12\n")
    assert other_size(answer) == 12
    for body in (b"12", b"012\n", b"-1\n", b"9223372036854775808\n", b"1" * 40 + b"\n", b"\xff\n", b""):
        with pytest.raises(VerificationError):
            other_size(Answer(status=409, content_type="text/x.tlog.size", body=body))
    with pytest.raises(VerificationError, match=r"text/x\.tlog\.size"):
        other_size(Answer(status=409, content_type="text/html", body=b"12\n"))

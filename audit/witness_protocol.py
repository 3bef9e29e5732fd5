"""What a log asks of a witness and what the witness answers, as bytes (C2SP tlog-witness v1.0.0). Pure.

Log format section 9. One call, `POST <prefix>/add-checkpoint`:

    old <size>                        how many entries the witness has cosigned, or 0
    <base64 hash>   at most 63 lines  the consistency proof from there
                                      a blank line
    <the checkpoint, with the log's signature>

| answer | means |
|---|---|
| 200 and signature lines | it is cosigned |
| 409 and a line `<size>` as text/x.tlog.size | the proof has to begin at this size |
| 400, 403, 404, 422 | what `audit.witness` calls refusals |

Both directions are here: the coordinator asks, and whoever serves a witness answers with the same lines. Nothing that
came from the other side is believed: sizes and counts are checked first, and a cosignature counts once `cosigned` has
verified it with the key that the reader trusts.
"""

from dataclasses import dataclass

from audit.checkpoint import encode_hashes, parse_decimal
from audit.cosignature import WitnessKey
from audit.errors import VerificationError
from audit.merkle import HASH_BYTES
from audit.note import NOTE_BYTES_MAX, NoteSignature, decode_base64, parse_note
from audit.witness import BAD_REQUEST, OTHER_SIZE, CheckpointRefused, Request

COSIGNED = 200
"""The status of an answer with signature lines."""
PATH = "add-checkpoint"
"""Below the witness's prefix."""
HASHES_MAX = 63
"""What a proof has at most: one for each level of a tree of 2^63 entries."""
REQUEST_BYTES_MAX = NOTE_BYTES_MAX + 64 * 64
"""A note, and before it a line for each hash."""
ANSWER_BYTES_MAX = 64 * 1024
"""Several cosignatures of several keys, ML-DSA-44 among them, take less."""
SIZE_TYPE = "text/x.tlog.size"
"""Content type of an answer that is a size."""
LINES_TYPE = "text/plain; charset=utf-8"
"""Content type of all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer, either as it came or as it is to be sent."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """A cosignature that was verified: of this many entries, at this time."""

    signature: NoteSignature
    size: int
    time_s: int  # Unix seconds, by the witness's clock

    def line(self) -> str:
        """As it is added to the checkpoint's note."""
        return self.signature.line()


def request_bytes(request: Request) -> bytes:
    """The body of the call; raises VerificationError for a proof that no log has."""
    if len(request.proof) > HASHES_MAX:
        raise VerificationError("consistency proof", f"at most {HASHES_MAX} hashes", str(len(request.proof)))
    return f"old {request.old_size}\n".encode() + encode_hashes(request.proof) + b"\n" + request.note


def parse_request(data: bytes) -> Request:
    """What a log asks, not believed yet: `audit.witness.judge` looks at it.

    Raises:
        CheckpointRefused: With status 400: these bytes are no request.
    """
    if len(data) > REQUEST_BYTES_MAX:
        raise CheckpointRefused(BAD_REQUEST, f"the request has {len(data)} bytes, more than {REQUEST_BYTES_MAX}")
    head, blank, note = data.partition(b"\n\n")
    if not blank or not head.isascii():
        raise CheckpointRefused(BAD_REQUEST, "the request is not ASCII lines, a blank line and a checkpoint")
    first, *hashes = head.decode("ascii").split("\n")
    if not first.startswith("old ") or len(hashes) > HASHES_MAX:
        raise CheckpointRefused(BAD_REQUEST, f"the request is not a line `old SIZE` and at most {HASHES_MAX} hashes")
    try:
        old_size = parse_decimal(first.removeprefix("old "), "old size")
        proof = tuple(decode_base64(line, "consistency proof") for line in hashes)
    except VerificationError as error:
        raise CheckpointRefused(BAD_REQUEST, str(error)) from error
    if any(len(part) != HASH_BYTES for part in proof):
        raise CheckpointRefused(BAD_REQUEST, f"a hash of the proof has other than {HASH_BYTES} bytes")
    return Request(old_size=old_size, proof=proof, note=note)


def cosignature_answer(*signatures: NoteSignature) -> Answer:
    """What a witness says that has cosigned."""
    body = "".join(signature.line() for signature in signatures).encode()
    return Answer(status=COSIGNED, content_type=LINES_TYPE, body=body)


def refusal_answer(refused: CheckpointRefused, *, remembered_size: int) -> Answer:
    """What a witness says that does not cosign; where only the size was another, it says which it has."""
    if refused.status == OTHER_SIZE:
        return Answer(status=OTHER_SIZE, content_type=SIZE_TYPE, body=f"{remembered_size}\n".encode())
    return Answer(status=refused.status, content_type=LINES_TYPE, body=f"{refused}\n".encode())


def other_size(answer: Answer) -> int:
    """The size in a 409; raises VerificationError if it holds none."""
    if answer.content_type.partition(";")[0].strip().lower() != SIZE_TYPE:
        raise VerificationError("answer of a witness", SIZE_TYPE, repr(answer.content_type[:80]))
    try:
        text = answer.body[:32].decode("ascii")
    except UnicodeDecodeError as error:
        raise VerificationError("answer of a witness", "a size", "bytes that are not ASCII") from error
    if not text.endswith("\n"):
        raise VerificationError("answer of a witness", "a size and a newline", repr(text))
    return parse_decimal(text[:-1], "size at a witness")


def cosigned(answer: Answer, *, text: str, size: int, witness: WitnessKey) -> Cosigned:
    """The witness's own cosignature in an answer with status 200, once it verifies. Lines of other keys are skipped.

    Args:
        answer: What came.
        text: The text of the checkpoint that was asked about, with its last newline.
        size: Of that checkpoint.
        witness: The key that is trusted.

    Raises:
        VerificationError: There is no line of this witness, or one that does not verify over this very text.
    """
    if len(answer.body) > ANSWER_BYTES_MAX:
        raise VerificationError("answer of a witness", f"at most {ANSWER_BYTES_MAX} bytes", str(len(answer.body)))
    # Read as the note that the lines are for: its grammar and its bounds are those of every note.
    note = parse_note(text.encode() + b"\n" + answer.body)
    if note.text != text:
        raise VerificationError("answer of a witness", "signature lines and nothing else", "a text among them")
    own = [(signature, witness.verify(text, signature)) for signature in note.signatures if witness.is_of(signature)]
    if not own:
        raise VerificationError("answer of a witness", f"a line of {witness.vkey()}", "lines of other keys")
    signature, time_s = max(own, key=lambda found: found[1])
    return Cosigned(signature=signature, size=size, time_s=time_s)

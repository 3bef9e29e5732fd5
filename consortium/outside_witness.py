"""A witness outside the consortium (an auditor, an ethics board, a public one) is asked by its URL to cosign.

Log format section 9; the bytes are `audit.witness_protocol`'s. What `consortium/witnesses.py` calls:

    async def cosign(
        witness: OutsideWitness,                       # url and vkey of coordinator.yaml
        *,
        old: int,                                      # entries it cosigned last, as far as is known here; 0 if nothing
        proof_of: Callable[[int, int], Sequence[bytes]],  # LogView.consistency_proof: old and new size -> hashes
        note: bytes,                                   # our checkpoint with the log's signature
    ) -> Cosigned                                      # .signature, .line(), .size (the next `old`), .time_s

It may be called with `old=0` at any time: a witness that has cosigned before says at which size the proof has to begin,
and is asked again with that proof. So at a start it is also the look for a log that was rolled back: a witness that has
cosigned more than `note` has entries raises `WitnessIsAhead`, and `shown` asks it for the checkpoint that proves it.

Nothing that a witness says is believed: an answer has a length and a time, a cosignature counts once it verifies with
the key in coordinator.yaml, and a size is only where a proof begins. A witness that could stop a consortium by naming a
number would be worth bribing: what stops it is the log's own signature over more entries than it has. The connection is
HTTPS under the authorities of the system (or those of SSL_CERT_FILE); without TLS only on this machine. Redirects are
not followed.
"""

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from audit import witness_protocol
from audit.checkpoint import parse_checkpoint
from audit.errors import VerificationError
from audit.witness import INCONSISTENT, NOT_SIGNED, OTHER_SIZE, UNKNOWN_LOG, Request
from audit.witness_protocol import ANSWER_BYTES_MAX, Answer, Cosigned
from consortium.coordinator_file import OutsideWitness
from consortium.errors import ConsortiumError

if TYPE_CHECKING:
    import h11

ANSWER_S = 15.0
"""Seconds for one call: connection, handshake, and the whole of the answer."""
TRIES = 3
"""Calls for one checkpoint: another log operator may have the witness cosign in between."""
HEAD_BYTES_MAX = 16 * 1024
_READ = 16 * 1024


class WitnessUnreachable(ConsortiumError):
    """An outside witness that gives no answer now. Nobody's fault that is known; the next checkpoint asks again."""

    code = "try_later"

    def __init__(self, witness: OutsideWitness, found: str) -> None:
        super().__init__(f"the outside witness {witness.key.name} at {witness.url} {found}")

    def advice(self) -> str:
        """What to do next."""
        return "It is asked again with the next checkpoint. If it stays so, ask whoever runs it."


class WitnessRefused(ConsortiumError):
    """An outside witness that does not cosign. `status` is its answer's, `reason` what that means, in words of ours."""

    remembered: int | None = None  # entries that it says it cosigned last

    def __init__(self, witness: OutsideWitness, status: int, said: str) -> None:
        self.reason = reason = _REASONS.get(status, f"answers {status}")
        words = f" (its words: {said!r})" if said else ""
        super().__init__(f"the outside witness {witness.key.name} at {witness.url} {reason}{words}")
        self.status = status

    def advice(self) -> str:
        """What to do next."""
        return _ADVICE.get(self.status, "Check the URL in coordinator.yaml with whoever runs the witness.")


class WitnessIsAhead(ConsortiumError):
    """The witness has cosigned more entries than the log has: the log was rolled back, or the witness errs."""

    code = "conflict"
    status = OTHER_SIZE
    reason = "says that it has cosigned more entries than this log has"

    def __init__(self, witness: OutsideWitness, *, seen: int, ours: int) -> None:
        super().__init__(
            f"the outside witness {witness.key.name} says it has cosigned {seen} entries of this log, which has {ours}"
        )
        self.seen, self.ours = seen, ours
        self.remembered = seen

    def advice(self) -> str:
        """What to do next."""
        return (
            "Do not go on with this log: it looks restored from an older backup. Ask the witness for the checkpoint it "
            "cosigned (its monitoring address has it), and restore a copy of the log that is at least as new."
        )


class WitnessNotBelieved(ConsortiumError):
    """An answer that proves nothing: no cosignature by the configured key over our checkpoint. The witness's fault."""

    code = "invalid"

    def __init__(self, witness: OutsideWitness, found: str) -> None:
        super().__init__(f"the outside witness {witness.key.name} at {witness.url} gave no cosignature: {found}")

    def advice(self) -> str:
        """What to do next."""
        return "Compare the vkey in coordinator.yaml with the one its operator publishes; tell the operator."


_REASONS = {
    UNKNOWN_LOG: "does not know this log",
    NOT_SIGNED: "does not accept the signature of this log's key",
    INCONSISTENT: "says that the log contradicts what it has cosigned before",
}
_ADVICE = {
    UNKNOWN_LOG: "Send its operator this log's vkey, the one in policy.txt of any evidence, to be added there.",
    NOT_SIGNED: "Its operator has another vkey of this log than the one in policy.txt of any evidence: send that.",
    INCONSISTENT: (
        "Stop the coordinator and keep its folder: the log was rolled back or altered, or two coordinators write to it."
        " The witness has kept both checkpoints."
    ),
}


async def cosign(
    witness: OutsideWitness, *, old: int, proof_of: Callable[[int, int], Sequence[bytes]], note: bytes
) -> Cosigned:
    """Have a witness cosign a checkpoint of ours.

    Args:
        witness: Whom to ask.
        old: How many entries it cosigned last, as far as is known here.
        proof_of: A consistency proof from an old size to a new one; called in a thread, for it may wait for the log.
        note: The checkpoint with the log's signature.

    Raises:
        WitnessUnreachable, WitnessRefused, WitnessIsAhead, WitnessNotBelieved: see there.
    """
    signed = parse_checkpoint(note)
    size = signed.checkpoint.size
    old = min(old, size)
    for _ in range(TRIES):
        # A log of one size is its own prefix, and one without entries is everybody's: neither needs a proof.
        proof = tuple(await asyncio.to_thread(proof_of, old, size)) if 0 < old < size else ()
        answer = await _asked(witness, Request(old_size=old, proof=proof, note=note))
        try:
            if answer.status == witness_protocol.COSIGNED:
                return witness_protocol.cosigned(answer, text=signed.note.text, size=size, witness=witness.key)
            if answer.status == OTHER_SIZE:
                old = witness_protocol.other_size(answer)
        except VerificationError as error:
            raise WitnessNotBelieved(witness, str(error)) from error
        if answer.status != OTHER_SIZE:
            raise _refusal(witness, answer)
        if old > size:
            raise WitnessIsAhead(witness, seen=old, ours=size)
    raise WitnessUnreachable(witness, f"named another size {TRIES} times")


async def shown(witness: OutsideWitness, origin: str) -> bytes:
    """The checkpoint of this log that a witness says it cosigned last, not believed yet: its monitoring answer.

    Asked below the same URL as cosignatures, by the name that C2SP tlog-witness gives it.

    Raises:
        WitnessUnreachable, WitnessRefused: see there.
    """
    path = f"{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint"
    answer = await _bounded(witness, "GET", path, b"")
    if answer.status != 200:
        raise _refusal(witness, answer)
    return answer.body


def _refusal(witness: OutsideWitness, answer: Answer) -> ConsortiumError:
    if answer.status >= 500 or answer.status == 429:
        return WitnessUnreachable(witness, f"cannot answer now (status {answer.status})")
    text = answer.body[:200].decode("utf-8", "replace").strip()
    return WitnessRefused(witness, answer.status, "".join(c for c in text if c.isprintable()))


async def _asked(witness: OutsideWitness, request: Request) -> Answer:
    return await _bounded(witness, "POST", witness_protocol.PATH, witness_protocol.request_bytes(request))


async def _bounded(witness: OutsideWitness, method: str, path: str, body: bytes) -> Answer:
    """One call over one connection."""
    import h11  # noqa: PLC0415 - where it is not used, it is not loaded

    try:
        async with asyncio.timeout(ANSWER_S):
            return await _called(witness, method, path, body)
    except TimeoutError:
        raise WitnessUnreachable(witness, f"gave no whole answer within {ANSWER_S:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise WitnessUnreachable(witness, f"is not trusted: {error.verify_message}") from error
    except (OSError, EOFError) as error:
        raise WitnessUnreachable(witness, f"is not reached: {getattr(error, 'strerror', None) or error}") from error
    except h11.ProtocolError as error:
        raise WitnessUnreachable(witness, f"does not speak HTTP as expected: {error}") from error


async def _called(witness: OutsideWitness, method: str, path: str, body: bytes) -> Answer:
    import h11  # noqa: PLC0415 - as above

    place = urlsplit(witness.url)
    encrypted = place.scheme == "https"
    assert place.hostname is not None  # coordinator_file.py has looked at the URL
    reader, writer = await asyncio.open_connection(
        place.hostname,
        place.port or (443 if encrypted else 80),
        ssl=_context() if encrypted else None,
    )
    try:
        head = h11.Request(
            method=method,
            target=f"{place.path.rstrip('/')}/{path}",
            headers=[("Host", place.netloc), ("Content-Length", str(len(body))), ("Connection", "close")],
        )
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            writer.write(connection.send(event) or b"")
        await writer.drain()
        return await _received(connection, reader)
    finally:
        writer.transport.abort()


async def _received(connection: "h11.Connection", reader: asyncio.StreamReader) -> Answer:
    import h11  # noqa: PLC0415 - as above

    status, content_type, body = 0, "", bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ))
        elif isinstance(event, h11.Response):
            status = event.status_code
            content_type = dict(event.headers).get(b"content-type", b"").decode("latin-1")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > ANSWER_BYTES_MAX:
                raise h11.RemoteProtocolError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status=status, content_type=content_type, body=bytes(body))
        elif isinstance(event, h11.ConnectionClosed):
            raise EOFError("the connection was closed before the answer was whole")


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context

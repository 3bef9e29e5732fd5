"""A witness of a log: it remembers the largest tree it has cosigned, and cosigns only what grew from it.

Log format section 9; the checks are those of C2SP tlog-witness v1.0.0, in its order, as a function of values. Whoever
calls it must make the new memory durable before the cosignature leaves, with nobody else judging in between: else two
requests at the same time, or a crash, could make a witness cosign two histories.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from audit import merkle
from audit.checkpoint import Checkpoint, SignedCheckpoint, parse_checkpoint
from audit.errors import AuditError, VerificationError
from audit.note import NoteVerifier, verify_note

UNKNOWN_LOG, NOT_SIGNED, BAD_REQUEST, OTHER_SIZE, INCONSISTENT = 404, 403, 400, 409, 422
"""What a refusal is called on the wire of tlog-witness."""


class CheckpointRefused(AuditError):
    """A checkpoint that is not cosigned. With `keep_both` it and an earlier one are evidence against the log.

    The earlier one is what the witness cosigned last, or `earlier` where that is said.
    """

    def __init__(self, status: int, why: str, *, keep_both: bool = False, earlier: bytes = b"") -> None:
        super().__init__(f"the log's checkpoint is not cosigned: {why}")
        self.status, self.keep_both, self.earlier = status, keep_both, earlier

    def advice(self) -> str:
        """What to do next."""
        if self.keep_both:
            return (
                "Stop taking part, keep both checkpoints, and compare them with the other hospitals: the log shows"
                " different people different histories, or it was rolled back."
            )
        return "The coordinator must send a checkpoint of its own log that grew from the last one cosigned here."


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """The largest tree of a log that was cosigned; what stands at the beginning is a tree without entries."""

    size: int = 0
    root: bytes = merkle.EMPTY_ROOT
    note: bytes = b""  # the signed checkpoint as it came, to be shown beside a contradicting one


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a log asks of a witness: its checkpoint, and the proof that it grew from one of `old_size` entries."""

    old_size: int
    proof: tuple[bytes, ...]  # at most 63 hashes of 32 bytes
    note: bytes


def judge(
    remembered: Remembered, request: Request, log: NoteVerifier, *others: NoteVerifier
) -> tuple[Remembered, SignedCheckpoint]:
    """What to remember from now on, and the checkpoint that may then be cosigned.

    `log` is the log's key; `others` are keys of the same name that are believed too, while it changes its key.

    Raises:
        CheckpointRefused: See the table in log format section 9.
    """
    signed = _signed(request.note, log, *others)
    found = signed.checkpoint
    if request.old_size > found.size:
        raise CheckpointRefused(BAD_REQUEST, f"it has {found.size} entries, and the proof begins at {request.old_size}")
    if request.old_size != remembered.size:
        raise CheckpointRefused(
            OTHER_SIZE,
            f"the last one cosigned here has {remembered.size} entries, and the proof begins at {request.old_size}",
        )
    _require_growth(remembered, found, request.proof)
    return Remembered(size=found.size, root=found.root, note=request.note), signed


def _signed(note: bytes, log: NoteVerifier, *others: NoteVerifier) -> SignedCheckpoint:
    try:
        signed = parse_checkpoint(note)
    except VerificationError as error:
        raise CheckpointRefused(BAD_REQUEST, str(error)) from error
    if signed.checkpoint.origin != log.name:
        raise CheckpointRefused(UNKNOWN_LOG, f"it is of the log {signed.checkpoint.origin[:80]!r}, not {log.name!r}")
    try:
        verify_note(signed.note, [log, *others])
    except VerificationError as error:
        raise CheckpointRefused(NOT_SIGNED, str(error)) from error
    return signed


def _require_growth(remembered: Remembered, found: Checkpoint, proof: Sequence[bytes]) -> None:
    """Everything that was in the tree we cosigned is in the same place of this one."""
    if found.size == 0 and found.root != merkle.EMPTY_ROOT:
        raise CheckpointRefused(INCONSISTENT, "a log without entries has another root")
    if remembered.size == 0:
        if proof:
            raise CheckpointRefused(INCONSISTENT, f"growth from nothing needs no proof, and {len(proof)} hashes came")
        return
    if found.size == remembered.size and found.root != remembered.root:
        raise _fork(remembered, found)
    try:
        merkle.verify_consistency(
            old=remembered.size, new=found.size, old_root=remembered.root, new_root=found.root, proof=proof
        )
    except VerificationError as error:
        # Perhaps only the proof is wrong. But the log has signed both, so it must have a right one to show.
        raise CheckpointRefused(
            INCONSISTENT,
            f"its {found.size} entries do not extend the {remembered.size} cosigned here ({error})",
            keep_both=True,
        ) from error


def _fork(remembered: Remembered, found: Checkpoint) -> CheckpointRefused:
    return CheckpointRefused(
        INCONSISTENT,
        f"of {found.size} entries the log has signed two roots, {remembered.root.hex()} and {found.root.hex()}",
        keep_both=True,
    )

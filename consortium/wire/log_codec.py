"""Following the log and cosigning it: bytes to checked values and back. What the notes say is judged elsewhere."""

from collections.abc import Sequence
from typing import TypeAlias

from consortium.contract.messages import DroppedLeaves, LogGrowth, LogPosition
from consortium.wire import consortium_pb2 as pb
from consortium.wire import fields, limits
from consortium.wire.codec import encoded, parsed
from consortium.wire.errors import WireViolation

LogPart: TypeAlias = LogGrowth | tuple[bytes, ...] | DroppedLeaves
"""One message of FollowLog's answer: how the log grew, the next entries, or the hashes of dropped ones."""


def encode_position(position: LogPosition) -> bytes:
    """How far a copy has come."""
    return encoded(pb.LogPosition(size=position.size, note=position.note), limits.REQUEST_BYTES_MAX["FollowLog"])


def decode_position(data: bytes) -> LogPosition:
    """How far a copy has come; raises WireViolation."""
    message = parsed(pb.LogPosition, data, limits.REQUEST_BYTES_MAX["FollowLog"])
    return LogPosition(
        size=fields.whole("position.size", message.size, 0, limits.SEQUENCE_MAX),
        note=fields.between("position.note", message.note, 0, limits.NOTE_BYTES_MAX),
    )


def encode_growth(growth: LogGrowth) -> bytes:
    """The first part of an answer."""
    body = pb.LogGrowth(note=growth.note, proof=growth.proof, cosigned=growth.cosigned, dropped=growth.dropped)
    return encoded(pb.LogPart(growth=body), limits.MESSAGE_BYTES_MAX)


def encode_entries(part: Sequence[bytes] | DroppedLeaves) -> bytes:
    """One of the parts that follow it."""
    if isinstance(part, DroppedLeaves):
        return encoded(pb.LogPart(hashes=pb.LogHashes(hashes=part.hashes)), limits.MESSAGE_BYTES_MAX)
    return encoded(pb.LogPart(entries=pb.LogEntries(entries=part)), limits.MESSAGE_BYTES_MAX)


def decode_part(data: bytes) -> LogPart:
    """One part of an answer; raises WireViolation."""
    message = parsed(pb.LogPart, data, limits.MESSAGE_BYTES_MAX)
    match message.WhichOneof("part"):
        case "growth":
            return _growth(message.growth)
        case "entries":
            found = message.entries.entries
            fields.listed("entries", found, 1, limits.EVENTS_PER_CALL_MAX)
            if sum(len(entry) for entry in found) > limits.EVENTS_BYTES_MAX:
                raise WireViolation("entries", found="more bytes", allowed=f"at most {limits.EVENTS_BYTES_MAX}")
            return tuple(fields.between("entry", entry, 1, limits.EVENT_BYTES_MAX) for entry in found)
        case "hashes":
            hashes = fields.listed("hashes", message.hashes.hashes, 1, limits.EVENTS_PER_CALL_MAX)
            return DroppedLeaves(hashes=tuple(fields.hash_of("hash", one) for one in hashes))
        case _:
            raise WireViolation("LogPart.part", found="nothing this release knows", allowed="growth, entries or hashes")


def _growth(message: pb.LogGrowth) -> LogGrowth:
    proof = fields.listed("growth.proof", message.proof, 0, limits.PROOF_HASHES_MAX)
    cosigned = fields.listed("growth.cosigned", message.cosigned, 0, limits.NOTES_MAX)
    if sum(len(note) for note in cosigned) > limits.NOTES_BYTES_MAX:
        raise WireViolation("growth.cosigned", found="more bytes", allowed=f"at most {limits.NOTES_BYTES_MAX}")
    return LogGrowth(
        note=fields.between("growth.note", message.note, 1, limits.NOTE_BYTES_MAX),
        proof=tuple(fields.hash_of("growth.proof", one) for one in proof),
        cosigned=tuple(fields.between("growth.cosigned", note, 1, limits.NOTE_BYTES_MAX) for note in cosigned),
        dropped=fields.between("growth.dropped", message.dropped, 0, limits.DROPPED_BYTES_MAX),
    )


def encode_cosigned(note: bytes) -> bytes:
    """A checkpoint with a line of the caller's."""
    return encoded(pb.CosignedNote(note=note), limits.REQUEST_BYTES_MAX["CosignLog"])


def decode_cosigned(data: bytes) -> bytes:
    """A checkpoint with a line of the caller's; raises WireViolation."""
    message = parsed(pb.CosignedNote, data, limits.REQUEST_BYTES_MAX["CosignLog"])
    return fields.between("note", message.note, 1, limits.NOTE_BYTES_MAX)

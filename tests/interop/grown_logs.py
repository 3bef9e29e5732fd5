"""Logs that our code wrote, at the sizes where tiles begin and end, for programs of others to verify."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.cosignature import WitnessSigner
from audit.log import Log
from audit.note import Note, NoteSigner

LOG = NoteSigner("fl.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32))
WITNESSES = tuple(
    WitnessSigner(f"fl.example.org/log/witness/{at}", Ed25519PrivateKey.from_private_bytes(bytes([at]) * 32))
    for at in range(2, 6)
)
EDGES = (1, 2, 255, 256, 257)
SECOND_LEVEL = (65_535, 65_536, 65_537)
NOW = 1_780_000_000


def entry(at: int) -> bytes:
    """What stands at a leaf."""
    return f'{{"leaf":{at}}}'.encode()


def grown(folder: Path, sizes: tuple[int, ...]) -> tuple[Log, dict[int, bytes]]:
    """A log that was appended to in steps, still open, and its checkpoint at each size."""
    notes = {}
    log = Log.create(folder, LOG)
    for size in sizes:
        log.append([entry(at) for at in range(log.size, size)])
        notes[size] = log.checkpoint().to_bytes()
    return log, notes


def cosigned(log: Log, count: int) -> bytes:
    """The log's checkpoint with so many witnesses' lines."""
    note = log.checkpoint().note
    lines = tuple(one.cosign(note.text, NOW + at) for at, one in enumerate(WITNESSES[:count]))
    return Note(text=note.text, signatures=(*note.signatures, *lines)).to_bytes()

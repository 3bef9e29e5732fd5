"""The examination of a whole log on its disk: `consortium audit fsck`.

Log format section 7. It reads and compares, and mends nothing: what can be mended is mended when the log is opened for
writing. It may run beside the process that writes the log, and sees the log as of one checkpoint.
"""

from dataclasses import dataclass
from pathlib import Path

from audit.entries import replay_chains
from audit.errors import LogCorrupt
from audit.log import LogView
from audit.note import NoteVerifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A log without fault."""

    origin: str
    entries: int
    root: bytes  # 32 bytes
    hospitals: int  # with a chain of signed entries, each unbroken


def examine(directory: Path, verifier: NoteVerifier) -> Examined:
    """Check the database, every entry, every tile and bundle against the signed root, then every hospital's chain.

    Raises:
        LogCorrupt, LogFork: The first thing that is missing or differs.
        EntryRefused, VerificationError: An entry that should never have been admitted, or a broken chain.
    """
    while True:
        view = LogView.read(directory, verifier)
        try:
            checkpoint = view.checkpoint().checkpoint
            try:
                view.fsck()
            except LogCorrupt:
                # The writer removes partial tiles once the full one exists: then there is a newer checkpoint to read.
                if _grew(directory, verifier, checkpoint.size):
                    continue
                raise
            chains = replay_chains(view.entries())
            return Examined(
                origin=checkpoint.origin, entries=checkpoint.size, root=checkpoint.root, hospitals=len(chains)
            )
        finally:
            view.close()


def _grew(directory: Path, verifier: NoteVerifier, size: int) -> bool:
    later = LogView.read(directory, verifier)
    try:
        return later.size > size
    finally:
        later.close()

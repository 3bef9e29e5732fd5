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
    hospitals: int  # with a chain of signed entries, each unbroken as far as the entries are there
    dropped: str = ""  # what a retention policy let go, in words


def examine(directory: Path, verifier: NoteVerifier, entries_url: str | None = None) -> Examined:
    """Check the database, every entry, every tile and bundle against the signed root, then every hospital's chain.

    Raises:
        LogCorrupt, LogFork: The first thing that is missing or differs.
        EntryRefused, VerificationError: An entry that should never have been admitted, or a broken chain.
    """
    while True:
        view = LogView.read(directory, verifier, entries_url)
        try:
            checkpoint = view.checkpoint().checkpoint
            try:
                view.fsck()
            except LogCorrupt:
                # The writer removes partial tiles once the full one exists: then there is a newer checkpoint to read.
                if _moved(directory, verifier, entries_url, view):
                    continue
                raise
            return Examined(
                origin=checkpoint.origin,
                entries=checkpoint.size,
                root=checkpoint.root,
                hospitals=len(replay_chains(view.known())),
                dropped=view.applied.said(view.dropped) if view.applied is not None else "",
            )
        finally:
            view.close()


def _moved(directory: Path, verifier: NoteVerifier, entries_url: str | None, view: LogView) -> bool:
    """Whether the log has grown since, or dropped entries."""
    later = LogView.read(directory, verifier, entries_url)
    try:
        return later.size > view.size or later.dropped != view.dropped
    finally:
        later.close()

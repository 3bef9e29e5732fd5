"""An error in a log: what kind, and where it was raised. Never its words, which may quote patients' data.

But for what a disk refused: somebody has to make room, and the words for that are the operating system's and SQLite's,
which name no file of patients.
"""

import traceback
from pathlib import Path

from consortium.contract.storage_trouble import is_of_the_disk


def kind_and_place(error: Exception) -> str:
    """An error without its words: "DataInvalid at cohort.py:120"."""
    said = getattr(error, "kind_and_place", None)  # of an error in another process
    if isinstance(said, str):
        return said
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + place


def for_the_log(error: Exception) -> str:
    """The same, and what the disk or a database file of the agent's refused."""
    said = kind_and_place(error)
    if hasattr(error, "passes"):  # StoreUnwritable, LedgerUnavailable: their words are about the agent's own files
        return f"{said}: {error}"
    if is_of_the_disk(error):
        assert isinstance(error, OSError)  # is_of_the_disk asked
        return f"{said}: {error.strerror}"
    return said

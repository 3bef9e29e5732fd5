"""Why SQLite refused one of the agent's files, and whether that passes by itself: a full disk, another program's lock.

A file that was replaced, taken away or damaged is no such case: there somebody has to look.
"""

import sqlite3

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_OF_THE_DISK = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})


def words_of(error: sqlite3.Error, waited_s: float) -> str:
    """What happened, without anything that is in the file."""
    if _code(error) in _BUSY:
        return f"another program has kept it locked for {waited_s:g} s"
    return str(error)


def passes(error: sqlite3.Error) -> bool:
    """Whether the same may succeed later, with nothing changed but the room on the disk or the lock."""
    return _code(error) in _BUSY | _OF_THE_DISK


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF

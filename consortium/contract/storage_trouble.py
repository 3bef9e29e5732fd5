"""A disk that is full, a database that is locked or away: what a service says while it waits, and when it goes on.

Both programs do the same about it. Whatever was under way is let go, as if the process had been killed; then it waits
here until the folders take writes again, and begins anew from what is durable.
"""

import asyncio
import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from consortium.contract.service_manager import service_manager

log = structlog.get_logger(__name__)

ROOM_BYTES = 16 * 2**20
"""So much must be free before it goes on: with less it would soon stand here again."""
LOOKS_S, LOOKS_LONGEST_S = 1.0, 10.0
SAYS_EVERY_S = 60.0

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
_PROBE = bytes(2**16)


def is_of_the_disk(error: BaseException) -> bool:
    """Whether the operating system refused a file for want of room or of a working disk."""
    return isinstance(error, OSError) and error.errno in _DISK


def why_not(folder: Path) -> str | None:
    """Why nothing should be written below `folder` yet, for a person; None if it takes writes."""
    try:
        free = shutil.disk_usage(folder).free
        if free < ROOM_BYTES:
            return f"the disk of {folder} has {free / 2**20:.1f} MiB free, and {ROOM_BYTES >> 20} are needed to go on"
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(_PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror}"
    return None


def say_refused(error: BaseException, folder: Path) -> None:
    """The operator's line, once, when the trouble begins."""
    advice = error.advice() if hasattr(error, "advice") else "Free some space, or mend the disk."
    words = str(error) if hasattr(error, "advice") else (getattr(error, "strerror", None) or type(error).__name__)
    log.error("storage.refused", reason=words, advice=advice, where=str(folder))
    service_manager().status(f"Waiting, because {words}")


async def room_again(folders: Sequence[Path], stop: asyncio.Event, *, waited: int) -> bool:
    """Wait until every folder takes writes; False if `stop` is set first.

    Args:
        folders: Where the program writes.
        stop: Asks to stop.
        waited: How often in a row this was waited for before: what cannot be seen in a folder, such as a lock that
            somebody holds, is tried again after growing pauses.
    """
    pause_s = min(LOOKS_S * 2**waited, LOOKS_LONGEST_S)
    silent_s = SAYS_EVERY_S
    while not stop.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await stop.wait()
        if stop.is_set():
            return False
        reasons = [why for folder in folders if (why := await asyncio.to_thread(why_not, folder)) is not None]
        if not reasons:
            return True
        silent_s += pause_s
        if silent_s >= SAYS_EVERY_S:
            silent_s = 0.0
            log.warning("storage.waiting", reason="; ".join(reasons))
    return False

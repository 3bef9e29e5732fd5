"""Memory of this machine and of one piece of work, as Linux tells it. Other systems are not asked."""

import ctypes
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

DEFAULT_BYTES = 2**30
LOOKS_APART_S = 0.0005
_STATUS = Path("/proc/self/status")


@lru_cache(maxsize=1)
def free_bytes() -> int:
    """Memory that was free when this was first asked; a gibibyte where the system does not say."""
    try:
        return _field(Path("/proc/meminfo"), "MemAvailable")
    except (OSError, StopIteration):
        return DEFAULT_BYTES


def growth_bytes(work: Callable[[], object]) -> int | None:
    """Do the work; about how much larger this process was at its largest than before. None where that cannot be seen.

    What has been freed and not yet given back is given back first, because otherwise it would be used again unseen.
    The process is looked at again and again; a peak that is also the highest of its life is known exactly. (It cannot
    be made to forget that one: an agent's memory is kept private, and then `clear_refs` belongs to root.) Memory of
    other threads is in it.
    """
    try:
        _give_back()
        before, record = _field(_STATUS, "VmRSS"), _field(_STATUS, "VmHWM")
    except (OSError, StopIteration):
        work()
        return None
    looks = [before]
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(looks, done), daemon=True)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    highest = _field(_STATUS, "VmHWM")
    return (highest if highest > record else max(looks)) - before


def _watch(looks: list[int], done: threading.Event) -> None:
    while not done.wait(LOOKS_APART_S):
        looks.append(_field(_STATUS, "VmRSS"))
    looks.append(_field(_STATUS, "VmRSS"))


def _give_back() -> None:
    """Pages that the C library keeps for later, if it is one that can be asked."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _field(path: Path, name: str) -> int:
    return next(int(line.split()[1]) * 1024 for line in path.read_text().splitlines() if line.startswith(f"{name}:"))

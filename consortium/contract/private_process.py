"""A process whose memory stays its own: a crash writes no core file, and other programs of the account cannot read it.

Seeds, shares and updates in the clear are in memory and nowhere else; a core file would put them on a disk, and any
program of the same account could attach to the process as a debugger does.
"""

import ctypes
import sys

try:
    import resource
except ImportError:  # not a POSIX system: it writes no core files of this kind
    resource = None  # type: ignore[assignment]

_PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """Switch core files off for good and, on Linux, refuse to be read by other processes but those of root.

    To be called before the first key is read. What the system does not offer is left out: it is a second line of
    defence, and a process without it is not stopped.
    """
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # Also where core files are piped to a program, which the limit does not prevent.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)

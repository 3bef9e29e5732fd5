"""The system calls that Python has no function for, by number, through the C library. Linux only."""

import ctypes
import os
import platform
import sys
from typing import Any, Final

SET_PARENT_DEATH_SIGNAL: Final = 1
SET_NO_NEW_PRIVILEGES: Final = 38


class Missing(Exception):
    """This kernel does not offer something, or does not allow it here; the message says why."""


def machine() -> str:
    """The processor family, as the kernel names it: x86_64, aarch64, ..."""
    return platform.machine()


def require_linux() -> None:
    """Raises Missing on any other system."""
    if sys.platform != "linux":
        raise Missing(f"{sys.platform} has nothing of this kind")


def system_call(what: str, number: int, *arguments: Any) -> int:
    """Make one; whole numbers are passed as C longs, anything else as ctypes passes it.

    Raises:
        Missing: The kernel said no.
    """
    passed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return _checked(what, _library().syscall(ctypes.c_long(number), *passed))


def process_control(what: str, option: int, value: int) -> None:
    """prctl(2) with one argument.

    Raises:
        Missing: The kernel said no.
    """
    require_linux()
    zero = ctypes.c_ulong(0)
    _checked(what, _library().prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero))


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(what: str, answer: int) -> int:
    if answer < 0:
        raise Missing(f"{what}: {os.strerror(ctypes.get_errno())}")
    return answer

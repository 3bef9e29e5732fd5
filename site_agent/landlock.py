"""Landlock: which files this process may open, and that it connects to nothing over TCP. In Linux since 5.13.

landlock(7) and linux/landlock.h are what this follows. A set of rules names what it HANDLES; all that it handles and no
rule grants is refused, to this thread and all that it starts, for good. What Landlock does not handle is for
`syscall_filter.py` (changing a file's mode) or stays open (looking whether a file exists, docs/limitations.md).
"""

import ctypes
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

from site_agent.kernel_calls import Missing, require_linux, system_call

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every processor
_TELL_VERSION = 1
_PATH_BENEATH = 1
_TCP = 0b11  # bind and connect, since version 4
_SCOPES = 0b11  # abstract UNIX sockets and signals, since version 6
_TCP_VERSION, _SCOPE_VERSION = 4, 6


class Right(IntFlag):
    """LANDLOCK_ACCESS_FS_*: what may be done with a file or folder."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


_SINCE = {Right.REFER: 2, Right.TRUNCATE: 3, Right.IOCTL_DEV: 5}
_OF_FILES = Right.EXECUTE | Right.WRITE_FILE | Right.READ_FILE | Right.TRUNCATE | Right.IOCTL_DEV

READ = Right.READ_FILE | Right.READ_DIR
WRITE = (
    READ | Right.WRITE_FILE | Right.TRUNCATE | Right.REFER | Right.MAKE_REG | Right.MAKE_DIR
    | Right.REMOVE_FILE | Right.REMOVE_DIR
)  # fmt: skip
DEVICE = READ | Right.WRITE_FILE | Right.IOCTL_DEV
"""Nothing grants EXECUTE: no program is started by a process that trains."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What may be done with a path and all that is below it. A link is followed, what is not there is skipped."""

    path: Path
    rights: Right


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def version() -> int:
    """Which version of Landlock this kernel has; a container may forbid to ask.

    Raises:
        Missing: none, or it was switched off when the system was started.
    """
    require_linux()
    return system_call("Landlock", _CREATE_RULESET, None, 0, _TELL_VERSION)


def restrict(grants: Iterable[Grant]) -> int:
    """Refuse to the calling thread, and to all that it starts later, every file that `grants` does not name.

    Where the kernel knows how, no TCP port is bound or connected to either, and neither signals nor connections to
    abstract UNIX sockets leave this process.

    Args:
        grants: What stays possible.

    Returns: the version, which says how much was handled.

    Raises:
        Missing: Nothing was restricted. `no_new_privileges` has to be set before.
    """
    found = version()
    handled = Right(0)
    for right in Right:
        if found >= _SINCE.get(right, 1):
            handled |= right
    rules = _Ruleset(
        files=handled,
        network=_TCP if found >= _TCP_VERSION else 0,
        scopes=_SCOPES if found >= _SCOPE_VERSION else 0,
    )
    size = 24 if found >= _SCOPE_VERSION else 16 if found >= _TCP_VERSION else 8  # older kernels know a shorter one
    ruleset = system_call("Landlock", _CREATE_RULESET, ctypes.byref(rules), size, 0)
    try:
        for grant in grants:
            _allow(ruleset, grant, handled)
        system_call("Landlock", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return found


def _allow(ruleset: int, grant: Grant, handled: Right) -> None:
    try:
        opened = os.open(grant.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this machine, or not for this account
    try:
        of_a_folder = stat.S_ISDIR(os.fstat(opened).st_mode)
        rights = grant.rights & handled & (~Right(0) if of_a_folder else _OF_FILES)
        system_call("Landlock", _ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(_Beneath(rights, opened)), 0)
    finally:
        os.close(opened)


__all__ = ["DEVICE", "READ", "WRITE", "Grant", "Missing", "Right", "restrict", "version"]

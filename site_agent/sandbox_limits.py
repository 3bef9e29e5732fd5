"""How much a process that trains may take, and what it gives up that only its own system calls can give up."""

import ctypes
import os
import signal
import sys
from pathlib import Path

from site_agent.kernel_calls import (
    SET_NO_NEW_PRIVILEGES,
    SET_PARENT_DEATH_SIGNAL,
    Missing,
    machine,
    process_control,
    system_call,
)

try:
    import resource
except ImportError:  # not a POSIX system
    resource = None  # type: ignore[assignment]

_CAPABILITY_VERSION_3 = 0x2008_0522
_SET_CAPABILITIES = {"x86_64": 126, "aarch64": 91}
_KILLED_FIRST = 1000


def limit(name: str, most: int) -> None:
    """Set a limit of this process so that it can never be raised again; a lower one stays.

    Args:
        name: RLIMIT_DATA (bytes), RLIMIT_CPU (seconds), RLIMIT_NOFILE, RLIMIT_FSIZE (bytes).
        most: What is allowed.

    Raises:
        Missing: This system has no such limit.
    """
    number = getattr(resource, name, None)
    if resource is None or number is None:
        raise Missing(f"this system has no {name}")
    soft, hard = (sys.maxsize if one == resource.RLIM_INFINITY else one for one in resource.getrlimit(number))
    # Of processor time, SIGXCPU tells the parent why it ended; SIGKILL, a second later, is for whoever ignores that.
    grace = 1 if name == "RLIMIT_CPU" else 0
    try:
        resource.setrlimit(number, (min(soft, most), min(hard, most + grace)))
    except (OSError, ValueError) as error:
        raise Missing(f"{name}: {error}") from error


def end_with(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends.

    Raises:
        Missing: not Linux; or the parent is gone already.
    """
    process_control("death of the parent", SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        raise Missing("its parent is another process, or gone")


def be_killed_first() -> None:
    """When memory is short, the kernel is to end this process before any other, above all before the agent.

    Raises:
        Missing: The file that says so cannot be written.
    """
    try:
        Path("/proc/self/oom_score_adj").write_text(str(_KILLED_FIRST))
    except OSError as error:
        raise Missing(f"/proc/self/oom_score_adj: {error.strerror}") from error


def no_new_privileges() -> None:
    """No program that this process could start would have more rights than it (set-uid has no effect).

    Raises:
        Missing: not Linux.
    """
    process_control("no new privileges", SET_NO_NEW_PRIVILEGES, 1)


class _Head(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("process", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop_capabilities() -> None:
    """Give up every right of root that this process has, if it has any: an agent in a container may be root there.

    Raises:
        Missing: not Linux, or a processor whose numbers are not known here.
    """
    number = _SET_CAPABILITIES.get(machine())
    if number is None:
        raise Missing(f"the numbers of system calls on {machine()} are not known here")
    head, none = _Head(_CAPABILITY_VERSION_3, 0), (_Sets * 2)()
    system_call("capabilities", number, ctypes.byref(head), ctypes.byref(none))

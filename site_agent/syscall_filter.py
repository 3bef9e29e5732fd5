"""Which system calls a process that trains may not make: a filter that the kernel runs before each of them (seccomp).

It refuses by EPERM and ends nothing, so a library that asks for what it can do without goes on. Landlock knows files;
this knows programs, sockets, other processes, and the ways around Landlock. Numbers are of asm/unistd.h.

    refused     starting a program or a process, looking into another one, new name spaces and mounts, the kernel's own
                interfaces (bpf, perf, io_uring, keys), changing a file's owner, mode or attributes, messages and memory
                shared by name, signals to others, typing into a terminal, every socket
    what stays  threads, files that are open, memory, time, a pair of connected sockets
"""

import ctypes
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from site_agent.kernel_calls import Missing, machine, require_linux, system_call

_REFUSE: Final = 0x0005_0001  # SECCOMP_RET_ERRNO | EPERM
_UNKNOWN: Final = 0x0005_0026  # SECCOMP_RET_ERRNO | ENOSYS
_ALLOW: Final = 0x7FFF_0000
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _ANSWER = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x4000_0000
_THREAD = 0x0001_0000  # CLONE_THREAD
_TYPE_INTO_TERMINAL, _CONSOLE = 0x5412, 0x541C
_OWNER_ALONE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """One kind of processor: how the kernel names it, and its numbers of system calls."""

    audit: int
    seccomp: int
    refused: tuple[int, ...]
    clone: int
    clone3: int
    socket: int
    ioctl: int
    kill: tuple[int, ...]
    resource_limits: int
    file_mode: int
    file_times: int
    x32: bool


# The same on both: pidfds, mounts by handle, io_uring, fchmodat2, setxattrat, removexattrat, file_setattr, ...
_COMMON = (424, 434, 438, 440, 448, 428, 429, 430, 431, 432, 433, 442, 425, 426, 427, 452, 463, 466, 469)
_MACHINES = {
    "x86_64": _Machine(
        audit=0xC000_003E,
        seccomp=317,
        refused=(
            *_COMMON,
            59, 322, 57, 58,  # execve, execveat, fork, vfork
            101, 310, 311, 312, 200, 129, 297,  # ptrace, process_vm_readv/writev, kcmp, tkill, rt_(tg)sigqueueinfo
            321, 298, 323, 250, 248, 249,  # bpf, perf_event_open, userfaultfd, keyctl, add_key, request_key
            272, 308, 165, 166, 155, 161, 304, 303,  # unshare, setns, mount, umount2, pivot_root, chroot, file handles
            29, 30, 68, 64, 240,  # shmget, shmat, msgget, semget, mq_open
            300, 253, 294, 254,  # fanotify_init, inotify_init, inotify_init1, inotify_add_watch
            90, 268, 92, 93, 94, 260,  # chmod, fchmodat, chown, fchown, lchown, fchownat
            188, 189, 190, 197, 198, 199,  # setxattr and removexattr, l..., f...
            132, 235, 261, 76, 256, 279,  # utime, utimes, futimesat, truncate, migrate_pages, move_pages
        ),
        clone=56, clone3=435, socket=41, ioctl=16, kill=(62, 234), resource_limits=302,
        file_mode=91, file_times=280, x32=True,
    ),
    "aarch64": _Machine(
        audit=0xC000_00B7,
        seccomp=277,
        refused=(
            *_COMMON,
            221, 281,  # execve, execveat; there is no fork
            117, 270, 271, 272, 130, 138, 240,
            280, 241, 282, 219, 217, 218,
            97, 268, 40, 39, 41, 51, 265, 264,
            194, 196, 186, 190, 180,
            262, 26, 27,
            53, 55, 54,
            5, 6, 7, 14, 15, 16,
            45, 238, 239,
        ),
        clone=220, clone3=435, socket=198, ioctl=29, kill=(129, 131), resource_limits=261,
        file_mode=52, file_times=88, x32=False,
    ),
}  # fmt: skip


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


_Step = tuple[int, int, int, int]  # code, skip if yes, skip if no, value


def restrict() -> None:
    """Install the filter for every thread of this process, for good.

    Raises:
        Missing: The kernel, the container or the processor has none. `no_new_privileges` has to be set before.
    """
    require_linux()
    of = _MACHINES.get(machine())
    if of is None:
        raise Missing(f"the numbers of system calls on {machine()} are not known here")
    steps = program(of, own_process=os.getpid())
    held = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    filter_ = _Program(len(steps), held)
    answer = system_call("system call filter", of.seccomp, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(filter_))
    if answer > 0:
        raise Missing("system call filter: a thread of this process has another one")


def program(of: _Machine, *, own_process: int) -> list[_Step]:
    """The filter, step by step. Each rule below begins with the number loaded and ends with it loaded."""
    steps: list[_Step] = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_EQUAL, 1, 0, of.audit),
        (_ANSWER, 0, 0, _REFUSE),  # calls of another processor's kind (32 bits) have other numbers
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if of.x32:
        steps += [(_AT_LEAST, 0, 1, _X32), (_ANSWER, 0, 0, _REFUSE)]
    for number in (*of.refused, of.socket):
        steps += [(_EQUAL, 0, 1, number), (_ANSWER, 0, 0, _REFUSE)]
    # Its flags are in memory, where a filter cannot look; the C library then takes clone, whose flags are seen here.
    steps += [(_EQUAL, 0, 1, of.clone3), (_ANSWER, 0, 0, _UNKNOWN)]
    steps += _only_if(of.clone, 0, [(_ANY_BIT, 1, 0, _THREAD)])
    for number in of.kill:
        steps += _only_if(number, 0, [(_EQUAL, 1, 0, own_process)])
    steps += _only_if(of.resource_limits, 0, [(_EQUAL, 2, 0, 0), (_EQUAL, 1, 0, own_process)])
    steps += _only_if(of.ioctl, 1, [(_EQUAL, 1, 0, _TYPE_INTO_TERMINAL), (_EQUAL, 0, 1, _CONSOLE)])
    steps += _only_if(of.file_mode, 1, [(_EQUAL, 1, 0, _OWNER_ALONE)])
    # "Now" is all that a file's times may become: the cache of images notes what was used last.
    for half in (0, 4):
        steps += _only_if(of.file_times, 2, [(_EQUAL, 1, 0, 0)], half=half)
    return [*steps, (_ANSWER, 0, 0, _ALLOW)]


def _only_if(number: int, argument: int, allowed: Iterable[_Step], *, half: int = 0) -> list[_Step]:
    """Refuse a call unless the tests of its argument's lower half skip the refusal that follows them."""
    tests = list(allowed)
    return [
        (_EQUAL, 0, len(tests) + 3, number),
        (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument + half),  # little endian on both
        *tests,
        (_ANSWER, 0, 0, _REFUSE),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]

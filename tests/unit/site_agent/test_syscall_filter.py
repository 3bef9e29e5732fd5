"""The filter of system calls, run here by a small machine of our own: both processors, every number, every argument."""

import pytest

from site_agent.syscall_filter import _MACHINES, program

ALLOW, EPERM, ENOSYS = 0x7FFF_0000, 0x0005_0001, 0x0005_0026
OWN = 4321
AUDIT = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
# name: (x86_64, aarch64), from asm/unistd_64.h and asm-generic/unistd.h of Linux; None: there is none.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "fanotify_init": (300, 262), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "chmod": (90, None), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55),
    "lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setxattrat": (463, 463),
    "removexattrat": (466, 466), "file_setattr": (469, 469), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "truncate": (76, 45), "migrate_pages": (256, 238), "move_pages": (279, 239),
}  # fmt: skip
ALLOWED = {
    "read": (0, 63), "write": (1, 64), "openat": (257, 56), "close": (3, 57), "mmap": (9, 222), "futex": (202, 98),
    "socketpair": (53, 199), "clock_gettime": (228, 113), "exit_group": (231, 94), "getrandom": (318, 278),
    "unlinkat": (263, 35), "sched_setaffinity": (203, 122), "madvise": (28, 233), "rseq": (334, 293),
}  # fmt: skip
MACHINES = ("x86_64", "aarch64")


def answer(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the kernel would do, by the five instructions the filter is made of."""
    steps = program(_MACHINES[machine], own_process=OWN)
    data = number.to_bytes(4, "little") + (AUDIT[machine] if audit is None else audit).to_bytes(4, "little") + bytes(8)
    data += b"".join(one.to_bytes(8, "little") for one in (*arguments, 0, 0, 0, 0, 0, 0)[:6])
    at = loaded = 0
    while True:
        code, yes, no, value = steps[at]
        assert 0 <= yes < 256, "the kernel has a byte for it"
        assert 0 <= no < 256, "the kernel has a byte for it"
        at += 1
        match code:
            case 0x20:
                loaded = int.from_bytes(data[value : value + 4], "little")
            case 0x06:
                return value
            case _:
                holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[code]
                at += yes if holds else no


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_refused_is_refused_on_both_processors(machine: str) -> None:
    column = MACHINES.index(machine)
    numbers = {name: pair[column] for name, pair in REFUSED.items() if pair[column] is not None}
    found = {name: answer(machine, number or 0) for name, number in numbers.items()}
    assert found == dict.fromkeys(numbers, EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_nothing_else_is_refused(machine: str) -> None:
    column = MACHINES.index(machine)
    assert {name: answer(machine, pair[column]) for name, pair in ALLOWED.items()} == dict.fromkeys(ALLOWED, ALLOW)
    known = {pair[column] for pair in REFUSED.values()}
    assert {number for number in _MACHINES[machine].refused if number not in known} == set()


@pytest.mark.parametrize(
    ("names", "arguments", "expected"),
    [
        ((56, 220), (0x10000 | 0x100,), ALLOW),  # clone: a thread
        ((56, 220), (0x11,), EPERM),  # a process
        ((435, 435), (), ENOSYS),  # clone3
        ((62, 129), (OWN, 6), ALLOW),  # kill
        ((62, 129), (OWN + 1, 0), EPERM),
        ((62, 129), (0, 9), EPERM),
        ((62, 129), (2**64 - 1, 9), EPERM),
        ((234, 131), (OWN, OWN, 6), ALLOW),  # tgkill
        ((234, 131), (1, 1, 6), EPERM),
        ((302, 261), (0, 7), ALLOW),  # prlimit64
        ((302, 261), (OWN, 7), ALLOW),
        ((302, 261), (1, 7), EPERM),
        ((16, 29), (0, 0x5401), ALLOW),  # ioctl: what kind of terminal
        ((16, 29), (0, 0x5412), EPERM),  # TIOCSTI
        ((16, 29), (0, 0x541C), EPERM),  # TIOCLINUX
        ((91, 52), (3, 0o600), ALLOW),  # fchmod
        ((91, 52), (3, 0o644), EPERM),
        ((280, 88), (0, 0, 0, 0), ALLOW),  # utimensat: now
        ((280, 88), (0, 0, 0x1000, 0), EPERM),
        ((280, 88), (0, 0, 2**32, 0), EPERM),
    ],
)
@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_decide(machine: str, names: tuple[int, int], arguments: tuple[int, ...], expected: int) -> None:
    assert answer(machine, names[MACHINES.index(machine)], *arguments) == expected


def test_calls_of_another_kind_are_refused() -> None:
    i386 = 0x4000_0003
    assert answer("x86_64", 0, audit=i386) == EPERM
    assert answer("x86_64", 0x4000_0000) == EPERM  # x32

"""T-29: code in the process that trains reads other files, starts programs, looks into the agent or phones home.

The same hostile program runs twice as a process of its own: free, where each attempt must work (or it would prove
nothing), and confined by itself as a training process is. Held by `site_agent/sandbox.py`. Tried by hand, one at a
time: each number taken out of `syscall_filter.py`, each of its rules about arguments, `landlock.restrict`, the
capabilities, each limit: an attempt that needs just that turned to "done", or another error was found, and this failed.
"""

import ctypes
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import hostile_code

NEEDED = ("read data", "write scratch", "remove scratch", "threads", "socket pair", "touch data")
BY_FILTER = (  # "Operation not permitted" is the filter's word, without a file system, limit or name space being asked
    "open data to others", "give data away", "date data", "truncate data", "phone home", "phone home over IPv6",
    "phone home by datagram", "talk to another program", "listen", "sockets by io_uring", "start a program",
    "become a program", "start a process", "signal another", "signal all", "signal by thread", "hold another",
    "trace another", "read another's memory", "limit another", "name spaces of its own",
)  # fmt: skip
BY_LANDLOCK = (
    "read a secret", "read a secret through a link", "read a secret by hard link", "list a folder", "write elsewhere",
    "make a file elsewhere", "make a folder elsewhere", "make a link elsewhere", "make a pipe elsewhere",
    "write data", "rename data", "shared memory by name", "read another's command line", "read another's variables",
)  # fmt: skip
BY_LIMITS = {
    "take memory": "ENOMEM",
    "raise the limit of memory": "ValueError",  # Python's word for "not allowed to raise maximum limit"
    "raise the limit of open files": "ValueError",
    "leave a core file": "ValueError",
}


def _has_landlock() -> bool:
    """Asked of the kernel, not of the code that is tried here."""
    return sys.platform == "linux" and int(ctypes.CDLL(None).syscall(444, None, 0, 1)) > 0


def _has_filter() -> bool:
    return platform.machine() in ("x86_64", "aarch64") and Path("/proc/sys/kernel/seccomp/actions_avail").exists()


needs_landlock = pytest.mark.skipif(not _has_landlock(), reason="this kernel has no Landlock, or it is switched off")
needs_filter = pytest.mark.skipif(not _has_filter(), reason="this kernel or processor has no filter of system calls")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of this kind are Linux's")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A secret, data, a scratch folder, and programs that would listen."""
    folder = tmp_path_factory.mktemp("places")
    for name in ("home", "data", "scratch"):
        (folder / name).mkdir()
    (folder / "home" / "key.pem").write_bytes(b"secret")
    (folder / "data" / "patients.csv").write_bytes(b"age\n71\n")
    (folder / "data" / "link.csv").symlink_to(folder / "home" / "key.pem")
    named = {
        "secret": str(folder / "home" / "key.pem"),
        "data": str(folder / "data" / "patients.csv"),
        "scratch": str(folder / "scratch"),
    }
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket(socket.AF_UNIX) as program:
        unix = str(folder / "program")
        program.bind(unix)
        program.listen()
        written = folder / "places.json"
        written.write_text(json.dumps(named | {"port": listening.getsockname()[1], "unix": unix}))
        yield written


def _run(places: Path, how: str) -> dict[str, str]:
    program = Path(hostile_code.__file__)
    done = subprocess.run(
        [sys.executable, "-I", program, places, how], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def free(places: Path) -> dict[str, str]:
    """What came of it without confinement."""
    return _run(places, "free")


@pytest.fixture(scope="module")
def confined(places: Path) -> dict[str, str]:
    """What came of it within."""
    return _run(places, "confined")


def test_training_can_do_its_work(confined: dict[str, str]) -> None:
    assert {name: confined[name] for name in NEEDED} == dict.fromkeys(NEEDED, "done")


@needs_filter
@pytest.mark.parametrize("name", sorted(BY_FILTER))
def test_a_system_call_is_refused(name: str, free: dict[str, str], confined: dict[str, str]) -> None:
    assert (free[name] != "EPERM", confined[name]) == (True, "EPERM")


@needs_landlock
@pytest.mark.parametrize("name", sorted(BY_LANDLOCK))
def test_a_file_is_refused(name: str, free: dict[str, str], confined: dict[str, str]) -> None:
    assert (free[name], confined[name]) in (("done", "EACCES"), ("done", "EXDEV"))


@needs_linux
@pytest.mark.parametrize("name", sorted(BY_LIMITS))
def test_a_limit_holds(name: str, free: dict[str, str], confined: dict[str, str]) -> None:
    assert (free[name], confined[name]) == ("done", BY_LIMITS[name])


def test_every_attempt_is_judged(free: dict[str, str]) -> None:
    assert set(free) == {*NEEDED, *BY_FILTER, *BY_LANDLOCK, *BY_LIMITS}

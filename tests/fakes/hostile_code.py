"""Code that got into a training process and tries what it should not: a program of its own, started by tests.

    python -I tests/fakes/hostile_code.py PLACES.json confined|free

PLACES.json names files and a port (`Places`). It prints a JSON object: what each attempt came to, "done" or the name of
the error. Confined, it confines itself first, as a training process does; free, it shows that all of it would work.
"""

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY_BYTES = 2**30
_NUMBERS = {
    "x86_64": {"io_uring_setup": 425, "ptrace": 101, "unshare": 272, "pidfd_open": 434, "process_vm_readv": 310},
    "aarch64": {"io_uring_setup": 425, "ptrace": 117, "unshare": 97, "pidfd_open": 434, "process_vm_readv": 270},
}  # fmt: skip
_PEEK, _OWN_FILES = 2, 0x400
_libc = ctypes.CDLL(None, use_errno=True)


def _system_call(name: str, *arguments: Any) -> None:
    number = _NUMBERS[os.uname().machine][name]
    passed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    if _libc.syscall(ctypes.c_long(number), *passed) < 0:
        raise OSError(ctypes.get_errno(), name)


def _spawned() -> None:
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


def _forked() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _connected(family: socket.AddressFamily, address: Any) -> None:
    with socket.socket(family) as line:
        line.settimeout(5)
        line.connect(address)


def _listening() -> None:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        line.listen()


def _read_memory(parent: int) -> None:
    """No byte of it: whether one may is asked before how much."""
    _system_call("process_vm_readv", parent, None, 0, None, 0, 0)


def _take_memory() -> None:
    mmap.mmap(-1, MEMORY_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()


def _thread() -> None:
    one = threading.Thread(target=int)
    one.start()
    one.join()


def _read_by_another_name(name: Path, secret: Path) -> None:
    name.hardlink_to(secret)
    try:
        name.read_bytes()
    finally:
        name.unlink()


def _made(secret: Path, make: Callable[[Path], None], remove: Callable[[Path], None] = os.unlink) -> None:
    name = secret.with_name("made")
    make(name)
    remove(name)


def attempts(places: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """What is tried, by name. The order matters to none of them; nothing is left changed where it works."""
    secret, data, scratch = Path(places["secret"]), Path(places["data"]), Path(places["scratch"])
    parent = os.getppid()
    return {
        # what training needs
        "read data": data.read_bytes,
        "write scratch": lambda: (scratch / "weights").write_bytes(b"x"),
        "remove scratch": (scratch / "weights").unlink,
        "threads": _thread,
        "socket pair": lambda: [one.close() for one in socket.socketpair()],
        "touch data": lambda: os.utime(data),
        # other files
        "read a secret": secret.read_bytes,
        "read a secret through a link": data.with_name("link.csv").read_bytes,
        "read a secret by hard link": lambda: _read_by_another_name(scratch / "hard", secret),
        "list a folder": lambda: list(secret.parent.iterdir()),
        "write elsewhere": lambda: secret.with_name("new").write_bytes(b"x"),
        "make a file elsewhere": lambda: _made(secret, lambda name: os.mknod(name, 0o100600)),
        "make a folder elsewhere": lambda: _made(secret, os.mkdir, os.rmdir),
        "make a link elsewhere": lambda: _made(secret, lambda name: name.symlink_to(secret)),
        "make a pipe elsewhere": lambda: _made(secret, os.mkfifo),
        "write data": lambda: data.open("r+b").close(),
        "truncate data": lambda: os.truncate(data, data.stat().st_size),
        "rename data": lambda: data.rename(data.with_name("other")).rename(data),
        "open data to others": lambda: data.chmod(0o644),
        "give data away": lambda: os.chown(data, os.getuid(), os.getgid()),
        "date data": lambda: os.utime(data, (1, 1)),
        "read another's command line": lambda: Path(f"/proc/{parent}/cmdline").read_bytes(),
        "read another's variables": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
        "shared memory by name": lambda: list(Path("/dev/shm").iterdir()),
        # out of the building
        "phone home": lambda: _connected(socket.AF_INET, ("127.0.0.1", places["port"])),
        "phone home over IPv6": lambda: socket.socket(socket.AF_INET6).close(),
        "phone home by datagram": lambda: socket.socket(type=socket.SOCK_DGRAM).close(),
        "talk to another program": lambda: _connected(socket.AF_UNIX, places["unix"]),
        "listen": _listening,
        "sockets by io_uring": lambda: _system_call("io_uring_setup", 1, ctypes.create_string_buffer(120)),
        # other programs and processes
        "start a program": _spawned,
        "become a program": lambda: os.execv("/nowhere", ["nowhere"]),
        "start a process": _forked,
        "signal another": lambda: os.kill(parent, 0),
        "signal all": lambda: os.kill(0, 0),
        "signal by thread": lambda: _libc_kill(parent),
        "hold another": lambda: _system_call("pidfd_open", parent, 0),
        "trace another": lambda: _system_call("ptrace", _PEEK, parent, None, None),
        "read another's memory": lambda: _read_memory(parent),
        "limit another": lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE),
        "name spaces of its own": lambda: _system_call("unshare", _OWN_FILES),
        # more than its share
        "take memory": _take_memory,
        "raise the limit of memory": lambda: resource.setrlimit(resource.RLIMIT_DATA, (-1, -1)),
        "raise the limit of open files": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)),
        "leave a core file": lambda: resource.setrlimit(resource.RLIMIT_CORE, (2**20, 2**20)),
    }


def _libc_kill(process: int) -> None:
    number = {"x86_64": 234, "aarch64": 131}[os.uname().machine]
    if _libc.syscall(ctypes.c_long(number), ctypes.c_long(process), ctypes.c_long(process), ctypes.c_long(0)) < 0:
        raise OSError(ctypes.get_errno(), "tgkill")


def outcome(attempt: Callable[[], object]) -> str:
    """What it came to."""
    try:
        attempt()
    except (OSError, ValueError) as error:
        return errno.errorcode.get(getattr(error, "errno", None) or 0, type(error).__name__)
    return "done"


def main() -> None:
    """Try all of it and print what came of it."""
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    places = json.loads(Path(sys.argv[1]).read_text())
    found: dict[str, object] = {}
    if sys.argv[2] == "confined":
        from site_agent.sandbox import Confinement, confine  # noqa: PLC0415 - the free one has no need of it

        confined = confine(
            Confinement(
                readable=(Path(places["data"]).parent,),
                writable=(Path(places["scratch"]),),
                memory_bytes=MEMORY_BYTES,
                processor_s=60,
                parent=os.getppid(),
            )
        )
        found["rules"] = confined.to_json()
    found |= {name: outcome(attempt) for name, attempt in attempts(places).items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()

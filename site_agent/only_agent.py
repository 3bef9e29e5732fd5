"""One agent for one home: a lock that ends with its process, however that ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from site_agent.errors import SiteError
from site_agent.home import HomeInvalid

FILE = "agent.lock"
_PID_BYTES_MAX = 20


class AgentRunning(SiteError):
    """An agent was started with a home that another one is running with. Whose fault: who started it twice."""

    code = "conflict"

    def __init__(self, folder: Path, process: str) -> None:
        super().__init__(f"an agent is running with {folder} already (process {process or 'unknown'})")

    def advice(self) -> str:
        """What to do next."""
        return "Use that one, or stop it first. The running one was not disturbed; do not delete the lock file."


@contextmanager
def only_agent(folder: Path) -> Iterator[None]:
    """Hold the lock of a home while the body runs.

    Raises:
        AgentRunning: Another process holds it.
        HomeInvalid: The file cannot be made.
    """
    try:
        descriptor = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeInvalid(f"{folder / FILE}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            process = os.pread(descriptor, _PID_BYTES_MAX, 0).decode("ascii", "replace").strip()
            raise AgentRunning(folder, process if process.isdecimal() else "") from error
        with suppress(OSError):  # on a full disk the lock holds, and only its reader does not learn by whom
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)

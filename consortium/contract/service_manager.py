"""What a service tells the service manager that started it, and how it is told to stop (systemd, sd_notify(3)).

One datagram for each message, to the socket that `NOTIFY_SOCKET` names. Nothing is waited for and nothing is answered:
without such a socket, or with one that is gone, the service runs just the same. No library is worth its place for this.
"""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

STATUS_CHARACTERS_MAX = 200
FEEDS_PER_INTERVAL = 3
"""A watchdog is fed so often in its interval: one datagram that is late is no reason to kill a hospital's round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceManager:
    """The other end of `NOTIFY_SOCKET`."""

    address: str | None = None  # a path, or `@name` in Linux' abstract namespace; None: nobody asked
    watchdog_s: float | None = None  # killed when it is not fed for so long; None: no watchdog

    @classmethod
    def of(cls, environment: Mapping[str, str], process: int) -> "ServiceManager":
        """As the variables say. A watchdog that is for another process (`WATCHDOG_PID`) is not ours to feed."""
        address = environment.get("NOTIFY_SOCKET", "")
        usable = address[:1] in ("/", "@") and len(address) > 1
        interval = environment.get("WATCHDOG_USEC", "")
        whose = environment.get("WATCHDOG_PID", str(process))
        watched = interval.isdecimal() and int(interval) > 0 and whose == str(process)
        return cls(
            address=address if usable else None, watchdog_s=int(interval) / 1_000_000 if usable and watched else None
        )

    def ready(self, status: str) -> None:
        """It has started: what depends on it may begin."""
        self._tell("READY=1", _status(status))

    def status(self, words: str) -> None:
        """What `systemctl status` shows."""
        self._tell(_status(words))

    def stopping(self, status: str) -> None:
        """It was told to stop, and winds up."""
        self._tell("STOPPING=1", _status(status))

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Feed the watchdog from the event loop for as long as the body runs: a loop that is stuck feeds nothing."""
        if self.watchdog_s is None:
            yield
            return
        feeding = asyncio.create_task(self._feed(self.watchdog_s / FEEDS_PER_INTERVAL))
        try:
            yield
        finally:
            feeding.cancel()
            with suppress(asyncio.CancelledError):
                await feeding

    @asynccontextmanager
    async def stopping_after(self, stop: asyncio.Event, status: str) -> AsyncIterator[None]:
        """Say `stopping` as soon as `stop` is set while the body runs."""

        async def say() -> None:
            await stop.wait()
            self.stopping(status)

        saying = asyncio.create_task(say())
        try:
            yield
        finally:
            saying.cancel()
            with suppress(asyncio.CancelledError):
                await saying

    async def _feed(self, every_s: float) -> None:
        while True:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(every_s)

    def _tell(self, *lines: str) -> None:
        if self.address is None:
            return
        name = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.setblocking(False)  # a manager that does not read must not stop a hospital
            line.sendto("\n".join(lines).encode(), name)


def _status(words: str) -> str:
    return "STATUS=" + " ".join(words.split())[:STATUS_CHARACTERS_MAX]


def service_manager() -> ServiceManager:
    """The one that started this process, if it did."""
    return ServiceManager.of(os.environ, os.getpid())


class StopSignals:
    """SIGTERM and SIGINT. The first asks to stop in order; one more, not to wait for anything."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.at_once = asyncio.Event()

    def listen(self) -> None:
        """From now on signals set these events, in the running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.hear)

    def hear(self) -> None:
        """A signal came."""
        (self.at_once if self.stop.is_set() else self.stop).set()

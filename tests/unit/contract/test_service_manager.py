"""What a service tells systemd, over a real datagram socket."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from consortium.contract.service_manager import ServiceManager, StopSignals


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket as systemd opens it, and its address as it stands in NOTIFY_SOCKET."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@consortium-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address.replace("@", "\0", 1) if request.param == "abstract" else address)
        listening.settimeout(60)
        yield listening, address


def test_what_is_said(manager: tuple[socket.socket, str]) -> None:
    listening, address = manager
    told = ServiceManager.of({"NOTIFY_SOCKET": address}, 7)
    told.ready("birch, taking part")
    told.status("round 3\nSTOPPING=1")  # one message, whatever is in its words
    told.stopping("x" * 1000)
    assert listening.recv(4096) == b"READY=1\nSTATUS=birch, taking part"
    assert listening.recv(4096) == b"STATUS=round 3 STOPPING=1"
    assert listening.recv(4096) == b"STOPPING=1\nSTATUS=" + b"x" * 200


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, None),  # nobody listens
        ({"NOTIFY_SOCKET": "/run/n"}, None),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "3000000"}, 3.0),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 3.0),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, None),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "0"}, None),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "soon"}, None),
        ({"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "3000000"}, None),
        ({"NOTIFY_SOCKET": "@"}, None),
    ],
)
def test_whose_watchdog_it_is(environment: dict[str, str], watchdog_s: float | None) -> None:
    assert ServiceManager.of(environment, 7).watchdog_s == watchdog_s


def test_nobody_listens(tmp_path: Path) -> None:
    ServiceManager().ready("to nobody")
    ServiceManager.of({"NOTIFY_SOCKET": str(tmp_path / "gone")}, 7).ready("to nobody")


async def test_a_loop_that_is_stuck_feeds_no_watchdog(manager: tuple[socket.socket, str]) -> None:
    listening, address = manager
    told = ServiceManager.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000"}, 7)
    async with told.watched():
        for _ in range(3):
            assert await asyncio.to_thread(listening.recv, 64) == b"WATCHDOG=1"
        # From here on the loop answers nothing: what was sent before is read, and nothing more comes.
        _read_all(listening)
        assert _read_all(listening) == 0
    _read_all(listening)
    await asyncio.sleep(0)
    assert _read_all(listening) == 0


def _read_all(listening: socket.socket) -> int:
    """How many messages come, until there is none for twenty intervals of the watchdog; the loop stands still."""
    listening.settimeout(0.2)
    for count in range(1000):
        try:
            listening.recv(64)
        except TimeoutError:
            return count
    raise AssertionError("it is fed although nothing runs")


async def test_it_says_that_it_stops_as_soon_as_it_was_told_to(manager: tuple[socket.socket, str]) -> None:
    listening, address = manager
    told = ServiceManager.of({"NOTIFY_SOCKET": address}, 7)
    stop = asyncio.Event()
    async with told.stopping_after(stop, "winding up"):
        told.status("first")
        assert await asyncio.to_thread(listening.recv, 64) == b"STATUS=first"
        stop.set()
        assert await asyncio.to_thread(listening.recv, 64) == b"STOPPING=1\nSTATUS=winding up"


async def test_a_second_signal_does_not_wait() -> None:
    signals = StopSignals()
    signals.listen()
    loop = asyncio.get_running_loop()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(signals.stop.wait(), 60)
        assert not signals.at_once.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(signals.at_once.wait(), 60)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

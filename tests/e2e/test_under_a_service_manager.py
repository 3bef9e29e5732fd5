"""`consortium serve` and `site-agent run` as systemd starts them: ready, watched, told to stop, ended with code 0."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.world import SITES, World

AGENT = SITES[0]


@contextmanager
def notified(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What a process that is started here tells its service manager. It must feed a watchdog of ten minutes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening, monkeypatch.context() as patch:
        listening.bind(str(path))
        listening.settimeout(60)
        patch.setenv("NOTIFY_SOCKET", str(path))
        patch.setenv("WATCHDOG_USEC", "600000000")
        yield listening


def said(listening: socket.socket, *wanted: bytes) -> list[bytes]:
    """Read until there was a message that begins with each of these; all that was read."""
    found: list[bytes] = []
    while not all(any(message.startswith(one) for message in found) for one in wanted):
        found.append(listening.recv(4096))
    return found


def test_ready_watched_and_stopped_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    world.create()
    try:
        with notified(tmp_path / "c", monkeypatch) as coordinator, notified(tmp_path / "a", monkeypatch) as agent:
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "c"))
            world.start_coordinator()
            said(coordinator, b"READY=1\nSTATUS=Serving test on 127.0.0.1:", b"WATCHDOG=1")
            world.enrol(AGENT)
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "a"))
            world.start_agent(AGENT)
            said(agent, f"READY=1\nSTATUS={AGENT}, taking part through".encode(), b"WATCHDOG=1")
            for name, told in ((AGENT, agent), ("coordinator", coordinator)):
                process = world.processes[name]
                process.send_signal(signal.SIGTERM)
                said(told, b"STOPPING=1\n")
                assert process.wait(60) == 0, world.log(name)
        beats = [entry["body"] for entry in world.entries() if entry["type"] == "heartbeat"]
        assert [beat["state"] for beat in beats if "state" in beat][-1] == "stopping"  # the log is whole
    finally:
        world.stop()

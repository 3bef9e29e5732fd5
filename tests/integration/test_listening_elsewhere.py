"""A coordinator behind NAT or in a container: hospitals dial one address, and it listens on another."""

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from consortium import app, operator
from consortium.contract.errors import FileInvalid
from consortium.coordinator_file import CoordinatorFile, load_coordinator_file, render
from consortium.home import create_home, open_home
from tests.e2e.world import free_port


def configured(folder: Path, address: str, listen: str) -> CoordinatorFile:
    path = folder / "coordinator.yaml"
    text = render(name="cardio", address=address)
    path.write_text(re.sub(r"(?m)^listen: null$", f"listen: {listen}", text))
    return load_coordinator_file(path)


@pytest.mark.parametrize(
    ("listen", "listening", "own"),
    [
        ("null", "hub.example.org:8443", "hub.example.org:8443"),
        ('"0.0.0.0"', "0.0.0.0:8443", "127.0.0.1:8443"),
        ('"::"', "[::]:8443", "[::1]:8443"),
        ('"10.0.0.5"', "10.0.0.5:8443", "10.0.0.5:8443"),
    ],
)
def test_where_it_listens_and_where_its_own_commands_dial(
    tmp_path: Path, listen: str, listening: str, own: str
) -> None:
    config = configured(tmp_path, "hub.example.org:8443", listen)
    assert (config.listening(config.address), config.own_address) == (listening, own)


@pytest.mark.parametrize("listen", ["hub.example.org", '"0.0.0.0:8443"', '""'])
def test_no_name_and_no_port(tmp_path: Path, listen: str) -> None:
    with pytest.raises(FileInvalid, match=r"listen.*an IP address of this computer"):
        configured(tmp_path, "hub.example.org:8443", listen)


async def test_its_commands_reach_it_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "log_as_facts", lambda: None)  # for a process of its own
    folder, port = tmp_path / "hub", free_port()
    create_home(folder, name="cardio", address=f"hub.example.org:{port}")
    path = folder / "coordinator.yaml"
    path.write_text(re.sub(r"(?m)^listen: null$", 'listen: "0.0.0.0"', path.read_text()))
    said: asyncio.Queue[str] = asyncio.Queue()
    serving = asyncio.create_task(app.serve_until_stopped(folder, ready=said.put_nowait))
    await asyncio.wait_for(said.get(), 60)
    async with await operator._client(open_home(folder)) as client:
        assert b'"consortium":"cardio"' in await client.execute("status", b"{}")
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 60)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)

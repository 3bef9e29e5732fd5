"""Two coordinators for one home: one works, the other waits, and takes over within seconds when the first is killed."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.world import free_port, run, typed
from tests.fakes import postgres_server

TAKEN_OVER_S = 60.0
"""Far more than it takes, for a machine that is busy."""


class Coordinator:
    """`consortium serve --standby`, with what it prints."""

    def __init__(self, home: Path, name: str) -> None:
        self.printed = home.parent / f"{name}.out"
        with self.printed.open("wb") as out, (home.parent / f"{name}.err").open("wb") as errors:
            self.process = subprocess.Popen(
                typed(("consortium", "serve", "--home", home, "--standby")), stdout=out, stderr=errors
            )

    def says(self, words: str) -> None:
        end = time.monotonic() + TAKEN_OVER_S
        while words not in self.printed.read_text():
            assert self.process.poll() is None, self.printed.with_suffix(".err").read_text()
            assert time.monotonic() < end, self.printed.read_text()
            time.sleep(0.05)

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(30)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("state", ["sqlite", "postgresql"])
def test_the_one_that_stands_by_takes_over_from_the_one_that_is_killed(tmp_path: Path, state: str) -> None:
    if state == "postgresql" and not postgres_server.installed():
        pytest.skip(postgres_server.ABSENT)
    home = tmp_path / "home"
    port = free_port()
    run("consortium", "init", home, "--name", "alpine-heart", "--address", f"127.0.0.1:{port}")
    server = postgres_server.Server() if state == "postgresql" else None
    running = []
    try:
        if server is not None:
            file = home / "coordinator.yaml"
            file.write_text(file.read_text().replace("sqlite:///consortium.db", f'"{server.url("state")}"'))
        first = Coordinator(home, "first")
        running.append(first)
        first.says("Serving alpine-heart")
        second = Coordinator(home, "second")
        running.append(second)
        second.says("Standing by")
        before = status(home)["log_size"]
        assert "Serving" not in second.printed.read_text()

        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        second.says("Serving alpine-heart")
        assert status(home)["log_size"] > before
        assert second.end() == 0
        assert run("consortium", "audit", "fsck", "--home", home).returncode == 0
    finally:
        for one in running:
            one.process.kill()
            one.process.wait()
        if server is not None:
            server.close()


def status(home: Path) -> dict[str, int]:
    found = json.loads(run("consortium", "status", "--home", home, "--json").stdout)
    assert isinstance(found, dict)
    return found

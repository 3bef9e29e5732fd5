"""A hospital whose study is computed in a real training child: rounds, the child's death, the agent's."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.timeout(300)
def test_rounds_go_on_after_the_childs_death_and_no_child_outlives_its_agent(tmp_path):
    errors = tmp_path / "errors.txt"
    with errors.open("wb") as err:
        agent = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.hospital_with_child", str(tmp_path / "home")],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=err, text=True,
        )  # fmt: skip
    try:
        lines = []
        while not (lines and lines[-1].startswith("{")):
            lines.append(agent.stdout.readline())
            assert lines[-1], errors.read_text()[-4000:]
        found, log = json.loads(lines[-1]), "".join(lines[:-1])
        assert found["took_part"] == [True, True]
        assert found["rounds"] == 2
        # The process with the keys has none of the libraries in it that train or read data.
        assert found["heavy"] == []
        first, second = found["children"]
        assert first != second
        assert is_gone(first)
        assert not is_gone(second)
        assert "SIGSEGV: a fault in a library" in log
        assert "while it was waiting for the next round" in log
        assert "engine.chosen" in log
        # What the child was started with: nothing of the agent's but its end of the pipe.
        assert not any("SECRET" in one for one in found["environment"])
        assert not any(str(tmp_path) in one and "models" not in one for one in found["open"])
        assert sum(one.startswith("socket:") for one in found["open"]) == 1
        assert str(tmp_path) not in "".join(found["command"])
        assert found["followed"] == ["small-study"]  # how far it has come is written down by the agent
        assert (tmp_path / "home/training/small-study.last-words.txt").stat().st_mode & 0o777 == 0o600
    finally:
        agent.send_signal(signal.SIGKILL)
        agent.wait()
        agent.stdout.close()
    until = time.monotonic() + PATIENCE_S
    while not is_gone(second) and time.monotonic() < until:
        time.sleep(0.01)
    assert is_gone(second), "the child goes on without its agent"

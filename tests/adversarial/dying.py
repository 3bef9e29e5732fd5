"""Kills an agent just before its n-th write, for every n, and looks at what the next process finds.

`dying_agent.py` and `dying_figures.py` say what the agent does; each is run by a test as a program of its own. It forks
once for every n, so that what dies is a real process with real files, by SIGKILL: no `finally`, no rollback, no
destructor runs. What the next process finds is printed as JSON, a line for each n.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import site_agent
from consortium.contract.study import StudyFile
from site_agent.ledger import Ledger
from site_agent.signed_events import SignedEvents
from site_agent.store import Store
from tests.fakes.site_world import make_home

BEFORE, NOW, NEXT = (1, 1), (2, 1), (2, 2)  # rounds and attempts
ROOT = Path(site_agent.__file__).parents[1]  # the agent that dies is the one this process has


class Killer(sqlite3.Connection):
    """Kills its own process before the statement after `left` others, in whatever file it is."""

    left = -1

    def execute(self, *args: Any) -> sqlite3.Cursor:
        if Killer.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        Killer.left -= 1
        return super().execute(*args)


_connect = sqlite3.connect


def connect(*args: Any, **options: Any) -> sqlite3.Connection:
    return _connect(*args, factory=Killer, **options)


def opened(folder: Path, study: StudyFile) -> tuple[Store, Ledger, SignedEvents]:
    store = Store(folder / "agent.db")
    ledger = Ledger(folder / "ledger.db", connect=connect, told=store.told)
    return store, ledger, SignedEvents(make_home(folder, study), store)


def killed_at_every_write(
    work: Path,
    study: StudyFile,
    attempt: Callable[[Path, Ledger, SignedEvents, tuple[int, int]], None],
    look: Callable[[Path], dict[str, Any]],
) -> None:
    """Print what `look` finds after `attempt` died before each of its statements, and after it lived."""
    sqlite3.connect = connect  # type: ignore[assignment]  # the store asks for it by this name
    first = work / "first"
    first.mkdir()
    store, ledger, events = opened(first, study)
    attempt(first, ledger, events, BEFORE)
    ledger.close()
    store.close()
    for statements in range(1000):
        folder = work / str(statements)
        shutil.copytree(first, folder)
        child = os.fork()
        if child == 0:
            store, ledger, events = opened(folder, study)
            Killer.left = statements
            attempt(folder, ledger, events, NOW)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not killed and status != 0:
            sys.exit(f"the agent failed by itself: {status}")
        print(json.dumps({"killed": killed, **look(folder)}), flush=True)
        if not killed:
            return


def lives(program: str, work: Path) -> list[dict[str, Any]]:
    """Run one of the two programs: what was found after every death, and last after the life without one."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.adversarial.{program}", str(work)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) > 15, "there are more writes than that"
    assert [life["killed"] for life in found] == [True] * (len(found) - 1) + [False]
    return found

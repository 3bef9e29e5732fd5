"""A consortium of real processes that break when they are told to (`faults.py`), started from a nursery."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.e2e.world import SITES, World

WIDE = {"network": "mlp", "args": "{hidden: [256, 256], activation: tanh}"}
"""Settings for a study whose updates of 280 KB take several messages."""

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """Where and how a process breaks: see `faults.py`."""

    round: int
    moment: str
    how: str
    attempt: int = 1


class Nursery:
    """The process that forks our commands, from this side; `modules` are loaded there besides what all need."""

    def __init__(self, *modules: str) -> None:
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # threads do not survive a fork
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.nursery", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env={**os.environ, **one_thread},
            text=True,
        )
        self._turn = threading.Lock()

    def order(self, **order: Any) -> dict[str, int]:
        """Have a command begun, or run to its end with `wait=True`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(json.dumps(order, default=str) + "\n")
            self._process.stdin.flush()
            return dict(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End it; its children end with it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()


class Child:
    """A process that the nursery made; as much of `subprocess.Popen` as `World` uses."""

    stdout = None

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def send_signal(self, number: int) -> None:
        """Send it a signal; one that is dead already does not mind."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    @property
    def state(self) -> str:
        """The kernel's letter: R and S run or wait, T is stopped, Z is dead and unburied; "" is gone."""
        try:
            return (Path("/proc") / str(self.pid) / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return ""

    def wait(self, timeout_s: float = 60) -> None:
        """Wait until it is dead, and with it every thread: one that waits for the disk still holds its locks."""
        until(lambda: self.state in ("", "Z") and self._threads <= 1, f"process {self.pid} to end", timeout_s)

    @property
    def _threads(self) -> int:
        try:
            return len(list((Path("/proc") / str(self.pid) / "task").iterdir()))
        except (FileNotFoundError, ProcessLookupError):
            return 0


class FaultyWorld(World):
    """One coordinator and four hospitals, out of a nursery.

    Args:
        folder: Where everything is.
        nursery: Where processes come from.
        redial_s: The agents' pause before they dial again, None for the real ones.
        witness: A folder for what the processes know and nobody may find (`witness.py`).
        temporary: The processes' folder for temporary files.
    """

    def __init__(
        self,
        folder: Path,
        nursery: Nursery,
        *,
        redial_s: float | None = 0.2,
        witness: Path | None = None,
        temporary: Path | None = None,
    ) -> None:
        super().__init__(folder)
        self.nursery = nursery
        self.marks = folder / "marks"
        self.marks.mkdir()
        self.breaks: dict[str, list[Break]] = {}
        self.snapshots: list[dict[str, Any]] = []
        self._redial_s = redial_s
        self._witness = witness
        self._env = {"TMPDIR": str(temporary)} if temporary is not None else {}
        self._commands = 0
        self._follower: threading.Thread | None = None
        self._over = threading.Event()

    # --- processes ---

    def run(self, *command: object, check: bool = True) -> "subprocess.CompletedProcess[str]":
        self._commands += 1
        out, log = (self.folder / f"command-{self._commands}.{kind}" for kind in ("out", "log"))
        typed = [str(part) for part in command]
        code = self.nursery.order(command=typed, out=out, log=log, wait=True, env=self._env)["code"]
        done = subprocess.CompletedProcess(typed, code, out.read_text(), log.read_text())
        if check and code != 0:
            raise AssertionError(f"{command} ended with {code}:\n{done.stdout}{done.stderr}")
        return done

    def _start(self, name: str, command: tuple[object, ...]) -> Any:
        order: dict[str, Any] = {"command": [str(part) for part in command], "env": self._env}
        order["log"] = self.folder / f"{name}.log"
        order["faults"] = {
            "name": name,
            "marks": str(self.marks),
            "breaks": [asdict(wanted) for wanted in self.breaks.get(name, [])],
            **({"redial_s": self._redial_s} if self._redial_s is not None else {}),
        }
        if self._witness is not None:
            order["witness"] = str(self._witness / name)
        child = Child(self.nursery.order(**order)["pid"])
        self.processes[name] = child  # type: ignore[assignment]  # as much of a Popen as is used
        return child

    def start_coordinator(self) -> None:
        log = self.folder / "coordinator.log"
        log.touch()
        served = log.read_text().count("Serving")
        self._start("coordinator", ("consortium", "serve", "--home", self.home))
        until(lambda: log.read_text().count("Serving") > served, "the coordinator to serve")

    def child(self, name: str) -> Child:
        """The process of this name."""
        child = self.processes[name]
        assert isinstance(child, Child)
        return child

    def reached(self, name: str, wanted: Break) -> bool:
        """Whether the process has come to the place where it breaks."""
        return (self.marks / f"{name}-{wanted.round}-{wanted.attempt}-{wanted.moment}").exists()

    def go(self, round_number: int) -> None:
        """Let those go on who hold in this round."""
        (self.marks / f"go-{round_number}").touch()

    # --- while it runs ---

    def follow(self) -> None:
        """Keep every snapshot that `consortium status --watch` shows, from now on."""
        self._follower = threading.Thread(target=self._follow)
        self._follower.start()

    def _follow(self) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            shown = self.folder / f"status-{number}.out"
            shown.touch()
            command = ["consortium", "status", "--home", str(self.home), "--watch", "--json"]
            watch = Child(self.nursery.order(command=command, out=shown, log=self.folder / "status.log")["pid"])
            with shown.open() as lines:
                while not self._over.is_set() and (watch.state not in ("", "Z") or lines.tell() < shown.stat().st_size):
                    place = lines.tell()
                    line = lines.readline()
                    if line.endswith("\n"):
                        if line.startswith("{"):
                            self.snapshots.append(json.loads(line))
                    else:
                        lines.seek(place)
                        time.sleep(0.02)
            watch.kill()
            time.sleep(0.1)

    def study(self) -> dict[str, Any]:
        """The study as it was shown last."""
        studies = self.snapshots[-1]["studies"] if self.snapshots else []
        return dict(studies[0]) if studies else {"history": [], "sites": [], "state": ""}

    def table(self, site: str) -> set[str]:
        """Everything that the table has shown about a site so far."""
        rows = [row for shown in list(self.snapshots) for study in shown["studies"] for row in study["sites"]]
        return {str(row["state"]) for row in rows if row["site"] == site}

    def wait_for(self, what: Callable[[dict[str, Any]], bool], description: str, timeout_s: float = 180) -> None:
        """Wait until a snapshot of the study satisfies `what`."""
        try:
            until(lambda: what(self.study()), description, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.study()}\n{self.log('coordinator')[-6000:]}") from error

    def closed(self, round_number: int) -> None:
        """Wait until a round is closed."""
        self.wait_for(lambda s: any(r["round"] >= round_number for r in s["history"]), f"round {round_number} closed")

    def present(self, *sites: str) -> None:
        """Wait until these hospitals can be invited: connected, with the study prepared."""
        absent = ("away", "preparing", "not ready", "dropped out", "refused")

        def suits(study: dict[str, Any]) -> bool:
            rows = [row for row in study["sites"] if row["site"] in sites]
            return len(rows) == len(sites) and not any(row["state"].startswith(absent) for row in rows)

        self.wait_for(suits, f"{sites} to be there")

    def away(self, *sites: str) -> None:
        """Wait until the table says that these hospitals are away."""

        def suits(study: dict[str, Any]) -> bool:
            return all(row["state"] == "away" for row in study["sites"] if row["site"] in sites)

        self.wait_for(suits, f"{sites} to be away")

    def survivors(self, round_number: int) -> list[str]:
        """Those of a closed round."""
        return list(next(r["survivors"] for r in self.study()["history"] if r["round"] == round_number))

    def stop(self) -> None:
        self._over.set()
        if self._follower is not None:
            self._follower.join()
        super().stop()


def until(what: Callable[[], bool], description: str, timeout_s: float = 180) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s for {description}")
        time.sleep(0.02)


@contextmanager
def faulty_consortium(
    folder: Path, nursery: Nursery, breaks: Mapping[str, Iterable[Break]], **options: Any
) -> Iterator[FaultyWorld]:
    """A coordinator and four enrolled, running agents, each of which will break as `breaks` says."""
    world = FaultyWorld(folder, nursery, **options)
    world.breaks = {name: list(wanted) for name, wanted in breaks.items()}
    world.create()
    try:
        world.start_coordinator()
        world.follow()
        for site in SITES:
            world.enrol(site)
            world.start_agent(site)
        yield world
    finally:
        world.stop()

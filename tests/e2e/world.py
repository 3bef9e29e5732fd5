"""A consortium of real processes in a folder: what the command lines do, typed by a test instead of a person."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[2] / "configs"
HEART = CONFIGS / "heart-disease"
SITES = ("cleveland", "hungary", "switzerland", "va-long-beach")
STUDY = "heart-disease"
PORTS_FROM = 12000


def run(*command: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """One command of ours to its end: `run("consortium", "init", ...)`."""
    return ended(typed(command), check=check, **options)


def ended(command: list[str], *, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command to its end; by default it must not fail."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def typed(command: tuple[object, ...]) -> list[str]:
    module = {"consortium": "consortium", "site-agent": "site_agent"}[str(command[0])]
    return [sys.executable, "-m", module, *map(str, command[1:])]


class World:
    """One coordinator and four hospitals, and the study they run."""

    source = HEART / "study.yaml"
    study_id = STUDY

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "coordinator"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One command of ours to its end."""
        return ended(self.typed(command), check=check)

    def typed(self, command: tuple[object, ...]) -> list[str]:
        """A command of ours as the system takes it, and where it belongs."""
        return typed(command)

    # --- setting up ---

    def create(self) -> None:
        self.run("consortium", "init", self.home, "--name", "test", "--address", f"127.0.0.1:{free_port()}")

    def start_coordinator(self) -> None:
        process = self._start("coordinator", ("consortium", "serve", "--home", self.home))
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"Serving"), self.log("coordinator")

    def enrol(self, site: str) -> None:
        kit = self.folder / f"{site}.zip"
        self.run("consortium", "site", "invite", site, "--home", self.home, "--out", kit)
        self.run("site-agent", "enrol", "--kit", kit, "--home", self.folder / site)
        source = HEART / "sites" / site / "site.yaml"
        text = re.sub(r"path: \S+", f"path: {HEART / 'data' / f'{site}.csv'}", source.read_text())
        # Some tests need an upload of several messages.
        text = text.replace("allowed_networks: [logistic]", "allowed_networks: [logistic, mlp]")
        text = text.replace("max_egress_bytes_per_round: 65536", "max_egress_bytes_per_round: 8000000")
        (self.folder / site / "site.yaml").write_text(text)

    def approve(self, site: str, study: str | None = None, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The hospital's steward approves, with a key of their own that is made the first time."""
        signing = self.steward(site)
        at = ("--home", self.folder / site, "--steward", f"Dr {site}")
        return self.run("site-agent", "studies", "approve", study or self.study_id, *at, *signing, check=check)

    def steward(self, site: str) -> tuple[str | Path, ...]:
        """Options that sign as the hospital's steward."""
        key, passphrase = self.folder / f"{site}-steward.key", self.folder / f"{site}-steward.txt"
        signing = ("--key", key, "--passphrase-file", passphrase)
        if not key.exists():
            passphrase.touch(mode=0o600)
            passphrase.write_text("correct horse battery staple\n")
            self.run("site-agent", "stewards", "add", f"Dr {site}", "--home", self.folder / site, *signing)
        return signing

    def start_agent(self, site: str) -> None:
        self._start(site, ("site-agent", "run", "--home", self.folder / site))

    def submit(self, **settings: object) -> None:
        """Submit the study with some values changed, have everybody approve it, and start it."""
        text = self.source.read_text()
        for name, value in settings.items():
            text, found = re.subn(rf"(?m)^(  {name}: )\S+", rf"\g<1>{value}", text, count=1)
            assert found == 1, name
        path = self.folder / "study.yaml"
        path.write_text(text)
        self.run("consortium", "study", "submit", path, "--home", self.home)
        for site in SITES:
            self.approve(site)
        self.run("consortium", "study", "start", self.study_id, "--home", self.home)

    # --- while it runs ---

    def status(self) -> dict[str, Any]:
        found = json.loads(self.run("consortium", "status", "--home", self.home, "--json").stdout)
        (study,) = found["studies"]
        return dict(study)

    def wait_until(self, what: Callable[[dict[str, Any]], bool], *, timeout_s: float = 240) -> dict[str, Any]:
        """Follow `status --watch` until a snapshot of the study satisfies `what`."""
        command = self.typed(("consortium", "status", "--home", self.home, "--watch", "--json"))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as watching:
            alarm = threading.Timer(timeout_s, watching.kill)
            alarm.start()
            assert watching.stdout is not None
            try:
                for line in watching.stdout:
                    (study,) = json.loads(line)["studies"]
                    if what(study):
                        return dict(study)
            finally:
                alarm.cancel()
                watching.kill()
        raise AssertionError(
            f"it did not happen within {timeout_s} s: {self.status()}\n{self.log('coordinator')[-3000:]}"
        )

    def kill(self, name: str) -> None:
        _end(self.processes.pop(name))

    def freeze(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGCONT)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def entries(self) -> list[dict[str, Any]]:
        found = json.loads(self.run("consortium", "audit", "log", "--home", self.home, "--json").stdout)
        return list(found["entries"])

    def verified_evidence(self, site: str = SITES[0]) -> str:
        """Export, and check as a stranger would; returns what the check printed."""
        evidence = self.folder / "evidence.zip"
        self.run("consortium", "audit", "export", "--study", self.study_id, "--home", self.home, "--out", evidence)
        identity = json.loads((self.folder / site / "identity.json").read_text())
        policy = self.folder / "policy.txt"
        policy.write_text(f"log {identity['log_vkey']}\nquorum none\n")
        return self.run("consortium", "audit", "verify", evidence, "--policy", policy).stdout

    def hospitals_view(self, site: str = SITES[0]) -> tuple[str, str]:
        """What a hospital sees of the study on its own, and what a stranger's check of its own evidence printed."""
        home, evidence = self.folder / site, self.folder / f"evidence-{site}.zip"
        seen = self.run("site-agent", "verify-study", self.study_id, "--home", home).stdout
        self.run("site-agent", "audit", "export", "--study", self.study_id, "--home", home, "--out", evidence)
        policy = self.folder / "policy.txt"
        return seen, self.run("site-agent", "audit", "verify", evidence, "--policy", policy).stdout

    # --- processes ---

    def _start(self, name: str, command: tuple[object, ...]) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(self.typed(command), stdout=subprocess.PIPE, stderr=log, env=dict(os.environ))
        self.processes[name] = process
        return process

    def stop(self) -> None:
        while self.processes:
            _end(self.processes.popitem()[1])


def _end(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL, also for a frozen process, and everything of it closed."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def free_port() -> int:
    """A port that is free together with the next, and that nobody is given who dials out or asks for any port.

    Between here and the program that listens at it, and while that program is dead, seconds pass: a port out of the
    range from which the system takes such ports could be somebody else's by then.
    """
    chance = random.SystemRandom()  # the generator that is seeded for each test would give two workers the same ports
    for _ in range(100):
        port = chance.randrange(PORTS_FROM, _ports_to(), 2)
        with socket.socket() as first, socket.socket() as second, suppress(OSError):
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port
    raise AssertionError("no two neighbouring free ports")


def _ports_to() -> int:
    """Where the system's own range begins; on Linux 32768, unless somebody has changed it."""
    said = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(said.read_text().split()[0]) if said.exists() else 49152
    return first if first > PORTS_FROM + 1000 else 60000

"""This computer: room on its disk, memory, and whether the agent may write where it has to. No torch here."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from site_agent.check_result import CheckFailed, CheckWarns
from site_agent.datasets import FOLDERS
from site_agent.home import AgentHome
from site_agent.sandbox import Confined
from site_agent.site_file import SiteFile

DISK_FREE_MIN_BYTES = 500 * 2**20
"""For the ledger, the copy of the log and the hospital's own log, whatever the studies are."""
MEMORY_FREE_MIN_BYTES = 2**30
"""The training libraries take most of it."""
UPDATE_COPIES = 5
"""Copies of an update that an agent holds while it sends one; a global model is as large."""
CONFINEMENT_WAIT_S = 60.0
_FOLDERS = ("keys", "certificates", "images", "models", "results", "progress", "evidence", "overlays", "tensorboard")
_DATABASES = ("agent.db", "ledger.db")


def check_disk(home: AgentHome) -> str:
    """Room for what is kept here: images up to their quota, models of each study, and what is always written."""
    config = home.config
    free = shutil.disk_usage(home.folder).free
    parts = {"logs and ledger": DISK_FREE_MIN_BYTES}
    if any(isinstance(dataset, FOLDERS) for dataset in config.datasets.values()):
        parts["images (cache_gib)"] = max(0, home.images.quota_bytes - _size(home.images.folder))
    if config.studies:
        parts["models"] = UPDATE_COPIES * len(config.studies) * config.policy.max_egress_bytes_per_round
    needed = sum(parts.values())
    shown = ", ".join(f"{name} {_bytes(size)}" for name, size in parts.items())
    found = f"{_bytes(free)} free where {home.folder} is; needed at most {_bytes(needed)} ({shown})"
    if free < DISK_FREE_MIN_BYTES:
        raise CheckFailed(found, "Free some space; the agent must be able to write its ledger.")
    if free < needed:
        raise CheckWarns(found, "Give the disk more room, or lower cache_gib or max_egress_bytes_per_round.")
    return found


def check_memory(home: AgentHome) -> str:
    """Memory that can be had now, for training and a few copies of the largest update that may leave."""
    free = available_bytes()
    if free is None:
        return "this system does not say how much is free"
    needed = MEMORY_FREE_MIN_BYTES + UPDATE_COPIES * _largest_update(home.config)
    found = f"{_bytes(free)} can be had; a round may need {_bytes(needed)} beside its patients' records"
    if free < needed:
        raise CheckWarns(
            found, "Give this computer (or its container, or the unit's MemoryMax) more; a large model may not fit."
        )
    return found


def check_folders(home: AgentHome) -> str:
    """Try to write wherever the agent writes, as this account."""
    found = home.folder.stat()
    account = os.geteuid()
    for folder in (home.folder, *(home.folder / name for name in _FOLDERS)):
        if folder.is_dir():
            _write(folder)
    for name in _DATABASES:
        path = home.folder / name
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            raise CheckFailed(
                f"{path} may not be written by account {account}",
                f"Give it to the account that runs the agent, and run this check as that account: "
                f"chown --recursive ACCOUNT {home.folder}",
            )
    if found.st_uid != account:
        raise CheckWarns(
            f"{home.folder} belongs to account {found.st_uid}, and this check runs as account {account}",
            "Run the check as the account that runs the agent (sudo -u site-agent ...), whose rights it is about.",
        )
    if found.st_mode & 0o077:
        raise CheckWarns(
            f"others may look into {home.folder} (mode {found.st_mode & 0o777:04o})", f"chmod 700 {home.folder}"
        )
    return f"{home.folder} and every folder in it can be written, and nobody else may look into it"


def check_confinement() -> str:
    """What this system enforces on the process that trains: one is started, confines itself, says so, and ends."""
    command = (sys.executable, "-I", "-m", "site_agent.sandbox")
    done = subprocess.run(  # noqa: S603 - our own program
        command, capture_output=True, text=True, timeout=CONFINEMENT_WAIT_S, check=False
    )
    if done.returncode != 0:
        raise CheckFailed(
            f"the trial ended with {done.returncode}: {done.stderr.strip()[-200:]}",
            "Report this: a process that trains would end the same way.",
        )
    confined = Confined.from_json(json.loads(done.stdout))
    if confined.missing:
        raise CheckWarns(
            confined.words,
            "Training works, with less between it and this computer: use Linux 5.13 or later with Landlock switched on "
            "(lsm=landlock,...), on x86_64 or aarch64, and a container that allows landlock and seccomp.",
        )
    return confined.words


def available_bytes(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Memory that can be had now, within what a unit or a container allows this process; None if nothing says so."""
    sizes: list[int] = []
    try:
        lines = meminfo.read_text().splitlines()
        sizes += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        # The limits of every group above count, too (cgroup v2, "0::/system.slice/site-agent.service").
        group = next((line[3:] for line in own.read_text().splitlines() if line.startswith("0::")), "/")
        place = cgroup / group.strip().lstrip("/")
        while True:
            sizes.extend(_left_in(place))
            if place in (cgroup, place.parent):
                break
            place = place.parent
    except (OSError, ValueError, IndexError):
        pass  # another system than Linux, or one that shows less: what was found until then counts
    return min(sizes, default=None)


def _left_in(group: Path) -> list[int]:
    try:
        most, used = (group / "memory.max").read_text().strip(), (group / "memory.current").read_text().strip()
    except OSError:
        return []
    return [] if most == "max" else [max(0, int(most) - int(used))]


def _largest_update(config: SiteFile) -> int:
    return config.policy.max_egress_bytes_per_round if config.studies else 0


def _write(folder: Path) -> None:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".check-"):
            pass
    except OSError as error:
        raise CheckFailed(
            f"{folder} cannot be written: {error.strerror}",
            "Mend its owner and mode, or the disk; under systemd the unit's ReadWritePaths and StateDirectory decide.",
        ) from error


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) if folder.is_dir() else 0


def _bytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"

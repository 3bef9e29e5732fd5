"""A home that is run twice, a home that was copied, two disks that are full: real processes, and what they say."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.faulty_world import FaultyWorld, Nursery, faulty_consortium, until
from tests.e2e.soak import ledger_and_log_differ, soak
from tests.e2e.world import SITES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COPIED, FILLED = "hungary", "va-long-beach"
DISK_MIB = 40
PATIENCE_S = 240  # for machines on which loading torch takes a minute


def lines(world: FaultyWorld, name: str, event: str) -> list[dict[str, str]]:
    """What a process said of one kind."""
    said = [json.loads(line) for line in world.log(name).splitlines() if line.startswith("{")]
    return [line for line in said if line["event"] == event]


def test_two_agents_with_one_home(tmp_path: Path, nursery: Nursery) -> None:
    with faulty_consortium(tmp_path, nursery, {}) as world:
        again = ("site-agent", "run", "--home", tmp_path / COPIED)
        until(lambda: bool(lines(world, COPIED, "coordinator.connected")), "the agent to be connected", PATIENCE_S)

        # The same home, on the same machine: the lock.
        second = world.run(*again, check=False)
        assert second.returncode == 1
        assert "an agent is running with" in second.stderr
        assert f"(process {world.child(COPIED).pid})" in second.stderr
        assert not lines(world, "coordinator", "site.second_agent")

        # A copy of it, as if on another: it knows everything the first one does, and takes its place.
        world.freeze(COPIED)
        shutil.copytree(tmp_path / COPIED, tmp_path / "copy")
        world.thaw(COPIED)
        world._start("copy", ("site-agent", "run", "--home", tmp_path / "copy"))
        until(lambda: world.child(COPIED).state in ("", "Z"), "the first agent to be told and to stop", PATIENCE_S)
        assert "another agent opened a session as hungary; this one is closed" in world.log(COPIED)
        assert [line["site"] for line in lines(world, "coordinator", "site.second_agent")] == [COPIED]

        # The first is started again, as a service manager would: it is refused, and the copy goes on.
        for number in (1, 2):
            refused = world.run(*again, check=False)
            assert refused.returncode == 1
            assert "this agent of hungary runs on a copy of its home" in refused.stderr
            assert len(lines(world, "coordinator", "site.copy_refused")) == number
        assert world.child("copy").state not in ("", "Z")

        # Only a person chooses otherwise.
        world._start(COPIED, (*again, "--take-over"))
        until(lambda: world.child("copy").state in ("", "Z"), "the copy to be told and to stop", PATIENCE_S)
        assert "this one is closed" in world.log("copy")


@contextmanager
def on_a_small_disk(home: Path) -> Iterator[None]:
    """The folder is a disk of its own while the body runs."""
    kept = home.with_name(f"{home.name}-kept")
    shutil.copytree(home, kept)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0700", "tmpfs", home], check=True)
    try:
        shutil.copytree(kept, home, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "-l", home], check=True)


def filled(home: Path) -> Path:
    """A file that takes the rest of the disk."""
    ballast = home / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return ballast


def may_mount() -> bool:
    return os.geteuid() == 0 and shutil.which("mount") is not None and Path("/proc/filesystems").exists()


@pytest.mark.skipif(not may_mount(), reason="only root may mount a small disk")
def test_full_disks_under_the_coordinator_and_under_an_agent(tmp_path: Path, nursery: Nursery) -> None:
    world = FaultyWorld(tmp_path, nursery)
    world.create()
    # The agent first: while the coordinator is away it has nothing to write.
    homes = {FILLED: tmp_path / FILLED, "coordinator": world.home}
    with ExitStack() as disks:
        disks.enter_context(on_a_small_disk(world.home))
        try:
            world.start_coordinator()
            world.follow()
            for site in SITES:
                world.enrol(site)
                if site == FILLED:
                    disks.enter_context(on_a_small_disk(homes[FILLED]))
                world.start_agent(site)
            world.submit(rounds=40, every_rounds=40, spare_rounds=4)
            world.wait_for(lambda s: len(s["history"]) >= 2, "two rounds to be closed", PATIENCE_S)
            ballast = []
            for name, home in homes.items():
                ballast.append(filled(home))
                until(lambda: bool(lines(world, name, "storage.waiting")), f"{name} to wait", PATIENCE_S)  # noqa: B023
                (refused,) = lines(world, name, "storage.refused")
                assert "is full" in refused["reason"] or "No space left" in refused["reason"], refused
                assert refused["where"] == str(home)
                assert "goes on by itself" in refused["advice"] or "start the coordinator again" in refused["advice"]
                assert f"the disk of {home} has 0.0 MiB free" in lines(world, name, "storage.waiting")[0]["reason"]
                assert world.child(name).state not in ("", "Z")
            for file in ballast:
                file.unlink()
            world.wait_for(lambda s: s["state"] == "completed", "the study to end", PATIENCE_S)
            world.present(FILLED)
            assert world.verified_evidence().rstrip().endswith("VERIFIED")
            assert ledger_and_log_differ(world) == []
            for name in ("coordinator", *SITES):
                assert "Traceback" not in world.log(name)
        finally:
            world.stop()


def test_a_short_soak(tmp_path: Path, nursery: Nursery) -> None:
    """`make soak`, with six rounds and two deeds: all processes but one killed at once, then one agent."""
    outcome = soak(tmp_path, nursery, rounds=6, seed=SHORT_SEED, deeds=2, minutes=4)
    assert outcome.problems == []
    assert sum(outcome.deeds.values()) == 2
    assert any("kill" in deed for deed in outcome.deeds)


SHORT_SEED = 11

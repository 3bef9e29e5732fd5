"""Dropping entries from a coordinator's log: announced, witnessed, done, and read by everybody afterwards."""

import asyncio
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from audit import entries, merkle
from audit.checkpoint import parse_checkpoint
from audit.dropped import Dropped
from audit.mirror import Mirror
from consortium import retention
from consortium.cli import app
from consortium.commands import CommandRefused, execute
from consortium.contract.digest import canonical_bytes
from consortium.contract.messages import DroppedLeaves, LogPosition
from consortium.errors import NotWitnessed
from consortium.record import now_stamp
from consortium.retention import NothingToDrop
from tests.fakes.coordinator_home import Home, coordinator_in
from tests.fakes.small_study import SITES

POLICY = "9d" * 32
DROPS: dict[str, Any] = {"years": 6, "drop": True, "by": "Ada Example", "document_sha256": POLICY}


def run(world: Home, command: str, **arguments: Any) -> dict[str, Any]:
    found = json.loads(asyncio.run(execute(world.coordinator, command, canonical_bytes(arguments))))
    assert isinstance(found, dict)
    return found


def heartbeats(world: Home, count: int) -> None:
    beat: dict[str, Any] = {"state": "alive", "interval_s": 60, "uptime_s": 60, "clock_moved_ms": 0}
    many = (entries.entry_bytes(entries.Heartbeat(**now_stamp(), **beat)) for _ in range(count))
    world.rooms.recorder.record(*many)


@pytest.fixture(autouse=True)
def years_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "today", lambda: date(2050, 1, 1))


def test_a_drop_is_announced_witnessed_and_carried_out(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        hospitals = [world.enrol(site) for site in SITES[:3]]
        world.witnessed_by(*hospitals)
        heartbeats(world, 600)
        before = list(world.rooms.recorder.log.entries())
        found = run(world, "audit.retention", years=6, drop=False)
        assert (found["studies"], found["announced"]) == ([], None)
        assert 400 < found["entries"] < 512

        with pytest.raises(NotWitnessed, match="2 of the 3 hospitals"):
            run(world, "audit.retention", **DROPS)
        assert list(world.rooms.recorder.log.entries(0, len(before))) == before
        (announced,) = world.bodies("retention.applied")
        assert (announced["action"], announced["document_sha256"]) == ("dropped", POLICY)
        leaf = world.rooms.recorder.log.size - 1
        assert run(world, "audit.retention", years=6, drop=False)["announced"] == leaf

    with coordinator_in(tmp_path) as world:  # another process goes on with the same announcement
        world.witnessed_by(*hospitals[:2])
        said = run(world, "audit.retention", **DROPS)["said"]
        assert f"retention.applied, leaf {leaf}" in said
        assert POLICY in said
        log = world.rooms.recorder.log
        assert (log.dropped.count, log.dropped.digest) == (found["entries"], announced["dropped_sha256"])
        with pytest.raises(NothingToDrop):
            run(world, "audit.retention", **DROPS)

        gone = log.dropped.first
        listed = run(world, "audit.log", start=0)["entries"]
        assert [row["index"] for row in listed] == list(range(log.size))
        assert listed[gone]["type"] == "dropped"
        assert listed[gone]["body"] == {"leaf_hash": merkle.leaf_hash(before[gone]).hex()}
        assert listed[0]["type"] == "log.opened"
        kept = merkle.leaf_hash(before[gone]).hex()
        assert "tlog-proof" in run(world, "audit.proof", index=gone, leaf_hash=kept)["receipt"]
        with pytest.raises(CommandRefused, match="not entry"):
            run(world, "audit.proof", index=gone + 1, leaf_hash=merkle.leaf_hash(before[0]).hex())

        growth, parts = world.rooms.witnesses.follow(hospitals[2].site, LogPosition(size=0, note=b""))
        leaves = list(parts)
        assert Dropped.parse(growth.dropped) == log.dropped
        hashes = [one for part in leaves if isinstance(part, DroppedLeaves) for one in part.hashes]
        assert hashes == [log.leaf_hash(leaf) for leaf in range(512) if leaf in log.dropped]
        assert [one for part in leaves if isinstance(part, tuple) for one in part] == [
            data for data in log.known(0, parse_checkpoint(growth.note).checkpoint.size) if data is not None
        ]
        mirror = Mirror.open(tmp_path / "copy", log.verifier)  # as an agent that has just joined
        with mirror.growth(growth.note, growth.proof, growth.dropped) as growing:
            for part in leaves:
                if isinstance(part, DroppedLeaves):
                    growing.add_hashes(part.hashes)
                else:
                    growing.add(part)
            growing.complete()
        assert list(mirror.known()) == list(log.known(0, mirror.size))
        mirror.close()


def test_the_command_line_asks_before_it_drops(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        hospitals = [world.enrol(site) for site in SITES[:1]]
        world.witnessed_by(*hospitals)
        heartbeats(world, 300)
        first = next(world.rooms.recorder.log.entries(250, 251))
        with pytest.raises(NotWitnessed):
            run(world, "audit.retention", **DROPS)
        world.witnessed_by(*hospitals)
    policy = tmp_path / "policy.txt"
    policy.write_text("Six years.")
    words = ["audit", "retention", "--home", str(world.folder), "--drop", "--by", "Ada Example"]
    runner = CliRunner()
    assert runner.invoke(app, words).exit_code == 2
    words += ["--document", str(policy)]
    refused = runner.invoke(app, words, input="n\n")
    assert (refused.exit_code, "cannot be brought back" in refused.output) == (1, True)
    done = runner.invoke(app, [*words, "--yes"])
    assert (done.exit_code, "their hashes are whole" in done.output.replace("\n", " ")) == (0, True)
    examined = runner.invoke(app, ["audit", "fsck", "--home", str(world.folder)])
    assert "were dropped on" in examined.output
    kept = tmp_path / "entry.json"
    kept.write_bytes(first)
    proof = runner.invoke(app, ["audit", "proof", "250", "--home", str(world.folder), "--entry", str(kept)])
    assert (proof.exit_code, proof.output.startswith("c2sp.org/tlog-proof@v1\nindex 250\n")) == (0, True)

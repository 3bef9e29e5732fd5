"""A steward takes an approval back while a round is under way: the agent stops at once, the others go on without it.

Real agents and a real coordinator over loopback gRPC; the steward's decision comes as the command line makes it.
"""

import asyncio
import threading
from pathlib import Path

import pytest

from audit import entries
from consortium.contract.names import SiteId
from site_agent.app import open_ledger
from site_agent.deciding import decide_study
from site_agent.progress import StepDone
from site_agent.room_in_process import RoomInProcess
from site_agent.training_room import RoomLost, RoundJob, Trained
from tests.fakes import stewards
from tests.fakes.agents_in_process import WAIT_S, Consortium, hospitals_of
from tests.fakes.site_world import small_study

WHO = "birch"
STUDY = small_study(aggregation={"round_deadline_s": 60, "upload_deadline_s": 60})


class Held:
    """What the hospital's training does until its room is stopped: nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.stopped = threading.Event(), threading.Event()
        train = RoomInProcess.train

        def held(room: RoomInProcess, job: RoundJob, step_done: StepDone) -> Trained:
            if room._order.site != WHO:
                return train(room, job, step_done)
            self.begun.set()
            assert self.stopped.wait(WAIT_S)
            raise RoomLost("training", "stopped", "Nothing.")

        def stop(room: RoomInProcess) -> None:
            if room._order.site == WHO:
                self.stopped.set()

        monkeypatch.setattr(RoomInProcess, "train", held)
        monkeypatch.setattr(RoomInProcess, "stop", stop)


async def withdraw(consortium: Consortium) -> None:
    await decide_study(
        consortium.agents[WHO].home.folder, STUDY.id, "withdrawn", steward=f"Dr {WHO}", statement="Second thoughts.",
        key=stewards.KEY,
    )  # fmt: skip


def log_of(consortium: Consortium) -> list[bytes]:
    """Every entry of the consortium's log."""
    return list(consortium.world.home.rooms.recorder.log.entries())


async def test_while_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Held(monkeypatch)
    async with hospitals_of(tmp_path, STUDY) as consortium:
        world, birch = consortium.world, consortium.agents[WHO]
        await world.command("study.start", study=STUDY.id)
        assert await asyncio.to_thread(training.begun.wait, WAIT_S)
        await withdraw(consortium)
        await consortium.until("completed")
        logged = [entries.parse_entry(data) for data in log_of(consortium)]
        # It was told who had said no, and which rule; the others' rounds went on.
        refused = [entry for entry in logged if isinstance(entry, entries.RoundRefused)]
        assert [(entry.site, entry.round, entry.rule) for entry in refused] == [(WHO, 1, "withdrawn")]
        closed = [entry for entry in logged if isinstance(entry, entries.RoundClosed)]
        assert all(WHO not in entry.survivors and len(entry.survivors) == 3 for entry in closed)
        taken_back = [entry for entry in logged if isinstance(entry, entries.StudyRejected)]
        assert [(entry.actor, [one.decision for one in entry.signed or ()]) for entry in taken_back] == [
            (f"site:{WHO}", ["withdrawn"])
        ]
        # Nothing of the study's values left; what was reserved for the training stays counted.
        assert not any(one.kind == "masked-update" for one in birch.store.egress())
        assert not any(isinstance(entry, entries.UpdateSubmitted) and entry.actor.endswith(WHO) for entry in logged)
        (row,) = open_ledger(birch.home.folder, birch.store).report()
        assert (row.rounds, row.open_rounds) == (1, 1)
        shown = world.home.coordinator.drivers[STUDY.id].progress.refusals[SiteId(WHO)]
        assert (shown["rule"], shown["round"]) == ("withdrawn", 1)

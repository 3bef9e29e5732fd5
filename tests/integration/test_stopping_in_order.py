"""A coordinator that is told to stop: the attempt under way ends, none begins, and the next start goes on."""

import asyncio
from pathlib import Path

from audit import entries
from consortium.contract.messages import Invitation, RoundAborted, RoundResult
from consortium.contract.study import StudyFile
from consortium.training_round import Phase
from tests.fakes.scripted_site import World, serving
from tests.fakes.small_study import SITES, small_study

AMBER = SITES[0]
LONG_S = 60.0


async def stopped_in(world: World, study: StudyFile, phase: Phase, wait_s: float, *, hurry: bool = False) -> None:
    """Start the study, wait until its attempt is in a phase, and drain."""
    await world.command("study.start", study=study.id)

    def there() -> bool:
        driver = world.home.coordinator.drivers.get(study.id)
        return driver is not None and driver.running is not None and driver.running.phase is phase

    await world.until(there)
    at_once = asyncio.Event()
    if hurry:
        at_once.set()
    await asyncio.wait_for(world.home.coordinator.drain(wait_s, at_once), 60)


def open_plans(world: World, study: StudyFile) -> int:
    return len(list(world.home.studies.open_plans(study.digest())))


async def test_the_attempt_under_way_ends_and_no_other_begins(tmp_path: Path) -> None:
    study = small_study(rounds=50, every_rounds=50)  # or a round that differs by one hospital is aborted
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[AMBER].silent[2, 1] = Phase.COLLECTING
        await world.command("study.start", study=study.id)
        await world.until(lambda: len(sites[AMBER].told(Invitation)) == 2)
        draining = asyncio.create_task(world.home.coordinator.drain(LONG_S, asyncio.Event()))
        assert not draining.done()
        # What it was waited for leaves, and the round goes on without it.
        world.tasks.pop(AMBER).cancel()
        driver = world.home.coordinator.drivers[study.id]
        await world.until(lambda: driver.running is None or draining.done())
        await asyncio.wait_for(draining, 60)
        closed = [one["round"] for one in world.history(study)]
        assert closed == [1, 2]
        assert open_plans(world, study) == 0
        assert world.state(study) == "running"  # for the next start
        assert [len(site.told(Invitation)) for site in sites.values()] == [2] * 4
    async with serving(tmp_path, sites) as again:
        again.sites[AMBER].silent.clear()
        again.join(*SITES)
        await again.until(lambda: len(again.history(study)) >= 3)


async def test_an_attempt_that_takes_too_long_is_aborted_and_everybody_is_told(tmp_path: Path) -> None:
    study = small_study(rounds=2)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[AMBER].silent[1, 1] = Phase.COLLECTING
        await stopped_in(world, study, Phase.COLLECTING, wait_s=0.05)
        assert open_plans(world, study) == 0
        (aborted,) = world.home.bodies(entries.RoundAborted.TYPE)
        assert aborted["reason"] == "the coordinator is being stopped"
        assert world.history(study) == []
        assert world.state(study) == "running"
        for name in SITES[1:]:
            await world.until(lambda name=name: bool(sites[name].told(RoundAborted)))  # type: ignore[misc]
    async with serving(tmp_path, sites) as again:
        again.join(*SITES)
        await again.until(lambda: again.state(study) == "completed")
        assert next((one["round"], one["attempt"]) for one in again.history(study)) == (1, 2)


async def test_shares_that_were_asked_for_are_not_thrown_away(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        for site in sites.values():
            site.silent[1, 1] = Phase.UNMASKING
        await stopped_in(world, study, Phase.UNMASKING, wait_s=LONG_S, hurry=True)
        assert open_plans(world, study) == 1
        assert world.home.bodies(entries.RoundAborted.TYPE) == []
        assert all(not site.told(RoundResult) for site in sites.values())


async def test_a_study_that_waits_for_hospitals_holds_nothing_up(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        await world.hospitals(study, *SITES[:2])  # too few to begin
        await world.command("study.start", study=study.id)
        await asyncio.wait_for(world.home.coordinator.drain(LONG_S, asyncio.Event()), 60)
        await world.command("study.pause", study=study.id)
        await world.command("study.resume", study=study.id)  # it is the next process that goes on with it
        assert world.state(study) == "running"
        assert len(world.home.coordinator.drivers) == 1

"""C-04: a hospital repeats its messages to fill the coordinator's journal, its log and its memory.

Tried: row c04 of `mutations.py`.
"""

from pathlib import Path

from consortium.contract.messages import Refusal
from consortium.training_round import MessageArrived, Phase
from privacy.secagg import site as secagg
from tests.fakes.scripted_site import serving
from tests.fakes.small_study import SITES, small_study

TIMES = 300


async def test_a_repetition_is_not_journalled_and_not_logged(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        loud, quiet = sites[SITES[0]], sites[SITES[1]]
        quiet.silent[1, 1] = Phase.KEYING
        await world.command("study.start", study=study.id)
        driver = world.home.coordinator.drivers[study.id]
        await world.until(lambda: driver.running is not None and driver.running.phase is Phase.KEYING)
        assert driver.running is not None
        await world.until(lambda: isinstance(loud.machine, secagg.Sharing))
        assert isinstance(loud.machine, secagg.Sharing)
        own = next(bundle for bundle in loud.machine.bundles if bundle.site == loud.name)
        size = len(world.home.log())
        assert size > 0
        for _ in range(TIMES):
            await loud._send(own)
        attempt = driver._attempt
        assert attempt is not None
        await world.until(lambda: len(attempt._unwritten) >= 7)
        await world.until(lambda: attempt.waiting == 0)
        events = attempt._unwritten  # what goes into the journal
        assert sum(isinstance(event, MessageArrived) and event.message == own for event in events) == 1
        assert len(world.home.log()) == size
        refusal = Refusal(study_digest=study.digest(), round=1, attempt=1, rule="again", explanation="and again")
        for _ in range(TIMES):
            await loud._send(refusal)
        await world.until(lambda: (1, 1, loud.name, "keying") in world.dropouts())
        assert driver.backlog <= TIMES
        assert world.home.types().count("round.refused") == 1

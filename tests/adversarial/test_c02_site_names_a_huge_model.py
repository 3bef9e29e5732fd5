"""C-02: a hospital says its model has eight billion parameters; no plan and no memory of the coordinator follows it.

Tried: row c02 of `mutations.py`.
"""

from pathlib import Path

from consortium.contract.messages import Invitation, StudyPrepared
from consortium.contract.plan import RoundPlan
from consortium.training_round import Phase
from tests.fakes.scripted_site import serving
from tests.fakes.small_study import SITES, first_model, small_study

AMBER = min(SITES)  # the first whose word could be taken


async def test_the_layout_follows_the_model_that_is_kept(tmp_path: Path) -> None:
    study = small_study(rounds=2, round_deadline_s=1.0, upload_deadline_s=1.0)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[AMBER].silent[1, 1] = Phase.COLLECTING  # holds round 1 open for a second
        await world.command("study.start", study=study.id)
        await world.until(lambda: bool(sites[AMBER].told(Invitation)))
        await sites[AMBER]._send(
            StudyPrepared(
                study_digest=study.digest(), model_digest=first_model().digest(), parameter_count=8_000_000_000
            )
        )
        session = world.home.rooms.sessions.get(sites[AMBER].hospital.site)
        assert session is not None
        await world.until(lambda: session.prepared[study.digest()][1] == 8_000_000_000)
        await world.until(lambda: world.state(study) == "completed")
        plans = [RoundPlan.from_bytes(message.plan) for message in sites[SITES[1]].told(Invitation)]
        assert {plan.layout.lanes[0].length for plan in plans if plan.layout.lanes[0].name == "update"} == {3}
        assert len(world.history(study)) == 3

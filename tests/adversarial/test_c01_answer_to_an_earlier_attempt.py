"""C-01: a hospital's answer to an earlier attempt arrives late; it must not cost the hospital its place in this one.

Honest agents send one whenever an attempt is aborted under them, so without the check every retry would lose them all.
Tried: row c01 of `mutations.py`.
"""

from pathlib import Path
from typing import Any

import pytest

from consortium.contract.messages import Invitation, Refusal
from consortium.training_round import Phase
from tests.fakes.scripted_site import ScriptedSite, serving
from tests.fakes.small_study import SITES, small_study

AMBER, BIRCH, CEDAR, _ = SITES


async def test_a_late_refusal_of_attempt_one_is_not_heard_in_attempt_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(rounds=1, round_deadline_s=1.0, upload_deadline_s=1.0)
    real = ScriptedSite._hear

    async def hear(self: ScriptedSite, message: Any) -> None:
        if isinstance(message, Invitation) and len(self.told(Invitation)) == 1:  # the second one
            earlier = Refusal(
                study_digest=study.digest(), round=1, attempt=1, rule="secure aggregation", explanation="left"
            )
            await self._send(earlier)
        await real(self, message)

    monkeypatch.setattr(ScriptedSite, "_hear", hear)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study, AMBER, BIRCH, CEDAR)
        sites[BIRCH].script[1, 1] = Phase.COLLECTING
        await world.command("study.start", study=study.id)
        await world.until(lambda: len(world.history(study)) >= 1)
        assert (world.history(study)[0]["attempt"], world.history(study)[0]["survivors"]) == (2, [AMBER, BIRCH, CEDAR])
        assert world.dropouts() == [(1, 1, BIRCH, "collecting")]
        assert "round.refused" not in world.home.types()

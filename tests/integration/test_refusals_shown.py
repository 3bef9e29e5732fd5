"""Whose hospital said no to a study, by which rule: the study's owner sees it, and the log has it once."""

import json
from pathlib import Path

from consortium.commands import execute
from consortium.contract.digest import canonical_bytes
from consortium.contract.messages import Refusal, StudyPrepared
from consortium.status import snapshot
from tests.fakes.scripted_site import serving
from tests.fakes.small_study import SITES, first_model, small_study

STUDY = small_study()
DELTA = SITES[-1]
WORDS = "this hospital has too few patients for the study"


async def test_before_a_round_and_in_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as world:
        sites = await world.hospitals(STUDY)
        for site in sites.values():
            site.prepares = False
        coordinator = world.home.coordinator
        await world.command("study.start", study=STUDY.id)
        await world.until(lambda: STUDY.id in coordinator.drivers)
        session = world.home.rooms.sessions.get(DELTA)
        assert session is not None

        def refuse(rule: str) -> None:
            said = Refusal(study_digest=STUDY.digest(), round=0, attempt=0, rule=rule, explanation=WORDS)
            coordinator._hear_one(session, said)

        for rule in ("minimum_patients", "minimum_patients", "allowed_networks"):
            refuse(rule)  # an agent says it again with every connection
        await world.until(lambda: len(world.home.bodies("study.refused")) == 2)
        said = [(body["site"], body["rule"], body["explanation"]) for body in world.home.bodies("study.refused")]
        assert said == [(DELTA, "minimum_patients", WORDS), (DELTA, "allowed_networks", WORDS)]
        asked = canonical_bytes({"study": STUDY.id})
        shown = json.loads(await execute(coordinator, "study.show", asked))
        expected = {"rule": "allowed_networks", "explanation": WORDS, "round": 0}
        assert shown["refusals"] == {DELTA: expected}
        (study,) = snapshot(world.home.rooms, coordinator.drivers)["studies"]
        assert {one["site"]: one["refusal"] for one in study["sites"]} == dict.fromkeys(SITES) | {DELTA: expected}
        model = first_model()
        ready = StudyPrepared(
            study_digest=STUDY.digest(), model_digest=model.digest(), parameter_count=model.vector.size
        )
        coordinator._hear_one(session, ready)
        assert json.loads(await execute(coordinator, "study.show", asked))["refusals"] == {}

"""Four hospitals of which three train in each round: turns, catching up, what each is charged, and the evidence."""

import asyncio
import json
from pathlib import Path

import pytest

from audit import entries
from consortium.contract.certificates import certificate_der
from consortium.contract.messages import Invitation, RoundResult
from consortium.contract.plan import RoundPlan
from consortium.contract.study import StudyFile
from consortium.training_round import Phase
from tests.fakes.agents_in_process import hospitals_of
from tests.fakes.scripted_site import World, serving
from tests.fakes.site_world import SITES, small_study
from tests.fakes.small_study import DOCUMENT

ROUNDS = 5


def study_by_turns() -> StudyFile:
    return small_study(
        training={"rounds": ROUNDS, "participants_per_round": 3},
        evaluation={"every_rounds": ROUNDS},
    )


@pytest.fixture(autouse=True)
def not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an audit at admission measures has tests of its own; here it would be most of the time."""
    monkeypatch.setattr("site_agent.admission_audit.audited_at_admission", lambda *_, **__: None)


def first_model_of(world: World) -> str:
    """The digest of the first model."""
    (begun,) = world.home.bodies(entries.StudyStarted.TYPE)
    return str(begun["model_digest"])


async def test_a_whole_study_by_turns_and_its_evidence(tmp_path: Path) -> None:
    study = study_by_turns()
    turns = {number: study.sites_of_round(number) for number in range(1, ROUNDS + 1)}
    assert len(set(turns.values())) == 4  # everybody stays away once, then it begins afresh
    async with hospitals_of(tmp_path, study) as consortium:
        await consortium.run_to_the_end()
        await consortium.certified()
        world = consortium.world
        history = world.history(study)
        assert [(one["round"], one["attempt"]) for one in history] == [(n, 1) for n in range(1, ROUNDS + 2)]
        assert [tuple(one["survivors"]) for one in history] == [*turns.values(), SITES]
        # Figures once, of the last model, over everybody.
        assert [bool(one["metrics"]) for one in history] == [False] * ROUNDS + [True]
        # Whoever had no turn followed, and keeps no model of a round that it was not in.
        last = world.home.studies.get(study.id).model_digest
        for agent in consortium.agents.values():
            kept = {path.stem for path in (agent.home.folder / "models").iterdir()}
            assert kept == {last, first_model_of(world)}
        planned = {e["body"]["steps_planned"] for e in world.home.log() if e["type"] == entries.DpConfigured.TYPE}
        assert planned == {study.steps_of_a_site} == {4}
        for site in SITES:
            own = [number for number, sites in turns.items() if site in sites]
            spent = [e for e in world.home.log() if e["type"] == entries.DpSpent.TYPE and e["actor"] == f"site:{site}"]
            assert [e["round"] for e in spent] == own
            assert spent[-1]["body"]["epsilon"] <= study.privacy.epsilon
        result = await consortium.verified()
        assert result["verified"], [step for step in result["steps"] if step["status"] != "PASS"]
        (step,) = [step for step in result["steps"] if step["title"] == "survivors and threshold"]
        assert step["detail"].endswith("3 of 4 sites in turn")


def small_study_by_turns(rounds: int) -> StudyFile:
    record = json.loads(json.dumps(DOCUMENT))
    record["training"] |= {"rounds": rounds, "participants_per_round": 3}
    record["evaluation"]["every_rounds"] = rounds
    return StudyFile.model_validate_json(json.dumps(record))


async def test_an_attempt_is_repeated_with_those_whose_turn_it_is_and_nobody_in_the_place_of_one(
    tmp_path: Path,
) -> None:
    """Three of three are needed, so one that breaks off ends the attempt; the fourth is there and is not asked."""
    study = small_study_by_turns(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[study.sites_of_round(1)[0]].script[1, 1] = Phase.COLLECTING
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "completed")
        begun = [(e["round"], e["attempt"], e["body"]["participants"]) for e in world.home.log() if
                 e["type"] == entries.RoundStarted.TYPE]  # fmt: skip
        turn = list(study.sites_of_round(1))
        assert begun == [(1, 1, turn), (1, 2, turn), (2, 1, sorted(sites))]


async def test_a_round_waits_for_the_endorsements_that_those_who_stayed_away_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consortium.driver.VERIFIED_WAIT_S", 0.01)
    study = small_study_by_turns(rounds=2)
    first, second = (set(study.sites_of_round(number)) for number in (1, 2))
    (new,), (gone,) = second - first, first - second
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        verify = sites[gone]._verify

        async def late(result: RoundResult) -> None:
            await asyncio.sleep(0.3)
            await verify(result)

        monkeypatch.setattr(sites[gone], "_verify", late)
        await world.command("study.start", study=study.id)
        await world.until(lambda: bool(sites[new].told(Invitation)))
        (invitation,) = sites[new].told(Invitation)
        assert RoundPlan.from_bytes(invitation.plan).round == 2
        assert len(invitation.endorsements) == 3
        # The one that signed and is not in this round may be a stranger to the one that is asked for the first time.
        assert invitation.endorser_certificates == (certificate_der(sites[gone].hospital.certificate_pem),)
        await world.until(lambda: world.state(study) == "completed")

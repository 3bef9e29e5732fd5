"""Rounds over small vectors: no call of their own for vectors, entries that reach the log later (decision 13)."""

from dataclasses import replace
from pathlib import Path

import pytest

from consortium.contract.messages import Invitation, RoundResult
from consortium.contract.names import Digest
from consortium.contract.plan import RoundPlan
from consortium.driver import StudyDriver
from consortium.training_round import Phase
from tests.fakes.scripted_site import serving
from tests.fakes.small_study import SITES, small_study

AMBER, BIRCH, CEDAR, DELTA = SITES


async def test_small_vectors_travel_in_messages_and_nothing_is_left_of_them(tmp_path: Path) -> None:
    study = small_study(rounds=2)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        for site in sites.values():
            site.fast = True
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "completed")
        assert [len(r["survivors"]) for r in world.history(study)] == [4, 4, 4]
        assert all(result.aggregate for result in sites[AMBER].told(RoundResult))
        # Everything that was signed is in the log before the study counts as complete.
        assert world.home.types().count("model.verified") == 12
        assert list((tmp_path / "home" / "uploads").iterdir()) == []


async def test_an_update_for_another_study_is_left_out(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        for site in sites.values():
            site.fast = True
        upload = sites[AMBER].upload_update

        async def to_another_study(header: object, **_: object) -> None:
            sites[AMBER].study = small_study(rounds=9)
            await upload(header)  # type: ignore[arg-type]

        sites[AMBER].upload_update = to_another_study  # type: ignore[assignment, method-assign]
        await world.command("study.start", study=study.id)
        driver = world.home.coordinator.drivers[study.id]
        await world.until(lambda: driver.running is not None and driver.running.phase is Phase.COLLECTING)
        await world.until(lambda: [s for s in driver.progress.sites.values() if s == "uploaded"] == ["uploaded"] * 3)
        assert driver.progress.sites[AMBER] != "uploaded"


async def test_a_site_that_missed_a_round_is_shown_endorsements_that_are_not_in_the_log_yet(tmp_path: Path) -> None:
    study = small_study(rounds=20, every_rounds=20)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        for site in sites.values():
            site.fast = True
        sites[DELTA].script[1, 1] = Phase.COLLECTING
        await world.command("study.start", study=study.id)
        await world.until(lambda: any(_round(i) > 1 for i in sites[DELTA].told(Invitation)))
        invitation = next(i for i in sites[DELTA].told(Invitation) if _round(i) > 1)
        assert len(invitation.endorsements) >= study.aggregation.threshold
        assert b"model.verified" in invitation.endorsements[0]
        # Who heard the result over the session it is invited over needs none.
        assert next(i for i in sites[AMBER].told(Invitation) if _round(i) == 1).endorsements == ()


async def test_a_model_that_differs_stops_the_study_while_the_next_round_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(rounds=3)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        heard = StudyDriver._note_verified

        def lied(self: StudyDriver, site: str, message: object) -> None:
            if site == BIRCH:
                message = replace(message, next_model_digest=Digest("e" * 64))  # type: ignore[type-var]
            heard(self, site, message)  # type: ignore[arg-type]

        monkeypatch.setattr(StudyDriver, "_note_verified", lied)
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "paused")
        assert "birch-hospital computed another next model" in world.home.studies.get(study.id).reason
        assert all(site.plan is not None for site in sites.values())


def _round(invitation: Invitation) -> int:
    return RoundPlan.from_bytes(invitation.plan).round

"""Whole studies through a coordinator with a real database, a real log and real mutual TLS; the sites are scripted."""

import asyncio
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from audit import entries
from consortium.contract.messages import Invitation, PrepareStudy, RoundAborted, RoundResult, StudyEnded
from consortium.contract.names import Digest
from consortium.contract.plan import RoundPlan
from consortium.contract.study import StudyFile
from consortium.driver import StudyDriver
from consortium.training_round import GRAPH_PHASES, MessageArrived, Phase
from privacy.secagg.messages import UnmaskRequest, UnmaskShares
from tests.fakes.coordinator_home import new_home
from tests.fakes.mlflow_server import Server, mlflow_server
from tests.fakes.scripted_site import ScriptedSite, World, serving, update_of
from tests.fakes.small_study import SITES, first_model, small_study

AMBER, BIRCH, CEDAR, DELTA = SITES


def mean_update(*names: str) -> list[float]:
    return [float(value) for value in np.mean([update_of(name) for name in names], axis=0)]


def close_to(expected: list[float]) -> object:
    return pytest.approx(expected, abs=1e-4)


async def test_a_whole_study(tmp_path: Path) -> None:
    study = small_study(rounds=2)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "completed")

        history = world.history(study)
        assert [(r["round"], r["kind"]) for r in history] == [(1, "train"), (2, "train"), (3, "evaluate")]
        assert all(r["survivors"] == list(SITES) for r in history)
        assert all(r["metrics"]["patients"] == 40 for r in history)
        assert history[-1]["metrics"]["accuracy"] == pytest.approx(0.5)
        assert world.model(study) == close_to([2 * value for value in mean_update(*SITES)])
        await world.until(lambda: all(site.told(StudyEnded) for site in sites.values()))
        for site in sites.values():
            assert len(site.told(RoundResult)) == 3
            assert site.model.digest() == world.home.studies.get(study.id).model_digest

        types = world.home.types()
        assert [types.count(kind) for kind in ("study.started", "round.started", "round.closed")] == [1, 3, 3]
        assert types.count("model.evaluated") == 3
        assert types.count("model.verified") == 12
        assert world.dropouts() == []
        entries.replay_chains(world.home.rooms.recorder.log.entries())
        # Nothing is left of the attempts but what was decided.
        assert list((world.home.folder / "uploads").iterdir()) == []


async def test_figures_are_also_written_for_tensorboard_and_mlflow_where_that_is_wanted(tmp_path: Path) -> None:
    study, file = small_study(rounds=1), new_home(tmp_path) / "coordinator.yaml"
    with mlflow_server() as server:
        tracking = f"mlflow: {{server: '{server.tracking.server}'}}"
        text = file.read_text().replace("tensorboard: false", "tensorboard: true").replace("mlflow: null", tracking)
        file.write_text(text)
        await _drawn(tmp_path, study, server)


async def _drawn(tmp_path: Path, study: StudyFile, server: Server) -> None:
    async with serving(tmp_path) as world:
        await world.hospitals(study)
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "completed")
        (path,) = (tmp_path / "home" / "tensorboard" / study.id).iterdir()
        assert path.read_bytes().count(b"mean_site_accuracy") == len(world.history(study)) == 2
        sent = await asyncio.to_thread(server.until, "runs/log-batch", 2)
        await asyncio.to_thread(server.until, "runs/update")
        figures = [{row["key"]: row["value"] for row in one["metrics"]} for one in sent]
        logged = [{name.replace(".", "/"): one for name, one in r["metrics"].items()} for r in world.history(study)]
        assert figures == logged


@pytest.mark.parametrize("phase", GRAPH_PHASES)
async def test_a_site_that_breaks_off_in_any_phase_costs_its_own_place_only(tmp_path: Path, phase: Phase) -> None:
    study = small_study(rounds=1, every_rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[BIRCH].script[1, 1] = phase
        await world.command("study.start", study=study.id)
        await world.until(lambda: len(world.history(study)) >= 1)
        (first, *_) = world.history(study)
        lost = phase in (Phase.INVITING, Phase.KEYING, Phase.COLLECTING)
        assert first["attempt"] == 1
        assert first["survivors"] == ([AMBER, CEDAR, DELTA] if lost else list(SITES))
        assert (1, 1, BIRCH, phase.value) in world.dropouts()
        assert world.model(study) == close_to(mean_update(*first["survivors"]))
        await world.until(lambda: world.state(study) == "completed")


async def test_below_the_threshold_it_aborts_and_is_tried_again_when_the_site_returns(tmp_path: Path) -> None:
    study = small_study(rounds=1, round_deadline_s=1.0, upload_deadline_s=1.0)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study, AMBER, BIRCH, CEDAR)
        sites[BIRCH].script[1, 1] = Phase.COLLECTING
        sites[BIRCH].stays_away = True
        await world.command("study.start", study=study.id)
        await world.until(lambda: "round.aborted" in world.home.types(), 30)
        await world.until(lambda: len(sites[AMBER].told(RoundAborted)) == 1)
        assert world.history(study) == []
        assert world.home.studies.get(study.id).next_attempt == 2
        assert list((world.home.folder / "uploads").iterdir()) == []
        driver = world.home.coordinator.drivers[study.id]
        await world.until(lambda: driver.progress.phase == "waiting for hospitals")
        sites[BIRCH].come_back()
        await world.until(lambda: world.state(study) == "completed")
        assert [(r["round"], r["attempt"]) for r in world.history(study)] == [(1, 2), (2, 1)]
        assert world.dropouts() == [(1, 1, BIRCH, "collecting")]


async def test_a_silent_site_costs_a_deadline_and_no_more(tmp_path: Path) -> None:
    study = small_study(rounds=1, round_deadline_s=1.0, upload_deadline_s=1.0)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[CEDAR].silent[1, 1] = Phase.COLLECTING
        await world.command("study.start", study=study.id)
        await world.until(lambda: len(world.history(study)) >= 1)
        assert world.history(study)[0]["survivors"] == [AMBER, BIRCH, DELTA]
        reasons = [e["body"]["reason"] for e in world.home.log() if e["type"] == "secagg.dropout"]
        assert reasons == ["it did not answer in time"]


async def test_a_refusal_is_logged_and_the_site_is_not_asked_again_for_that_round(tmp_path: Path) -> None:
    study = small_study(rounds=2)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[DELTA].refuses = {(1, 1): "max_epsilon_total"}
        sites[BIRCH].script[1, 1] = Phase.COLLECTING  # so that round 1 needs a second attempt
        sites[BIRCH].stays_away = True
        await world.command("study.start", study=study.id)
        await world.until(lambda: "round.aborted" in world.home.types())
        assert world.home.bodies("round.refused") == [{"site": DELTA, "rule": "max_epsilon_total"}]
        sites[BIRCH].come_back()
        await world.until(lambda: world.state(study) == "completed")
        history = world.history(study)
        assert history[0]["survivors"] == [AMBER, BIRCH, CEDAR]
        assert DELTA in history[1]["survivors"]
        # The final evaluation is over those that were measured before: one more would single that one out.
        assert history[2]["survivors"] == [AMBER, BIRCH, CEDAR]
        attempts = [RoundPlan.from_bytes(message.plan) for message in sites[DELTA].told(Invitation)]
        assert (1, 2) not in [(plan.round, plan.attempt) for plan in attempts]


async def test_too_many_refusals_pause_the_study_and_say_who(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        for name in (CEDAR, DELTA):
            sites[name].refuses = {(1, 1): "max_epsilon_total"}
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "paused")
        row = world.home.studies.get(study.id)
        assert "declined round 1" in row.reason
        assert CEDAR in row.reason
        for name in (CEDAR, DELTA):
            sites[name].refuses = {}
        await world.command("study.resume", study=study.id)
        await world.until(lambda: world.state(study) == "completed")
        assert world.history(study)[0]["attempt"] == 2


async def test_metrics_are_left_out_of_a_round_that_would_single_a_hospital_out(tmp_path: Path) -> None:
    study = small_study(rounds=3)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[DELTA].script[2, 1] = Phase.COLLECTING  # in a measured round, after one with all four
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "completed", 25)
        aborted = [e["body"]["reason"] for e in world.home.log() if e["type"] == "round.aborted"]
        assert len(aborted) == 1
        assert "one hospital" in aborted[0]
        history = world.history(study)
        assert (history[1]["round"], history[1]["attempt"]) == (2, 2)
        assert history[1]["metrics"] == {}
        measured = [frozenset(r["survivors"]) for r in history if r["metrics"]]
        for one, next_one in pairwise(measured):
            assert len(one ^ next_one) != 1


async def test_pausing_in_the_middle_of_a_round_and_resuming(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[AMBER].silent[1, 1] = Phase.COLLECTING
        await world.command("study.start", study=study.id)
        driver = world.home.coordinator.drivers[study.id]
        await world.until(lambda: driver.running is not None and driver.running.phase is Phase.COLLECTING)
        await world.command("study.pause", study=study.id)
        await world.command("study.resume", study=study.id)  # at once, while the first driver is still ending
        await world.until(lambda: world.state(study) == "completed")
        assert [(r["round"], r["attempt"]) for r in world.history(study)] == [(1, 2), (2, 1)]
        assert world.home.types().count("round.aborted") == 1


async def test_aborting_tells_everybody(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[AMBER].silent[1, 1] = Phase.INVITING
        await world.command("study.start", study=study.id)
        driver = world.home.coordinator.drivers[study.id]
        await world.until(lambda: driver.running is not None)
        await world.command("study.abort", study=study.id)
        await world.until(lambda: all(site.told(StudyEnded) for site in sites.values()))
        await world.until(lambda: world.home.types()[-1] == "round.aborted")
        assert world.state(study) == "aborted"
        assert world.home.studies.open_plans(study.digest()) == ()
        # Whoever connects later hears it too, and is not asked to get ready for it.
        late = sites[BIRCH]
        asked = len(late.told(PrepareStudy))
        assert late.session is not None
        late.session.close()
        await world.until(lambda: len(late.told(StudyEnded)) == 2)
        assert len(late.told(PrepareStudy)) == asked


async def test_a_site_that_is_not_ready_is_never_invited(tmp_path: Path) -> None:
    study = small_study(rounds=1, round_deadline_s=1.0, upload_deadline_s=1.0)
    async with serving(tmp_path) as world:
        world.enrol(study)
        world.sites[DELTA].prepares = False
        world.join(*SITES)
        await world.until(lambda: len(world.home.rooms.sessions.connected()) == 4)
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "completed")
        assert world.sites[DELTA].told(PrepareStudy)
        assert world.sites[DELTA].told(Invitation) == []
        assert all(r["survivors"] == [AMBER, BIRCH, CEDAR] for r in world.history(study))


async def test_a_site_that_took_its_approval_back_is_never_invited(tmp_path: Path) -> None:
    study = small_study(rounds=1, round_deadline_s=1.0, upload_deadline_s=1.0)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        await sites[DELTA].submit(sites[DELTA].hospital.rejects(study))
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "completed")
        assert sites[DELTA].told(Invitation) == []


async def test_sites_that_built_different_models_pause_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study()
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        real = ScriptedSite._send

        async def another(self: ScriptedSite, message: object) -> None:
            if self is sites[CEDAR] and hasattr(message, "parameter_count"):
                object.__setattr__(message, "model_digest", Digest("ff" * 32))
            await real(self, message)

        monkeypatch.setattr(ScriptedSite, "_send", another)
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "paused")
        assert CEDAR in world.home.studies.get(study.id).reason
        assert "study.started" not in world.home.types()


async def test_another_model_than_announced_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small_study()
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        real = ScriptedSite.upload_model

        async def other(self: ScriptedSite, _model: object) -> None:
            await real(self, first_model(fill=1.0))

        monkeypatch.setattr(ScriptedSite, "upload_model", other)
        await world.command("study.start", study=study.id)
        await world.until(lambda: any(site.ended_with for site in sites.values()))
        (error,) = next(site for site in sites.values() if site.ended_with).ended_with
        assert "another first model" in str(error)
        assert list((world.home.folder / "models").iterdir()) == []
        # The next hospital is asked at once, so its upload may be on its way now; it is not kept either.
        await world.until(lambda: list((world.home.folder / "uploads").iterdir()) == [])


# --- the coordinator dies ---


async def stuck_before_closing(world: World, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Every share has arrived and is in the journal; the process gets no further."""
    reached = asyncio.Event()

    async def stuck(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(StudyDriver, "_close", stuck)
    return reached


async def test_a_crash_between_the_last_share_and_the_close_finishes_the_round_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        with monkeypatch.context() as patched:
            reached = await stuck_before_closing(world, patched)
            await world.command("study.start", study=study.id)
            await asyncio.wait_for(reached.wait(), 60)
    async with serving(tmp_path) as world:
        await world.until(lambda: len(world.history(study)) == 1)
        assert world.history(study)[0]["survivors"] == list(SITES)
        assert world.history(study)[0]["metrics"]["patients"] == 40
        assert world.model(study) == close_to(mean_update(*SITES))
        assert world.home.types().count("round.closed") == 1
        assert world.home.types().count("round.aborted") == 0
        assert list((world.home.folder / "uploads").iterdir()) == []
    async with serving(tmp_path, sites) as world:
        assert world.home.types().count("round.closed") == 1
        world.join(*SITES)
        # Survivors that were cut off hear the result when they are back, and the study goes on.
        await world.until(lambda: all(site.told(RoundResult) for site in sites.values()))
        await world.until(lambda: world.state(study) == "completed")
        assert world.home.types().count("round.closed") == 2
        entries.replay_chains(world.home.rooms.recorder.log.entries())


def shares_kept(world: World, plan: RoundPlan) -> int:
    """How many sites' shares a restart would find."""
    events = world.home.rooms.journal.events(plan)
    return sum(isinstance(event, MessageArrived) and isinstance(event.message, UnmaskShares) for event in events)


async def crashed_while_shares_came_in(tmp_path: Path, study: StudyFile) -> dict[str, ScriptedSite]:
    """Two of four sites have sent their shares and the coordinator is gone; the other two were asked."""
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        for name in (CEDAR, DELTA):
            sites[name].silent[1, 1] = Phase.UNMASKING
        await world.command("study.start", study=study.id)
        await world.until(lambda: all(sites[name].told(UnmaskRequest) for name in SITES))
        driver = world.home.coordinator.drivers[study.id]
        await world.until(lambda: driver.running is not None and shares_kept(world, driver.running.plan) == 2)
    for site in sites.values():
        site.silent.clear()
    return sites


async def test_a_crash_while_shares_come_in_is_survived_with_the_very_same_sites(tmp_path: Path) -> None:
    study = small_study(rounds=1, every_rounds=1)
    sites = await crashed_while_shares_came_in(tmp_path, study)
    async with serving(tmp_path, sites) as world:
        world.join(*SITES)
        await world.until(lambda: world.state(study) == "completed")
        assert [(r["round"], r["attempt"]) for r in world.history(study)] == [(1, 1), (2, 1)]
        assert world.history(study)[0]["survivors"] == list(SITES)
        assert world.model(study) == close_to(mean_update(*SITES))
        assert world.home.types().count("round.aborted") == 0
        # Whose shares were in the journal is not asked again.
        requests = {name: len({r.context for r in sites[name].told(UnmaskRequest)}) for name in SITES}
        assert requests == dict.fromkeys(SITES, 2)
        assert len(sites[CEDAR].told(UnmaskRequest)) == 3
        entries.replay_chains(world.home.rooms.recorder.log.entries())


async def test_with_the_threshold_of_shares_in_the_journal_nobody_has_to_come_back(tmp_path: Path) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[DELTA].silent[1, 1] = Phase.UNMASKING
        await world.command("study.start", study=study.id)
        driver = world.home.coordinator.drivers[study.id]
        await world.until(lambda: driver.running is not None and shares_kept(world, driver.running.plan) == 3)
    async with serving(tmp_path) as world:
        await world.until(lambda: len(world.history(study)) == 1)
        assert world.history(study)[0]["survivors"] == list(SITES)
        assert world.model(study) == close_to(mean_update(*SITES))


async def test_sites_that_do_not_come_back_end_the_waiting_at_the_deadline(tmp_path: Path) -> None:
    study = small_study(rounds=1, every_rounds=1, upload_deadline_s=2)
    sites = await crashed_while_shares_came_in(tmp_path, study)
    for site in sites.values():
        site.machine = None  # their agents were restarted too, before they had released anything
    async with serving(tmp_path, sites) as world:
        await world.until(lambda: "round.aborted" in world.home.types())
        # To the sites, metrics whose shares were asked for count as published.
        assert world.home.studies.get(study.id).measured == SITES
        world.join(*SITES)
        await world.until(lambda: world.state(study) == "completed")
        assert [(r["round"], r["attempt"]) for r in world.history(study)] == [(1, 2), (2, 1)]
        assert list((world.home.folder / "uploads").iterdir()) == []


@pytest.mark.parametrize("phase", [Phase.INVITING, Phase.COLLECTING, Phase.CONFIRMING])
async def test_a_crash_before_shares_were_asked_for_ends_the_attempt_and_the_round_is_tried_again(
    tmp_path: Path, phase: Phase
) -> None:
    study = small_study(rounds=1, every_rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        for name in (CEDAR, DELTA):
            sites[name].silent[1, 1] = phase
        await world.command("study.start", study=study.id)
        driver = world.home.coordinator.drivers[study.id]
        await world.until(lambda: driver.running is not None and driver.running.phase is phase)
        await world.until(lambda: len(driver.running.machine.answers) >= 2)  # type: ignore[union-attr]
    async with serving(tmp_path, sites) as world:
        await world.until(lambda: "round.aborted" in world.home.types())
        assert world.history(study) == []
        assert world.home.studies.get(study.id).measured == ()
        world.join(*SITES)
        await world.until(lambda: world.state(study) == "completed")
        assert [(r["round"], r["attempt"]) for r in world.history(study)] == [(1, 2), (2, 1)]
        assert list((world.home.folder / "uploads").iterdir()) == []


async def test_an_attempt_whose_uploads_are_gone_is_given_up_not_repeated_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        with monkeypatch.context() as patched:
            reached = await stuck_before_closing(world, patched)
            await world.command("study.start", study=study.id)
            await asyncio.wait_for(reached.wait(), 60)
    for upload in (tmp_path / "home" / "uploads").iterdir():
        upload.unlink()
    async with serving(tmp_path, sites) as world:
        world.join(*SITES)
        await world.until(lambda: world.state(study) == "completed")
        assert world.history(study)[0]["attempt"] == 2
        assert world.home.types().count("round.aborted") == 1


async def test_a_sum_that_makes_no_model_aborts_the_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        real = ScriptedSite._mask

        def weightless(self: ScriptedSite, machine: object) -> object:
            if (
                self.plan is not None
                and self.plan.attempt == 1
                and "weight" in [n.name for n in self.plan.layout.lanes]
            ):
                monkeypatch.setattr("tests.fakes.scripted_site.encode", without_weight)
            masked = real(self, machine)  # type: ignore[arg-type]
            monkeypatch.setattr("tests.fakes.scripted_site.encode", encode)
            return masked

        from privacy.encoding import encode  # noqa: PLC0415

        def without_weight(values: dict[str, object], layout: object, dither: object) -> object:
            return encode({**values, "weight": np.zeros(1)}, layout, dither)  # type: ignore[arg-type,dict-item]

        monkeypatch.setattr(ScriptedSite, "_mask", weightless)
        await world.command("study.start", study=study.id)
        await world.until(lambda: "round.aborted" in world.home.types())
        assert "weights sum to 0" in world.home.bodies("round.aborted")[0]["reason"]
        await world.until(lambda: world.state(study) == "completed")
        assert world.history(study)[0]["attempt"] == 2
        assert len(sites[AMBER].told(RoundAborted)) == 1

"""The register of studies: what may follow what, and that state and log say the same."""

from pathlib import Path
from typing import Any

import pytest

from consortium.contract.names import Digest, SiteId
from consortium.errors import StudyConflict, StudyUnknown
from consortium.studies import RoundClosedFacts, StudyState
from consortium.study_run import ATTEMPTS_MAX
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.running_study import MODEL, STUDY, plan, started
from tests.fakes.small_study import SITES, small_study

NAME = STUDY.id
NEXT = Digest("b2" * 32)


def facts(**changes: Any) -> RoundClosedFacts:
    fields: dict[str, Any] = {
        "survivors": tuple(SiteId(site) for site in SITES[:3]),
        "transcript": Digest("c3" * 32),
        "aggregate_sha256": Digest("d4" * 32),
        "next_model_digest": NEXT,
        "metrics": {"patients": 12.0, "accuracy": 0.5},
        "seconds": 1.5,
    }
    return RoundClosedFacts(**{**fields, **changes})


# --- submitted ---


def test_a_submitted_study_is_shown_to_its_hospitals_only(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        assert world.studies.submit(STUDY, STUDY.document()) == STUDY.digest()
        (document,) = world.studies.documents(SiteId(SITES[0]))
        assert (document.study, document.document, document.state) == (NAME, STUDY.document(), "submitted")
        assert world.studies.documents(SiteId("zebra-hospital")) == ()
        row = world.studies.get(NAME)
        assert (row.next_round, row.next_attempt, row.model_digest, row.measured) == (1, 1, "", ())
        (created,) = world.bodies("study.created")
        assert created["study_digest"] == STUDY.digest()
        assert created["sites"] == sorted(SITES)


def test_the_same_document_again_is_the_same_study(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        world.submit(STUDY)
        world.submit(STUDY)
        assert world.types().count("study.created") == 1


def test_another_document_under_its_name_is_refused(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        world.submit(STUDY)
        with pytest.raises(StudyConflict, match="different study") as caught:
            world.submit(small_study(rounds=9))
        assert caught.value.code == "conflict"
        assert [row.digest for row in world.studies.all()] == [STUDY.digest()]
        world.submit(small_study(name="other-study"))
        assert [row.study for row in world.studies.all()] == [NAME, "other-study"]


def test_a_study_nobody_submitted(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        for call in (world.studies.get, world.studies.release, lambda name: world.studies.move(name, "start")):
            with pytest.raises(StudyUnknown) as caught:
                call("nothing")
            assert caught.value.code == "not_found"


# --- moves ---

MOVES = {
    "start": {"submitted"},
    "pause": {"running"},
    "resume": {"paused"},
    "abort": {"submitted", "running", "paused"},
}
WAYS: dict[str, tuple[str, ...]] = {
    "submitted": (),
    "running": ("start",),
    "paused": ("start", "pause"),
    "aborted": ("abort",),
    "completed": ("start", "complete"),
}


@pytest.mark.parametrize("state", WAYS)
@pytest.mark.parametrize("action", MOVES)
def test_what_may_follow_what(tmp_path: Path, state: str, action: str) -> None:
    with coordinator_in(tmp_path) as world:
        world.submit(STUDY)
        for step in WAYS[state]:
            if step == "complete":
                world.studies.begin(world.studies.get(NAME), [SiteId(site) for site in SITES], MODEL)
                world.studies.complete(world.studies.get(NAME))
            else:
                world.studies.move(NAME, step)
        assert world.studies.get(NAME).state == state
        size = len(world.log())
        if state in MOVES[action]:
            world.studies.move(NAME, action, "because\nof this")
            assert world.studies.get(NAME).state != state
            logged = world.log()[size:]
            assert [entry["type"] for entry in logged] == ([] if action == "start" else [f"study.{logged_as(action)}"])
            assert all(entry["body"]["reason"] == "because of this" for entry in logged)
        else:
            with pytest.raises(StudyConflict, match=state):
                world.studies.move(NAME, action)
            assert world.studies.get(NAME).state == state
            assert len(world.log()) == size


def logged_as(action: str) -> str:
    return {"pause": "paused", "resume": "resumed", "abort": "aborted"}[action]


def test_a_long_reason_does_not_stop_a_pause(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        world.submit(STUDY)
        world.studies.move(NAME, "start")
        world.studies.move(NAME, "pause", "x" * 5000)
        assert world.studies.get(NAME).state == StudyState.PAUSED


def test_only_a_completed_study_is_released(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        started(world)
        with pytest.raises(StudyConflict, match="running"):
            world.studies.release(NAME)
        assert "model.released" not in world.types()
        world.studies.complete(world.studies.get(NAME))
        assert world.studies.release(NAME) == MODEL
        assert world.bodies("model.released") == [{"model_digest": MODEL}]


# --- rounds ---


def test_an_attempt_opens_closes_and_moves_the_model_on(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        started(world)
        assert world.studies.last_closed(STUDY.digest()) is None
        assert world.studies.open_round(world.studies.get(NAME), plan())
        assert world.studies.open_plans(STUDY.digest()) == (plan().to_bytes(),)
        assert world.studies.get(NAME).next_attempt == 2
        world.studies.close_round(world.studies.get(NAME), plan(), facts())
        row = world.studies.get(NAME)
        assert (row.next_round, row.next_attempt, row.last_attempt) == (2, 1, ATTEMPTS_MAX)
        assert (row.model_digest, row.transcript, row.measured) == (NEXT, "c3" * 32, tuple(SITES[:3]))
        assert world.studies.open_plans(STUDY.digest()) == ()
        closed = world.studies.last_closed(STUDY.digest())
        assert closed is not None
        assert (closed.plan, closed.aggregate_sha256, closed.next_model_digest) == (plan().to_bytes(), "d4" * 32, NEXT)
        (history,) = world.studies.history(STUDY.digest())
        assert (history["round"], history["attempt"], history["kind"]) == (1, 1, "train")
        assert history["metrics"] == {"patients": 12.0, "accuracy": 0.5}
        assert world.types()[-3:] == ["round.started", "round.closed", "model.evaluated"]


def test_a_round_without_metrics_leaves_the_last_measured_survivors(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        started(world)
        for number, metrics in ((1, {"patients": 9.0}), (2, {})):
            world.studies.open_round(world.studies.get(NAME), plan(number))
            survivors = tuple(SiteId(site) for site in SITES[:3])
            closed = facts(metrics=metrics, survivors=survivors if number == 1 else survivors[:2])
            world.studies.close_round(world.studies.get(NAME), plan(number), closed)
        assert world.studies.get(NAME).measured == tuple(SITES[:3])
        assert world.types().count("model.evaluated") == 1


def test_an_aborted_attempt_is_followed_by_the_next_number(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        started(world)
        world.studies.open_round(world.studies.get(NAME), plan())
        world.studies.abort_round(world.studies.get(NAME), plan(), "too few\nhospitals")
        row = world.studies.get(NAME)
        assert (row.next_round, row.next_attempt, row.measured) == (1, 2, ())
        assert world.studies.history(STUDY.digest()) == ()
        assert world.bodies("round.aborted") == [{"reason": "too few hospitals"}]


def test_metrics_that_may_have_been_opened_count_as_published(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        started(world)
        world.studies.open_round(world.studies.get(NAME), plan())
        survivors = tuple(SiteId(site) for site in SITES[:3])
        world.studies.abort_round(world.studies.get(NAME), plan(), "too few shares", measured=survivors)
        assert world.studies.get(NAME).measured == survivors


def test_resuming_allows_more_attempts_and_never_repeats_a_number(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        started(world)
        for attempt in (1, 2):
            assert world.studies.open_round(world.studies.get(NAME), plan(attempt=attempt))
            world.studies.abort_round(world.studies.get(NAME), plan(attempt=attempt), "stopped")
        world.studies.move(NAME, "pause")
        world.studies.move(NAME, "resume")
        row = world.studies.get(NAME)
        assert (row.next_attempt, row.last_attempt) == (3, 2 + ATTEMPTS_MAX)
        assert world.studies.open_round(row, plan(attempt=3))


def test_nothing_opens_for_a_hospital_that_took_its_approval_back(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        world.submit(STUDY)
        hospitals = [world.enrol(name) for name in SITES[:3]]
        for hospital in hospitals:
            world.sites.submit_events(hospital.site, [hospital.approves(STUDY)])
        world.studies.move(NAME, "start")
        world.sites.submit_events(hospitals[1].site, [hospitals[1].rejects(STUDY)])
        assert not world.studies.open_round(world.studies.get(NAME), plan())
        assert world.studies.open_plans(STUDY.digest()) == ()
        assert world.studies.get(NAME).next_attempt == 1
        assert "round.started" not in world.types()


def test_what_a_stopped_process_left_open_can_be_abandoned(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        started(world)
        world.studies.open_round(world.studies.get(NAME), plan())
        assert world.studies.abandon_rounds(NAME, "the study was aborted") == (plan(),)
        assert world.studies.abandon_rounds(NAME, "the study was aborted") == ()
        assert world.types()[-1] == "round.aborted"


# --- what is handed out ---


def test_models_and_aggregates_go_to_the_studys_own_hospitals(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        started(world)
        mine, theirs = SiteId(SITES[3]), SiteId("zebra-hospital")
        assert world.studies.hands_out(mine, MODEL) == STUDY.digest()
        world.studies.open_round(world.studies.get(NAME), plan())
        world.studies.close_round(world.studies.get(NAME), plan(), facts())
        assert world.studies.hands_out(mine, NEXT) == STUDY.digest()
        assert world.studies.hands_out(mine, Digest("d4" * 32)) == STUDY.digest()
        assert world.studies.hands_out(mine, Digest("e5" * 32)) is None
        for digest in (NEXT, Digest("d4" * 32)):
            assert world.studies.hands_out(theirs, digest) is None


def test_everything_is_there_after_opening_the_home_again(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        started(world)
        world.studies.open_round(world.studies.get(NAME), plan())
        before, log = world.studies.get(NAME), world.log()
    with coordinator_in(tmp_path) as world:
        assert world.studies.get(NAME) == before
        assert world.studies.open_plans(STUDY.digest()) == (plan().to_bytes(),)
        assert world.log() == log

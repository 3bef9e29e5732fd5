"""How far a study has come is written for the hospital's own eyes, seldom enough for rounds of milliseconds."""

import json

import numpy as np
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from consortium.contract.names import RoundNumber, StudyId
from consortium.wire.fact_log import FIELDS
from site_agent.cli import app
from site_agent.networks import build_from
from site_agent.plain_trainer import PlainTrainer
from site_agent.progress import LOGGED_EVERY_S, Progress, standings, time_left
from site_agent.trainer import DpTrainer
from site_agent.training_spec import PlainSpec
from site_agent.update import vector_of
from tests.fakes.site_world import make_home, small_study
from tests.fakes.training import entropy_of, patients, spec


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def progress(tmp_path, clock):
    return Progress(tmp_path / "progress", StudyId("lungs"), 20, device="cuda:0 (H200, 141 GiB), float32", clock=clock)


def test_it_says_which_step_and_how_long_the_rest_will_take(tmp_path, clock, progress):
    step_done = progress.training(RoundNumber(3), 10)
    clock.now = 4.0
    step_done(2)
    (found,) = standings(tmp_path)
    assert (found.study, found.doing, found.round, found.rounds) == ("lungs", "training", 3, 20)
    assert (found.steps_done, found.steps, found.seconds_left) == (2, 10, 16.0)
    assert found.device == "cuda:0 (H200, 141 GiB), float32"
    clock.now = 21.0
    progress.rests("uploaded", 3)
    (found,) = standings(tmp_path)
    assert (found.doing, found.steps, found.seconds_left) == ("uploaded", 0, None)


def test_it_writes_seldom_and_the_end_always(tmp_path, clock, progress):
    step_done = progress.training(RoundNumber(1), 3)
    for done in (1, 2, 3):
        clock.now += 0.001
        step_done(done)
    progress.rests("uploaded", 1)
    assert [(one.doing, one.steps_done) for one in standings(tmp_path)] == [("training", 0)]
    progress.rests("ended: complete", 1, for_good=True)
    assert [one.doing for one in standings(tmp_path)] == ["ended: complete"]


def test_a_training_that_nobody_waits_for_any_more_does_not_speak_for_the_next(tmp_path, clock, progress):
    old = progress.training(RoundNumber(1), 4)
    clock.now = 10.0
    progress.training(RoundNumber(2), 4)
    clock.now = 20.0
    old(3)
    (found,) = standings(tmp_path)
    assert (found.round, found.steps_done) == (2, 0)


def test_long_rounds_are_heard_of_in_the_log_and_short_ones_are_not(clock, progress):
    with capture_logs() as said:
        step_done = progress.training(RoundNumber(1), 5)
        for done in range(1, 6):
            clock.now += 0.6 * LOGGED_EVERY_S
            step_done(done)
        progress.training(RoundNumber(2), 5)(1)
    assert [(one["event"], one["step"], one["steps"]) for one in said] == [
        ("training.progress", 2, 5), ("training.progress", 4, 5),
    ]  # fmt: skip
    assert said[0]["seconds_left"] == round(3 * 0.6 * LOGGED_EVERY_S)
    assert set(said[0]) - {"log_level"} <= FIELDS


def test_a_disk_that_refuses_costs_no_round(tmp_path, clock):
    (tmp_path / "file").touch()
    progress = Progress(tmp_path / "file" / "progress", StudyId("lungs"), 20, clock=clock)
    with capture_logs() as said:
        progress.training(RoundNumber(1), 2)(1)
    assert [one["event"] for one in said] == ["progress.not_written"]


def test_a_damaged_file_is_left_out(tmp_path, progress):
    progress.rests("waiting", 1)
    (tmp_path / "progress" / "hearts.json").write_text("{}")
    (tmp_path / "progress" / "livers.json").write_text(json.dumps([1]))
    assert [one.study for one in standings(tmp_path)] == ["lungs"]
    assert standings(tmp_path / "nowhere") == ()


def test_times_are_said_as_people_say_them():
    assert [time_left(seconds) for seconds in (0.2, 42, 190, 7500)] == ["0 s", "42 s", "3 min 10 s", "2 h 5 min"]


def test_a_private_training_tells_after_each_step_and_trains_the_same():
    heard, training = [], spec(local_steps=3)
    model = vector_of(build_from(training.network))
    followed, alone = (DpTrainer(training, patients(30), entropy=entropy_of("progress")) for _ in range(2))
    found = followed.train_round(model, step_done=heard.append)
    assert heard == [1, 2, 3]
    assert np.array_equal(found.update, alone.train_round(model).update)


def test_a_training_without_privacy_tells_after_each_step():
    heard, training = [], spec()
    plain = PlainSpec(
        network=training.network, optimizer=training.optimizer, local_steps=2, batch_part=0.5,
        max_records_per_patient=1, declared_patients=30,
    )  # fmt: skip
    PlainTrainer(plain, patients(30)).train_round(vector_of(build_from(training.network)), step_done=heard.append)
    assert heard == [1, 2]


def test_the_command_shows_it_to_people_and_programs(tmp_path, clock):
    make_home(tmp_path, small_study())
    progress = Progress(tmp_path / "progress", StudyId("small-study"), 3, clock=clock)
    step_done = progress.training(RoundNumber(2), 1000)
    clock.now = 5.0
    step_done(10)
    shown = CliRunner().invoke(app, ["status", "--home", str(tmp_path)])
    assert shown.exit_code == 0
    assert all(word in shown.stdout for word in ("small-study", "2 of 3", "training", "10 of 1,000", "8 min 15 s"))
    (record,) = json.loads(CliRunner().invoke(app, ["status", "--home", str(tmp_path), "--json"]).stdout)
    assert (record["doing"], record["steps_done"], record["seconds_left"]) == ("training", 10, 495.0)
    progress.rests("measuring the model", 4)
    clock.now = 50.0
    progress.rests("measuring the model", 4)
    assert "after the last" in CliRunner().invoke(app, ["status", "--home", str(tmp_path)]).stdout

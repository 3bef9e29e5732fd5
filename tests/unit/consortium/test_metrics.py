"""The coordinator's figures for monitoring say what its state says."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from audit.errors import LogUnwritable
from consortium import metrics
from consortium.contract.names import Digest, SiteId
from consortium.studies import RoundClosedFacts
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.running_study import STUDY, plan, started
from tests.fakes.small_study import SITES


def samples(world):
    """Name and values of its labels in their order -> value, as Prometheus reads them."""

    class Figures:
        def collect(self):
            return metrics.figures(world.coordinator)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures())
    text = generate_latest(registry).decode()
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_rounds_hospitals_and_budgets_are_told_by_study(tmp_path):
    with coordinator_in(tmp_path) as world:
        started(world)
        row = world.studies.get(STUDY.id)
        assert world.studies.open_round(row, plan(1, 1))
        world.studies.abort_round(row, plan(1, 1), "a test")
        row = world.studies.get(STUDY.id)
        assert world.studies.open_round(row, plan(1, 2))
        two = tuple(SiteId(site) for site in SITES[:2])
        closed = RoundClosedFacts(
            survivors=two,
            transcript=Digest("c3" * 32),
            aggregate_sha256=Digest("d4" * 32),
            next_model_digest=Digest("b2" * 32),
            metrics={},
            seconds=1.5,
        )
        world.studies.close_round(row, plan(1, 2), closed)
        size = world.rooms.recorder.log.size
        with world.rooms.sessions.opened(SiteId(SITES[0])):
            world.coordinator.traffic.received(700)
            world.coordinator.traffic.sent(30)
            found = samples(world)
        name = STUDY.id
        assert (found["consortium_line_bytes_total", "in"], found["consortium_line_bytes_total", "out"]) == (700, 30)
        assert found["consortium_rounds_closed_total", name] == 1
        assert found["consortium_attempts_aborted_total", name] == 1
        assert found["consortium_dropouts_total", name] == 1
        assert found["consortium_rounds_seconds_total", name] == 1.5
        assert found["consortium_study_rounds_planned", name] == STUDY.training.rounds
        assert found["consortium_study_epsilon", name] == STUDY.privacy.epsilon
        assert found["consortium_study_state", "running", name] == 1
        assert found["consortium_study_state", "paused", name] == 0
        assert [found["consortium_site_connected", site] for site in SITES[:3]] == [1, 0, 0]
        assert found["consortium_log_entries",] == size
        assert found["consortium_log_writable",] == 1


def test_a_log_that_stopped_is_a_problem_and_its_words_say_which(tmp_path):
    with coordinator_in(tmp_path) as world:
        assert metrics.problems(world.coordinator) == ()
        world.rooms.recorder.written.stop(LogUnwritable(tmp_path, "no space left"))
        (line,) = metrics.problems(world.coordinator)
        assert "no space left" in line
        assert samples(world)["consortium_log_writable",] == 0

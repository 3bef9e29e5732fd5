"""What the coordinator tells a monitoring system: figures for Prometheus, and why it cannot work when it cannot.

Names follow https://prometheus.io/docs/practices/naming/: base units, counters end in _total. Everything here is in
`consortium status` too; there is nothing of a single hospital's data, for the coordinator has none.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from consortium import __version__
from consortium.contract.study import StudyFile
from consortium.coordinator import Coordinator
from consortium.studies import StudyState

_STUDY = ("study",)


def figures(coordinator: Coordinator) -> Iterator[Metric]:
    """Every family as of now. May be called from any thread; waits for nothing but the database."""
    rooms = coordinator.rooms
    about = GaugeMetricFamily("consortium_info", "Always 1.", labels=("consortium", "version"))
    about.add_metric((rooms.consortium, __version__), 1)
    yield about
    yield _gauge("consortium_log_entries", "Entries under the log's present checkpoint.", rooms.recorder.appended)
    yield _gauge("consortium_log_writable", "1 while the log takes entries.", rooms.recorder.written.stopped is None)
    uploaded = CounterMetricFamily("consortium_update_bytes", "Bytes of masked updates since the start.")
    uploaded.add_metric((), coordinator.update_bytes)
    yield uploaded
    passed = coordinator.traffic.passed()
    line = CounterMetricFamily("consortium_line_bytes", "Messages from and to hospitals.", labels=("way",))
    line.add_metric(("in",), passed.received_bytes)
    line.add_metric(("out",), passed.sent_bytes)
    yield line
    here = rooms.sessions.connected()
    connected = GaugeMetricFamily("consortium_site_connected", "1 while the agent has a session.", labels=("site",))
    for site in rooms.sites.standing():
        connected.add_metric((site.site,), site.site in here)
    yield connected
    yield from _of_studies(coordinator)


def _of_studies(coordinator: Coordinator) -> Iterable[Metric]:
    rooms = coordinator.rooms
    state = GaugeMetricFamily("consortium_study_state", "1 for the state it is in.", labels=("study", "state"))
    phase = GaugeMetricFamily("consortium_study_phase", "1 for the phase it is in.", labels=("study", "phase"))
    planned = GaugeMetricFamily("consortium_study_rounds_planned", "Rounds of the study.", labels=_STUDY)
    witnessed = GaugeMetricFamily("consortium_study_witnessed_entries", "Entries that enough cosigned.", labels=_STUDY)
    allowed = GaugeMetricFamily("consortium_study_epsilon", "Epsilon that the study asks for.", labels=_STUDY)
    spent = GaugeMetricFamily("consortium_site_epsilon_spent", "As the hospital signed it.", labels=("study", "site"))
    closed = CounterMetricFamily("consortium_rounds_closed", "Rounds with a result.", labels=_STUDY)
    aborted = CounterMetricFamily("consortium_attempts_aborted", "Attempts without one.", labels=_STUDY)
    dropouts = CounterMetricFamily("consortium_dropouts", "Participants that no sum has.", labels=_STUDY)
    seconds = CounterMetricFamily("consortium_rounds_seconds", "Time that closed rounds took.", labels=_STUDY)
    for row in rooms.studies.all():
        study, driver = _study(row.document), coordinator.drivers.get(row.study)
        name = (row.study,)
        history = rooms.studies.history(row.digest)
        for one in StudyState:
            state.add_metric((row.study, one.value), row.state == one)
        if driver is not None:
            phase.add_metric((row.study, driver.progress.phase), 1)
        planned.add_metric(name, study.training.rounds)
        witnessed.add_metric(name, rooms.witnesses.covered(study.sites.roster, study.cosignatures_needed))
        if study.is_private:
            allowed.add_metric(name, study.privacy.epsilon)
        for site, epsilon in rooms.studies.spent(row.digest).items():
            spent.add_metric((row.study, site), epsilon)
        closed.add_metric(name, len(history))
        aborted.add_metric(name, rooms.studies.aborted_attempts(row.digest))
        dropouts.add_metric(name, sum(len(one["participants"]) - len(one["survivors"]) for one in history))
        seconds.add_metric(name, sum(one["seconds"] for one in history))
    return (state, phase, planned, witnessed, allowed, spent, closed, aborted, dropouts, seconds)


def problems(coordinator: Coordinator) -> Sequence[str]:
    """Why it can take no entry and so do no work; empty while it can."""
    stopped = coordinator.rooms.recorder.written.stopped
    return () if stopped is None else (f"the log takes no entries: {stopped}",)


@lru_cache(maxsize=64)
def _study(document: bytes) -> StudyFile:
    return StudyFile.from_document(document)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)

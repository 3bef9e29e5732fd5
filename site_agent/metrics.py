"""What an agent tells its hospital's own monitoring: figures for Prometheus, and why it is not at work when it is not.

They are this hospital's and go nowhere by themselves. Nothing of a patient is in them, and no number of patients.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from consortium import __version__
from site_agent.agent import Agent
from site_agent.budget import DatasetBudget, budgets
from site_agent.home import AgentHome
from site_agent.ledger import Ledger

BUDGETS_EVERY_S = 60.0
"""What was spent is composed at most this often: it costs more than everything else here."""


class AgentFigures:
    """The figures of a running agent; may be asked from any thread."""

    def __init__(
        self, home: AgentHome, ledger: Ledger, agent: Agent, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._home, self._ledger, self._agent = home, ledger, agent
        self._monotonic = monotonic
        self._budgets: tuple[float, tuple[DatasetBudget, ...]] | None = None

    def __call__(self) -> Iterator[Metric]:
        """Every family as of now; budgets are at most a minute old."""
        about = GaugeMetricFamily("site_agent_info", "Always 1.", labels=("site", "version"))
        about.add_metric((self._home.site, __version__), 1)
        yield about
        connected = self._agent.line.is_connected
        yield GaugeMetricFamily("site_agent_connected", "1 while there is a session.", value=connected)
        cosigned = self._agent.cosigned_entries
        yield GaugeMetricFamily("site_agent_cosigned_entries", "Entries of the log it has cosigned.", value=cosigned)
        sent = CounterMetricFamily("site_agent_sent_bytes", "What has left since the start, by kind.", labels=("kind",))
        for kind, size_bytes in sorted(self._agent.line.sent_bytes.items()):
            sent.add_metric((kind,), size_bytes)
        yield sent
        passed = self._agent.line.traffic.passed()
        line = CounterMetricFamily("site_agent_line_bytes", "Messages to and from the coordinator.", labels=("way",))
        line.add_metric(("up",), passed.sent_bytes)
        line.add_metric(("down",), passed.received_bytes)
        yield line
        yield from self._of_datasets()

    def _of_datasets(self) -> Iterator[Metric]:
        labels = ("dataset",)
        spent = GaugeMetricFamily("site_agent_epsilon_spent", "Of all studies on it, composed.", labels=labels)
        left = GaugeMetricFamily("site_agent_epsilon_left", "What may still be reserved, at most.", labels=labels)
        waiting = GaugeMetricFamily("site_agent_reserved_rounds", "Reserved and never settled.", labels=labels)
        rounds = CounterMetricFamily("site_agent_rounds", "Attempts that counted.", labels=("dataset", "study"))
        for one in self._composed():
            spent.add_metric((one.dataset,), one.epsilon)
            left.add_metric((one.dataset,), one.left)
            waiting.add_metric((one.dataset,), one.reserved_rounds)
            for study in one.studies:
                if study.training is not None:
                    rounds.add_metric((one.dataset, study.study), study.training.rounds)
        yield from (spent, left, waiting, rounds)

    def _composed(self) -> tuple[DatasetBudget, ...]:
        now = self._monotonic()
        if self._budgets is None or now - self._budgets[0] >= BUDGETS_EVERY_S:
            self._budgets = (now, budgets(self._home.config, self._ledger))
        return self._budgets[1]

    def problems(self) -> Sequence[str]:
        """Why it is not at work; empty while it is."""
        return () if self._agent.line.is_connected else ("there is no session with the coordinator",)

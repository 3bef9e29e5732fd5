"""What trains where a study promises patients no differential privacy, whoever takes the steps (torch).

A class of its own, so that no other trainer is ever taken for one whose rounds are not charged to the ledger.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from privacy.dp.events import DpEvent
from site_agent.device import Compute
from site_agent.local_steps import FRESH, LocalStart, TrainedUpdate
from site_agent.progress import StepDone, unheard


class ExactTrainer(ABC):
    """All rounds of one study at one site, each of which gives an update without noise."""

    engine_name: ClassVar[str]
    events: ClassVar[tuple[DpEvent, ...]] = ()
    """No privacy is spent, because none is promised."""
    compute: Compute

    @abstractmethod
    def train_round(
        self, model: NDArray[np.float32], start: LocalStart = FRESH, step_done: StepDone = unheard
    ) -> TrainedUpdate:
        """Train from float32[d], the global model in the network's layout; raises TrainingFailed."""

    def abort(self) -> None:  # noqa: B027 - most have nothing to do
        """Nobody waits for the training under way any more; raises TrainingFailed."""

    def finalize(self) -> None:  # noqa: B027 - most have nothing to do
        """The study is over here; raises TrainingFailed."""

"""What a hospital carries from round to round: what it keeps, its control variate, its optimizer's state (torch).

All of it is on disk before the update that goes with it can leave; see `round_files.py`. A study that has neither
`training.site_kept` nor SCAFFOLD nor `training.optimizer_state` carries nothing.

| carried | a round starts from |
|---|---|
| kept parameters | those of the last earlier round that was trained here |
| control variate, optimizer's state | those of the last earlier round whose sum this hospital helped to open |

So a round that is trained again, for another attempt or after a crash at any moment, starts from what it started from
before: what it writes has its own number, and no round looks at its own file.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consortium.contract.global_model import GlobalModel, ParameterLayout
from consortium.contract.study import StudyFile
from site_agent.control_variates import ControlVariates
from site_agent.local_steps import LocalStart, TrainedUpdate
from site_agent.networks import outline_of
from site_agent.optimizer_state import opened, sealed, state_layout
from site_agent.round_files import RoundFiles
from site_agent.training_spec import network_spec_of, optimizer_spec_of
from site_agent.update import kept_layout, named_parameters


class Carried:
    """One study's, in a folder of its own.

    Args:
        study: The study.
        folder: Of this study, in the agent's home.
        model: Any global model of the study, for the layout of its parameters.
        was_released: Whether this hospital released shares of a round's sum.
    """

    def __init__(
        self, study: StudyFile, folder: Path, *, model: GlobalModel, was_released: Callable[[int], bool]
    ) -> None:
        training = study.training
        self._kept: RoundFiles | None = None
        self._control: ControlVariates | None = None
        if training.site_kept is not None:
            self._kept = RoundFiles(folder / "kept", kept_layout(outline_of(network_spec_of(study))))
        if training.algorithm == "scaffold":
            travel = training.local_steps * training.optimizer.learning_rate
            files = RoundFiles(folder / "control", model.parameters)
            self._control = ControlVariates(files, travel=travel, was_released=was_released)
        self._digest, self._was_released = study.digest(), was_released
        self._optimizer: RoundFiles | None = None
        self._optimizer_layout: ParameterLayout = ()
        if training.optimizer_state is not None:
            trained = [(name, tuple(p.shape)) for name, p in named_parameters(outline_of(network_spec_of(study)))]
            self._optimizer_layout = state_layout(tuple(trained), optimizer_spec_of(study))
            self._optimizer = RoundFiles(folder / "optimizer", self._optimizer_layout)

    def start(self, round_number: int, model: GlobalModel) -> LocalStart:
        """What this hospital brings to a round besides the model; raises TrainingFailed."""
        shift = None if self._control is None else self._control.shift(round_number, model)
        return LocalStart(
            round=round_number, kept=self.kept(round_number), shift=shift, optimizer=self._state(round_number)
        )

    def kept(self, round_number: int) -> NDArray[np.float32] | None:
        """The kept parameters that go with the model a round starts from; None if they are as the study builds them."""
        return None if self._kept is None else self._kept.newest_before(round_number)

    def _state(self, round_number: int) -> NDArray[np.float32] | None:
        if self._optimizer is None:
            return None
        return self._optimizer.newest_before(
            round_number,
            self._was_released,
            lambda number, whole: opened(whole, self._digest, number, self._optimizer_layout),
        )

    def after(self, round_number: int, model: GlobalModel, trained: TrainedUpdate) -> None:
        """Write down what the round made here, before its update is masked; raises OSError."""
        if self._kept is not None and trained.kept is not None:
            self._kept.save(round_number, trained.kept)
        if self._optimizer is not None and trained.optimizer is not None:
            self._optimizer.save(
                round_number, sealed(trained.optimizer, self._digest, round_number, self._optimizer_layout)
            )
        if self._control is not None:
            self._control.after(round_number, model, trained.update.astype(np.float32, copy=False))

"""A training room that computes nothing: whatever it is asked for is there already. Without torch.

An agent with it is the whole agent but for the training: keys, shares, masks, its log of what left, its copy of the
log, its databases. It is for studies without differential privacy, whose agents compose no epsilon.
"""

import os
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from consortium.contract.global_model import GlobalModel, ParameterLayout, parameter_count
from consortium.contract.networks import Mlp
from consortium.contract.study import StudyFile
from site_agent.progress import StepDone
from site_agent.tally import Scores
from site_agent.training_room import Equipped, LocalFigures, Order, RoomLost, RoundJob, Seen, Tally, Trained
from site_agent.training_spec import PlainSpec, TrainingSpec
from tests.benchmarks.bench_study import INPUTS, PATIENTS

TEST_PATIENTS = 18


class ScriptedRoom:
    """`training_room.TrainingRoom`. Mutable: it has a vector that it gives away again and again."""

    def __init__(self, order: Order) -> None:
        self._parameters = mlp_parameters(order.study)
        # This process' own, so that no two hospitals send the same.
        random = np.random.default_rng(os.getpid())
        self._update = random.uniform(-1, 1, parameter_count(self._parameters)).astype(np.float32)

    @property
    def lost(self) -> RoomLost | None:
        """It is there as long as this process is."""
        return None

    def look(self) -> Seen:
        """See `TrainingRoom`."""
        return Seen(
            patients=PATIENTS,
            test_patients=TEST_PATIENTS,
            validation_patients=0,
            parameters=self._parameters,
            device="nothing",
        )

    def identifiers(self) -> Iterator[str]:
        """See `TrainingRoom`."""
        return (f"p{patient}" for patient in range(PATIENTS))

    def equip(self, _spec: TrainingSpec | PlainSpec) -> Equipped:
        """See `TrainingRoom`."""
        model = GlobalModel(self._parameters, np.zeros_like(self._update))
        return Equipped(engine="none", audit=None, first_model=model)

    def train(self, _job: RoundJob, step_done: StepDone) -> Trained:
        """See `TrainingRoom`."""
        step_done(1)
        local = LocalFigures(sampled_patients=(), clipped_patients=0, broken_patients=0)
        return Trained(update=self._update, noisy_steps=0, local=local)

    def measure(self, _round_number: int, _model: GlobalModel) -> Tally:
        """See `TrainingRoom`."""
        positive = np.arange(TEST_PATIENTS) % 2 == 0
        return Scores(
            scores=np.where(positive, 0.7, 0.3), positive=positive, groups=np.zeros((TEST_PATIENTS, 0), np.int64)
        )

    def finish(self) -> None:
        """See `TrainingRoom`."""

    def stop(self) -> None:
        """See `TrainingRoom`."""


def mlp_parameters(study: StudyFile) -> ParameterLayout:
    """Names and shapes as a perceptron of the study's widths would have them, sorted."""
    assert isinstance(study.model, Mlp)
    widths = (len(INPUTS), *study.model.args.hidden, 1)
    weights = [(f"layer-{at}.weight", (above, below)) for at, (below, above) in enumerate(pairwise(widths))]
    biases = [(f"layer-{at}.bias", (above,)) for at, above in enumerate(widths[1:])]
    return tuple(sorted([*weights, *biases]))

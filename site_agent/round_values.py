"""What a hospital contributes to one round, before it is encoded: an update, its weight, exact metrics.

Training is charged to the ledger before it starts and settled with what was executed. One update is trained for one
global model: an attempt that aborts before any share was released leaves it for the next attempt (ADR 4). In a study
without differential privacy nothing is charged, and the update is no more private than the sum it becomes part of.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from consortium.contract.global_model import GlobalModel
from consortium.contract.layout import LaneName, update_lanes, weight_max
from consortium.contract.names import Digest
from consortium.contract.plan import RoundKind, RoundPlan
from privacy.encoding import Layout
from privacy.lazy_numpy import np
from site_agent.errors import TrainingFailed
from site_agent.evaluation import Evaluation
from site_agent.ledger import Ledger
from site_agent.policy import Refuse, limits_of
from site_agent.preparation import Declined, Prepared
from site_agent.private_figures import PrivateFigures
from site_agent.progress import Progress, StepDone, unheard
from site_agent.signed_events import SignedEvents
from site_agent.site_file import Policy
from site_agent.spend_entries import sign_spends
from site_agent.tally import Scores
from site_agent.training_room import LocalFigures, PrivateUpdate, RoundJob, Trained
from site_agent.training_spec import TrainingSpec
from site_agent.update_lanes import lanes_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Lanes: TypeAlias = "Mapping[str, NDArray[Any]]"

_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contribution:
    """What one attempt gets. It prints without its values."""

    lanes: Lanes  # to be encoded and masked; the update's are views of one vector
    clipped: float  # the part of the update's values that lies beyond its clip; 0 without an update; stays here
    evaluation: Evaluation | None  # of the model the round starts from, in measured rounds; exact, stays here

    def __repr__(self) -> str:
        return "Contribution()"


@dataclass(frozen=True, slots=True)
class _Key:
    round: int
    model_digest: Digest


class RoundValues:
    """Computes one round's contribution, and keeps its private update until it is used. Mutable: it holds that one."""

    def __init__(
        self,
        prepared: Prepared,
        ledger: Ledger,
        events: SignedEvents,
        *,
        keep: Callable[[LocalFigures], None] | None = None,  # where figures that never leave are written down
        released_rounds: Callable[[], frozenset[int]] = frozenset,  # for whose sums this hospital released shares
        progress: Progress | None = None,  # for this hospital's own eyes
    ) -> None:
        self._prepared = prepared
        self._keep = keep
        self._released_rounds = released_rounds
        self._progress = progress
        self._ledger = ledger
        self._events = events
        self._key: _Key | None = None
        self._figures = PrivateFigures(
            ledger, events, study=prepared.study, digest=prepared.digest, dataset=prepared.dataset
        )  # of studies with a budget for them
        self._update: asyncio.Task[PrivateUpdate] | None = None

    async def contribution(self, plan: RoundPlan, model: GlobalModel, policy: Policy) -> Contribution:
        """The values of every lane of the plan's layout.

        Giving up waiting loses nothing: training that has begun goes on, for the next attempt to use.

        Raises:
            BudgetExceeded: The hospital's cap does not allow the round; nothing was trained.
            TrainingFailed: The weight is not one the study allows; or see there.
            Declined: See there.
        """
        values: dict[str, NDArray[Any]] = {}
        clipped = 0.0
        if plan.kind is RoundKind.TRAIN:
            weight, largest = self._weight, weight_max(self._prepared.study)
            # 5: the sum of updates is divided by the sum of weights; one that counts for nothing is never masked.
            if not 0 < weight <= largest:
                raise TrainingFailed("an update would not have a weight above 0 and within what the study allows")
            update = await self._update_for(plan, model, policy)
            lanes, clipped = await asyncio.to_thread(_weighted_lanes, update, weight / largest, plan.layout)
            values |= lanes
            values[LaneName.WEIGHT] = np.array([weight])
        names = {lane.name for lane in plan.layout.lanes}
        if LaneName.TEST_PATIENTS not in names:
            return Contribution(lanes=values, clipped=clipped, evaluation=None)
        if self._progress is not None:
            self._progress.rests("measuring the model", plan.round)
        evaluation = await asyncio.to_thread(self._evaluate, plan, model)
        if self._prepared.study.evaluation.privacy is not None:
            assert isinstance(evaluation.scores, Scores)  # a rule of the study file: a budget is for binary labels
            values |= await asyncio.to_thread(self._figures.lanes, plan, evaluation.scores, policy)
            return Contribution(lanes=values, clipped=clipped, evaluation=evaluation)
        for name, figures in evaluation.lanes().items():
            if name in names:
                values[name] = figures if policy.share_exact_metrics else np.zeros_like(figures)
        return Contribution(lanes=values, clipped=clipped, evaluation=evaluation)

    def released(self) -> None:
        """Shares for this model's sum are leaving: the update must not be masked a second time."""
        self._key = self._update = None

    def uploading(self) -> None:
        """The masked update is leaving. One that is private only as part of a sum is used up by that (ADR 14).

        Others may open the sum without this site, which need not hear of it. In a second sum, with fresh noise of
        theirs and the same of this site's, its patients would have less than they were promised. Without any noise a
        second sum over others would be one equation more about the same update.
        """
        if self._prepared.study.is_distributed or not self._prepared.study.is_private:
            self._key = self._update = None

    def close(self) -> None:
        """The study is over here: whatever is being computed ends, and a hospital's own class is told."""
        self._prepared.room.finish()

    def stop(self) -> None:
        """Nothing more is computed here, from now on."""
        self._prepared.room.stop()

    @property
    def _weight(self) -> float:
        if self._prepared.study.training.weighting == "patients":
            return float(self._prepared.spec.declared_patients)
        return 1.0

    async def _update_for(self, plan: RoundPlan, model: GlobalModel, policy: Policy) -> PrivateUpdate:
        key = _Key(plan.round, plan.model_digest)
        while self._update is None or key != self._key or _failed(self._update):
            if self._update is None or self._update.done():
                self._key = key
                self._update = asyncio.create_task(asyncio.to_thread(self._train, plan, model, policy))
                self._update.add_done_callback(_looked_at)
                break
            # One training at a time. After it, look again: somebody else may have begun this round's meanwhile.
            await asyncio.wait({self._update})
        return await asyncio.shield(self._update)

    def _train(self, plan: RoundPlan, model: GlobalModel, policy: Policy) -> PrivateUpdate:
        prepared = self._prepared
        job = RoundJob(round=plan.round, model=model, released=self._released_before(plan))
        if isinstance(prepared.spec, TrainingSpec):
            trained = self._train_privately(prepared.spec, plan, job, policy)
        else:
            trained = prepared.room.train(job, self._followed(plan))
        if self._keep is not None:
            with contextlib.suppress(OSError):  # the hospital's own figures: that a disk refuses them costs no round
                self._keep(trained.local)
        return trained.update

    def _released_before(self, plan: RoundPlan) -> frozenset[int]:
        """Rounds whose sums this hospital helped to open; asked only where something is carried that hangs on them."""
        training = self._prepared.study.training
        if training.algorithm != "scaffold" and training.optimizer_state is None:
            return frozenset()
        return frozenset(number for number in self._released_rounds() if number < plan.round)

    def _train_privately(self, spec: TrainingSpec, plan: RoundPlan, job: RoundJob, policy: Policy) -> Trained:
        """Train, charged before and settled after."""
        prepared = self._prepared
        event = spec.privacy.round_event()
        reservation = self._ledger.reserve(
            dataset=prepared.dataset,
            study=prepared.study.study_id,
            study_digest=prepared.digest,
            round_number=plan.round,
            attempt=plan.attempt,
            event=event,
            limits=limits_of(policy, prepared.study),
        )
        if not reservation.fresh:
            raise Declined(Refuse("ledger", "this attempt was charged before, and its training may have happened"))
        trained = prepared.room.train(job, self._followed(plan))
        if trained.noisy_steps != spec.privacy.local_steps:  # what was reserved stays counted
            raise TrainingFailed(
                f"{trained.noisy_steps} steps were executed where {spec.privacy.local_steps} were planned"
            )
        self._ledger.settle(reservation, event)
        sign_spends(self._ledger, self._events, prepared.study, prepared.digest, prepared.dataset)
        return trained

    def _followed(self, plan: RoundPlan) -> StepDone:
        """A round's training begins, for whoever looks at this hospital's screen."""
        if self._progress is None:
            return unheard
        return self._progress.training(plan.round, self._prepared.study.training.local_steps)

    def _evaluate(self, plan: RoundPlan, model: GlobalModel) -> Evaluation:
        prepared = self._prepared
        return Evaluation(scores=prepared.room.measure(plan.round, model), wanted=prepared.study.evaluation)


def _weighted_lanes(update: PrivateUpdate, share: float, layout: Layout) -> tuple[dict[str, PrivateUpdate], float]:
    """The update times weight / W_max in its lanes, and which part of its values lies beyond their clip."""
    # Uniform weights are exactly 1 of 1, so that the update is not touched.
    vector = update if share == 1 else update * np.float32(share)
    lanes = lanes_of(vector, layout)
    beyond = sum(_beyond(lanes[lane.name], lane.clip) for lane in update_lanes(layout))
    return lanes, beyond / vector.size


def _beyond(values: PrivateUpdate, clip: float) -> int:
    """How many values the clip will cut; in blocks, so that no second copy of a long update is made."""
    blocks = (values[start : start + _BLOCK] for start in range(0, values.size, _BLOCK))
    return sum(int(np.count_nonzero(np.abs(block) > clip)) for block in blocks)


def _failed(task: asyncio.Task[PrivateUpdate]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _looked_at(task: asyncio.Task[PrivateUpdate]) -> None:
    """Training that failed when nobody waited for it any more is no news: whoever wants its update trains again."""
    if not task.cancelled():
        task.exception()

"""Test figures under a budget of their own: noise on this hospital's histograms, before anything is masked.

`consortium.contract.figures_budget` says how much noise and why. Every fresh draw is charged to the ledger before it is
made, as a study of its own (`budget_digest`), and kept: another attempt at the same model gets the same noisy figures,
which costs nothing more however often they are seen.

Nothing is withheld by size here, and there is no cover: whether a cell is small would itself hang on single patients.
"""

import hashlib
import os
import threading
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from consortium.contract.figures_budget import mechanism_of, noisy_lanes
from consortium.contract.layout import LaneName
from consortium.contract.names import Digest, StudyId
from consortium.contract.plan import RoundPlan
from consortium.contract.study import StudyFile
from consortium.contract.subgroups import all_cells
from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import noisy_share
from privacy.dp.randomness import CryptographicGenerator, Entropy
from privacy.errors import BudgetExceeded
from site_agent.ledger import Ledger, Limits
from site_agent.policy import Refuse
from site_agent.preparation import Declined
from site_agent.site_file import Policy
from site_agent.tally import Scores

NAME_CHARACTERS_MAX = 64
_SUFFIX = "-test-figures"

DELTA_REFUSED = Refuse("max_delta", "the delta of the test figures is more than this hospital allows")
CHARGED_BEFORE = Refuse("ledger", "the test figures of this attempt were charged before, and may have been seen")


def budget_digest(study: Digest) -> Digest:
    """The name under which a ledger keeps a study's test figures, beside the study's own digest."""
    return Digest(hashlib.sha256(b"consortium/test-figures/v1\n" + study.encode()).hexdigest())


def ledger_name(study: StudyId) -> StudyId:
    """What that line is called for people: a study's name too, since certificates list what else a dataset spent."""
    return StudyId(f"{study[: NAME_CHARACTERS_MAX - len(_SUFFIX)].rstrip('-')}{_SUFFIX}")


def admit_figures(
    ledger: Ledger, *, study: StudyFile, digest: Digest, dataset: str, policy: Policy, training: DpEvent
) -> None:
    """Whether the budget of a study's test figures, if it has one, fits this hospital's limits. Writes nothing.

    It must fit beside what the dataset has spent, and beside all of the study's own training.

    Raises:
        BudgetExceeded: It does not.
        Declined: Its delta is too large.
    """
    if study.evaluation.privacy is None:
        return
    event = DpEvent(mechanism=mechanism_of(study))
    limits = _limits(study, policy)
    ledger.admit(dataset=dataset, study_digest=budget_digest(digest), event=event, limits=limits)
    cap = limits.total_epsilon
    together = accountant.filter_epsilon([training, event], delta=limits.total_delta, cap=cap)
    if together > cap:
        raise BudgetExceeded(together, 0.0, cap, dataset)


class PrivateFigures:
    """Draws and charges. Mutable: it holds the noisy figures of the last model. Safe to use from several threads."""

    def __init__(
        self, ledger: Ledger, *, study: StudyFile, digest: Digest, dataset: str, entropy: Entropy = os.urandom
    ) -> None:
        self._ledger = ledger
        self._study = study
        self._digest = digest
        self._dataset = dataset
        self._generator = CryptographicGenerator(entropy)
        self._lock = threading.Lock()
        self._model: Digest | None = None
        self._lanes: Mapping[str, NDArray[np.float64]] = {}

    def lanes(self, plan: RoundPlan, scores: Scores, policy: Policy) -> Mapping[str, NDArray[np.float64]]:
        """The metric lanes of a round, with noise; the same ones as long as the global model is the same.

        Raises:
            BudgetExceeded: The hospital's cap does not allow another draw; nothing was drawn.
            Declined: A process that died has charged this attempt, and may have sent its figures.
        """
        with self._lock:
            if self._model != plan.model_digest:
                self._charge(plan, policy)
                self._lanes = self._draw(plan, scores)
                self._model = plan.model_digest
            return self._lanes

    def _charge(self, plan: RoundPlan, policy: Policy) -> None:
        event = DpEvent(mechanism=mechanism_of(self._study)).with_steps(1)
        reservation = self._ledger.reserve(
            dataset=self._dataset,
            study=ledger_name(self._study.study_id),
            study_digest=budget_digest(self._digest),
            round_number=plan.round,
            attempt=plan.attempt,
            event=event,
            limits=_limits(self._study, policy),
        )
        if not reservation.fresh:
            raise Declined(CHARGED_BEFORE)
        self._ledger.settle(reservation, event)

    def _draw(self, plan: RoundPlan, scores: Scores) -> Mapping[str, NDArray[np.float64]]:
        lanes, counts = noisy_lanes(plan.layout), counts_of(scores, self._study)
        scale = lanes[0].scale  # the same for all of them: they have one clip
        exact = np.concatenate([counts[lane.name] for lane in lanes]).astype(np.int64) * int(scale)
        most = float(self._study.aggregation.max_patients_per_site)
        noisy = noisy_share(exact, mechanism_of(self._study), most, self._generator).astype(np.float64) / scale
        parts = np.split(noisy, np.cumsum([lane.length for lane in lanes])[:-1])
        drawn = {lane.name: part for lane, part in zip(lanes, parts, strict=True)}
        return drawn | {LaneName.SITES_REPORTING.value: np.ones(1)}


def counts_of(scores: Scores, study: StudyFile) -> Mapping[str, NDArray[np.int64]]:
    """The counts that noise is added to: each test patient in one, or one bin, of every kind."""
    wanted = study.evaluation
    everybody = scores.histograms(wanted.score_bins)
    cells = [scores.of_cell(*cell).histograms(wanted.cell_bins) for cell in all_cells(wanted.subgroups)]
    none = [np.zeros(0, dtype=np.int64)]
    return {
        LaneName.TEST_PATIENTS.value: np.array([len(scores)], dtype=np.int64),
        LaneName.SCORES_POSITIVE.value: everybody[0],
        LaneName.SCORES_NEGATIVE.value: everybody[1],
        LaneName.SUBGROUP_POSITIVE.value: np.concatenate([one[0] for one in cells] or none),
        LaneName.SUBGROUP_NEGATIVE.value: np.concatenate([one[1] for one in cells] or none),
    }


def _limits(study: StudyFile, policy: Policy) -> Limits:
    """What the figures are held against: their own epsilon, or less, at their own delta, and the dataset's total."""
    wanted = study.evaluation.privacy
    assert wanted is not None  # asked only for studies with such a budget
    if wanted.delta > policy.max_delta:
        raise Declined(DELTA_REFUSED)
    return Limits(
        study_epsilon=min(wanted.epsilon, policy.max_epsilon_per_study),
        study_delta=wanted.delta,
        total_epsilon=policy.max_epsilon_total,
        total_delta=policy.max_delta,
    )

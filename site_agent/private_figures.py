"""Test figures under a budget of their own: noise on this hospital's histograms, before anything is masked.

`consortium.contract.figures_budget` says how much noise and why. Every fresh draw is charged to the ledger (in a line
of its own, `figures_account.py`) and signed for the log (`figures.spent`) before it is made, and kept: another attempt
at the same model gets the same noisy figures, which costs nothing more however often they are seen.

Nothing is withheld by size here, and there is no cover: whether a cell is small would itself hang on single patients.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from consortium.contract.figures_budget import mechanism_of, noisy_lanes
from consortium.contract.layout import LaneName
from consortium.contract.names import Digest
from consortium.contract.plan import RoundPlan
from consortium.contract.study import StudyFile
from consortium.contract.subgroups import all_cells
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import noisy_share
from privacy.dp.randomness import CryptographicGenerator, Entropy
from privacy.encoding import Layout
from privacy.lazy_numpy import np
from site_agent.figures_account import budget_digest, figures_limits, ledger_name
from site_agent.ledger import Ledger
from site_agent.policy import Refuse
from site_agent.preparation import Declined
from site_agent.signed_events import SignedEvents
from site_agent.site_file import Policy
from site_agent.spend_entries import sign_figures
from site_agent.tally import Scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHARGED_BEFORE = Refuse("ledger", "the test figures of this attempt were charged before, and may have been seen")


class PrivateFigures:
    """Draws and charges. Mutable: it holds the noisy figures of the last model. Safe to use from several threads."""

    def __init__(
        self,
        ledger: Ledger,
        events: SignedEvents,
        *,
        study: StudyFile,
        digest: Digest,
        dataset: str,
        entropy: Entropy = os.urandom,
    ) -> None:
        self._ledger = ledger
        self._events = events
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
            limits=figures_limits(policy, self._study),
        )
        if not reservation.fresh:
            raise Declined(CHARGED_BEFORE)
        self._ledger.settle(reservation, event)
        # Signed before anything is drawn: figures that nobody could charge again after a loss never leave.
        sign_figures(self._ledger, self._events, self._study, self._digest, self._dataset)

    def _draw(self, plan: RoundPlan, scores: Scores) -> Mapping[str, NDArray[np.float64]]:
        return drawn_lanes(self._study, plan.layout, scores, self._generator)


def drawn_lanes(
    study: StudyFile, layout: Layout, scores: Scores, generator: CryptographicGenerator
) -> Mapping[str, NDArray[np.float64]]:
    """The metric lanes of a round with fresh noise; whoever calls this has charged it, or has patients nobody knows.

    Args:
        study: With a budget for its figures.
        layout: Of the round.
        scores: Of the patients that are measured.
        generator: Where noise comes from.
    """
    lanes, counts = noisy_lanes(layout), counts_of(scores, study)
    scale = lanes[0].scale  # the same for all of them: they have one clip
    exact = np.concatenate([counts[lane.name] for lane in lanes]).astype(np.int64) * int(scale)
    most = float(study.aggregation.max_patients_per_site)
    noisy = noisy_share(exact, mechanism_of(study), most, generator).astype(np.float64) / scale
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

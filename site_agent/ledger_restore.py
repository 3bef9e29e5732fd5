"""A ledger that was lost or is too old, made whole again from the entries this hospital signed.

Every `dp.spent` and `figures.spent` says which attempt cost what, as an event that can be counted again; the agent
keeps all that it signed. What a ledger held beyond that was reserved by a process that died before it signed, and
nothing of it ever left the building.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from audit import entries
from consortium.contract.names import Digest, StudyId
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledDiscreteGaussian, PoissonSampledGaussian
from site_agent.figures_account import budget_digest, ledger_name
from site_agent.ledger import Ledger, Spend
from site_agent.spend_entries import SpendEntry
from site_agent.store import Store


@dataclass(slots=True, kw_only=True)
class _Signed:
    """One line of the ledger, as the entries have it; filled entry by entry."""

    delta: float = 1.0
    spends: list[Spend] = field(default_factory=list)

    def add(self, entry: SpendEntry, clip_norm_l2: float) -> None:
        self.delta = entry.delta
        event = _event(entry.event, clip_norm_l2)
        self.spends.append(Spend(round=entry.round, attempt=entry.attempt, event=event))


def restore_ledger(store: Store, ledger: Ledger) -> int:
    """Count again what was signed and is not in the ledger; returns how many attempts. Nothing is ever taken away."""
    digests: dict[str, Digest] = {}
    for decision in sorted(store.decisions(), key=lambda made: (made.decision == "approved", made.at)):
        digests[decision.study] = decision.study_digest
    training, figures = _signed(entries.parse_entry(data) for data in store.signed_entries())
    lines = [(StudyId(study), _digest_of(study, digests), dataset, one) for (study, dataset), one in training.items()]
    for (study, dataset), one in figures.items():
        lines.append((ledger_name(StudyId(study)), budget_digest(_digest_of(study, digests)), dataset, one))
    return sum(
        ledger.restore(dataset=dataset, study=name, study_digest=digest, delta=found.delta, spends=found.spends)
        for name, digest, dataset, found in lines
    )


def _digest_of(study: str, digests: Mapping[str, Digest]) -> Digest:
    """A study that nothing is known of any more still counts, under a name that no study has."""
    return digests.get(study, Digest(f"unknown:{study}"))


_Lines: TypeAlias = dict[tuple[str, str], _Signed]
"""By study and dataset."""


def _signed(found: Iterable[entries.Entry]) -> tuple[_Lines, _Lines]:
    """What training and what test figures cost, of every study on every dataset."""
    training: _Lines = {}
    figures: _Lines = {}
    clips: dict[tuple[str, str], float] = {}  # no part of a Gaussian's cost, so its entries do not say it
    for entry in found:
        if isinstance(entry, entries.DpConfigured):
            clips[entry.study, entry.dataset] = entry.clip_norm_l2
        if isinstance(entry, entries.DpSpent | entries.FiguresSpent):
            lines = training if isinstance(entry, entries.DpSpent) else figures
            key = entry.study, entry.dataset
            lines.setdefault(key, _Signed()).add(entry, clips.get(key, 1.0))
    return training, figures


def _event(logged: entries.PrivacyEvent, clip_norm_l2: float) -> DpEvent:
    """The ledger's event of a log entry's: the reverse of `logged_event`."""
    match logged:
        case entries.PoissonSampledGaussian():
            return DpEvent(
                mechanism=PoissonSampledGaussian(
                    noise_multiplier=logged.noise_multiplier,
                    sampling_rate=logged.sampling_rate,
                    steps=logged.steps,
                    clip_norm_l2=clip_norm_l2,
                )
            )
        case entries.PoissonSampledDiscreteGaussian():
            return DpEvent(
                mechanism=PoissonSampledDiscreteGaussian(
                    noise_multiplier=logged.noise_multiplier,
                    sampling_rate=logged.sampling_rate,
                    steps=logged.steps,
                    clip_norm_l2=logged.clip_norm_l2,
                    shares=logged.shares,
                    grid_spacing=logged.grid_spacing,
                    dimension=logged.dimension,
                )
            )
        case _:
            assert_never(logged)

"""A ledger that was lost or is too old, made whole again from the entries this hospital signed.

Every `dp.spent` says which attempt cost what, as an event that can be counted again; the agent keeps all that it
signed. What a ledger held beyond that was reserved by a process that died before it signed, and its update never left
the building.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from audit import entries
from consortium.contract.names import Digest, StudyId
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledDiscreteGaussian, PoissonSampledGaussian
from site_agent.ledger import Ledger, Spend
from site_agent.store import Store


@dataclass(slots=True, kw_only=True)
class _Signed:
    """One study on one dataset, as the entries have it; filled entry by entry."""

    clip_norm_l2: float = 1.0  # no part of the cost
    delta: float = 1.0
    spends: list[Spend] = field(default_factory=list)


def restore_ledger(store: Store, ledger: Ledger) -> int:
    """Count again what was signed and is not in the ledger; returns how many attempts. Nothing is ever taken away."""
    digests: dict[str, Digest] = {}
    for decision in sorted(store.decisions(), key=lambda made: (made.decision == "approved", made.at)):
        digests[decision.study] = decision.study_digest
    signed = _signed(entries.parse_entry(data) for data in store.signed_entries())
    return sum(
        ledger.restore(
            dataset=dataset,
            study=StudyId(study),
            study_digest=_digest_of(study, digests),
            delta=found.delta,
            spends=found.spends,
        )
        for (study, dataset), found in signed.items()
        if found.spends
    )


def _digest_of(study: str, digests: Mapping[str, Digest]) -> Digest:
    """A study that nothing is known of any more still counts, under a name that no study has."""
    return digests.get(study, Digest(f"unknown:{study}"))


def _signed(found: Iterable[entries.Entry]) -> dict[tuple[str, str], _Signed]:
    studies: dict[tuple[str, str], _Signed] = {}
    for entry in found:
        if isinstance(entry, entries.DpConfigured):
            studies.setdefault((entry.study, entry.dataset), _Signed()).clip_norm_l2 = entry.clip_norm_l2
        if isinstance(entry, entries.DpSpent):
            one = studies.setdefault((entry.study, entry.dataset), _Signed())
            one.delta = entry.delta
            event = _event(entry.event, one.clip_norm_l2)
            one.spends.append(Spend(round=entry.round, attempt=entry.attempt, event=event))
    return studies


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

"""`site-agent budget`: what each dataset has spent, by which study, what is set aside and what is left.

The figures are the ledger's, composed now. With one study on a dataset they are exact; from the second study on what
is left is by the Renyi filter that reservations are held against, which is looser: so "left" is what may still be
reserved, and can be less than the cap minus what was spent.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from consortium.contract.names import Digest
from privacy.dp import accountant
from site_agent.figures_account import budget_digest
from site_agent.ledger import Ledger, LedgerRow
from site_agent.ledger_caps import all_events
from site_agent.site_file import SiteFile

BAR_CELLS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySpending:
    """One study on one dataset: its training and, in a line of the ledger of their own, its test figures."""

    study: str
    study_digest: Digest
    training: LedgerRow | None  # None: only its test figures were drawn here
    figures: LedgerRow | None  # None: they have no budget of their own, or none were drawn

    @property
    def rows(self) -> tuple[LedgerRow, ...]:
        """The lines there are."""
        return tuple(row for row in (self.training, self.figures) if row is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetBudget:
    """One dataset and everything that was spent on it."""

    dataset: str
    epsilon: float  # of all its studies, and those on datasets that share patients with it, composed tightly
    held_against_cap: float  # the same as the filter counts it; equal to `epsilon` with one study
    cap: float  # max_epsilon_total
    delta: float  # max_delta, at which the dataset is counted
    studies: tuple[StudySpending, ...]  # on this dataset
    shares: tuple[tuple[str, int | None], ...]  # datasets with patients in common, and how many; None: not known
    configured: bool  # whether site.yaml still names it

    @property
    def left(self) -> float:
        """What may still be reserved, at most."""
        return max(0.0, self.cap - self.held_against_cap)

    @property
    def reserved_rounds(self) -> int:
        """Attempts that were reserved and never settled: they count, whatever became of them."""
        return sum(row.open_rounds for study in self.studies for row in study.rows)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "dataset": self.dataset,
            "epsilon": self.epsilon,
            "held_against_cap": self.held_against_cap,
            "cap": self.cap,
            "left": self.left,
            "delta": self.delta,
            "window": "for ever",
            "configured": self.configured,
            "shares_patients_with": [{"dataset": name, "patients": count} for name, count in self.shares],
            "studies": [
                {
                    "study": one.study,
                    "study_digest": one.study_digest,
                    **_row_json(one.training),
                    "test_figures": None if one.figures is None else _row_json(one.figures),
                }
                for one in self.studies
            ],
        }


def _row_json(row: LedgerRow | None) -> dict[str, Any]:
    """One line of the ledger; nothing was trained where there is none."""
    return {
        "rounds": row.rounds if row else 0,
        "open_rounds": row.open_rounds if row else 0,
        "steps": row.steps if row else 0,
        "epsilon": row.epsilon if row else 0.0,
        "delta": row.delta if row else None,
        "events": [event.to_dict() for event in row.events] if row else [],
    }


def budgets(
    config: SiteFile,
    ledger: Ledger,
    dataset: str | None = None,
    *,
    studies: Mapping[Digest, str] = MappingProxyType({}),
) -> tuple[DatasetBudget, ...]:
    """The budget of every dataset that site.yaml names or the ledger knows, or of one of them; by name.

    Args:
        config: site.yaml.
        ledger: The hospital's.
        dataset: Of this one alone.
        studies: Names of studies that were decided about, by digest: where test figures alone were drawn, the ledger
            does not know whose they are.
    """
    rows = ledger.report()
    names = sorted({*config.datasets, *(row.dataset for row in rows)})
    return tuple(_budget(config, ledger, rows, name, studies) for name in names if dataset in (None, name))


def _budget(
    config: SiteFile, ledger: Ledger, rows: Iterable[LedgerRow], name: str, studies: Mapping[Digest, str]
) -> DatasetBudget:
    policy = config.policy
    counted = ledger.counted(name)
    events = all_events(counted)
    epsilon = accountant.epsilon(events, delta=policy.max_delta)
    held = epsilon
    if len(counted) > 1:
        held = accountant.filter_epsilon(events, delta=policy.max_delta, cap=policy.max_epsilon_total)
    return DatasetBudget(
        dataset=name,
        epsilon=epsilon,
        held_against_cap=held,
        cap=policy.max_epsilon_total,
        delta=policy.max_delta,
        studies=_studies([row for row in rows if row.dataset == name], studies),
        shares=tuple((overlap.dataset, overlap.patients) for overlap in ledger.overlaps(name)),
        configured=name in config.datasets,
    )


def _studies(rows: Sequence[LedgerRow], studies: Mapping[Digest, str]) -> tuple[StudySpending, ...]:
    """Lines of the ledger put together by study, in the order of their first reservation."""
    known = dict(studies) | {row.study_digest: str(row.study) for row in rows}
    owner = {budget_digest(digest): digest for digest in known}
    found: dict[Digest, StudySpending] = {}
    for row in rows:
        digest = owner.get(row.study_digest, row.study_digest)
        one = found.get(digest) or StudySpending(study=known[digest], study_digest=digest, training=None, figures=None)
        found[digest] = replace(one, figures=row) if row.study_digest in owner else replace(one, training=row)
    return tuple(found.values())


def bar(share: float, cells: int = BAR_CELLS) -> tuple[int, int]:
    """How many cells of a bar are full and how many are empty; whatever was spent shows, and so does what is left."""
    full = round(min(1.0, max(0.0, share)) * cells)
    if share > 0:
        full = max(1, full)
    if share < 1:
        full = min(cells - 1, full)
    return full, cells - full

"""A study as one sheet for a steward: plain words, then a table, each lane that leaves, and what changed since before.

The words are `description.py`'s. The table is the same facts as values, for whoever compares studies, and as JSON.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from audit.certificate import percent_right
from consortium.contract.figures_budget import figures_privacy
from consortium.contract.layout import largest_layout
from consortium.contract.names import Digest
from consortium.contract.study import StudyFile
from consortium.contract.study_data import TabularData
from site_agent.data_words import columns_of
from site_agent.description import WIDTH, Cost, cost_of, describe, legal_basis_of, objection
from site_agent.lane_words import LaneWords, lanes_of
from site_agent.ledger import Ledger
from site_agent.site_file import SiteFile
from site_agent.store import Decision
from site_agent.study_changes import Change, changes
from site_agent.training_spec import parameters_of

_NAME_WIDTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """Another version of the study that was decided about here."""

    study_digest: Digest
    decision: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Everything a steward is shown."""

    words: str
    facts: tuple[tuple[str, str], ...]
    lanes: tuple[LaneWords, ...]
    earlier: tuple[Earlier, ...]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "facts": dict(self.facts),
            "leaves_per_round": [asdict(one) for one in self.lanes],
            "earlier_versions": [asdict(one) for one in self.earlier],
        }

    def text(self) -> str:
        """For a person: lines of at most 80 columns, but for digests and paths, which are not broken."""
        parts = [self.words, "", "The same as a table", "", *_table(self.facts)]
        parts += ["", "Everything in the masked vector of a round: bytes, and what they mean", "", *_lanes(self.lanes)]
        for one in self.earlier:
            parts += ["", f"Different from version {one.study_digest[:16]}, which was {one.decision} here", ""]
            parts += [line for change in one.changes for line in _change(change)]
        return "\n".join(parts)


def sheet_of(
    study: StudyFile,
    digest: Digest,
    config: SiteFile,
    ledger: Ledger,
    *,
    submitted: str = "",
    patients: int | None = None,
    decided: tuple[Decision, ...] = (),
) -> Sheet:
    """The sheet of one study.

    Args:
        study: As it is offered.
        digest: Its.
        config: This hospital's site.yaml.
        ledger: Its budget.
        submitted: Who submitted it, in words.
        patients: With complete records here, if they were counted.
        decided: What was decided here before, about whatever studies.
    """
    document = study.document()
    before = [one for one in decided if one.study == study.id and one.study_digest != digest]
    return Sheet(
        words=describe(study, digest, config, ledger, submitted=submitted),
        facts=tuple(_facts(study, digest, config, ledger, patients)),
        lanes=lanes_of(study),
        earlier=tuple(
            Earlier(study_digest=one.study_digest, decision=one.decision, changes=changes(one.document, document))
            for one in reversed(before)  # the last one decided first
        ),
    )


def _facts(
    study: StudyFile, digest: Digest, config: SiteFile, ledger: Ledger, patients: int | None
) -> Iterator[tuple[str, str]]:
    governance, training = study.governance, study.training
    name = config.studies.get(study.id)
    yield "study", study.id
    yield "digest", digest
    yield "sponsor", governance.sponsor
    yield "legal basis", legal_basis_of(study)
    yield "ethics", f"{governance.ethics.reference}, {governance.ethics.authority}"
    yield "computed", f"{training.rounds} rounds of {training.local_steps} steps, {study.model.network}"
    also = (study.data.label.name,) if isinstance(study.data, TabularData) else ()
    yield "columns read", ", ".join((*columns_of(study.data), *also))
    yield "dataset here", name or "none named in site.yaml yet"
    yield "patients here", _patients(name, config, patients)
    yield "leaves a round", f"{largest_layout(study, parameters=parameters_of(study)).size_bytes:,} bytes, masked"
    yield from _privacy(study)
    if name is not None and study.is_private:
        yield from _budget(cost_of(study, digest, config, ledger, name))
    yield "takes part", ", ".join(study.sites.roster)
    yield "fewest in a sum", str(study.sites_in_a_sum)
    yield "threshold", f"{study.sites_that_open}: no fewer hospitals than that can open a sum, nor can the coordinator"
    yield "model goes to", "the coordinator and every hospital above; whoever the lead releases it to"
    yield "records kept", f"{governance.retention_years} years"
    yield "ends", governance.expires.isoformat()
    yield "allowed here", objection(study, digest, config, ledger) or "yes, by site.yaml and by the budget as they are"


def _patients(name: str | None, config: SiteFile, patients: int | None) -> str:
    if name is None:
        return "unknown until `studies` in site.yaml names a dataset"
    declared = config.datasets[name].declared_patients
    if patients is None:
        return f"{declared} declared in site.yaml; the records were not read"
    return f"{patients} with complete records; {declared} declared in site.yaml for training"


def _privacy(study: StudyFile) -> Iterator[tuple[str, str]]:
    if not study.is_private:
        yield "epsilon", "NONE: no noise protects any patient"
        return
    figures = figures_privacy(study)
    total = study.privacy.epsilon + (figures.epsilon if figures is not None else 0.0)
    also = "" if figures is None else f" and {figures.epsilon:g} for test figures"
    yield "epsilon", f"{study.privacy.epsilon:g}{also} at delta {study.privacy.delta:g}, per patient, for all rounds"
    yield (
        "which means",
        f"a guess whether a patient took part, at even odds, is right at most {percent_right(total):g}% of the time",
    )


def _budget(cost: Cost) -> Iterator[tuple[str, str]]:
    left = max(0.0, cost.cap - cost.held)
    yield "budget before", f"{cost.before:.3f} of {cost.cap:g} spent on this dataset"
    yield "budget after", f"{left:.3f} of {cost.cap:g} left, for all later studies together"


def _table(facts: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for name, value in facts:
        yield from _row(f"{name:<{_NAME_WIDTH}}", value)


def _row(head: str, value: str) -> list[str]:
    return textwrap.wrap(
        value,
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [head.rstrip()]


def _lanes(lanes: tuple[LaneWords, ...]) -> Iterator[str]:
    for one in lanes:
        noise = "; with noise" if one.noise else ""
        yield from _row(f"{one.name:<22}{one.size_bytes:>12,}  ", f"{one.means}{noise}")
    yield from _row(f"{'together':<22}{sum(one.size_bytes for one in lanes):>12,}  ", "one masked vector")


def _change(change: Change) -> Iterator[str]:
    yield change.path
    yield from _row("    was  ", change.before or "nothing")
    yield from _row("    is   ", change.now or "nothing")

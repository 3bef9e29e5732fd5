"""What was assessed against what ran: the study document that the hospitals approved, an assessment on record, the log.

Evidence section R7 (GDPR Art. 35). Each row sets a limit beside what the entries show; what no entry shows is not
compared, and says so. An assessment that names no figures of its own is of the document it was approved with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from audit.entries import CohortSnapshot, DpConfigured, DpiaRecorded
from audit.fields import Json
from audit.report import quality
from audit.report.blocks import day, part, short
from audit.report.figures import Report

DOCUMENT = "study document"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One row. `holds` is None where there is nothing to compare."""

    what: str
    source: str  # of what was assessed: the study document, or a type of entry
    assessed: str
    ran: str
    holds: bool | None
    leaves: tuple[int, ...]


def compare(report: Report) -> tuple[Comparison, ...]:
    """Every row, in the order in which the report shows them."""
    return (
        *_privacy(report),
        *_parties(report),
        *_data(report),
        *_rounds(report),
        *_period(report),
        *_assessment(report),
    )


def _row(
    what: str,
    assessed: object,
    ran: str | None,
    *,
    holds: bool,
    leaves: Sequence[int | None] = (),
    source: str = DOCUMENT,
) -> Iterator[Comparison]:
    """A row, unless nothing was assessed; `ran` is None where no entry shows it."""
    if assessed is None:
        return
    yield Comparison(
        what=what,
        source=source,
        assessed=_words(assessed),
        ran="not in the log" if ran is None else ran,
        holds=None if ran is None else holds,
        leaves=tuple(leaf for leaf in leaves if leaf is not None),
    )


def _words(value: object) -> str:
    if isinstance(value, float):
        return short(value)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _number(document: dict[str, Json], *path: str) -> float | None:
    value = part(document, *path)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _names(document: dict[str, Json], *path: str) -> tuple[str, ...] | None:
    value = part(document, *path)
    names = list(value) if isinstance(value, list | dict) else []
    return tuple(sorted(map(str, names))) or None


def _privacy(report: Report) -> Iterator[Comparison]:
    document = report.document
    if quality.without_privacy(document) is not None:
        return
    spent = [site for site in report.sites if site.epsilon is not None]
    worst = max(spent, key=lambda site: site.epsilon or 0.0, default=None)
    limit = _number(document, "privacy", "epsilon")
    yield from _row(
        "Epsilon of a patient, training",
        limit,
        None if worst is None else f"{worst.epsilon:.4f} at most ({worst.site})",
        holds=limit is None or worst is None or (worst.epsilon or 0.0) <= limit,
        leaves=[] if worst is None else [worst.epsilon_leaf],
    )
    delta = _number(document, "privacy", "delta")
    largest = max(spent, key=lambda site: site.delta or 0.0, default=None)
    yield from _row(
        "Delta",
        delta,
        None if largest is None else short(largest.delta),
        holds=delta is None or largest is None or (largest.delta or 0.0) <= delta,
        leaves=[] if largest is None else [largest.epsilon_leaf],
    )
    drawn = max(
        (site for site in report.sites if site.figures_epsilon is not None),
        key=lambda site: site.figures_epsilon or 0.0,
        default=None,
    )
    budget = _number(document, "evaluation", "privacy", "epsilon")
    yield from _row(
        "Epsilon of a patient, test figures",
        budget,
        None if drawn is None else f"{drawn.figures_epsilon:.4f} at most ({drawn.site})",
        holds=budget is None or drawn is None or (drawn.figures_epsilon or 0.0) <= budget,
        leaves=[] if drawn is None else [drawn.figures_leaf],
    )
    plans = [(leaf, entry) for leaf, entry in report.facts if isinstance(entry, DpConfigured)]
    units = sorted({entry.unit for _, entry in plans})
    unit = part(document, "privacy", "unit")
    yield from _row(
        "Unit of privacy",
        unit,
        ", ".join(units) or None,
        holds=units == [unit],
        leaves=[leaf for leaf, _ in plans],
    )
    clip = _number(document, "privacy", "clip_norm_l2")
    clips = sorted({entry.clip_norm_l2 for _, entry in plans})
    yield from _row(
        "Clip norm (L2)",
        clip,
        ", ".join(map(short, clips)) or None,
        holds=clip is None or all(value <= clip for value in clips),
        leaves=[leaf for leaf, _ in plans],
    )


def _parties(report: Report) -> Iterator[Comparison]:
    took_part = sorted({name for one in report.rounds for name in one.participants})
    roster = _names(report.document, "sites", "required")
    yield from _row(
        "Hospitals",
        roster,
        ", ".join(took_part) or None,
        holds=set(took_part) <= set(roster or ()),
        leaves=sorted({one.started_leaf for one in report.rounds})[:1],
    )
    closed = [one for one in report.rounds if one.state == "closed"]
    fewest = min(closed, key=lambda one: len(one.survivors), default=None)
    minimum = part(report.document, "sites", "minimum")
    yield from _row(
        "Hospitals in a round, at least",
        minimum,
        None if not report.rounds else str(min(len(one.participants) for one in report.rounds)),
        holds=not isinstance(minimum, int) or all(len(one.participants) >= minimum for one in report.rounds),
        leaves=[min(report.rounds, key=lambda one: len(one.participants)).started_leaf] if report.rounds else [],
    )
    threshold = part(report.document, "aggregation", "threshold")
    yield from _row(
        "Hospitals in a sum that is opened, at least",
        threshold,
        None if fewest is None else str(len(fewest.survivors)),
        holds=not isinstance(threshold, int) or fewest is None or len(fewest.survivors) >= threshold,
        leaves=[] if fewest is None else [fewest.ended_leaf],
    )


def _data(report: Report) -> Iterator[Comparison]:
    cohorts = [(leaf, entry) for leaf, entry in report.facts if isinstance(entry, CohortSnapshot)]
    features = _names(report.document, "data", "features")
    if features is not None:
        used = sorted({column for _, entry in cohorts for column in entry.columns})
        beyond = sorted(set(used) - set(features))
        yield from _row(
            "Columns of the table",
            features,
            (f"also {', '.join(beyond)}" if beyond else ", ".join(used)) if cohorts else None,
            holds=not beyond,
            leaves=[leaf for leaf, _ in cohorts],
        )
    contracts = {entry.contract_digest for _, entry in cohorts}
    yield from _row(
        "Data contract",
        "one and the same at every hospital",
        (f"{len(contracts)} different ones" if len(contracts) > 1 else "the same") if cohorts else None,
        holds=len(contracts) == 1,
        leaves=[leaf for leaf, _ in cohorts],
    )


def _rounds(report: Report) -> Iterator[Comparison]:
    trained = [one for one in report.rounds if one.state == "closed" and one.kind == "train"]
    rounds = part(report.document, "training", "rounds")
    yield from _row(
        "Training rounds",
        rounds,
        str(len(trained)),
        holds=not isinstance(rounds, int) or len(trained) <= rounds,
        leaves=[one.ended_leaf for one in trained[:1] + trained[1:][-1:]],
    )


def _period(report: Report) -> Iterator[Comparison]:
    expires = part(report.document, "governance", "expires")
    if not isinstance(expires, str):
        return
    yield from _row(
        "Last day",
        expires,
        day(report.last_round_ts) if report.last_round_ts else None,
        holds=report.last_round_ts is None or day(report.last_round_ts) <= expires,
        leaves=[one.started_leaf for one in report.rounds[-1:]],
    )


def _assessment(report: Report) -> Iterator[Comparison]:
    """The figures that the last assessment on record names, as far as it names any."""
    on_record = [(leaf, entry) for leaf, entry in report.facts if isinstance(entry, DpiaRecorded)]
    if not on_record:
        return
    leaf, entry = on_record[-1]
    source = f"{entry.TYPE}, version {entry.version}"
    worst = max((site.epsilon for site in report.sites if site.epsilon is not None), default=None)
    yield from _row(
        "Epsilon of a patient, training",
        entry.assessed_epsilon,
        None if worst is None else f"{worst:.4f} at most",
        holds=worst is not None and worst <= (entry.assessed_epsilon or 0.0),
        leaves=[leaf],
        source=source,
    )
    took_part = {name for one in report.rounds for name in one.participants}
    yield from _row(
        "Hospitals, how many",
        entry.assessed_sites,
        str(len(took_part)) if took_part else None,
        holds=len(took_part) == entry.assessed_sites,
        leaves=[leaf],
        source=source,
    )
    used = {column for _, found in report.facts if isinstance(found, CohortSnapshot) for column in found.columns}
    beyond = sorted(used - set(entry.assessed_columns))
    yield from _row(
        "Columns of the table",
        entry.assessed_columns or None,
        (f"also {', '.join(beyond)}" if beyond else ", ".join(sorted(used))) if used else None,
        holds=not beyond,
        leaves=[leaf],
        source=source,
    )

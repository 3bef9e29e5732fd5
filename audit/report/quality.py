"""The named metrics of one log entry -> what a report says about the quality of a model.

Names are `auc`, `auc.low`, `calibration.3.rate`, `group.0.1.brier`, `dice.2.p50` and so on
(docs/reference/log-format.md); what groups of patients and classes are called stands in the study document. An entry of
an older study has few of them: what is not there is left out.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from audit.fields import Json

_ROWS = (
    ("auc", "AUC"),
    ("dice", "Dice, mean over the foreground"),
    ("sensitivity", "Sensitivity"),
    ("accuracy", "Accuracy"),
    ("brier", "Brier score"),
    ("loss", "Loss"),
)
_CURVE_BINS_MAX = 50
_VALUES_MAX = 100
_QUANTILES = ("p10", "p25", "p50", "p75", "p90")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure and its bounds, as far as they are known."""

    name: str
    label: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One bin of the calibration curve."""

    score: float
    rate: float
    low: float | None
    high: float | None
    patients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One group of patients; `patients` is None where its figures are withheld."""

    column: str
    name: str
    patients: int | None
    sites: int | None
    score: float | None
    rate: float | None
    figures: tuple[Interval, ...]

    def of(self, name: str) -> Interval | None:
        """One figure, or None."""
        return next((one for one in self.figures if one.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadRow:
    """One figure over hospitals, each weighing the same."""

    label: str
    sites: int
    mean: float
    deviation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiceRow:
    """Dice of one class of a mask, or of the foreground as a whole; without figures where they are withheld."""

    name: str
    patients: int | None
    mean: Interval | None
    deviation: float | None
    quantiles: tuple[float, ...]  # 10, 25, 50, 75 and 90 %; empty where there are too few patients


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionCell:
    """Patients of one class with one prediction."""

    patients: int | None  # None where they are withheld
    share: float  # of those of the class that are shown, 0 to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Patients by class (rows) and predicted class (columns)."""

    names: tuple[str, ...]
    rows: tuple[tuple[ConfusionCell, ...], ...]

    @property
    def withheld(self) -> bool:
        """Whether some cells are left out."""
        return any(cell.patients is None for row in self.rows for cell in row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Everything the report says about one model on the test patients."""

    patients: int | None
    sites: int | None
    score: float | None  # mean score, beside
    rate: float | None  # the share of patients with the label
    figures: tuple[Interval, ...]
    curve: tuple[CurvePoint, ...]
    curve_error: float | None
    spread: tuple[SpreadRow, ...]
    groups: tuple[Group, ...]
    areas: tuple[Interval, ...]  # AUC of each class against the others, of a label with several
    confusion: Confusion | None
    dice: tuple[DiceRow, ...]  # of the foreground, then of its classes
    minimum_cell: int | None  # as the study says it


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What the study promises each patient for the test figures."""

    epsilon: float
    delta: float


def has_validation(document: Mapping[str, Json]) -> bool:
    """Whether a study chooses its model by patients who are neither trained on nor tested on."""
    return _object(_object(document.get("data")).get("split")).get("validation_fraction") is not None


def budget_of(document: Mapping[str, Json]) -> Budget | None:
    """The budget of the test figures in a study document; None if they are exact."""
    wanted = _object(_object(document.get("evaluation")).get("privacy"))
    epsilon, delta = wanted.get("epsilon"), wanted.get("delta")
    if not isinstance(epsilon, int | float) or not isinstance(delta, int | float):
        return None
    return Budget(epsilon=epsilon, delta=delta)


def without_privacy(document: Mapping[str, Json]) -> str | None:
    """Why patients are promised no differential privacy, as a study document says it; None if they are."""
    wanted = _object(document.get("privacy"))
    return str(wanted.get("justification", "")) if wanted.get("mechanism") == "none" else None


def quality_of(metrics: Mapping[str, float | None], document: Mapping[str, Json]) -> Quality:
    """Sort out the metrics of one `model.evaluated` entry.

    Args:
        metrics: Figures by name; a value may be None.
        document: The study document, for the names of groups; anything may be missing from it.
    """
    evaluation = _object(document.get("evaluation"))
    return Quality(
        patients=_whole(metrics.get("patients")),
        sites=_whole(metrics.get("sites")),
        score=metrics.get("score"),
        rate=metrics.get("rate"),
        figures=_figures(metrics, "", evaluation),
        curve=tuple(_curve(metrics)),
        curve_error=metrics.get("calibration.error"),
        spread=tuple(_spread(metrics)),
        groups=tuple(_groups(metrics, evaluation)),
        areas=tuple(_areas(metrics, values_of(document))),
        confusion=_confusion(metrics, values_of(document)),
        dice=tuple(_dice(metrics, values_of(document))),
        minimum_cell=_whole(evaluation.get("minimum_cell")),
    )


def _figures(
    metrics: Mapping[str, float | None], prefix: str, evaluation: Mapping[str, Json] | None
) -> tuple[Interval, ...]:
    found = []
    for name, label in _ROWS:
        specificity = (evaluation or {}).get("specificity")
        if name == "auc" and any(other.startswith("auc.") and other[4:].isdigit() for other in metrics):
            label = f"{label}, mean over the classes"  # noqa: PLW2901 - likewise
        if name == "sensitivity" and isinstance(specificity, int | float):
            label = f"{label} at specificity {specificity:g}"  # noqa: PLW2901 - what the row is called in the end
        one = _interval(metrics, f"{prefix}{name}", label)
        if one is not None:
            found.append(replace(one, name=name))
    return tuple(found)


def _curve(metrics: Mapping[str, float | None]) -> Iterator[CurvePoint]:
    for number in range(_CURVE_BINS_MAX):
        prefix = f"calibration.{number}."
        score, rate, patients = (metrics.get(f"{prefix}{name}") for name in ("score", "rate", "patients"))
        if score is not None and rate is not None and patients is not None:
            low, high = metrics.get(f"{prefix}rate.low"), metrics.get(f"{prefix}rate.high")
            yield CurvePoint(score=score, rate=rate, low=low, high=high, patients=round(patients))


def _spread(metrics: Mapping[str, float | None]) -> Iterator[SpreadRow]:
    for name, label in _ROWS:
        sites, mean = metrics.get(f"spread.{name}.sites"), metrics.get(f"spread.{name}.mean")
        if sites is not None and mean is not None:
            deviation = metrics.get(f"spread.{name}.deviation")
            yield SpreadRow(label=label, sites=round(sites), mean=mean, deviation=deviation)


def _groups(metrics: Mapping[str, float | None], evaluation: Mapping[str, Json]) -> Iterator[Group]:
    """Every group that the study asks for, in its order, and whether there are figures for it."""
    for number, subgroup in enumerate(_list(evaluation.get("subgroups"))):
        about = _object(subgroup)
        for cell, name in enumerate(_names(about)):
            prefix = f"group.{number}.{cell}."
            yield Group(
                column=str(about.get("column", "")),
                name=name,
                patients=_whole(metrics.get(f"{prefix}patients")),
                sites=_whole(metrics.get(f"{prefix}sites")),
                score=metrics.get(f"{prefix}score"),
                rate=metrics.get(f"{prefix}rate"),
                figures=_figures(metrics, prefix, None),
            )


def values_of(document: Mapping[str, Json]) -> tuple[str, ...]:
    """What the values of the study's label are called, in order; empty for a binary one."""
    label = _object(_object(document.get("data")).get("label"))
    return tuple(str(value) for value in _list(label.get("values"))[:_VALUES_MAX])


def _areas(metrics: Mapping[str, float | None], values: Sequence[str]) -> Iterator[Interval]:
    for place, value in enumerate(values):
        found = _interval(metrics, f"auc.{place}", f"AUC of {value} against the others")
        if found is not None:
            yield found


def _confusion(metrics: Mapping[str, float | None], values: Sequence[str]) -> Confusion | None:
    if not any(name.startswith("confusion.") for name in metrics):
        return None
    rows = []
    for label in range(len(values)):
        counts = [_whole(metrics.get(f"confusion.{label}.{place}")) for place in range(len(values))]
        total = max(1, sum(count or 0 for count in counts))
        rows.append(tuple(ConfusionCell(patients=count, share=(count or 0) / total) for count in counts))
    return Confusion(names=tuple(values), rows=tuple(rows))


def _dice(metrics: Mapping[str, float | None], values: Sequence[str]) -> Iterator[DiceRow]:
    if metrics.get("dice") is None:
        return
    for place, value in enumerate(values or ("0",)):
        prefix, name = ("dice", "foreground") if place == 0 else (f"dice.{place}", f"value {value}")
        quantiles = [metrics.get(f"{prefix}.{quantile}") for quantile in _QUANTILES]
        known = [quantile for quantile in quantiles if quantile is not None]
        yield DiceRow(
            name=name,
            patients=_whole(metrics.get(f"{prefix}.patients")),
            mean=_interval(metrics, prefix, name),
            deviation=metrics.get(f"{prefix}.deviation"),
            quantiles=tuple(known) if len(known) == len(quantiles) else (),
        )


def _interval(metrics: Mapping[str, float | None], name: str, label: str) -> Interval | None:
    value = metrics.get(name)
    if value is None:
        return None
    low, high = (metrics.get(f"{name}.{bound}") for bound in ("low", "high"))
    return Interval(name=name, label=label, value=value, low=low, high=high)


def _names(subgroup: Mapping[str, Json]) -> list[str]:
    """What the cells of a subgroup are called."""
    names = [str(name) for name in _list(subgroup.get("names")) or _list(subgroup.get("values"))]
    edges = [f"{edge:g}" for edge in _list(subgroup.get("bands")) if isinstance(edge, int | float)]
    if names or not edges:
        return names
    between = [f"{low} to below {high}" for low, high in itertools.pairwise(edges)]
    return [f"below {edges[0]}", *between, f"{edges[-1]} and above"]


def _object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _list(value: Json) -> Sequence[Json]:
    return value if isinstance(value, list) else []


def _whole(value: Json) -> int | None:
    return round(value) if isinstance(value, int | float) else None

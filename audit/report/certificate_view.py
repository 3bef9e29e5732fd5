"""Privacy certificates as the report shows them: what somebody could learn about one patient, then the table.

Words and rounded figures only; every number comes from entries of the log. Bounds are rounded up.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from audit.certificate import DISTRIBUTED, EPSILON_WEAK, against_cohort
from audit.entries import DpCertificate, ModelCertificate

GUESSES = (0.01, 0.1, 0.5, 0.9)
"""What somebody believed before: that a certain patient's records were used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """One promise, and how far a guess can move under it."""

    whose: str
    epsilon: float
    delta: float
    guesses: tuple[str, ...]  # one for each of GUESSES
    weak: bool  # so large that it hardly promises anything


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One hospital's certificate."""

    site: str
    leaf: int
    epsilon: float
    delta: float
    against: str
    steps: str
    unmasked: float
    figures: str  # what test figures with a budget of their own cost besides; empty where none were drawn
    dataset: str
    audit: str
    audit_good: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateView:
    """What section 5 of the report shows of certificates."""

    odds: tuple[Odds, ...]
    rows: tuple[Row, ...]
    facts: tuple[tuple[str, str], ...]  # what all hospitals have in common, or each its own
    outside: tuple[str, ...]
    missing: tuple[str, ...]
    distributed: bool
    figures: bool  # whether any hospital drew test figures with a budget of their own
    model_leaf: int | None


def after(epsilon: float, before: float) -> str:
    """The most somebody can believe afterwards who believed `before`, as a percentage rounded up.

    Posterior odds are at most e^epsilon times prior odds. Never printed as 100 %: the bound itself never reaches it.
    """
    odds = math.exp(min(epsilon, 700.0)) * before / (1 - before)
    percent = 100 * odds / (1 + odds)
    if percent > 99:
        return "over 99 %"
    return f"{math.ceil(10 * percent) / 10:.1f} %"


def view(
    certificates: Sequence[tuple[int, str, DpCertificate]], model: tuple[int, ModelCertificate] | None
) -> CertificateView | None:
    """The view of (leaf, site, certificate) triples, the last of each site; None if there is none."""
    if not certificates:
        return None
    all_of_them = [one for _, _, one in certificates]
    distributed = any(one.trust == DISTRIBUTED for one in all_of_them)
    promises: list[tuple[str, float, float]] = []
    if model is not None:
        said = model[1]
        promises.append(("a patient of one hospital", said.epsilon, said.delta))
        promises.append(("a patient of two of the hospitals", said.epsilon_two_sites, said.delta_two_sites))
        if distributed:
            promises.append(("the same patient if secure aggregation failed", said.epsilon_unmasked, said.delta))
    else:
        worst = max(all_of_them, key=lambda one: one.epsilon)
        promises.append(("a patient of one hospital", worst.epsilon, worst.delta))
    measured = any(one.epsilon_figures for one in all_of_them)
    if measured:
        promises = [(f"{whose}, from the model alone", epsilon, delta) for whose, epsilon, delta in promises]
        promises += _with_figures(all_of_them, model[1] if model is not None else None)
    return CertificateView(
        odds=tuple(
            Odds(
                whose=whose,
                epsilon=epsilon,
                delta=delta,
                guesses=tuple(after(epsilon, guess) for guess in GUESSES),
                weak=epsilon > EPSILON_WEAK,
            )
            for whose, epsilon, delta in promises
        ),
        rows=tuple(_row(leaf, site, one) for leaf, site, one in certificates),
        facts=tuple((name, _together([(site, _fact(name, one)) for _, site, one in certificates])) for name in _FACTS),
        outside=tuple(dict.fromkeys(line for one in all_of_them for line in one.outside)),
        missing=model[1].missing if model is not None else (),
        distributed=distributed,
        figures=measured,
        model_leaf=model[0] if model is not None else None,
    )


def _with_figures(
    certificates: Sequence[DpCertificate], model: ModelCertificate | None
) -> Iterator[tuple[str, float, float]]:
    """What the model and the test figures promise together: two mechanisms at two deltas, simply added.

    Whoever reads this report has seen both. Each hospital's figures are private by themselves, so those of two add.
    """
    worst = max(certificates, key=lambda one: one.epsilon + one.epsilon_figures)
    yield (
        "a patient of one hospital, from the model and the test figures",
        worst.epsilon + worst.epsilon_figures,
        worst.delta + max(one.delta_figures for one in certificates),
    )
    if model is not None:
        epsilons, deltas = (
            sorted((getattr(one, name) for one in certificates), reverse=True)
            for name in ("epsilon_figures", "delta_figures")
        )
        yield (
            "a patient of two of the hospitals, from the model and the test figures",
            model.epsilon_two_sites + sum(epsilons[:2]),
            model.delta_two_sites + sum(deltas[:2]),
        )


def _row(leaf: int, site: str, one: DpCertificate) -> Row:
    figures = dict(one.audit_figures)
    low, high = figures.get("epsilon_low"), figures.get("epsilon_high")
    measured = "" if low is None or high is None else f"; measured epsilon {low:.2f} to {high:.2f}"
    return Row(
        site=site,
        leaf=leaf,
        epsilon=one.epsilon,
        delta=one.delta,
        against=against_cohort(one.delta, one.patients),
        steps=f"{one.event.steps} of {one.steps_planned}",
        unmasked=one.epsilon_unmasked,
        figures=f"{one.epsilon_figures:.4f} at delta {one.delta_figures:g}" if one.epsilon_figures else "",
        dataset=f"{one.epsilon_dataset:.4f} over {', '.join(one.studies)}",
        audit=f"{one.audit}{measured}",
        audit_good=one.audit == "passed",
    )


_FACTS = (
    "Unit and relation",
    "Trust model",
    "Mechanism",
    "Records of a patient",
    "Sampling, as executed",
    "Generator",
    "Accountant",
    "Software",
    "Source files, SHA-256",
)


def _fact(name: str, one: DpCertificate) -> str:
    match name:
        case "Unit and relation":
            return f"{one.unit}, with all of the patient's records at the hospital; {one.relation}"
        case "Trust model":
            return _trust(one)
        case "Mechanism":
            return (
                f"{one.event.KIND}; noise {one.event.noise_multiplier:g} times the clip norm {one.clip_norm_l2:g} (L2),"
                f" sampling rate {one.event.sampling_rate:g}"
            )
        case "Records of a patient":
            return f"at most {one.records_per_patient} in a step"
        case "Sampling, as executed":
            return one.sampling
        case "Generator":
            return one.generator
        case "Accountant":
            return f"{one.accountant} {one.accountant_version}"
        case "Software":
            return ", ".join(one.software)
        case _:
            return one.code_sha256


def _trust(one: DpCertificate) -> str:
    if one.trust != DISTRIBUTED:
        return "local: every update is private before it leaves its hospital; nobody else is trusted"
    return (
        f"distributed: noise of at least {one.honest} honest hospitals in every sum (threshold {one.threshold},"
        f" {one.colluding} may collude), opened only as a sum by secure aggregation"
    )


def _together(values: Sequence[tuple[str, str]]) -> str:
    """One value that all share, or each with the hospitals that say it."""
    sites: dict[str, list[str]] = {}
    for site, value in values:
        sites.setdefault(value, []).append(site)
    if len(sites) == 1:
        return next(iter(sites))
    return "; ".join(f"{', '.join(names)}: {value}" for value, names in sites.items())

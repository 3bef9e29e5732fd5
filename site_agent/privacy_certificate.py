"""What this hospital promises each patient about one study, as one frozen value (after NIST SP 800-226).

Everything comes from three places that an inspector can open: the study document, the ledger, and the entries that
this site signed when it prepared the study. Nothing is estimated here. The certificate is signed as a log entry
(`dp.certificate`), and `verify.py` holds it against every `dp.spent` of the site.

What a hospital may know and nobody else is not in it: how often gradients were clipped and how many patients were
sampled carry no noise. `site-agent certificate` shows them beside it.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from audit import entries
from audit.certificate import DISTRIBUTED, EPSILON_MAX, LOCAL, against_cohort, percent_right
from consortium.contract.best_model import choice_costs
from consortium.contract.digest import Canonical, canonical_bytes
from consortium.contract.names import Digest
from consortium.contract.software import code_digest, software
from consortium.contract.study import StudyFile
from privacy.dp import accountant
from privacy.dp.discrete_gaussian import GENERATOR as DISCRETE_GENERATOR
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledDiscreteGaussian
from privacy.dp.randomness import GENERATOR
from site_agent.errors import SiteError
from site_agent.figures_account import budget_digest
from site_agent.ledger import Ledger, LedgerRow
from site_agent.logged_event import logged_event
from site_agent.site_file import Policy
from site_agent.training_spec import PrivacySpec, spec_of

_NAMED = 4
"""Studies that one sentence names."""

NOT_RUN, PASSED, FAILED = "not run", "passed", "failed"


class CertificateRefused(SiteError):
    """No certificate can be given: what this hospital remembers of the study does not fit together, or is nothing."""

    def advice(self) -> str:
        """What to do next."""
        return "`site-agent budget` shows what was spent here; a study that spent nothing needs no certificate."


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyCertificate:
    """The body of a `dp.certificate`; the meaning of each field is in `entries.DpCertificate`."""

    study: str
    study_digest: Digest
    dataset: str
    unit: str
    relation: str
    patients: str
    epsilon: float
    delta: float
    epsilon_figures: float
    delta_figures: float
    trust: str
    threshold: int
    colluding: int
    honest: int
    epsilon_unmasked: float
    event: entries.PrivacyEvent  # everything executed, as the log writes it
    clip_norm_l2: float
    steps_planned: int
    records_per_patient: int
    sampling: str
    generator: str
    accountant: str
    accountant_version: str
    studies: tuple[str, ...]
    epsilon_dataset: float
    delta_dataset: float
    outside: tuple[str, ...]
    audit: str
    audit_figures: tuple[tuple[str, float | None], ...]
    software: tuple[str, ...]
    code_sha256: str

    def fields(self) -> dict[str, Any]:
        """What a `dp.certificate` entry is built from."""
        return {name: getattr(self, name) for name in PrivacyCertificate.__slots__}

    def to_json(self) -> dict[str, Canonical]:
        """The same, as JSON values."""
        record: dict[str, Any] = self.fields()
        for name in ("studies", "outside", "software"):
            record[name] = list(record[name])
        return record | {
            "event": {"kind": self.event.KIND, **asdict(self.event)},
            "audit_figures": dict(self.audit_figures),
        }

    def canonical(self) -> bytes:
        """The one byte string of this certificate."""
        return canonical_bytes(self.to_json())


def certify(
    *,
    study: StudyFile,
    digest: Digest,
    policy: Policy,
    declared_patients: int,
    ledger: Ledger,
    signed: Iterable[entries.SiteEntry],
    parameters: int | None = None,
) -> PrivacyCertificate:
    """The certificate of one study at this hospital, as of now.

    Args:
        study: As it was approved.
        digest: Its digest.
        policy: The hospital's, for whether it shares test figures.
        declared_patients: Of site.yaml; it does not change the mechanism.
        ledger: What was spent; reservations that were never settled count.
        signed: This site's own entries, of any study.
        parameters: See `training_spec.spec_of`; without it a network may have to be built.

    Raises:
        CertificateRefused: The study promises nothing, the site never announced it or spent nothing on it, or its
            ledger holds other events than the study's plan.
    """
    if not study.is_private:
        raise CertificateRefused(f"{study.id!r} promises patients no differential privacy: there is nothing to certify")
    entries_signed = tuple(signed)
    cohort, configured, audited = _own(study.id, entries_signed)
    if cohort is None or configured is None:
        raise CertificateRefused(f"this hospital never announced {study.id!r} to the log")
    rows = [row for row in ledger.report() if row.dataset == configured.dataset]
    row = next((one for one in rows if one.study_digest == digest), None)
    figures = next((one for one in rows if one.study_digest == budget_digest(digest)), None)
    if row is None:
        raise CertificateRefused(f"{study.id!r} has spent nothing of the dataset {configured.dataset!r}")
    shared_with = {configured.dataset, *(overlap.dataset for overlap in ledger.overlaps(configured.dataset))}
    spec = spec_of(study, declared_patients=declared_patients, parameters=parameters).privacy
    event = _executed(spec, row)
    shared = _distributed(event)
    return PrivacyCertificate(
        study=study.id,
        study_digest=digest,
        dataset=configured.dataset,
        unit=event.unit.value,
        relation=event.relation.value,
        patients=cohort.patients,
        epsilon=row.epsilon,
        delta=row.delta,
        epsilon_figures=figures.epsilon if figures is not None else 0.0,
        delta_figures=figures.delta if figures is not None else 0.0,
        trust=LOCAL if shared is None else DISTRIBUTED,
        threshold=study.sites_that_open,
        colluding=study.privacy.colluding or 0,
        honest=1 if shared is None else shared.shares,
        epsilon_unmasked=_unmasked(event, row),
        event=logged_event(event),
        clip_norm_l2=event.mechanism.clip_norm_l2,
        steps_planned=spec.mechanism.steps,
        records_per_patient=spec.max_records_per_patient,
        sampling=(
            f"Poisson over patients: each is in a step with probability {event.mechanism.sampling_rate:g}, by a coin "
            f"of its own; at most {spec.max_records_per_patient} of a patient's records, drawn at random; a step "
            f"nobody falls into is noise alone."
        ),
        generator=GENERATOR if shared is None else DISCRETE_GENERATOR,
        accountant=configured.accountant,
        accountant_version=configured.accountant_version,
        studies=_studies(rows, entries_signed),
        epsilon_dataset=min(ledger.spent(configured.dataset, delta=row.delta).epsilon, EPSILON_MAX),
        delta_dataset=row.delta,
        outside=(*_exact_uses(shared_with, entries_signed), *outside_of(study, policy)),
        audit=NOT_RUN if audited is None else FAILED if audited.failed else PASSED,
        audit_figures=() if audited is None else audited.figures,
        software=software(),
        code_sha256=code_digest(),
    )


def outside_of(study: StudyFile, policy: Policy) -> tuple[str, ...]:
    """What the guarantee does not cover, one sentence each."""
    if study.aggregation.group_size is not None:
        metrics = "Test figures: none were summed, because hospitals were divided into groups."
    elif study.evaluation.privacy is not None:
        budget = study.evaluation.privacy
        metrics = (
            f"Test figures come from noisy counts with a budget of their own, epsilon {budget.epsilon:g} at delta "
            f"{budget.delta:g}. What was spent of it is not in epsilon but in epsilon_figures, and in epsilon_dataset."
        )
    elif policy.share_exact_metrics:
        metrics = (
            "Test figures are sums over hospitals under secure aggregation; what noise they carry, if any, is stated "
            "in the study document, and they are not in this epsilon."
        )
    else:
        metrics = "Test figures: this hospital shared none."
    chosen: tuple[str, ...] = ()
    if study.evaluation.keep_best is not None:
        costs = choice_costs(
            has_budget=study.evaluation.privacy is not None,
            is_private=study.is_private,
            has_validation=study.has_validation,
        )
        chosen = (f"The model was chosen by {study.evaluation.keep_best} of patients set aside. {costs}",)
    return (
        metrics,
        *chosen,
        "Choices made before the study from these patients' data: network, learning rate, clip norm, columns.",
        "Ending the study early because of what its models showed: then the planned epsilon is the one to rely on.",
        "Scaling of columns is no part of it, because it uses constants of the study document and counts nothing.",
        "That the hospital took part, when, with which columns, and its number of patients to the nearest range.",
        "What a model says about people in general, which it would also say had a patient stayed away.",
    )


def describe_certificate(certificate: PrivacyCertificate, local: Sequence[tuple[str, str]]) -> str:
    """The certificate in words, for a board; `local` are figures that stay in the building."""
    one = certificate
    event = one.event
    lines = [
        f"Privacy certificate of {one.study}, dataset {one.dataset}",
        "",
        *_said(
            "One patient",
            f"Whoever sees everything that left could be right at most "
            f"{percent_right(one.epsilon + one.epsilon_figures):g}% of the time about whether a patient's records were "
            f"used, where guessing is right 50% (but for a chance of {one.delta + one.delta_figures:g}).",
        ),
        *_said("Guarantee", f"epsilon {one.epsilon:.4f} at delta {one.delta:g}, per {one.unit}, {one.relation}"),
        *_figures(one),
        *_said("Delta", f"{against_cohort(one.delta, one.patients)}"),
        *_said("Trust", trust_in_words(one)),
        *_said(
            "Mechanism",
            f"{event.KIND}: noise {event.noise_multiplier:g} times the clip norm {one.clip_norm_l2:g}, "
            f"{event.steps} steps of {one.steps_planned} planned, at most {one.records_per_patient} records of a "
            f"patient in a step",
        ),
        *_said("Sampling", one.sampling),
        *_said("Generator", one.generator),
        *_said("Accountant", f"{one.accountant} {one.accountant_version}"),
        *_said(
            "Dataset",
            f"epsilon {one.epsilon_dataset:.4f} at delta {one.delta_dataset:g} over the studies "
            f"{', '.join(one.studies)}",
        ),
        *_said("Mechanism audit", _audit_in_words(one)),
        *(line for number, text in enumerate(one.outside) for line in _said("" if number else "Not covered", text)),
        *_said("Software", f"{', '.join(one.software)}; source files {one.code_sha256[:16]}"),
    ]
    if local:
        lines += ["", "Stays in this building (these figures carry no noise):"]
        lines += [line for name, text in local for line in _said(name, text)]
    return "\n".join(lines)


def _figures(one: PrivacyCertificate) -> list[str]:
    """What the test figures cost besides, where they have a budget and were drawn."""
    if not one.epsilon_figures:
        return []
    return _said(
        "Test figures",
        f"epsilon {one.epsilon_figures:.4f} at delta {one.delta_figures:g} more; with the training at most "
        f"{one.epsilon + one.epsilon_figures:.4f} at {one.delta + one.delta_figures:g}, simply added",
    )


def trust_in_words(one: "PrivacyCertificate | entries.DpCertificate") -> str:
    """Whom a patient has to trust."""
    if one.trust == LOCAL:
        return "local: the update is private before it leaves; nobody outside the hospital is trusted"
    return (
        f"distributed: at least {one.honest} honest hospitals of the {one.threshold} that open a sum add their share "
        f"of the noise, {one.colluding} may collude. If secure aggregation failed, epsilon {one.epsilon_unmasked:.4g} "
        f"would be left"
    )


def _audit_in_words(one: PrivacyCertificate) -> str:
    figures = dict(one.audit_figures)
    low, high = figures.get("epsilon_low"), figures.get("epsilon_high")
    if low is None or high is None:
        return one.audit
    return f"{one.audit}: from what was measured on probes, epsilon of the whole study is {low:.3f} to {high:.3f}"


def _own(
    study: str, signed: Iterable[entries.SiteEntry]
) -> tuple[entries.CohortSnapshot | None, entries.DpConfigured | None, entries.DpAudited | None]:
    """The last of each that this site signed about a study."""
    cohort: entries.CohortSnapshot | None = None
    configured: entries.DpConfigured | None = None
    audited: entries.DpAudited | None = None
    for entry in signed:
        if isinstance(entry, entries.SiteOwnEntry) or entry.study != study:
            continue
        match entry:
            case entries.CohortSnapshot():
                cohort = entry
            case entries.DpConfigured():
                configured = entry
            case entries.DpAudited():
                audited = entry
            case _:
                pass
    return cohort, configured, audited


def _studies(rows: Sequence[LedgerRow], signed: Iterable[entries.SiteEntry]) -> tuple[str, ...]:
    """All studies a dataset was used for, by the ledger and by what was signed; test figures are of their study."""
    trained = {budget_digest(row.study_digest): row.study for row in rows}
    names = {str(trained.get(row.study_digest, row.study)) for row in rows}
    datasets = {row.dataset for row in rows}
    spent = (one for one in signed if isinstance(one, entries.DpSpent | entries.FiguresSpent))
    names |= {one.study for one in spent if one.dataset in datasets}
    return tuple(sorted(names))


def _exact_uses(datasets: set[str], signed: Sequence[entries.SiteEntry]) -> tuple[str, ...]:
    """One sentence, if patients of these datasets were in studies that promised them nothing.

    Such a study has a snapshot of its cohort and no mechanism beside it. Its cost is in no ledger, because it has no
    bound: whoever reads the epsilon of the dataset must hear of it.
    """
    snapshots = {one.study for one in signed if isinstance(one, entries.CohortSnapshot) and one.dataset in datasets}
    exact = sorted(snapshots - {one.study for one in signed if isinstance(one, entries.DpConfigured)})
    if not exact:
        return ()
    more = f" and {len(exact) - _NAMED} more" if len(exact) > _NAMED else ""
    said = (
        f"These patients' data was also used without differential privacy, in {', '.join(exact[:_NAMED])}{more}: no "
        "epsilon bounds what that revealed, and the figure for the dataset does not count it."
    )
    return (said,)


def _executed(spec: PrivacySpec, row: LedgerRow) -> DpEvent:
    """Everything the ledger holds of the study, as one event; its epsilon must be the ledger's."""
    event = spec.study_event().with_steps(row.steps)
    found = accountant.epsilon([event], delta=row.delta)
    if abs(found - row.epsilon) > 1e-9 * max(1.0, row.epsilon):
        raise CertificateRefused(
            f"the ledger's epsilon for {row.study!r} is {row.epsilon:.6f}, but {row.steps} steps as the study plans "
            f"them cost {found:.6f}"
        )
    return event


def _distributed(event: DpEvent) -> PoissonSampledDiscreteGaussian | None:
    return event.mechanism if isinstance(event.mechanism, PoissonSampledDiscreteGaussian) else None


def _unmasked(event: DpEvent, row: LedgerRow) -> float:
    """The guarantee of this site's own vector, with one share of the noise; under local noise it is the same."""
    shared = _distributed(event)
    if shared is None:
        return row.epsilon
    alone = replace(event, mechanism=shared.with_shares(1))
    return min(max(row.epsilon, accountant.epsilon([alone], delta=row.delta)), EPSILON_MAX)


def _said(name: str, text: str) -> list[str]:
    head = f"{name + ':' if name else '':<19}"
    return [textwrap.fill(text, 110, initial_indent=head, subsequent_indent=" " * len(head))]

"""A study in plain words, for the steward who decides: what is computed, what leaves, what it costs, who is in it."""

import math
import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime

from consortium.contract.figures_budget import mechanism_of
from consortium.contract.layout import largest_layout
from consortium.contract.names import Digest
from consortium.contract.study import StudyFile
from privacy.dp import accountant, distributed
from privacy.dp.events import DpEvent
from privacy.errors import BudgetExceeded
from site_agent.ledger import Ledger
from site_agent.ledger_caps import all_events
from site_agent.policy import BUDGET_REFUSED, Answer, Refuse, SiteFacts, decide, facts_of, limits_of
from site_agent.site_file import SiteFile
from site_agent.training_spec import PrivacySpec, spec_of


def describe(study: StudyFile, digest: Digest, config: SiteFile, ledger: Ledger) -> str:
    """Several paragraphs; ends with whether this hospital's rules and budget would allow the study."""
    privacy, training = study.privacy, study.training
    dataset_name = config.studies.get(study.id)
    parts = [
        f"{study.title}",
        f"Study {study.id}, digest {digest}",
        "",
        *_said("Purpose", study.governance.purpose),
        *_said("Sponsor", f"{study.governance.sponsor} ({study.governance.contact})"),
        *_said("Ethics", f"{study.governance.ethics.reference}, {study.governance.ethics.authority}"),
        *_said("Ends", f"{study.governance.expires}; records kept {study.governance.retention_years} years"),
        *_said(
            "Who",
            f"{', '.join(study.sites.roster)}. At least {study.sites.minimum} take part in every round, and at least "
            f"{study.aggregation.threshold} of them together are needed to open a sum.{_groups(study)}",
        ),
        *_said(
            "Computed here",
            f"{training.rounds} rounds of {training.local_steps} training steps of a {study.model.network} network "
            f"on the columns {', '.join(study.data.features)} and {study.data.label.name}, read from the dataset "
            f"{dataset_name or '(none named in site.yaml yet)'}; then its quality on patients set aside.",
        ),
        *_said("Leaves, per round", _leaves(study)),
        *_said(
            "A patient's risk",
            f"epsilon {privacy.epsilon:g} at delta {privacy.delta:g} over the whole study, for everything about one "
            f"patient. Somebody who would guess even odds that a patient took part could, having seen {_seen(study)}, "
            f"be right at most {_percent_right(privacy.epsilon)}% of the time (but for a chance of "
            f"{privacy.delta:g}).",
        ),
        *_said("Noise", _noise(study, config)),
        *_said("Not covered", _not_covered(study, config)),
        *_said("Cost here", _cost(study, digest, config, ledger)),
    ]
    return "\n".join(parts)


def _said(name: str, text: str) -> list[str]:
    head = f"{name + ':':<19}"
    return [textwrap.fill(text, 110, initial_indent=head, subsequent_indent=" " * len(head))]


def _seen(study: StudyFile) -> str:
    return "every sum that hospitals open" if study.is_distributed else "everything that leaves"


def _groups(study: StudyFile) -> str:
    if study.aggregation.group_size is None:
        return ""
    return (
        f" They are divided at random, anew in every attempt, into groups of at least {study.aggregation.group_size}, "
        f"and the coordinator sees the sum of each group: of at least {study.sites_in_a_sum} hospitals, which any "
        f"{study.sites_that_open} of the group can open together."
    )


def _leaves(study: StudyFile) -> str:
    layout = largest_layout(study, parameters=study.parameters)
    group_size = study.aggregation.group_size
    peers = len(study.sites.required) if group_size is None else 2 * group_size
    return (
        f"one masked vector of {layout.size_bytes:,} bytes that looks like random numbers to everybody and opens only "
        f"as part of the sum over hospitals, and about {2 * peers + 4} kB of keys and signatures."
    )


def _percent_right(epsilon: float) -> int:
    """How often a guess that starts at even odds can be right, rounded up: "at most" must not be a rounding less."""
    return math.ceil(100 / (1 + math.exp(-epsilon)))


def _not_covered(study: StudyFile, config: SiteFile) -> str:
    if study.aggregation.group_size is not None:
        return "nothing: no test figures are summed when hospitals are divided into groups."
    if study.evaluation.privacy is not None:
        budget = study.evaluation.privacy
        return (
            "nothing: the test figures come from noisy counts with a budget of their own, epsilon "
            f"{budget.epsilon:g} at delta {budget.delta:g}, which counts in addition. share_exact_metrics does not "
            "concern them."
        )
    if not config.policy.share_exact_metrics:
        return "nothing: this hospital shares no test figures (share_exact_metrics in site.yaml)."
    return "the test figures, which are exact sums over hospitals; this hospital's share stays hidden in the sum."


def objection(study: StudyFile, digest: Digest, config: SiteFile, ledger: Ledger) -> str | None:
    """What of this hospital's own rules and budget stands against a study as of now; None if nothing does.

    Raises:
        LedgerBehind: The ledger is older than what this hospital has signed.
        LocalProtocolError, NoiseRefused: No noise gives the study its epsilon.
    """
    name = config.studies.get(study.id)
    if name is None:
        return f"`studies` in site.yaml names no dataset for it yet, {_example(study, config)}."
    try:
        ledger.admit(
            dataset=name,
            study_digest=digest,
            event=_spec(study, config, name).study_event(),
            limits=limits_of(config.policy, study),
        )
    except BudgetExceeded:
        return f"this hospital's own limits do NOT allow it ({BUDGET_REFUSED.rule} in site.yaml)."
    answer = _answer(study, config)
    if isinstance(answer, Refuse):
        return f"this hospital's own rules do NOT allow the study ({answer.rule}: {answer.explanation})."
    return None


def _cost(study: StudyFile, digest: Digest, config: SiteFile, ledger: Ledger) -> str:
    name = config.studies.get(study.id)
    if name is None:
        return f"unknown until `studies` in site.yaml names a dataset, {_example(study, config)}."
    against = objection(study, digest, config, ledger)
    cost = cost_of(study, digest, config, ledger, name)
    shared = [overlap.dataset for overlap in ledger.overlaps(name)]
    common = f" It has patients in common with {', '.join(shared)}, and one budget with it." if shared else ""
    verdict = against or "this hospital's own limits allow it."
    return (
        f"epsilon {cost.study:.3f} of dataset {name}, which has spent {cost.before:.3f} of {cost.cap:g} and will have "
        f"spent {cost.after:.3f} ({cost.after / cost.cap:.0%} of the cap) at delta {cost.delta:g}.{common} "
        f"{verdict[0].upper()}{verdict[1:]}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What an approval would come to: epsilons, each composed as tightly as can be."""

    study: float  # of the whole study, at the study's delta
    before: float  # of the dataset without this study's remaining rounds, at `delta`
    after: float  # of the dataset when the study is over, at `delta`
    cap: float
    delta: float  # the hospital's max_delta


def cost_of(study: StudyFile, digest: Digest, config: SiteFile, ledger: Ledger, dataset: str) -> Cost:
    """What a study costs one dataset, with everything that was spent on it."""
    event, delta = _spec(study, config, dataset).study_event(), config.policy.max_delta
    counted = ledger.counted(dataset)
    others = {key: value for key, value in counted.items() if key != digest}
    # The test figures' own budget, where a study has one, is spent on the same dataset.
    figures = [DpEvent(mechanism=mechanism_of(study))] if study.evaluation.privacy is not None else []
    return Cost(
        study=accountant.epsilon([event], delta=study.privacy.delta),
        before=accountant.epsilon(all_events(counted), delta=delta),
        after=accountant.epsilon([*all_events(others), event, *figures], delta=delta),
        cap=config.policy.max_epsilon_total,
        delta=delta,
    )


def _noise(study: StudyFile, config: SiteFile) -> str:
    """Whom a patient has to trust for the epsilon to be true."""
    if not study.is_distributed:
        return (
            "this hospital adds all of it before anything leaves; the epsilon needs nobody else to keep to the rules, "
            "nor secure aggregation."
        )
    name = config.studies.get(study.id) or next(iter(config.datasets))
    event = _spec(study, config, name).study_event()
    t, c, h = study.aggregation.threshold, study.privacy.colluding or 0, study.honest_shares
    alone = accountant.epsilon([distributed.site_alone(event)], delta=study.privacy.delta)
    less = ""
    if h > 1:
        missing = accountant.epsilon([distributed.when_shares_are_missing(event, 1)], delta=study.privacy.delta)
        less = f" If one hospital more than {c} leaves its share out, epsilon is {missing:.3f}."
    return (
        f"hospitals share it. At least t = {t} are in every sum, up to c = {c} of them may work against the patients, "
        f"and the shares of the other h = {h} give the epsilon above.{less} If secure aggregation failed and somebody "
        f"saw what this hospital alone sends, epsilon {alone:.3f} is left."
    )


def _spec(study: StudyFile, config: SiteFile, dataset: str) -> PrivacySpec:
    return spec_of(study, declared_patients=config.datasets[dataset].declared_patients).privacy


def _example(study: StudyFile, config: SiteFile) -> str:
    return f"such as {study.id}: {next(iter(config.datasets))}"


def _answer(study: StudyFile, config: SiteFile) -> Answer:
    """What the rules of site.yaml say, but for the number of patients: `site-agent check` reads the data."""
    enough = max(config.policy.minimum_patients, study.data.minimum_patients)
    layout = largest_layout(study, parameters=study.parameters)
    return decide(
        config.policy,
        facts_of(study, upload_bytes=layout.size_bytes),
        SiteFacts(approved=True, patients=enough, today=datetime.now(UTC).date()),
    )

"""A study in plain words, for the steward who decides: what is computed, what leaves, what it costs, who is in it."""

import math
import textwrap
from datetime import UTC, datetime

from consortium.contract.layout import largest_layout
from consortium.contract.names import Digest
from consortium.contract.study import StudyFile
from privacy.dp import accountant
from privacy.errors import BudgetExceeded
from site_agent.ledger import Ledger
from site_agent.policy import BUDGET_REFUSED, Answer, Refuse, SiteFacts, decide, facts_of, limits_of
from site_agent.site_file import SiteFile
from site_agent.training_spec import spec_of


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
            f"patient. Somebody who would guess even odds that a patient took part could, having seen everything that "
            f"leaves, be right at most {_percent_right(privacy.epsilon)}% of the time (but for a chance of "
            f"{privacy.delta:g}).",
        ),
        *_said("Not covered", _not_covered(study, config)),
        *_said("Cost here", _cost(study, digest, config, ledger)),
    ]
    return "\n".join(parts)


def _said(name: str, text: str) -> list[str]:
    head = f"{name + ':':<19}"
    return [textwrap.fill(text, 110, initial_indent=head, subsequent_indent=" " * len(head))]


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
    if not config.policy.share_exact_metrics:
        return "nothing: this hospital shares no test figures (share_exact_metrics in site.yaml)."
    return "the test figures, which are exact sums over hospitals; this hospital's share stays hidden in the sum."


def _cost(study: StudyFile, digest: Digest, config: SiteFile, ledger: Ledger) -> str:
    name = config.studies.get(study.id)
    if name is None:
        example = f"{study.id}: {next(iter(config.datasets))}"
        return f"unknown until `studies` in site.yaml names a dataset, such as {example}."
    spec = spec_of(study, declared_patients=config.datasets[name].declared_patients).privacy
    planned = accountant.epsilon([spec.study_event()], delta=spec.delta)
    spent = ledger.spent(name, delta=config.policy.max_delta).epsilon
    cap = config.policy.max_epsilon_total
    figures = f"epsilon {planned:.3f} of dataset {name}, which has spent {spent:.3f} of {cap:g}."
    try:
        ledger.admit(
            dataset=name, study_digest=digest, event=spec.study_event(), limits=limits_of(config.policy, study)
        )
    except BudgetExceeded:
        return f"{figures} This hospital's own limits do NOT allow it ({BUDGET_REFUSED.rule} in site.yaml)."
    answer = _answer(study, config)
    if isinstance(answer, Refuse):
        return f"{figures} This hospital's own rules do NOT allow the study ({answer.rule}: {answer.explanation})."
    return f"{figures} This hospital's own limits allow it."


def _answer(study: StudyFile, config: SiteFile) -> Answer:
    """What the rules of site.yaml say, but for the number of patients: `site-agent check` reads the data."""
    enough = max(config.policy.minimum_patients, study.data.minimum_patients)
    layout = largest_layout(study, parameters=study.parameters)
    return decide(
        config.policy,
        facts_of(study, upload_bytes=layout.size_bytes),
        SiteFacts(approved=True, patients=enough, today=datetime.now(UTC).date()),
    )

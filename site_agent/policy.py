"""The hospital's own rules -> Accept | Refuse (pure). No study and no coordinator can change or override one.

A refusal goes to the coordinator, so it names the rule and speaks of the study's numbers, never of the hospital's: not
its caps, not how many patients it has.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import TypeAlias

from consortium.contract.figures_budget import figures_privacy
from consortium.contract.study import StudyFile
from consortium.contract.study_training import NONE
from site_agent.ledger_caps import Limits
from site_agent.site_file import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFacts:
    """What the rules look at in a study, or in one round of it."""

    network: str
    mechanism: str
    suite: str
    epsilon: float  # of the whole study's training; infinite where nothing is promised
    delta: float
    figures_epsilon: float = 0.0  # of its test figures, where they have a budget of their own
    figures_delta: float = 0.0
    minimum_patients: int  # what the study itself demands of a hospital
    participants: int  # hospitals in the round; of a study, the fewest a round may have; in groups, the fewest in a sum
    threshold: int  # hospitals that together open the sum
    witnesses: int  # hospitals that must cosign the log before the study goes on
    upload_bytes: int  # what one round sends out of the building
    expires: date  # the last day anyone takes part


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFacts:
    """What the rules look at here. None of it is in a refusal."""

    approved: bool  # the steward approved exactly this study
    patients: int  # with complete records
    today: date
    round_at: datetime | None = None  # when a round would be trained; None: no round is looked at


@dataclass(frozen=True, slots=True)
class Accept:
    """No rule stands against it."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The first rule that does, by its key in site.yaml (or the study's own), and in words for the other side."""

    rule: str
    explanation: str


Answer: TypeAlias = Accept | Refuse

FLOAT_MARGIN = 1e-12
"""1.1 and 2.2 are 3.3 to everybody who writes a study, and a little more to a computer."""

BUDGET_REFUSED = Refuse("max_epsilon_total", "the privacy budget this hospital set for the data does not allow it")
"""The answer when the ledger raises BudgetExceeded, whose own message has the hospital's numbers in it."""


def decide(policy: Policy, study: StudyFacts, site: SiteFacts) -> Answer:
    """Whether the hospital takes part. Every rule is looked at in a fixed order and the first that fails is named."""
    return next(_objections(policy, study, site), Accept())


def facts_of(study: StudyFile, *, upload_bytes: int, participants: int | None = None) -> StudyFacts:
    """The facts of a study; with `participants`, of one round of it."""
    if study.aggregation.group_size is not None:
        participants = study.sites_in_a_sum  # what hides an update is the sum of its group
    elif participants is None:
        participants = study.sites.minimum
    figures = figures_privacy(study)
    return StudyFacts(
        network=study.model.network,
        mechanism=study.privacy.mechanism,
        suite=study.aggregation.suite,
        epsilon=study.privacy.epsilon,
        delta=study.privacy.delta,
        figures_epsilon=figures.epsilon if figures is not None else 0.0,
        figures_delta=figures.delta if figures is not None else 0.0,
        minimum_patients=study.data.minimum_patients,
        participants=participants,
        threshold=study.sites_that_open,
        witnesses=study.cosignatures_needed,
        upload_bytes=upload_bytes,
        expires=study.governance.expires,
    )


def limits_of(policy: Policy, study: StudyFile) -> Limits:
    """The caps a study's rounds are held against: the hospital's, and the study's own epsilon where it is smaller."""
    return Limits(
        study_epsilon=min(study.privacy.epsilon, policy.max_epsilon_per_study),
        study_delta=study.privacy.delta,
        total_epsilon=policy.max_epsilon_total,
        total_delta=policy.max_delta,
        study_steps=study.steps_of_a_site,
    )


def _objections(policy: Policy, study: StudyFacts, site: SiteFacts) -> Iterator[Refuse]:
    if not site.approved:
        yield Refuse("require_approval", "the steward of this hospital has not approved this study")
    if site.today > study.expires:
        yield Refuse("governance.expires", f"the study expired on {study.expires.isoformat()}")
    hours = policy.allowed_hours
    if hours is not None and site.round_at is not None and not hours.include(site.round_at):
        yield Refuse("allowed_hours", "this hospital takes part in no round at this time of day")
    if study.network not in policy.allowed_networks:
        yield Refuse("allowed_networks", f"this hospital does not train {study.network!r}")
    if study.mechanism == NONE:
        if not policy.allow_no_privacy:
            yield Refuse("allow_no_privacy", "this hospital takes part in no study without differential privacy")
    elif study.mechanism not in policy.allowed_mechanisms:
        yield Refuse("allowed_mechanisms", f"this hospital does not accept {study.mechanism!r} as protection")
    if study.suite not in policy.allowed_suites:
        yield Refuse("allowed_suites", f"this hospital does not use the suite {study.suite!r}")
    # What a patient pays for one study, however it is divided: the sum bounds both together (basic composition).
    is_promised = study.mechanism != NONE
    if is_promised and study.epsilon + study.figures_epsilon > policy.max_epsilon_per_study * (1 + FLOAT_MARGIN):
        figures = f" and {study.figures_epsilon:g} for test figures" if study.figures_epsilon else ""
        yield Refuse(
            "max_epsilon_per_study", f"epsilon {study.epsilon:g}{figures} is more than this hospital gives one study"
        )
    if is_promised and max(study.delta, study.figures_delta) > policy.max_delta:
        delta = max(study.delta, study.figures_delta)
        yield Refuse("max_delta", f"delta {delta:g} is more than this hospital allows")
    if site.patients < max(policy.minimum_patients, study.minimum_patients):
        yield Refuse("minimum_patients", "this hospital has too few patients for the study")
    if study.participants < policy.minimum_sites:
        yield Refuse("minimum_sites", f"with {study.participants} hospitals the sum hides too little")
    if study.threshold < policy.minimum_threshold:
        yield Refuse("minimum_threshold", f"threshold {study.threshold} lets too few hospitals open a sum")
    if study.witnesses < policy.minimum_witnesses:
        yield Refuse("minimum_witnesses", f"with {study.witnesses} witnesses of the log too few see the same history")
    if study.upload_bytes > policy.max_egress_bytes_per_round:
        yield Refuse("max_egress_bytes_per_round", f"{study.upload_bytes} bytes are more than may leave in one round")

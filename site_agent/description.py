"""A study in plain words, for the steward who decides: what is computed, what leaves, what it costs, who is in it."""

import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime

from audit.certificate import percent_right
from consortium.contract.best_model import choice_costs
from consortium.contract.figures_budget import figures_privacy
from consortium.contract.layout import largest_layout
from consortium.contract.names import Digest, SiteId
from consortium.contract.networks import BundleClassifier, BundleSegmenter
from consortium.contract.study import StudyFile
from consortium.contract.study_training import NoPrivacy
from privacy.dp import accountant, distributed
from privacy.errors import BudgetExceeded
from site_agent.bundles.approval import objection_to_bundle
from site_agent.client_algo_file import objection_to_client_algo
from site_agent.data_words import sentence_of
from site_agent.figures_account import admit_figures, budget_digest, budget_of, figures_event
from site_agent.ledger import Ledger
from site_agent.ledger_caps import all_events, events_of
from site_agent.policy import BUDGET_REFUSED, Answer, Refuse, SiteFacts, decide, facts_of, limits_of
from site_agent.site_file import SiteFile
from site_agent.starting_point import objection_to_weights, words_of
from site_agent.training_spec import PrivacySpec, parameters_of, spec_of

_ROUNDS_NAMED = 12
WIDTH = 80
"""Columns of a terminal, and of a printed page."""


def describe(study: StudyFile, digest: Digest, config: SiteFile, ledger: Ledger, *, submitted: str = "") -> str:
    """Several paragraphs; ends with whether this hospital's rules and budget would allow the study.

    `submitted` is what `site_agent.owner` says of who submitted it.
    """
    training = study.training
    dataset_name = config.studies.get(study.id)
    parts = [
        f"{study.title}",
        f"Study {study.id}",
        f"Digest {digest}",
        "",
        *_said("Purpose", study.governance.purpose),
        *_said("Sponsor", f"{study.governance.sponsor} ({study.governance.contact})"),
        *(_said("Submitted by", submitted) if submitted else ()),
        *_said("Ethics", f"{study.governance.ethics.reference}, {study.governance.ethics.authority}"),
        *_said("Legal basis", f"{legal_basis_of(study)}, as the sponsor says"),
        *_said("Ends", f"{study.governance.expires}; records kept {study.governance.retention_years} years"),
        *_said(
            "Who",
            f"{', '.join(study.sites.roster)}. At least {study.sites.minimum} take part in every round, and at least "
            f"{study.aggregation.threshold} of them together are needed to open a sum.{_turns(study, config)}"
            f"{_groups(study)} {study.cosignatures_needed} of them must have cosigned the log before a round begins, "
            f"and before the model is released{_outside(study)}.",
        ),
        *_said(
            "Computed here",
            f"{training.rounds} rounds of {training.local_steps} training steps of a {study.model.network} network "
            f"on {sentence_of(study.data)}; read from the dataset "
            f"{dataset_name or '(none named in site.yaml yet)'}; then its quality on patients set aside.",
        ),
        *_steps(study),
        *_choice(study),
        *_bundle(study, config),
        *(line for name, text in words_of(study, config.weights) for line in _said(name, text)),
        *_client_algo(study, config),
        *_said("Leaves, per round", _leaves(study)),
        *_said("A patient's risk", _risk(study)),
        *_said("Noise", _noise(study, config)),
        *_said("Not covered", _not_covered(study, config)),
        *_said("Cost here", _cost(study, digest, config, ledger)),
        *_said(
            "Model goes to",
            "the coordinator and every hospital of the study, after each round; and, once the study is over, whoever "
            "the consortium lead releases it to. It cannot be called back; "
            + ("what it may say about a patient is bounded by the risk above." if study.is_private else "it is exact."),
        ),
    ]
    return "\n".join(parts)


def _said(name: str, text: str) -> list[str]:
    head = f"{name + ':':<19}"
    # A digest or a path that is broken cannot be compared or copied.
    return [
        textwrap.fill(
            text,
            WIDTH,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def legal_basis_of(study: StudyFile) -> str:
    """The ground that the study names, in the law's own numbers."""
    basis = study.governance.legal_basis
    named = (("GDPR Art.", basis.gdpr_article_6), ("GDPR Art.", basis.gdpr_article_9), ("HIPAA", basis.hipaa))
    return ", ".join(f"{law} {value}" for law, value in named if value is not None)


def _steps(study: StudyFile) -> list[str]:
    """What stays here between rounds, and how large the steps are, where the study says anything about it."""
    training, said = study.training, []
    if training.schedule is not None:
        said.append(f"the learning rate follows a schedule ({training.schedule.name}), which looks at no patient")
    if training.optimizer_state is not None:
        said.append(
            "the optimizer's state is kept in this agent's home from round to round and never leaves"
            + ("; it is made of noisy gradients, so it costs no privacy" if study.is_private else "")
        )
    if not said:
        return []
    text = "; ".join(said)
    return _said("Steps", f"{text[0].upper()}{text[1:]}.")


def _choice(study: StudyFile) -> list[str]:
    """By what the released model is chosen, and what that gives away."""
    wanted = study.evaluation
    if wanted.keep_best is None:
        return []
    early = ""
    if wanted.stop_early is not None:
        early = (
            f" Training stops after {wanted.stop_early.patience} measured rounds without a better one; rounds that do "
            "not take place cost nothing."
        )
    has_validation = study.has_validation
    has_budget = wanted.privacy is not None
    costs = choice_costs(has_budget=has_budget, is_private=study.is_private, has_validation=has_validation)
    whom = "validation patients, who are set aside for that" if has_validation else "the patients set aside"
    return _said("Model", f"the best of those measured, by {wanted.keep_best} of {whom}.{early} {costs}")


def _bundle(study: StudyFile, config: SiteFile) -> list[str]:
    """Where the network comes from, if a bundle defines it."""
    if not isinstance(study.model, BundleClassifier | BundleSegmenter):
        return []
    args = study.model.args
    copy = config.bundles.get(args.digest)
    known = f"this hospital's copy is {copy}" if copy is not None else "site.yaml does not name it, so it is refused"
    also = f" The study follows it in {', '.join(args.follows)} too." if args.follows else ""
    return _said("Network", f"defined by the MONAI bundle {args.digest} ({known}): {args.definition}.{also}")


def _client_algo(study: StudyFile, config: SiteFile) -> list[str]:
    """Whose code takes the steps, if it is not this program's."""
    name = study.training.client_algo
    if name is None:
        return []
    registered = config.client_algos.get(name)
    known = "site.yaml has no client algorithm of that name, so the study is refused"
    if registered is not None:
        known = f"here {registered.class_name} in {registered.where}, SHA-256 {registered.sha256}"
    return _said(
        "Trained by",
        f"code of each hospital's own, under the name {name} ({known}). It runs with this agent's rights. What the "
        "study says about steps, batches, optimizer and loss is told to it, and nobody holds it to that.",
    )


def _risk(study: StudyFile) -> str:
    """The promise to one patient over the whole study, test figures with a budget of their own included."""
    if isinstance(study.privacy, NoPrivacy):
        return (
            "NO DIFFERENTIAL PRIVACY. No noise protects any patient in this study. What leaves is hidden in the sum of "
            "all hospitals and nowhere else: sums and model are exact, and may tell whoever sees them about single "
            f"patients. The reason given: {study.privacy.justification}"
        )
    privacy, figures = study.privacy, figures_privacy(study)
    epsilon, delta = privacy.epsilon, privacy.delta
    promised = f"epsilon {epsilon:g} at delta {delta:g} over the whole study, for everything about one patient."
    if figures is not None:
        # Two mechanisms at two deltas: simply added, as `max_epsilon_per_study` counts them.
        epsilon, delta = epsilon + figures.epsilon, delta + figures.delta
        promised = (
            f"epsilon {privacy.epsilon:g} at delta {privacy.delta:g} for the training and epsilon {figures.epsilon:g} "
            f"at delta {figures.delta:g} for the test figures: together {epsilon:g} at {delta:g} over the whole study, "
            "for everything about one patient."
        )
    return (
        f"{promised} Somebody who would guess even odds that a patient took part could, having seen {_seen(study)}, "
        f"be right at most {percent_right(epsilon):g}% of the time (but for a chance of {delta:g})."
    )


def _seen(study: StudyFile) -> str:
    return "every sum that hospitals open" if study.is_distributed else "everything that leaves"


def _turns(study: StudyFile, config: SiteFile) -> str:
    """In which rounds this hospital trains, where not all do; the schedule is known before anybody approves."""
    per_round = study.training.participants_per_round
    if per_round is None:
        return ""
    own = study.turns_of(SiteId(config.site))
    named = ", ".join(map(str, own[:_ROUNDS_NAMED])) + (" and so on" if len(own) > _ROUNDS_NAMED else "")
    return (
        f" They train by turns: {per_round} of the {len(study.sites.required)} in every round, as follows from the "
        f"study's digest. This hospital is in {len(own)} of the {study.training.rounds} rounds ({named or 'none'}), "
        f"and noise is for {study.rounds_of_a_site}, the most that any hospital is in. That makes no patient more "
        "private: everybody knows whose turn it is. All of them measure the last model."
    )


def _outside(study: StudyFile) -> str:
    """Witnesses that are no hospitals."""
    keys = study.witnesses.outside if study.witnesses is not None else ()
    names = [key.partition("+")[0] for key in keys]
    return f", then {', '.join(names)} too" if names else ""


def _groups(study: StudyFile) -> str:
    if study.aggregation.group_size is None:
        return ""
    return (
        f" They are divided at random, anew in every attempt, into groups of at least {study.aggregation.group_size}, "
        f"and the coordinator sees the sum of each group: of at least {study.sites_in_a_sum} hospitals, which any "
        f"{study.sites_that_open} of the group can open together."
    )


def _leaves(study: StudyFile) -> str:
    layout = largest_layout(study, parameters=parameters_of(study))
    group_size = study.aggregation.group_size
    peers = len(study.sites.required) if group_size is None else 2 * group_size
    return (
        f"one masked vector of {layout.size_bytes:,} bytes that looks like random numbers to everybody and opens only "
        f"as part of the sum over hospitals, and about {2 * peers + 4} kB of keys and signatures."
    )


def _not_covered(study: StudyFile, config: SiteFile) -> str:
    if study.aggregation.group_size is not None:
        return "nothing: no test figures are summed when hospitals are divided into groups."
    if not study.is_private:
        return "everything: there is no guarantee that something could be left out of."
    if study.evaluation.privacy is not None:
        budget = study.evaluation.privacy
        return (
            "nothing: the test figures come from noisy counts with a budget of their own, epsilon "
            f"{budget.epsilon:g} at delta {budget.delta:g}, which is in the risk above and in the cost below. "
            "share_exact_metrics does not concern them."
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
    if not study.is_private:
        answer = _answer(study, config)
        return _refused(answer) if isinstance(answer, Refuse) else None
    try:
        training = _spec(study, config, name).study_event()
        ledger.admit(dataset=name, study_digest=digest, event=training, limits=limits_of(config.policy, study))
        admit_figures(ledger, study=study, digest=digest, dataset=name, policy=config.policy, training=training)
    except BudgetExceeded:
        return f"this hospital's own limits do NOT allow it ({BUDGET_REFUSED.rule} in site.yaml)."
    answer = _answer(study, config)
    return _refused(answer) if isinstance(answer, Refuse) else None


def _refused(answer: Refuse) -> str:
    return f"this hospital's own rules do NOT allow the study ({answer.rule}: {answer.explanation})."


def _cost(study: StudyFile, digest: Digest, config: SiteFile, ledger: Ledger) -> str:
    name = config.studies.get(study.id)
    if name is None:
        return f"unknown until `studies` in site.yaml names a dataset, {_example(study, config)}."
    against = objection(study, digest, config, ledger)
    if not study.is_private:
        verdict = against or "this hospital's own rules allow it (allow_no_privacy in site.yaml)."
        return (
            f"nothing of the budget of dataset {name}, because no budget can bound what a study without differential "
            f"privacy reveals. {verdict[0].upper()}{verdict[1:]}"
        )
    cost = cost_of(study, digest, config, ledger, name)
    shared = [overlap.dataset for overlap in ledger.overlaps(name)]
    common = f" It has patients in common with {', '.join(shared)}, and one budget with it." if shared else ""
    verdict = against or "this hospital's own limits allow it."
    figures = f" for training and {cost.figures:.3f} for test figures," if cost.figures else ""
    against_cap = f"{cost.held / cost.cap:.0%} of the cap"
    if cost.held > cost.after:
        against_cap = f"held against the cap as {cost.held:.3f}, {against_cap}"
    return (
        f"epsilon {cost.study:.3f}{figures} of dataset {name}, which has spent {cost.before:.3f} of {cost.cap:g} and "
        f"will have spent {cost.after:.3f} ({against_cap}) at delta {cost.delta:g}.{common} "
        f"{verdict[0].upper()}{verdict[1:]}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What an approval would come to: epsilons, each composed as tightly as can be."""

    study: float  # of the whole study's training, at the study's delta
    figures: float  # of all its test figures, at their delta; 0 if they have no budget of their own
    before: float  # of the dataset without this study's remaining rounds, at `delta`
    after: float  # of the dataset when the study is over, at `delta`
    held: float  # the same as the ledger holds it against the cap: larger as soon as several lines are on the dataset
    cap: float
    delta: float  # the hospital's max_delta


def cost_of(study: StudyFile, digest: Digest, config: SiteFile, ledger: Ledger, dataset: str) -> Cost:
    """What a study costs one dataset, with everything that was spent on it."""
    event, policy = _spec(study, config, dataset).study_event(), config.policy
    counted = ledger.counted(dataset)
    before = [value for key, value in counted.items() if key not in (digest, budget_digest(digest))]
    # The test figures' own budget, where a study has one, is spent on the same dataset.
    figures = figures_event(study)
    own = [event] if figures is None else [event, figures]
    everything = [*(one for value in before for one in events_of(value)), *own]
    after = accountant.epsilon(everything, delta=policy.max_delta)
    held = after
    if len(before) + len(own) > 1:
        held = accountant.filter_epsilon(everything, delta=policy.max_delta, cap=policy.max_epsilon_total)
    return Cost(
        study=accountant.epsilon([event], delta=study.privacy.delta),
        figures=0.0 if figures is None else accountant.epsilon([figures], delta=budget_of(study).delta),
        before=accountant.epsilon(all_events(counted), delta=policy.max_delta),
        after=after,
        held=held,
        cap=policy.max_epsilon_total,
        delta=policy.max_delta,
    )


def _noise(study: StudyFile, config: SiteFile) -> str:
    """Whom a patient has to trust for the epsilon to be true."""
    if not study.is_private:
        return (
            f"none. Patients rely on secure aggregation alone: any {study.aggregation.threshold} hospitals could open "
            "sums together, and every hospital of a sum can subtract its own part of it."
        )
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
    refused = (
        objection_to_bundle(study, config.bundles)
        or objection_to_client_algo(study, config.client_algos)
        or objection_to_weights(study, config.weights)
    )
    if refused is not None:
        return refused
    enough = max(config.policy.minimum_patients, study.data.minimum_patients)
    layout = largest_layout(study, parameters=parameters_of(study))
    return decide(
        config.policy,
        facts_of(study, upload_bytes=layout.size_bytes),
        SiteFacts(approved=True, patients=enough, today=datetime.now(UTC).date()),
    )

"""A study made ready at this hospital: approval, policy, data, budget, first model. Nothing is trained yet.

Runs in a worker thread. Data are read and networks built in a training room (`training_room.py`), not here.
"""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from audit import entries
from consortium.contract.digest import canonical_bytes, digest_of
from consortium.contract.global_model import GlobalModel, parameter_count
from consortium.contract.layout import largest_layout
from consortium.contract.names import Digest
from consortium.contract.study import StudyFile
from privacy.dp import accountant
from site_agent.bundles.approval import objection_to_bundle
from site_agent.client_algo_file import objection_to_client_algo
from site_agent.data_words import columns_of
from site_agent.datasets import Dataset
from site_agent.errors import SiteError
from site_agent.figures_account import admit_figures
from site_agent.home import AgentHome
from site_agent.ledger import Ledger
from site_agent.left_out import withdrawn_at
from site_agent.logged_event import logged_event
from site_agent.mechanism_findings import MechanismAudit, audit_fields
from site_agent.patient_marks import marks_of
from site_agent.policy import Refuse, SiteFacts, decide, facts_of, limits_of
from site_agent.signed_events import SignedEvents, bucket_of
from site_agent.starting_point import objection_to_weights
from site_agent.steward_approval import NOT_APPROVED, objection_to_approval
from site_agent.stewards import about_study
from site_agent.store import Store
from site_agent.training_room import Order, Rooms, Seen, TrainingRoom
from site_agent.training_spec import PlainSpec, PrivacySpec, TrainingSpec, plain_spec_of, spec_of
from site_agent.withdrawal_rows import Retaken
from site_agent.withdrawals import Withdrawn


class Declined(SiteError):
    """This hospital does not take part; `refusal` is what the coordinator is told."""

    def __init__(self, refusal: Refuse) -> None:
        super().__init__(f"{refusal.rule}: {refusal.explanation}")
        self.refusal = refusal


NOT_AS_CLAIMED = Refuse("mechanism_audit", "what this hospital measured of its training is not what the study claims")
NO_DATASET = Refuse("studies", "this hospital has not named a dataset for the study")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """What does not change from round to round."""

    study: StudyFile
    digest: Digest
    dataset: str
    room: TrainingRoom
    seen: Seen
    spec: TrainingSpec | PlainSpec
    engine: str  # how gradients are computed here
    audit: MechanismAudit | None  # None where it cannot be measured
    first_model: GlobalModel
    withdrawals: int = 0  # how often patients withdrew before the cohort was read


def prepare(home: AgentHome, store: Store, ledger: Ledger, digest: Digest, rooms: Rooms) -> Prepared:
    """Check a study against this hospital's approval, rules, data and budget, and build its first model.

    The room computes and is not believed: nothing is decided in it, and nothing written down by it.

    Raises:
        Declined: A rule of this hospital stands against it.
        BudgetExceeded: The whole study would not fit what is left.
        LedgerBehind: The ledger is older than what this hospital has signed.
        WithdrawalsUnreadable: Who withdrew could not be recognised.
        ClientAlgoRefused, DataInvalid, FileInvalid, NetworkRefused: See there.
        RoomLost: The process that computes is gone.
    """
    study = approved_study(home, store, digest)
    config = home.config
    dataset = config.dataset_for(study.study_id)
    if dataset is None:
        raise Declined(NO_DATASET)
    refused = objection_to_bundle(study, config.bundles) or objection_to_client_algo(study, config.client_algos)
    if refused is not None:
        raise Declined(refused)
    without_weights = objection_to_weights(study, config.weights)
    if without_weights is not None:
        raise Declined(without_weights)
    withdrawn = withdrawn_at(home, store)
    if store.cohort_is_due(digest):  # what was made with the patients who withdrew goes with them
        shutil.rmtree(carried_folder(home, digest), ignore_errors=True)
        home.images.clear()
    room = rooms(order_for(home, study, digest, dataset, withdrawn))
    try:
        return _prepared_in(room, home, ledger, study, digest, withdrawals=withdrawn.times)
    except BaseException:
        room.stop()
        raise


def carried_folder(home: AgentHome, digest: Digest) -> Path:
    """Where this hospital keeps what it carries from round to round of a study."""
    return home.folder / "carried" / digest[:16]


def order_for(home: AgentHome, study: StudyFile, digest: Digest, dataset: Dataset, withdrawn: Withdrawn) -> Order:
    """What a room needs to know of this hospital and a study, and no more."""
    config, named = home.config, study.initial_weights
    weights = {} if named is None else {named.sha256: config.weights[named.sha256]}
    algo = study.training.client_algo
    return Order(
        study=study,
        dataset=dataset,
        site=config.site_id,
        device=config.device,
        precision=config.precision,
        engine=config.engine,
        weights=weights,
        client_algo=None if algo is None else config.client_algos[algo],
        images=home.images,
        carried=carried_folder(home, digest),
        models=home.folder / "models",
        scratch=home.folder / "training" / digest[:16],
        limits=config.training_child,
        withdrawn=withdrawn,
    )


def _prepared_in(
    room: TrainingRoom, home: AgentHome, ledger: Ledger, study: StudyFile, digest: Digest, *, withdrawals: int
) -> Prepared:
    config = home.config
    name, dataset = config.studies[study.id], config.dataset_for(study.study_id)
    assert dataset is not None  # `prepare` looked
    seen = room.look()
    layout = largest_layout(study, parameters=seen.parameters)
    answer = decide(
        config.policy,
        facts_of(study, upload_bytes=layout.size_bytes),
        SiteFacts(approved=True, patients=seen.patients, today=datetime.now(UTC).date()),
    )
    if isinstance(answer, Refuse):
        raise Declined(answer)
    # Also for a study that spends nothing: a certificate of another study has to know whose data it used.
    ledger.register(name, marks_of(room.identifiers(), home.long_term_secret))
    spec: TrainingSpec | PlainSpec
    if study.is_private:
        private = spec_of(
            study,
            declared_patients=dataset.declared_patients,
            weights=config.weights,
            parameters=parameter_count(seen.parameters),
        )
        spec, planned = private.at(config.site), private.privacy.study_event()
        ledger.admit(dataset=name, study_digest=digest, event=planned, limits=limits_of(config.policy, study))
        admit_figures(ledger, study=study, digest=digest, dataset=name, policy=config.policy, training=planned)
    else:
        plain = plain_spec_of(study, declared_patients=dataset.declared_patients, weights=config.weights)
        spec = plain.at(config.site)
    equipped = room.equip(spec)
    return Prepared(
        study=study,
        digest=digest,
        dataset=name,
        room=room,
        seen=seen,
        spec=spec,
        engine=equipped.engine,
        audit=equipped.audit,
        first_model=equipped.first_model,
        withdrawals=withdrawals,
    )


_study_of = lru_cache(maxsize=8)(StudyFile.from_document)
"""Approvals are asked for at every step that sends; the same bytes are the same study."""


def approved_study(home: AgentHome, store: Store, digest: Digest) -> StudyFile:
    """The study whose stewards signed for this digest, from the bytes they were shown; raises Declined.

    The signatures are verified under the keys that count now, and counted by the policy as it is now.
    """
    decision = store.decision(digest)
    if decision is None:
        raise Declined(NOT_APPROVED)
    refused = objection_to_approval(
        about_study(home, decision.study, digest),
        decision.decision,
        decision.signatures,
        frozenset(row.key for row in store.stewards() if row.standing),
        home.config.policy,
    )
    if refused is not None:
        raise Declined(refused)
    if digest_of(decision.document) != digest:
        raise Declined(NOT_APPROVED)  # another document is remembered than the one that was signed
    return _study_of(decision.document)


def announce(prepared: Prepared, events: SignedEvents) -> None:
    """Signed for the log, once: what will be run here, on which columns, on roughly how many patients, at what cost.

    With it what an audit of the mechanism measured; one that fails is signed whenever it does. A study without
    differential privacy has no cost and no mechanism to speak of: that it has none is in the study itself.

    Raises:
        Declined: It failed.
    """
    study = prepared.study
    cohort = {
        "study": study.id,
        "dataset": prepared.dataset,
        "columns": columns_of(study.data),
        "patients": bucket_of(prepared.seen.patients),
        "contract_digest": digest_of(canonical_bytes(study.data.model_dump(mode="json", exclude_none=True))),
    }
    announced: list[tuple[type[entries.SiteEntry], dict[str, Any]]]
    announced = [(entries.CohortSnapshot, cohort)]
    if isinstance(prepared.spec, TrainingSpec):
        cost = _cost_fields(study.id, prepared.dataset, prepared.spec.privacy)
        announced.append((entries.DpConfigured, cost | {"engine": prepared.engine}))
    audit = prepared.audit
    if audit is not None:
        announced.append((entries.DpAudited, audit_fields(study.id, prepared.dataset, audit)))
    first = events.announce(prepared.digest, *announced)
    if not first:  # after a withdrawal the log hears of the cohort as it is now
        again = Retaken(study_digest=prepared.digest, times=prepared.withdrawals)
        events.retake(again, entries.CohortSnapshot, cohort)
    if audit is not None and audit.failed:
        if not first:
            events.add(entries.DpAudited, **announced[-1][1])
        raise Declined(NOT_AS_CLAIMED)


def _cost_fields(study: str, dataset: str, spec: PrivacySpec) -> dict[str, Any]:
    """What a `dp.configured` entry is built from."""
    event = spec.study_event()
    return {
        "study": study,
        "dataset": dataset,
        "mechanism": event.kind,
        "unit": event.unit.value,
        "relation": event.relation.value,
        "noise_multiplier": spec.mechanism.noise_multiplier,
        "sampling_rate": spec.mechanism.sampling_rate,
        "steps_planned": spec.mechanism.steps,
        "clip_norm_l2": spec.mechanism.clip_norm_l2,
        "event": logged_event(event),
        "epsilon_planned": accountant.epsilon([event], delta=spec.delta),
        "delta": spec.delta,
        "accountant": "dp-accounting PLD",
        "accountant_version": accountant.versions()["dp-accounting"],
    }

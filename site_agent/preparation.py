"""A study made ready at this hospital: approval, policy, data, budget, first model. Nothing is trained yet.

Runs in a worker thread. torch and pandas are loaded here, when a study first needs them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from audit import entries
from consortium.contract.digest import canonical_bytes, digest_of
from consortium.contract.global_model import GlobalModel
from consortium.contract.layout import largest_layout
from consortium.contract.names import Digest
from consortium.contract.study import StudyFile
from privacy.dp import accountant
from site_agent.bundles.approval import objection_to_bundle
from site_agent.client_algo_file import made_client_algo, objection_to_client_algo
from site_agent.data_words import columns_of
from site_agent.errors import SiteError
from site_agent.figures_account import admit_figures
from site_agent.home import AgentHome
from site_agent.ledger import Ledger
from site_agent.logged_event import logged_event
from site_agent.patient_marks import identifiers_in, marks_of
from site_agent.policy import Refuse, SiteFacts, decide, facts_of, limits_of
from site_agent.signed_events import SignedEvents, bucket_of
from site_agent.site_file import SiteFile
from site_agent.starting_point import objection_to_weights
from site_agent.store import Store
from site_agent.training_spec import (
    PlainSpec,
    PrivacySpec,
    TrainingSpec,
    network_spec_of,
    plain_spec_of,
    spec_of,
)

if TYPE_CHECKING:
    from site_agent.cohort import Cohort, Records
    from site_agent.device import Compute
    from site_agent.exact_trainer import ExactTrainer
    from site_agent.gradients.admission import EngineChoice, Trial
    from site_agent.mechanism_audit import MechanismAudit
    from site_agent.trainer import DpTrainer


log = structlog.get_logger(__name__)


class Declined(SiteError):
    """This hospital does not take part; `refusal` is what the coordinator is told."""

    def __init__(self, refusal: Refuse) -> None:
        super().__init__(f"{refusal.rule}: {refusal.explanation}")
        self.refusal = refusal


RECORDS_TRIED_MAX = 8
"""Records of a patient, or patches, on which engines are tried; one patient's records are never split."""

NOT_APPROVED = Refuse("require_approval", "the steward of this hospital has not approved this study")
NOT_AS_CLAIMED = Refuse("mechanism_audit", "what this hospital measured of its training is not what the study claims")
NO_DATASET = Refuse("studies", "this hospital has not named a dataset for the study")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """What does not change from round to round."""

    study: StudyFile
    digest: Digest
    dataset: str
    cohort: "Cohort"
    spec: TrainingSpec | PlainSpec
    trainer: "DpTrainer | ExactTrainer"
    audit: "MechanismAudit | None"  # None where it cannot be measured
    first_model: GlobalModel


def prepare(home: AgentHome, store: Store, ledger: Ledger, digest: Digest) -> Prepared:
    """Check a study against this hospital's approval, rules, data and budget, and build its first model.

    Raises:
        Declined: A rule of this hospital stands against it.
        BudgetExceeded: The whole study would not fit what is left.
        LedgerBehind: The ledger is older than what this hospital has signed.
        ClientAlgoRefused, DataInvalid, FileInvalid, NetworkRefused: See there.
    """
    from site_agent.admission_audit import audited_at_admission  # noqa: PLC0415 - torch
    from site_agent.cohort import read_cohort  # noqa: PLC0415 - pandas
    from site_agent.networks import build_from  # noqa: PLC0415 - torch
    from site_agent.trainer import DpTrainer  # noqa: PLC0415 - torch
    from site_agent.update import global_model_of  # noqa: PLC0415 - torch

    study = approved_study(store, digest)
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
    name = config.studies[study.id]
    compute = compute_of(config)
    cohort = read_cohort(study, dataset, home.images)
    first_model = global_model_of(build_from(network_spec_of(study, config.weights)))
    layout = largest_layout(study, parameters=first_model.parameters)
    answer = decide(
        config.policy,
        facts_of(study, upload_bytes=layout.size_bytes),
        SiteFacts(approved=True, patients=cohort.summary.patients, today=datetime.now(UTC).date()),
    )
    if isinstance(answer, Refuse):
        raise Declined(answer)
    # Also for a study that spends nothing: a certificate of another study has to know whose data it used.
    ledger.register(name, marks_of(identifiers_in(dataset), home.long_term_secret))
    if not study.is_private:
        plain = plain_spec_of(study, declared_patients=dataset.declared_patients, weights=config.weights).at(
            config.site
        )
        return Prepared(
            study=study,
            digest=digest,
            dataset=name,
            cohort=cohort,
            spec=plain,
            trainer=_exact_trainer(study, plain, cohort.train, config, compute),
            audit=None,  # there is no mechanism to measure
            first_model=first_model,
        )
    spec = spec_of(study, declared_patients=dataset.declared_patients, weights=config.weights).at(config.site)
    ledger.admit(
        dataset=name,
        study_digest=digest,
        event=spec.privacy.study_event(),
        limits=limits_of(config.policy, study),
    )
    admit_figures(
        ledger, study=study, digest=digest, dataset=name, policy=config.policy, training=spec.privacy.study_event()
    )
    engine = engine_for(spec, config.engine, compute)
    return Prepared(
        study=study,
        digest=digest,
        dataset=name,
        cohort=cohort,
        spec=spec,
        trainer=DpTrainer(spec, cohort.train, engine=engine),
        audit=audited_at_admission(spec, engine, parameters=first_model.vector.size),
        first_model=first_model,
    )


def _exact_trainer(
    study: StudyFile, spec: PlainSpec, train: "Records", config: SiteFile, compute: "Compute"
) -> "ExactTrainer":
    """Who takes the steps of a study without differential privacy: this program, or the hospital's own class."""
    from site_agent.plain_trainer import PlainTrainer  # noqa: PLC0415 - torch

    if study.training.client_algo is None:
        return PlainTrainer(spec, train, compute=compute)
    from site_agent.client_algo import ClientAlgoTrainer  # noqa: PLC0415 - MONAI

    registered = config.client_algos[study.training.client_algo]
    log.info("client_algo.made", code=registered.sha256)
    return ClientAlgoTrainer(
        made_client_algo(registered),
        spec,
        train,
        site=config.site,
        folder=Path(registered.file).parent,
        compute=compute,
    )


def compute_of(config: SiteFile) -> "Compute":
    """Where this hospital computes and in what precision, said in its log; raises DeviceMissing."""
    from site_agent.device import compute_for  # noqa: PLC0415 - torch

    compute = compute_for(config.device, config.precision)
    log.info("device.chosen", device=compute.words, wanted=config.device)
    return compute


def engine_for(spec: TrainingSpec, wanted: str, compute: "Compute") -> "EngineChoice":
    """The engine for a study on this machine, tried on its network before training; raises EngineUnsuited.

    What was tried goes to the hospital's own log: times and memory are those of made-up records.
    """
    trial = trial_of(spec, wanted, compute)
    for tried in trial.candidates:
        log.info("engine.tried", engine=tried.engine, seconds=tried.seconds, memory_bytes=tried.peak_bytes,
                 reason=tried.unsuited or None)  # fmt: skip
    log.info("engine.chosen", engine=trial.choice.name, outcome="pinned" if trial.pinned else "fastest")
    return trial.choice


def trial_of(spec: TrainingSpec, wanted: str, compute: "Compute") -> "Trial":
    """What engines were tried for a study, and the one that was chosen; raises EngineUnsuited."""
    from site_agent.gradients.admission import chosen_for  # noqa: PLC0415 - torch
    from site_agent.gradients.workload import Workload  # noqa: PLC0415 - torch

    workload = Workload.of(
        spec.network.input_shape,
        expected_patients=spec.privacy.denominator,
        records_each=min(spec.privacy.max_records_per_patient * spec.views_per_record, RECORDS_TRIED_MAX),
        label_shape=spec.network.label_shape,
        classes=max(2, spec.network.outputs),
        device=compute.device,
        steps=spec.privacy.mechanism.steps,
    )
    return chosen_for(spec.network, workload, None if wanted == "auto" else wanted, compute)


_study_of = lru_cache(maxsize=8)(StudyFile.from_document)
"""Approvals are asked for at every step that sends; the same bytes are the same study."""


def approved_study(store: Store, digest: Digest) -> StudyFile:
    """The study a steward approved under this digest, from the bytes that were shown; raises Declined."""
    decision = store.decision(digest)
    if decision is None or decision.decision != "approved":
        raise Declined(NOT_APPROVED)
    return _study_of(decision.document)


def announce(prepared: Prepared, events: SignedEvents) -> None:
    """Signed for the log, once: what will be run here, on which columns, on roughly how many patients, at what cost.

    With it what an audit of the mechanism measured; one that fails is signed whenever it does. A study without
    differential privacy has no cost and no mechanism to speak of: that it has none is in the study itself.

    Raises:
        Declined: It failed.
    """
    from site_agent.admission_audit import audit_fields  # noqa: PLC0415 - torch

    study = prepared.study
    cohort = {
        "study": study.id,
        "dataset": prepared.dataset,
        "columns": columns_of(study.data),
        "patients": bucket_of(prepared.cohort.summary.patients),
        "contract_digest": digest_of(canonical_bytes(study.data.model_dump(mode="json", exclude_none=True))),
    }
    announced: list[tuple[type[entries.SiteEntry], dict[str, Any]]]
    announced = [(entries.CohortSnapshot, cohort)]
    if isinstance(prepared.spec, TrainingSpec):
        cost = _cost_fields(study.id, prepared.dataset, prepared.spec.privacy)
        announced.append((entries.DpConfigured, cost | {"engine": prepared.trainer.engine_name}))
    audit = prepared.audit
    if audit is not None:
        announced.append((entries.DpAudited, audit_fields(study.id, prepared.dataset, audit)))
    first = events.announce(prepared.digest, *announced)
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

"""The agent put together, and what its command line asks: run, list, describe, decide, budget."""

import asyncio
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit import entries
from consortium.contract.errors import ContractError
from consortium.contract.messages import StudyDocument
from consortium.contract.names import Digest
from consortium.contract.study import StudyFile
from consortium.wire.errors import WireError
from consortium.wire.fact_log import log_as_facts
from privacy.errors import PrivacyError
from site_agent.agent import Agent, CoordinatorLine, dial
from site_agent.budget import DatasetBudget, budgets
from site_agent.certification import certificate_of, local_figures
from site_agent.description import describe, objection
from site_agent.errors import SiteError
from site_agent.home import AgentHome, open_home
from site_agent.ledger import Ledger
from site_agent.ledger_restore import restore_ledger
from site_agent.preparation import compute_of, engine_for
from site_agent.privacy_certificate import PrivacyCertificate
from site_agent.progress import Standing, standings
from site_agent.signed_events import SignedEvents
from site_agent.store import Decision, Store
from site_agent.training_spec import spec_of

if TYPE_CHECKING:  # torch is loaded by the one command that audits
    from site_agent.mechanism_audit import MechanismAudit


class StudyUnknown(SiteError):
    """A study that the coordinator does not offer to this hospital."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(
            f"the coordinator offers no study {name!r} to this hospital; it offers: {', '.join(known) or 'none'}"
        )

    def advice(self) -> str:
        """What to do next."""
        return "`site-agent studies list` shows the names."


class DatasetUnknown(SiteError):
    """A dataset that neither site.yaml nor the ledger knows."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"there is no dataset {name!r} here; there are: {', '.join(known) or 'none'}")

    def advice(self) -> str:
        """What to do next."""
        return "`site-agent budget` without --dataset shows them all."


class NotAudited(SiteError):
    """A study whose mechanism the audit cannot measure."""

    def advice(self) -> str:
        """What to do next."""
        return "The study can run; its certificate will say that the mechanism was not audited."


class StudyAltered(SiteError):
    """The coordinator's bytes of a study are not those of its digest."""

    def advice(self) -> str:
        """What to do next."""
        return "Do not approve it. Ask the consortium lead which digest is right, by telephone."


def open_store(folder: Path) -> Store:
    """The agent's memory, with the home checked first."""
    open_home(folder)
    return Store(folder / "agent.db")


def open_ledger(folder: Path, store: Store) -> Ledger:
    """The hospital's ledger, held against what the agent remembers to have signed."""
    return Ledger(folder / "ledger.db", told=store.told)


async def run_until_stopped(folder: Path) -> None:
    """`site-agent run`: take part until SIGTERM or SIGINT."""
    log_as_facts()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    home = open_home(folder)
    _ = home.config  # a site.yaml that is wrong is found now, not at the first study
    store = Store(folder / "agent.db")
    ledger = open_ledger(folder, store)
    ledger.require_current()  # so is a ledger from a backup
    await Agent(home, store, ledger).run(stop)


async def list_studies(folder: Path) -> list[dict[str, str]]:
    """The coordinator's studies for this hospital, with what was decided here."""
    home, store = open_home(folder), open_store(folder)
    rows = []
    for document in await _offered(home, store):
        try:
            title = _read(document).title
        except (StudyAltered, ContractError):
            title = "(cannot be read: not a study, or not the one of this digest)"
        decision = store.decision(document.study_digest)
        rows.append(
            {
                "study": document.study,
                "digest": document.study_digest,
                "state": document.state,
                "title": title,
                "decision": decision.decision if decision is not None else "undecided",
            }
        )
    return rows


async def describe_study(folder: Path, name: str) -> str:
    """A study in plain words, for the person who decides."""
    home, store = open_home(folder), open_store(folder)
    document = await _find(home, store, name)
    study = _read(document)
    ledger = open_ledger(folder, store)
    return await asyncio.to_thread(describe, study, document.study_digest, home.config, ledger)


async def decide_study(folder: Path, name: str, decision: str, *, steward: str, statement: str) -> Digest:
    """Approve or reject a study: signed, remembered, and told to the coordinator; returns the digest decided upon.

    Raises HistoryLost if the log has more of this hospital's entries than it remembers.

    Taking back an approval needs nobody: it is remembered here, nothing leaves for the study any more, and the
    coordinator is told when it can be reached (at the latest by the agent, when it connects).
    """
    home, store = open_home(folder), open_store(folder)
    events = SignedEvents(home, store)
    standing = [made for made in store.decisions() if made.study == name and made.decision == "approved"]
    if decision == "approved" or not standing:
        document = await _find(home, store, name)
        study = _read(document)
        about = [(document.study_digest, study.study_id, document.document)]
    else:
        about = [(made.study_digest, made.study, made.document) for made in standing]
    for digest, study_id, content in about:
        made = Decision(
            study_digest=digest,
            study=study_id,
            document=content,
            decision=decision,
            steward=steward,
            statement=statement,
            at=time.time(),
        )
        signed: dict[str, Any] = {"study": study_id, "study_digest": digest, "steward": events.pseudonym(steward)}
        if decision == "approved":
            events.add(entries.StudyApproved, decision=made, statement=statement, **signed)
        else:
            events.add(entries.StudyRejected, decision=made, reason=statement, **signed)
    line = CoordinatorLine(store)
    try:
        async with await dial(home, line) as client:
            line.bind(client, None)
            await line.submit_events()
            await line.check_history()  # an entry under a number that the log has already would be dropped
    except WireError:
        if decision == "approved":
            raise  # a study without this hospital's approval in the log does not begin
    return about[-1][0]


def objection_to(folder: Path, digest: Digest) -> str | None:
    """What stands against a study at this hospital as of now, for the steward's eyes; None if nothing does."""
    home, store = open_home(folder), open_store(folder)
    decision = store.decision(digest)
    if decision is None:
        return None
    try:
        return objection(StudyFile.from_document(decision.document), digest, home.config, open_ledger(folder, store))
    except (SiteError, ContractError, PrivacyError) as error:
        return str(error)


def promises_nothing(folder: Path, digest: Digest) -> bool:
    """Whether a study that was decided about promises patients no differential privacy."""
    decision = open_store(folder).decision(digest)
    return decision is not None and not StudyFile.from_document(decision.document).is_private


def study_standings(folder: Path) -> tuple[Standing, ...]:
    """How far this hospital's work on each study has come, as the agent wrote it down last."""
    return standings(open_home(folder).folder)


def dataset_budgets(folder: Path, dataset: str | None) -> tuple[DatasetBudget, ...]:
    """What every dataset, or one, has spent and has left.

    Raises:
        LedgerBehind: The ledger is older than what this hospital has signed: its figures would be too small.
        DatasetUnknown: Neither site.yaml nor the ledger knows the dataset.
    """
    home, store = open_home(folder), open_store(folder)
    ledger = open_ledger(folder, store)
    ledger.require_current()
    decided = {made.study_digest: str(made.study) for made in store.decisions()}
    found = budgets(home.config, ledger, dataset, studies=decided)
    if dataset is not None and not found:
        raise DatasetUnknown(dataset, sorted({one.dataset for one in budgets(home.config, ledger)}))
    return found


def restore_budget(folder: Path) -> int:
    """Count again in the ledger what this hospital signed that it spent; returns how many attempts were missing."""
    store = open_store(folder)
    return restore_ledger(store, Ledger(folder / "ledger.db"))


def certificate_of_study(folder: Path, name: str) -> tuple[PrivacyCertificate, list[tuple[str, str]]]:
    """What is promised about a study as of now, and the figures that stay here; nothing is signed or sent."""
    home, store = open_home(folder), open_store(folder)
    decided = [made for made in store.decisions() if made.study == name]
    if not decided:
        raise StudyUnknown(name, sorted({made.study for made in store.decisions()}))
    ledger = open_ledger(folder, store)
    spent = {row.study_digest for row in ledger.report()}
    # A study that was changed has several digests; the one that was trained on is meant.
    chosen = next((made for made in reversed(decided) if made.study_digest in spent), decided[-1])
    made = certificate_of(home, store, ledger, chosen.study_digest)
    return made, local_figures(folder, name)


def audit_of_study(folder: Path, name: str) -> "MechanismAudit":
    """A thorough audit of the mechanism of a study this hospital decided about; nothing is signed or sent.

    Raises:
        StudyUnknown: This hospital never decided about such a study.
        NotAudited: It has no mechanism, or one that cannot be measured with made-up records.
    """
    from site_agent.admission_audit import audited  # noqa: PLC0415 - torch
    from site_agent.mechanism_audit import THOROUGH  # noqa: PLC0415 - torch

    home, store = open_home(folder), open_store(folder)
    decided = [made for made in store.decisions() if made.study == name]
    if not decided:
        raise StudyUnknown(name, sorted({made.study for made in store.decisions()}))
    study = StudyFile.from_document(decided[-1].document)
    if not study.is_private:
        raise NotAudited(f"{name!r} promises patients no differential privacy: there is no mechanism to measure")
    config = home.config
    dataset = config.dataset_for(study.study_id)
    declared = dataset.declared_patients if dataset is not None else study.data.minimum_patients
    spec = spec_of(study, declared_patients=declared, weights=config.weights)
    found = audited(spec, engine_for(spec, config.engine, compute_of(config)), THOROUGH)
    if found is None:
        raise NotAudited(f"no made-up record can be counted in the network of {name!r}")
    return found


def overlays_of_study(folder: Path, name: str, count: int) -> tuple[Path, ...]:
    """Pictures of test slices of a study this hospital decided about, in the agent's home; nothing is sent.

    Raises:
        StudyUnknown: This hospital never decided about such a study.
        NoOverlays: There is nothing to draw.
    """
    from site_agent.overlays import draw_overlays  # noqa: PLC0415 - torch

    home, store = open_home(folder), open_store(folder)
    decided = [made for made in store.decisions() if made.study == name]
    if not decided:
        raise StudyUnknown(name, sorted({made.study for made in store.decisions()}))
    chosen = next((made for made in reversed(decided) if store.chain(made.study_digest)), decided[-1])
    return draw_overlays(home, store, StudyFile.from_document(chosen.document), chosen.study_digest, count)


async def _offered(home: AgentHome, store: Store) -> tuple[StudyDocument, ...]:
    async with await dial(home, CoordinatorLine(store)) as client:
        return await client.list_studies()


async def _find(home: AgentHome, store: Store, name: str) -> StudyDocument:
    offered = await _offered(home, store)
    for document in offered:
        if document.study == name:
            return document
    raise StudyUnknown(name, [document.study for document in offered])


def _read(document: StudyDocument) -> StudyFile:
    """The study in the coordinator's bytes, if they are those of the digest it names."""
    study = StudyFile.from_document(document.document)
    if study.digest() != document.study_digest or study.id != document.study:
        raise StudyAltered(
            f"study {document.study!r} does not have the digest {document.study_digest[:16]} it is listed under"
        )
    return study

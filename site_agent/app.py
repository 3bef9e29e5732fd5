"""The agent put together, and what its command line asks: run, list, describe, decide, budget."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.disclosure import Disclosed
from audit.site_keys import SigningKeys
from audit.stewards import APPROVED
from consortium.contract.documents import document_sha256
from consortium.contract.errors import ContractError
from consortium.contract.light_start import DRAIN_S
from consortium.contract.names import Digest
from consortium.contract.service_manager import StopSignals, service_manager
from consortium.contract.storage_trouble import room_again, say_refused
from consortium.contract.study import StudyFile
from consortium.contract.study_data import TabularData
from consortium.wire.errors import CallRefused, TlsRefused, WireError
from consortium.wire.fact_log import log_as_facts
from privacy.errors import PrivacyError
from site_agent import vault
from site_agent.agent import STEADY_S, Agent, CoordinatorLine, dial
from site_agent.budget import DatasetBudget, budgets
from site_agent.calls import StudyAltered, StudyUnknown, find, hand_over, offered, read
from site_agent.certification import certificate_of, local_figures
from site_agent.computing import compute_of, engine_for
from site_agent.declarations import declare
from site_agent.description import objection
from site_agent.egress_log import EgressUnwritable, begin_anew, read_egress
from site_agent.egress_view import Egress
from site_agent.errors import LedgerUnavailable, SiteError
from site_agent.home import AgentHome, Connection, open_home
from site_agent.ledger import Ledger
from site_agent.ledger_restore import restore_ledger
from site_agent.left_out import withdrawn_at
from site_agent.log_copy import decision_about, open_copy
from site_agent.only_agent import AgentRunning, only_agent
from site_agent.own_facts import own_facts
from site_agent.owner import owner_of, words
from site_agent.preflight import Checked, run_checks
from site_agent.preparation import Declined, approved_study
from site_agent.privacy_certificate import PrivacyCertificate
from site_agent.progress import Standing, standings
from site_agent.renewal import renew
from site_agent.signing_key_change import carry_out, prepare, settle_keys
from site_agent.store import Decision, Store, StoreUnwritable
from site_agent.study_review import Review, review
from site_agent.study_sheet import Sheet, sheet_of
from site_agent.traffic_file import LineTraffic, read_traffic
from site_agent.training_spec import spec_of
from site_agent.withdrawing import Done, read_identifiers, withdraw
from site_agent.witness_policy import policy_of_study, policy_without_witnesses

if TYPE_CHECKING:  # torch is loaded by the one command that audits
    from consortium.contract.monitor_port import MonitorPort
    from site_agent.mechanism_findings import MechanismAudit
    from site_agent.site_evidence import SiteExported


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


def open_store(folder: Path) -> Store:
    """The agent's memory, with the home checked first."""
    open_home(folder)
    return Store(folder / "agent.db")


def open_ledger(folder: Path, store: Store) -> Ledger:
    """The hospital's ledger, held against what the agent remembers to have signed."""
    return Ledger(folder / "ledger.db", told=store.told)


async def run_until_stopped(folder: Path, *, drain_s: float = DRAIN_S, takes_over: bool = False) -> None:
    """`site-agent run`: take part until SIGTERM or SIGINT.

    Args:
        folder: The agent's home.
        drain_s: How long attempts under way may take to their end, once it is told to stop.
        takes_over: Whether it may take the place of an agent that ran on a copy of this home.

    A disk that is full, or a file that another program keeps locked, ends what is under way as a crash would. Then it
    waits, and takes part again from what is on the disk.

    Raises:
        AgentRunning: Another agent runs with this home.
        StoreUnwritable, LedgerUnavailable: The disk refuses and has done so from the beginning, or a file was replaced.
    """
    log_as_facts()
    signals, manager = StopSignals(), service_manager()
    signals.listen()
    home = open_home(folder)
    _ = home.config  # a site.yaml that is wrong is found now, not at the first study
    with only_agent(folder):
        waited, begun = -1, False

        def begins() -> None:
            nonlocal begun
            begun = True
            manager.ready(f"{home.site}, taking part through {home.address}")

        async with (
            manager.watched(),
            manager.stopping_after(signals.stop, "Letting rounds under way come to their end"),
        ):
            while True:
                started_s, takes_over = time.monotonic(), takes_over and not begun
                try:
                    return await _take_part(home, signals, begins, drain_s=drain_s, takes_over=takes_over)
                except (StoreUnwritable, LedgerUnavailable, EgressUnwritable) as error:
                    if not begun or not getattr(error, "passes", True):
                        raise
                    waited = waited + 1 if time.monotonic() - started_s < STEADY_S else 0
                    if not waited:
                        say_refused(error, folder)
                if not await room_again([folder], signals.stop, waited=waited):
                    return None


async def _take_part(
    home: AgentHome, signals: StopSignals, begins: Callable[[], None], *, drain_s: float, takes_over: bool
) -> None:
    """Take part, from what is on the disk, until it is told to stop; raises what `Agent.run` raises."""
    store = Store(home.folder / "agent.db")
    ledger = open_ledger(home.folder, store)
    ledger.require_current()  # so is a ledger from a backup
    vault.finish_erasures(home, store)
    agent = Agent(home, store, ledger, announces=True, takes_over=takes_over)
    monitor = _monitor(home, ledger, agent)
    try:
        begins()
        await agent.run(signals.stop, drain_s=drain_s, at_once=signals.at_once)
    finally:
        store.close()
        if monitor is not None:
            await asyncio.to_thread(monitor.close)


def _monitor(home: AgentHome, ledger: Ledger, agent: Agent) -> "MonitorPort | None":
    """The port for monitoring, if site.yaml says where."""
    if home.config.monitor_address is None:
        return None
    from consortium.contract.monitor_port import MonitorPort  # noqa: PLC0415 - prometheus_client; only where somebody watches
    from site_agent.metrics import AgentFigures  # noqa: PLC0415

    figures = AgentFigures(home, ledger, agent)
    return MonitorPort(home.config.monitor_address, figures=figures, problems=figures.problems)


async def check_home(folder: Path) -> Checked:
    """`site-agent check`; facts go to stderr, for stdout carries what was found."""
    log_as_facts()
    return await run_checks(folder)


async def list_studies(folder: Path) -> list[dict[str, str]]:
    """The coordinator's studies for this hospital, with what was decided here."""
    home, store = open_home(folder), open_store(folder)
    rows = []
    for document in await offered(home, store):
        try:
            title = read(document).title
        except (StudyAltered, ContractError):
            title = "(cannot be read: not a study, or not the one of this digest)"
        decision = store.decision(document.study_digest)
        rows.append(
            {
                "study": document.study,
                "digest": document.study_digest,
                "state": document.state,
                "title": title,
                "decision": _decided(home, store, decision),
            }
        )
    return rows


def _decided(home: AgentHome, store: Store, decision: Decision | None) -> str:
    """What was decided here about a study; and why an approval does not count, if it does not."""
    if decision is None:
        return "undecided"
    try:
        approved_study(home, store, decision.study_digest)
    except Declined as error:
        approved = decision.decision == APPROVED
        return f"approved, does not count ({error.refusal.rule})" if approved else decision.decision
    return decision.decision


async def study_sheet(folder: Path, name: str, *, count: bool = False) -> Sheet:
    """A study as the person who decides is shown it.

    Args:
        folder: The agent's home.
        name: The study.
        count: Whether to read the images of a dataset to count patients; a table is always read.
    """
    home, store = open_home(folder), open_store(folder)
    document = await find(home, store, name)
    study = read(document)
    submitted = words(await asyncio.to_thread(owner_of, home, document), home.config.policy)
    ledger = open_ledger(folder, store)

    def sheet() -> Sheet:
        return sheet_of(
            study,
            document.study_digest,
            home.config,
            ledger,
            submitted=submitted,
            patients=patients_here(home, store, study) if count or isinstance(study.data, TabularData) else None,
            decided=store.decisions(),
        )

    return await asyncio.to_thread(sheet)


def patients_here(home: AgentHome, store: Store, study: StudyFile) -> int | None:
    """How many patients with complete records a study would have here; None while the data do not fit."""
    from site_agent.cohort import read_cohort  # noqa: PLC0415 - pandas

    dataset = home.config.dataset_for(study.study_id)
    if dataset is None:
        return None
    try:
        return read_cohort(study, dataset, home.images, withdrawn_at(home, store)).summary.patients
    except SiteError:  # `site-agent check` says what is wrong with them
        return None


async def withdraw_patients(folder: Path, dataset: str, file: Path) -> Done:
    """`site-agent patients withdraw`; raises ListRefused, DatasetUnknown, WithdrawalsUnreadable."""
    identifiers = read_identifiers(file)
    home, store = open_home(folder), open_store(folder)
    return await withdraw(home, store, open_ledger(folder, store), dataset, identifiers)


async def rotate_tls_key(folder: Path) -> Connection:
    """`site-agent rotate-keys`; raises as `renewal.renew` does."""
    home, store = open_home(folder), open_store(folder)
    settle_keys(home, store)
    async with await dial(home, CoordinatorLine(store)) as client:
        return await renew(home, client, datetime.now(UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRotated:
    """What came of a change of signing keys that was asked for."""

    keys: SigningKeys  # the new ones
    done: bool  # whether they count already; otherwise the agent changes to them
    running: bool = False  # whether an agent runs with this home


async def rotate_signing_keys(folder: Path, steward: str, key: Ed25519PrivateKey) -> KeysRotated:
    """`site-agent rotate-signing-keys`: at once where no agent runs, else by the running one between two rounds.

    Raises:
        SigningKeysKept, StewardRefused: See `signing_key_change.prepare`.
        HistoryLost: The log has more of this hospital's entries than the agent remembers.
        CallRefused, TlsRefused: The coordinator refuses, or is not to be trusted; what is prepared waits for the agent.
    """
    home, store = open_home(folder), open_store(folder)
    keys = prepare(home, store, steward, key)
    try:
        with only_agent(folder):
            line = CoordinatorLine(store)
            async with await dial(home, line) as client:
                line.bind(client, None)
                await line.submit_events()
                await line.check_history()  # an entry under a number that the log has already would be dropped
                await carry_out(home, store, line, client)
    except AgentRunning:
        return KeysRotated(keys=keys, done=False, running=True)
    except WireError as error:
        if isinstance(error, CallRefused | TlsRefused):
            raise
        return KeysRotated(keys=keys, done=False)
    return KeysRotated(keys=keys, done=True)


async def declare_fact(
    folder: Path,
    kind: str,
    given: Sequence[str],
    *,
    study: str | None,
    document: Path | None,
    person: str,
    keep_document: bool = False,
    note: str | None = None,
    subject: str | None = None,
) -> tuple[bytes, bool]:
    """Sign a declaration and hand it over; returns its bytes, and whether the coordinator has it already.

    A document that is kept, and a note about `subject` (else about `person`), stay in the hospital's vault.
    Raises what `declarations.declare` and `vault.seal_for` raise, and HistoryLost as `deciding.decide_study` does.
    """
    home, store = open_home(folder), open_store(folder)
    digest = document_sha256(document) if document is not None and not keep_document else None
    kept = vault.seal_for(
        home.vault,
        kind,
        study=study,
        subject=subject or person,
        document=document if keep_document else None,
        note=note,
    )
    made = declare(home, store, kind, given, study=study, document_sha256=digest, person=person, kept=kept)
    return made, await hand_over(home, store)


async def erase_payloads(folder: Path, names: Sequence[str], subject: str | None, *, person: str) -> tuple[int, bool]:
    """Destroy payloads, or all about a person; returns how many, and whether the coordinator has the entry already.

    Raises what `vault.erase_payloads` raises, and HistoryLost as `deciding.decide_study` does.
    """
    home, store = open_home(folder), open_store(folder)
    gone = vault.erase_payloads(home, store, names, subject, person=person)
    return len(gone), await hand_over(home, store)


def kept_payloads(folder: Path) -> list[dict[str, Any]]:
    """What the vault of this hospital keeps, and what was erased."""
    return [row.to_json() for row in vault.payloads(open_home(folder), open_store(folder))]


def show_payload(folder: Path, payload: str) -> Disclosed:
    """A kept payload, checked; raises PayloadUnknown or PayloadDamaged."""
    return vault.show(open_home(folder), open_store(folder), payload)


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


def policy_text(folder: Path, study: str | None) -> bytes:
    """policy.txt: the log's key; with a study this hospital decided about, its witnesses too."""
    home = open_home(folder)
    if study is None:
        return policy_without_witnesses(home)
    store = open_store(folder)
    found = [one for one in store.decisions() if one.study == study]
    if not found:
        raise StudyUnknown(study, sorted({one.study for one in store.decisions()}))
    return policy_of_study(home, store, StudyFile.from_document(found[-1].document))


def study_standings(folder: Path) -> tuple[Standing, ...]:
    """How far this hospital's work on each study has come, as the agent wrote it down last."""
    return standings(open_home(folder).folder)


def line_traffic(folder: Path) -> LineTraffic | None:
    """What passes between the agent and the coordinator, as the agent wrote it down last."""
    return read_traffic(open_home(folder).folder)


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
    found = audited(spec, engine_for(spec, config.engine, compute_of(config.device, config.precision)), THOROUGH)
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


def egress_of(folder: Path) -> Egress:
    """Everything that has left, from the hospital's own log; raises EgressAltered."""
    home, store = open_home(folder), open_store(folder)
    names = {str(made.study_digest): str(made.study) for made in store.decisions()}
    return Egress(log=read_egress(home, store), names=names)


def review_study(folder: Path, name: str) -> Review:
    """A study in this hospital's copy of the log, held against what the hospital itself knows of it.

    Raises:
        CopyMissing, CopyAltered, EgressAltered, EvidenceRefused: There is nothing to look at, or it is not sound.
    """
    home, store = open_home(folder), open_store(folder)
    log = open_copy(home)
    try:
        decision = decision_about(log, store, name)
        return review(log.known(), own_facts(home, store, open_ledger(folder, store), log, decision))
    finally:
        log.close()


def export_evidence(folder: Path, study: str, out: Path) -> "SiteExported":
    """Evidence of a study as this hospital has it; see `site_evidence.export_study`."""
    from site_agent.site_evidence import export_study  # noqa: PLC0415 - a report is long to load, and this alone makes one

    home, store = open_home(folder), open_store(folder)
    settle_keys(home, store)  # the manifest is signed with the key that the log has for this hospital
    return export_study(home, store, study, out)


def egress_begun_anew(folder: Path) -> Path:
    """Set a damaged log aside; returns where it is."""
    return begin_anew(open_home(folder), open_store(folder))

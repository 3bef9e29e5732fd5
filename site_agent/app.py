"""The agent put together, and what its command line asks: run, list, describe, decide, budget."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

from audit import entries
from consortium.contract.errors import ContractError
from consortium.contract.messages import StudyDocument
from consortium.contract.names import Digest
from consortium.contract.study import StudyFile
from consortium.wire.errors import WireError
from consortium.wire.fact_log import log_as_facts
from site_agent.agent import Agent, CoordinatorLine, dial
from site_agent.description import describe
from site_agent.errors import SiteError
from site_agent.home import AgentHome, open_home
from site_agent.ledger import Ledger
from site_agent.signed_events import SignedEvents
from site_agent.store import Decision, Store


class StudyUnknown(SiteError):
    """A study that the coordinator does not offer to this hospital."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(
            f"the coordinator offers no study {name!r} to this hospital; it offers: {', '.join(known) or 'none'}"
        )

    def advice(self) -> str:
        """What to do next."""
        return "`site-agent studies list` shows the names."


class StudyAltered(SiteError):
    """The coordinator's bytes of a study are not those of its digest."""

    def advice(self) -> str:
        """What to do next."""
        return "Do not approve it. Ask the consortium lead which digest is right, by telephone."


def open_store(folder: Path) -> Store:
    """The agent's memory, with the home checked first."""
    open_home(folder)
    return Store(folder / "agent.db")


async def run_until_stopped(folder: Path) -> None:
    """`site-agent run`: take part until SIGTERM or SIGINT."""
    log_as_facts()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    home = open_home(folder)
    _ = home.config  # a site.yaml that is wrong is found now, not at the first study
    await Agent(home, Store(folder / "agent.db"), Ledger(folder / "ledger.db")).run(stop)


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
    ledger = Ledger(folder / "ledger.db")
    return await asyncio.to_thread(describe, study, document.study_digest, home.config, ledger)


async def decide_study(folder: Path, name: str, decision: str, *, steward: str, statement: str) -> Digest:
    """Approve or reject a study: signed, remembered, and told to the coordinator; returns the digest decided upon.

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
    except WireError:
        if decision == "approved":
            raise  # a study without this hospital's approval in the log does not begin
    return about[-1][0]


def budget_rows(folder: Path, dataset: str | None) -> list[dict[str, Any]]:
    """What each study has cost each dataset, and the dataset's cap."""
    home = open_home(folder)
    cap = home.config.policy.max_epsilon_total
    return [
        {
            "dataset": row.dataset,
            "study": row.study,
            "rounds": row.rounds,
            "open_rounds": row.open_rounds,
            "steps": row.steps,
            "epsilon": row.epsilon,
            "delta": row.delta,
            "cap": cap,
        }
        for row in Ledger(folder / "ledger.db").report()
        if dataset in (None, row.dataset)
    ]


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

"""A steward decides: a study is approved, rejected or withdrawn; stewards' keys come and go."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import entries
from audit.declarations import refuse_name
from audit.entry_types.steward_entries import StewardSignature
from audit.fields import Plain
from audit.stewards import APPROVED, WITHDRAWN
from consortium.contract.names import Digest, StudyId
from site_agent.calls import find, hand_over, read
from site_agent.errors import SiteError
from site_agent.home import AgentHome, open_home
from site_agent.owner import owner_of, require_allowed
from site_agent.signed_events import SignedEvents
from site_agent.steward_rows import StewardRow
from site_agent.stewards import (
    about_study,
    enrol_steward,
    entitled,
    make_key_file,
    refuse_key_change,
    remove_steward,
    sign_about,
    steward_of,
    with_others,
)
from site_agent.store import Decision, Store

STATEMENT_MAX = 500
"""Characters of what a steward says for the log."""


class NothingToWithdraw(SiteError):
    """A steward takes back what was never given."""

    def advice(self) -> str:
        """What to do next."""
        return "`site-agent studies list` shows what was decided; `studies reject` says no to a study beforehand."


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What came of a steward's decision."""

    digest: Digest  # of the document it is about, the newest where it is about several
    missing: int = 0  # stewards who still have to sign before the approval counts


def check_words(words: str, steward: str) -> None:
    """Raise EntryRefused for words that must not be in the log, where they would be for good."""
    Plain(STATEMENT_MAX).read("statement", words)
    refuse_name("statement", words, steward)


async def decide_study(
    folder: Path, name: str, decision: str, *, steward: str, statement: str, key: Ed25519PrivateKey | None = None
) -> Decided:
    """Approve, reject or withdraw a study: signed by the steward, remembered, and told to the coordinator.

    Taking back an approval needs nobody: it is remembered here, nothing leaves for the study any more, and the
    coordinator is told when it can be reached (at the latest by the agent, when it connects). Nor does it need a key,
    so that a key which is lost stops nobody; the log then has this hospital's word, and no steward's.

    Args:
        folder: The agent's home.
        name: The study.
        decision: "approved", "rejected" or "withdrawn".
        steward: The steward's name; the log has a pseudonym.
        statement: The words of the approval, or the reason.
        key: The steward's own; an approval is nothing without it.

    Raises:
        StewardRefused: The key is none that may decide here.
        SubmissionRefused, OwnerNotAllowed: It is not its owner's study, or not of an owner this hospital allows.
        NothingToWithdraw: No version of the study is approved here.
        HistoryLost: The log has more of this hospital's entries than it remembers.
    """
    check_words(statement, steward)
    home = open_home(folder)
    store = Store(folder / "agent.db")
    who = _whoever(home, store, decision, steward, key)
    about = await _about(home, store, name, decision)
    missing = 0
    for digest, study, document in about:
        signed: tuple[StewardSignature, ...] = ()
        if key is not None:
            subject = about_study(home, study, digest)
            signed = (sign_about(key, subject, decision=decision, steward=who, words=statement),)
        if decision == APPROVED:
            signed, missing = with_others(home, store, study, digest, signed[0])
            if missing:
                return Decided(digest=digest, missing=missing)
        made = Decision(
            study_digest=digest,
            study=study,
            document=document,
            decision=decision,
            steward=steward,
            statement=statement,
            at=time.time(),
            signatures=signed,
        )
        events = SignedEvents(home, store)
        fields: dict[str, Any] = {"study": study, "study_digest": digest, "signed": signed or None}
        if decision == APPROVED:
            first = signed[0]
            events.add(entries.StudyApproved, decision=made, steward=first.steward, statement=first.words, **fields)
        else:
            events.add(entries.StudyRejected, decision=made, steward=who, reason=statement, **fields)
    # A study without this hospital's approval in the log does not begin; one that is taken back ends here anyhow.
    await hand_over(home, store, insist=decision == APPROVED)
    return Decided(digest=about[-1][0])


def _whoever(home: AgentHome, store: Store, decision: str, steward: str, key: Ed25519PrivateKey | None) -> str:
    """The pseudonym of whoever decides; raises StewardRefused."""
    if decision == APPROVED:
        return entitled(home, store, steward, key)
    return home.vault.pseudonym(steward) if key is None else steward_of(home, store, steward, key)


async def _about(home: AgentHome, store: Store, name: str, decision: str) -> list[tuple[Digest, StudyId, bytes]]:
    """What is decided about: the document that is offered, or every one that is approved and shall not be any more."""
    standing = [made for made in store.decisions() if made.study == name and made.decision == APPROVED]
    if decision == WITHDRAWN and not standing:
        raise NothingToWithdraw(f"no approval of {name!r} stands here")
    if decision != APPROVED and standing:
        return [(made.study_digest, made.study, made.document) for made in standing]
    document = await find(home, store, name)
    if decision == APPROVED:  # before anything is signed; saying no needs no owner
        require_allowed(home.config.policy, await asyncio.to_thread(owner_of, home, document))
    return [(document.study_digest, read(document).study_id, document.document)]


async def add_steward(
    folder: Path, name: str, key_file: Path, passphrase: str, *, by: Ed25519PrivateKey | None, anew: bool
) -> tuple[StewardRow, bool]:
    """Make a steward's key and register it; returns it, and whether the coordinator has been told already.

    Raises:
        StewardKeyRefused: The key cannot be made there; nothing was registered.
        StewardRefused: Whoever has to sign for it does not; nothing was made.
    """
    home = open_home(folder)
    store = Store(folder / "agent.db")
    refuse_key_change(store, by=by, anew=anew)
    row = enrol_steward(home, store, name, make_key_file(home, key_file, passphrase), by=by, anew=anew)
    return row, await hand_over(home, store)


async def drop_steward(folder: Path, name: str, by: Ed25519PrivateKey) -> bool:
    """Remove a steward; returns whether the coordinator has been told already. Raises StewardRefused."""
    home = open_home(folder)
    store = Store(folder / "agent.db")
    remove_steward(home, store, name, by)
    return await hand_over(home, store)


def list_stewards(folder: Path) -> list[dict[str, Any]]:
    """Every steward's key this hospital ever registered, with the name as far as it is known here."""
    home = open_home(folder)
    has_rules = (folder / "site.yaml").is_file()
    allowed = home.config.policy.may_approve if has_rules else ()
    return [
        {
            "name": home.vault.name_of(row.steward) or "(erased)",
            "pseudonym": row.steward,
            "key": row.key,
            "since": row.at,
            "registered": row.standing,
            "may_approve": row.standing and (not allowed or row.key in allowed),
        }
        for row in Store(folder / "agent.db").stewards()
    ]

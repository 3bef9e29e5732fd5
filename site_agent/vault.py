"""The hospital's vault: what its people declare and may want erased, beside the log that never forgets.

It never leaves the home: the consortium's log gets commitments, and `erasure.executed` in the hospital's own chain.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from audit import entries
from audit.disclosure import Disclosed, disclose
from audit.erasure import Row, Wanted, erase, finish, rows
from audit.vault import DOCUMENT, NOTE, PAYLOAD_BYTES_MAX, About, Sealed, seal
from audit.vault_files import VaultFiles
from consortium.contract.documents import read_document
from site_agent.home import AgentHome
from site_agent.log_copy import CopyMissing, open_copy
from site_agent.signed_events import SignedEvents
from site_agent.store import Store


class HospitalsLog:
    """The hospital's own chain, as an erasure reads it and adds to it."""

    def __init__(self, home: AgentHome, store: Store, leaves: Mapping[bytes, int] | None = None) -> None:
        self._home, self._store, self._leaves = home, store, leaves or {}

    def entries(self) -> Iterable[tuple[int | None, bytes | None]]:
        """Everything this hospital ever signed, with its leaf where that is known."""
        return ((self._leaves.get(data), data) for data in self._store.signed_entries())

    def write(self, fields: Mapping[str, Any]) -> None:
        """Signed and kept when this returns; the agent hands it over."""
        SignedEvents(self._home, self._store).declare(entries.ErasureExecuted, dict(fields))

    def forget(self, pseudonym: str, name: str) -> None:
        """The agent remembers who decided about a study: by the pseudonym from now on."""
        self._store.forget_steward(name, pseudonym)


def seal_for(
    vault: VaultFiles,
    kind: str,
    *,
    study: str | None,
    subject: str,
    document: Path | None,
    note: str | None,
) -> dict[str, Sealed]:
    """Seal what a declaration will commit to; returns it by the field of the entry. Nothing is written yet.

    Args:
        vault: Whose pseudonyms.
        kind: The declaration's type.
        study: The study it is about.
        subject: The person whom the payloads may say something about.
        document: A document that is kept whole.
        note: Words of a person.

    Raises:
        DocumentUnreadable: The document is none, or too large to be kept.
        EntryRefused: Nothing that may be kept.
    """
    given: dict[str, bytes] = {} if document is None else {DOCUMENT: read_document(document, PAYLOAD_BYTES_MAX)}
    if note is not None:
        given[NOTE] = note.encode()
    pseudonym = vault.pseudonym(subject) if given else ""
    now = entries.timestamp(int(datetime.now(UTC).timestamp() * 1000))
    return {
        f"{part}_commitment": seal(
            payload, About(fact=kind, part=part, subject=pseudonym, study=study, kept_at=now), secrets.token_bytes
        )
        for part, payload in given.items()
    }


def finish_erasures(home: AgentHome, store: Store) -> int:
    """What an earlier process had ordered and not carried out; returns how many orders."""
    return finish(home.vault, HospitalsLog(home, store))


def payloads(home: AgentHome, store: Store) -> list[Row]:
    """What is kept, and what was erased, with leaves as far as the copy of the log here has them."""
    mine = set(store.signed_entries())
    try:
        leaves = {data: leaf for leaf, data in enumerate(open_copy(home).known()) if data is not None and data in mine}
    except CopyMissing:
        leaves = {}
    return rows(home.vault, HospitalsLog(home, store, leaves))


def show(home: AgentHome, store: Store, payload: str) -> Disclosed:
    """A payload, checked against its commitment; raises PayloadUnknown or PayloadDamaged."""
    return disclose(home.vault, [row.to_json() for row in payloads(home, store)], payload)


def erase_payloads(
    home: AgentHome, store: Store, names: Sequence[str], subject: str | None, *, person: str
) -> tuple[str, ...]:
    """Destroy payloads, or everything about a person, and sign that it is done; returns commitments of what is gone.

    Raises:
        EntryRefused: Neither payloads nor a person, or both.
        PayloadUnknown: There is no such thing; nothing was destroyed.
    """
    wanted = Wanted(payloads=tuple(names), subject=subject)
    return erase(
        home.vault,
        HospitalsLog(home, store),
        wanted,
        on_behalf=home.vault.pseudonym(person),
        today=datetime.now(UTC).date().isoformat(),
        ids=_order_ids(),
    )


def _order_ids() -> Iterator[str]:
    while True:
        yield secrets.token_hex(8)

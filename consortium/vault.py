"""The coordinator's vault: what its people declare and may want erased, beside the log that never forgets.

The command line seals payloads into the home itself, so that they travel nowhere; everything that the log is told goes
through the process that owns it.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from audit import declarations, entries
from audit.erasure import Row, Wanted, erase, finish, rows
from audit.vault import DOCUMENT, ID_DIGITS, NOTE, About, seal
from audit.vault_files import PayloadUnknown
from consortium.accounts import forget_person
from consortium.home import CoordinatorHome
from consortium.record import Recorder, now_stamp


class CoordinatorsLog:
    """The consortium's log, as an erasure reads it and adds to it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def entries(self) -> Iterable[tuple[int | None, bytes | None]]:
        """All of it: commitments of the coordinator's own are found, and no other is like them."""
        return enumerate(self._recorder.log.known())

    def write(self, fields: Mapping[str, Any]) -> None:
        """In the log when this returns."""
        self._recorder.record(entries.entry_bytes(entries.ErasureExecuted(**now_stamp(), **fields)))

    def forget(self, pseudonym: str, name: str) -> None:
        """Remove the person's account, the one other place where the coordinator has names of people."""
        del pseudonym  # accounts go by the name
        with self._recorder.database.transaction() as connection:
            forget_person(connection, name)


def keep(
    home: CoordinatorHome,
    kind: str,
    given: list[str],
    *,
    study: str | None,
    subject: str,
    document: bytes | None,
    note: str | None,
) -> dict[str, str]:
    """Seal what a declaration will commit to; returns its commitments by the field of the entry.

    Args:
        home: Whose vault.
        kind: The declaration's type.
        given: Its FIELD=VALUE words, read here so that nothing is kept for a command that is refused anyway.
        study: The study it is about.
        subject: The person whom the payloads may say something about.
        document: A document's bytes.
        note: Words of a person.

    Raises:
        EntryRefused: Not a declaration, or nothing that may be kept.
    """
    declarations.read(kind, given)
    vault = home.vault
    given_by_part = {DOCUMENT: document, NOTE: None if note is None else note.encode()}
    pseudonym = vault.pseudonym(subject)
    made = {
        part: seal(
            payload,
            About(fact=kind, part=part, subject=pseudonym, study=study, kept_at=now_stamp()["ts"]),
            secrets.token_bytes,
        )
        for part, payload in given_by_part.items()
        if payload is not None
    }
    with vault.locked():
        for sealed in made.values():
            vault.keep(sealed)
    return {f"{part}_commitment": sealed.kept.commitment for part, sealed in made.items()}


def drop(home: CoordinatorHome, commitments: Iterable[str]) -> None:
    """Destroy what was kept for an entry that was refused."""
    vault = home.vault
    with vault.locked():
        for commitment in commitments:
            vault.destroy(commitment[:ID_DIGITS])


def finish_erasures(home: CoordinatorHome, recorder: Recorder) -> int:
    """What an earlier process had ordered and not carried out; returns how many orders."""
    return finish(home.vault, CoordinatorsLog(recorder))


def payloads(home: CoordinatorHome, recorder: Recorder) -> list[Row]:
    """What is kept, and what was erased."""
    return rows(home.vault, CoordinatorsLog(recorder))


def disclosed(home: CoordinatorHome, names: Sequence[str], *, study: str) -> dict[str, bytes]:
    """Salt and payload by commitment, of payloads that go into a study's evidence.

    Raises:
        PayloadUnknown: There is no such payload, or it is about another study.
        PayloadDamaged: It is not what was committed to.
    """
    found: dict[str, bytes] = {}
    for name in names:
        kept, plain, opening = home.vault.open(name)
        if kept.about.study not in (None, study):
            raise PayloadUnknown(f"the payload {name} is about another study than {study}")
        found[kept.commitment] = opening.expose_salt() + plain
    return found


def erase_payloads(home: CoordinatorHome, recorder: Recorder, wanted: Wanted, *, person: str) -> tuple[str, ...]:
    """Destroy payloads, or everything about a person, and tell the log; returns the commitments of what is gone.

    Raises:
        PayloadUnknown: There is no such thing; nothing was destroyed.
    """
    vault = home.vault
    return erase(
        vault,
        CoordinatorsLog(recorder),
        wanted,
        on_behalf=vault.pseudonym(person),
        today=datetime.now(UTC).date().isoformat(),
        ids=_order_ids(),
    )


def _order_ids() -> Iterator[str]:
    while True:
        yield secrets.token_hex(8)

"""Erasure: an order is written down, what it names is destroyed, the log is told; what is cut off is finished later.

The log never says that something is erased while it can still be read (threat A-29): the entry is written last. Killed
before the order is on the disk, nothing has happened; killed after it, `finish` does the rest, at the next start or
before the next command that looks at the vault. To do it twice does nothing more, and the log is told once.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from audit.entry_types.frame import Declaration
from audit.entry_types.governance_entries import ErasureExecuted
from audit.errors import EntryRefused
from audit.vault import ID_DIGITS, Kept
from audit.vault_files import COMMITMENTS_MAX, Order, PayloadUnknown, VaultFiles

COMMITMENTS = ("document_commitment", "note_commitment")
"""Fields of a declaration that hold one."""
_MARKS = (b"_commitment", ErasureExecuted.TYPE.encode())


class Told(Protocol):
    """The log, as whoever keeps a vault may read it and add to it."""

    def entries(self) -> Iterable[tuple[int | None, bytes | None]]:
        """Entries of whoever keeps the vault, or more, each with its leaf if that is known; None for a dropped one."""

    def write(self, fields: Mapping[str, Any]) -> None:
        """Say `erasure.executed` with these fields, durably; the log has it at once or later."""

    def forget(self, pseudonym: str, name: str) -> None:
        """Destroy what else ties a name to its pseudonym; what is gone already stays gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Where the log says something of a payload, or of a person's pseudonym."""

    leaf: int | None  # None: signed, and not in the copy of the log here
    ts: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mentions:
    """What the log says of payloads and of people whose row was destroyed."""

    kept: Mapping[str, Named]  # by commitment
    erased: Mapping[str, Named]  # by commitment
    forgotten: Mapping[str, Named]  # by pseudonym
    whole: bool  # whether every entry could be read: retention drops old ones


def mentions(entries: Iterable[tuple[int | None, bytes | None]]) -> Mentions:
    """Read entries for commitments and erasures; the first entry that says something counts."""
    kept: dict[str, Named] = {}
    erased: dict[str, Named] = {}
    forgotten: dict[str, Named] = {}
    whole = True
    for leaf, data in entries:
        if data is None:
            whole = False
        if data is None or not any(mark in data for mark in _MARKS):
            continue
        record = json.loads(data)
        named, body = Named(leaf=leaf, ts=record["ts"], type=record["type"]), record["body"]
        for field in COMMITMENTS:
            if body.get(field) is not None:
                kept.setdefault(body[field], named)
        if record["type"] == ErasureExecuted.TYPE:
            for commitment in body.get("commitments") or ():
                erased.setdefault(commitment, named)
            if body.get("subject") is not None and body["what"] == "pseudonym-key":
                forgotten.setdefault(body["subject"], named)
    return Mentions(kept=kept, erased=erased, forgotten=forgotten, whole=whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A payload as its keeper sees it: kept or erased, and where the log says so."""

    commitment: str
    kept: Kept | None  # None: erased, or damaged
    named: Named | None  # None: no entry of the log names it; a command was cut off between the two
    erased: Named | None
    subject_name: str | None = None
    damaged: bool = False  # its first line cannot be read; it can still be erased

    @property
    def id(self) -> str:
        """By which a person names it."""
        return self.commitment[:ID_DIGITS]

    def to_json(self) -> dict[str, Any]:
        """For programs, and from a running coordinator to its command line."""
        about = self.kept.about if self.kept else None
        return {
            "id": self.id,
            "commitment": self.commitment,
            "state": "damaged" if self.damaged else "erased" if self.kept is None else "kept",
            "fact": about.fact if about else self.named.type if self.named else None,
            "part": about.part if about else None,
            "subject": about.subject if about else None,
            "subject_name": self.subject_name,
            "study": about.study if about else None,
            "kept_at": about.kept_at if about else None,
            "leaf": self.named.leaf if self.named else None,
            "named": self.named is not None,
            "erased_leaf": self.erased.leaf if self.erased else None,
            "erased_at": self.erased.ts if self.erased else None,
        }


def rows(vault: VaultFiles, log: Told) -> list[Row]:
    """Every payload that is kept here or was, the kept ones first; finishes what an earlier process left undone."""
    finish(vault, log)
    said = mentions(log.entries())
    found = [
        Row(
            commitment=one.commitment,
            kept=one,
            named=said.kept.get(one.commitment),
            erased=None,
            subject_name=vault.name_of(one.about.subject),
        )
        for one in vault.kept()
    ]
    harmed = set(vault.damaged())
    found += [
        Row(commitment=one, kept=None, named=named, erased=None, damaged=True)
        for one, named in said.kept.items()
        if one[:ID_DIGITS] in harmed
    ]
    gone = dict.fromkeys(commitment for order in vault.orders() for commitment in order.commitments)
    found += [
        Row(commitment=one, kept=None, named=said.kept.get(one), erased=said.erased.get(one))
        for one in gone
        if one in said.erased
    ]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody wants destroyed: some payloads by their names, or everything about a person."""

    payloads: tuple[str, ...] = ()
    subject: str | None = None  # a name, or a pseudonym

    def __post_init__(self) -> None:
        if bool(self.payloads) == bool(self.subject):
            raise EntryRefused("what is to be erased", "nothing, or two things", "payloads by ID, or --subject")


def plan(vault: VaultFiles, said: Mentions, wanted: Wanted) -> tuple[dict[str, str | None], str | None]:
    """What would be destroyed: payloads, each commitment with its study, and the pseudonym whose row would be.

    Raises:
        PayloadUnknown: There is no such payload; nothing is kept of such a person.
    """
    kept = vault.kept()
    if wanted.subject is None:
        known: dict[str, tuple[str, str | None]] = {one.id: (one.commitment, one.about.study) for one in kept}
        harmed = set(vault.damaged())  # what they are of cannot be read any more; the log has their commitments
        known |= {one[:ID_DIGITS]: (one, None) for one in said.kept if one[:ID_DIGITS] in harmed}
        odd = [name for name in wanted.payloads if name not in known]
        if odd:
            raise PayloadUnknown(f"no payload {odd[0][:40]!r} is kept here")
        return dict(known[name] for name in wanted.payloads), None
    pseudonym = vault.known(wanted.subject)
    about = {one.commitment: one.about.study for one in kept if one.about.subject == pseudonym}
    row = pseudonym if pseudonym is not None and vault.name_of(pseudonym) is not None else None
    if not about and row is None:
        raise PayloadUnknown("nothing is kept here of a person of this name")
    return about, row


def erase(
    vault: VaultFiles, log: Told, wanted: Wanted, *, on_behalf: str, today: str, ids: Iterator[str]
) -> tuple[str, ...]:
    """Destroy what is wanted, and tell the log; returns the commitments of the payloads that are gone.

    Args:
        vault: Where they are kept.
        log: What is told.
        wanted: Which of them.
        on_behalf: The pseudonym of who wants it.
        today: The day it is done.
        ids: Names for orders, 16 random hexadecimal characters each.

    Raises:
        PayloadUnknown: As `plan`; nothing was destroyed.
    """
    finish(vault, log)
    with vault.locked():
        payloads, forgotten = plan(vault, mentions(log.entries()), wanted)
        for order in _orders(payloads, forgotten, on_behalf=on_behalf, today=today, ids=ids):
            vault.order(order)
    finish(vault, log)
    return tuple(payloads)


def _orders(
    payloads: Mapping[str, str | None], forgotten: str | None, *, on_behalf: str, today: str, ids: Iterator[str]
) -> Iterator[Order]:
    by_study: dict[str | None, list[str]] = {}
    for commitment, about in payloads.items():
        by_study.setdefault(about, []).append(commitment)
    for study, found in by_study.items():
        for start in range(0, len(found), COMMITMENTS_MAX):
            some = tuple(sorted(found[start : start + COMMITMENTS_MAX]))
            yield Order(id=next(ids), commitments=some, study=study, on_behalf=on_behalf, executed_on=today)
    if forgotten is not None:
        yield Order(id=next(ids), commitments=(), forgotten=forgotten, on_behalf=on_behalf, executed_on=today)


def finish(vault: VaultFiles, log: Told) -> int:
    """Carry out every order that the log has not been told of; returns how many there were."""
    if all(order.told for order in vault.orders()):
        return 0
    with vault.locked():
        due = [order for order in vault.orders() if not order.told]
        for order in due:
            for commitment in order.commitments:
                vault.destroy(commitment[:ID_DIGITS])
            if order.forgotten is not None:
                name = vault.name_of(order.forgotten)
                if name is not None:
                    log.forget(order.forgotten, name)
                vault.forget(order.forgotten)
        # Only now: what the log says is erased cannot be read any more.
        said = mentions(log.entries())
        for order in due:
            for fields in _said_of(order, said):
                log.write({"on_behalf": order.on_behalf, "executed_on": order.executed_on, **fields})
            vault.told(order)
    return len(due)


def _said_of(order: Order, said: Mentions) -> Iterator[dict[str, Any]]:
    """What the log is to be told of an order: nothing of payloads that no entry names, and nothing twice."""
    named = [one for one in order.commitments if (one in said.kept or not said.whole) and one not in said.erased]
    if named:
        yield {"what": "payload", "commitments": tuple(named), "study": order.study}
    if order.forgotten is not None and order.forgotten not in said.forgotten:
        yield {"what": "pseudonym-key", "subject": order.forgotten, "study": None}


def commitments_of(entry: Declaration) -> tuple[str, ...]:
    """What a declaration commits to."""
    return tuple(found for field in COMMITMENTS if (found := getattr(entry, field)) is not None)

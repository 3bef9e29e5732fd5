"""The clause matrix: what an auditor asks under each clause, held against the entries that are really in a log.

Evidence section R14. The rows are data (`clauses.yaml`), so that counsel can correct them; the rule that turns entries
into a status is here, the same for all:

    every need is met by an entry    the best that a log can show for this clause, as the row says (`at_most`)
    some entries were found          partly
    none                             not evidenced by software
    another law, a later day, or a row that is answered in words    not applicable

A status is about entries, never about compliance. A type that this release does not write is never evidence.
"""

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from audit.entries import KINDS
from audit.errors import AuditError
from audit.fields import Json
from audit.report.figures import Report, Seen

TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9._-]*")
"""How a clause may be named, so that OSCAL takes it as a token."""

SECTION = re.compile(r"R([1-9]|1[0-4])")


class Status(StrEnum):
    """What the entries show for a clause."""

    EVIDENCED = "evidenced"
    PARTLY = "partly"
    NOT_EVIDENCED = "not evidenced by software"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Something that entries have to show; any one of the types will do."""

    what: str
    entries: tuple[str, ...]
    of_every_site: bool = False
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()  # field, its values


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One row, as it stands in the file."""

    id: str
    law: str
    clause: str
    asks: str
    section: str
    beyond: str
    needs: tuple[Need, ...] = ()
    also: tuple[str, ...] = ()
    at_most: Status = Status.PARTLY
    applies: str = "always"
    begins: date | None = None
    answer: str | None = None

    def types(self) -> tuple[str, ...]:
        """Every type of entry the row names, each once."""
        return tuple(dict.fromkeys([*(kind for need in self.needs for kind in need.entries), *self.also]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Entries of one type that speak to a clause."""

    type: str
    leaves: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A clause with what this log shows for it."""

    clause: Clause
    status: Status
    reason: str
    found: tuple[Found, ...]
    missing: tuple[str, ...]  # needs without an entry, in words


class ClausesInvalid(AuditError):
    """The clause matrix cannot be read; the fault is in the file that counsel edited."""

    def __init__(self, where: str, found: str, allowed: str) -> None:
        self.where, self.found, self.allowed = where, found, allowed
        super().__init__(f"clauses.yaml, {where}: found {found}; allowed: {allowed}")

    def advice(self) -> str:
        """What to do next."""
        return "Correct the row and export again; the comment at the head of the file explains each key."


@lru_cache(maxsize=1)
def matrix() -> tuple[Clause, ...]:
    """The rows that come with this release."""
    return read_matrix(resources.files("audit.report").joinpath("clauses.yaml").read_text(encoding="utf-8"))


def read_matrix(text: str) -> tuple[Clause, ...]:
    """Rows from YAML.

    Raises:
        ClausesInvalid: an unknown or missing key, an id twice or that is no token, a value of another kind.
    """
    try:
        rows = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ClausesInvalid("the file", type(error).__name__, "YAML") from error
    if not isinstance(rows, list):
        raise ClausesInvalid("the file", type(rows).__name__, "a list of rows")
    clauses = tuple(_clause(number, row) for number, row in enumerate(rows, start=1))
    for number, one in enumerate(clauses):
        if any(one.id == other.id for other in clauses[:number]):
            raise ClausesInvalid(f"row {number + 1}", f"id {one.id} a second time", "each id once")
    return clauses


def evaluate(clauses: Sequence[Clause], report: Report) -> tuple[Row, ...]:
    """Every row, held against the entries that the report was read from."""
    return tuple(_evaluate(clause, report) for clause in clauses)


def _evaluate(clause: Clause, report: Report) -> Row:
    sites = frozenset(site.site for site in report.sites)
    found: dict[str, dict[int, None]] = {}
    missing, met = [], 0
    for need in clause.needs:
        seen = _of_need(need, report)
        for kind, one in seen.items():
            found.setdefault(kind, {}).update(dict.fromkeys(one.leaves))
        lacking = sites - {site for one in seen.values() for site in one.sites} if need.of_every_site else frozenset()
        if not seen:
            missing.append(f"{need.what} ({_named(need.entries)})")
        elif lacking:
            missing.append(f"{need.what}, of {', '.join(sorted(lacking))}")
        else:
            met += 1
    for kind in clause.also:
        if kind in report.seen:
            found.setdefault(kind, {}).update(dict.fromkeys(report.seen[kind].leaves))
    entries = tuple(Found(type=kind, leaves=tuple(sorted(leaves))) for kind, leaves in found.items())
    exempt = _exempt(clause, report)
    needed = {kind for need in clause.needs for kind in need.entries}
    if exempt is not None:
        status = Status.NOT_APPLICABLE
    elif clause.needs and met == len(clause.needs):
        status = clause.at_most
    elif needed & found.keys():
        status = Status.PARTLY
    else:
        status = Status.NOT_EVIDENCED
    return Row(
        clause=clause,
        status=status,
        reason=exempt if exempt is not None else _reason(clause, met, missing),
        found=entries,
        missing=tuple(missing) if exempt is None else (),
    )


def _of_need(need: Need, report: Report) -> dict[str, Seen]:
    """The entries that meet a need, by type."""
    if not need.where:
        return {kind: report.seen[kind] for kind in need.entries if kind in report.seen}
    matching: dict[str, tuple[list[int], set[str]]] = {}
    for leaf, entry in report.of(*need.entries):
        if all(str(getattr(entry, field, "")) in values for field, values in need.where):
            leaves, sites = matching.setdefault(entry.TYPE, ([], set()))
            leaves.append(leaf)
            sites |= {entry.actor.removeprefix("site:")} & report.seen[entry.TYPE].sites
    return {kind: Seen(leaves=tuple(leaves), sites=frozenset(sites)) for kind, (leaves, sites) in matching.items()}


def _exempt(clause: Clause, report: Report) -> str | None:
    """Why a row does not apply to this study, or None."""
    if clause.answer is not None:
        return clause.answer
    if clause.applies not in laws_of(report.document):
        return f"The study document names its legal bases, and none under {clause.applies.upper()} is among them."
    if clause.begins is not None and report.stated.exported_at[:10] < clause.begins.isoformat():
        return f"Begins to apply on {clause.begins.isoformat()}."
    return None


def laws_of(document: Mapping[str, Json]) -> AbstractSet[str]:
    """`always`, and those of hipaa and gdpr that a study names; both where it names neither."""
    governance = document.get("governance")
    basis = governance.get("legal_basis") if isinstance(governance, dict) else None
    named = {
        law
        for law, fields in {"hipaa": ("hipaa",), "gdpr": ("gdpr_article_6", "gdpr_article_9")}.items()
        if isinstance(basis, dict) and any(basis.get(field) for field in fields)
    }
    return {"always"} | (named or {"hipaa", "gdpr"})


def _reason(clause: Clause, met: int, missing: Sequence[str]) -> str:
    if not missing:
        whole = clause.at_most is Status.EVIDENCED
        return (
            "Every entry that is asked for is in the log."
            if whole
            else "The log holds all that it can hold on this; the rest is beyond software."
        )
    words = f"Not in the log: {'; '.join(missing)}."
    return words if not met else f"{met} of {len(clause.needs)} found. {words}"


def _named(kinds: Sequence[str]) -> str:
    return " or ".join(kind if kind in KINDS else f"{kind}, which this release does not write" for kind in kinds)


# --- reading the file ------------------------------------------------------------------------------------------------


_KEYS = {"id", "law", "clause", "asks", "section", "beyond", "needs", "also", "at_most", "applies", "begins", "answer"}
_REQUIRED = {"id", "law", "clause", "asks", "section", "beyond", "applies"}
_APPLIES = ("always", "hipaa", "gdpr")


def _clause(number: int, row: object) -> Clause:
    where = f"row {number}"
    if not isinstance(row, dict):
        raise ClausesInvalid(where, type(row).__name__, "a row with id, law, clause and so on")
    if not row.keys() >= _REQUIRED or not row.keys() <= _KEYS:
        odd = sorted(map(str, (_REQUIRED - row.keys()) | (row.keys() - _KEYS)))
        raise ClausesInvalid(where, f"missing or unknown keys {', '.join(odd)}", ", ".join(sorted(_KEYS)))
    if ("needs" in row) == ("answer" in row):
        raise ClausesInvalid(where, "needs and answer, or neither", "one of the two")
    at_most = row.get("at_most", Status.PARTLY.value)
    if at_most not in (Status.EVIDENCED, Status.PARTLY):
        raise ClausesInvalid(f"{where}, at_most", repr(at_most), "evidenced or partly")
    if row["applies"] not in _APPLIES:
        raise ClausesInvalid(f"{where}, applies", repr(row["applies"]), ", ".join(_APPLIES))
    begins = row.get("begins")
    if begins is not None and type(begins) is not date:
        raise ClausesInvalid(f"{where}, begins", repr(begins), "a day such as 2027-12-02")
    answer = row.get("answer")
    return Clause(
        id=_text(f"{where}, id", row["id"], TOKEN),
        section=_text(f"{where}, section", row["section"], SECTION),
        **{name: _text(f"{where}, {name}", row[name]) for name in ("law", "clause", "asks", "beyond")},
        needs=tuple(_need(f"{where}, need {place}", one) for place, one in enumerate(row.get("needs") or [], start=1)),
        also=_texts(f"{where}, also", row.get("also") or []),
        at_most=Status(at_most),
        applies=row["applies"],
        begins=begins,
        answer=None if answer is None else _text(f"{where}, answer", answer),
    )


def _need(where: str, need: object) -> Need:
    if not isinstance(need, dict) or not {"what", "entries"} <= need.keys() <= {"what", "entries", "of_every", "where"}:
        raise ClausesInvalid(where, repr(need)[:120], "what and entries, and perhaps of_every and where")
    if need.get("of_every", "site") != "site":
        raise ClausesInvalid(f"{where}, of_every", repr(need["of_every"]), "site")
    fields: Any = need.get("where") or {}
    if not isinstance(fields, dict):
        raise ClausesInvalid(f"{where}, where", type(fields).__name__, "fields with the values they may have")
    return Need(
        what=_text(f"{where}, what", need["what"]),
        entries=_texts(f"{where}, entries", need["entries"]),
        of_every_site="of_every" in need,
        where=tuple((str(field), _texts(f"{where}, where.{field}", values)) for field, values in fields.items()),
    )


def _text(where: str, value: object, pattern: re.Pattern[str] | None = None) -> str:
    if not isinstance(value, str) or not value.strip() or (pattern is not None and not pattern.fullmatch(value)):
        raise ClausesInvalid(where, repr(value)[:120], pattern.pattern if pattern is not None else "some words")
    return " ".join(value.split())


def _texts(where: str, values: object) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise ClausesInvalid(where, type(values).__name__, "a list")
    return tuple(_text(where, value) for value in values)

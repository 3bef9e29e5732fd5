"""What people may declare for the log, read from a command line: one table, the classes of `governance_entries`.

`read("incident.notified", ["incident=2027-03", "recipient=authority", ...])` gives the class and its fields, each read
by the rule that will read it again when the entry is built. Nothing is opened here: of a document there is its SHA-256.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from types import MappingProxyType
from typing import Any, TypeAlias

from audit.entries import KINDS, Declaration, ErasureExecuted
from audit.errors import EntryRefused
from audit.fields import Choice, Each, Metrics, Number, Optional, Pattern, Plain, Rule, Whole, rules_of

DECLARED: Mapping[str, type[Declaration]] = MappingProxyType(
    {name: kind for name, kind in KINDS.items() if issubclass(kind, Declaration)}
)
"""Every type that may be declared."""

_GIVEN_OTHERWISE = {field.name for field in fields(Declaration)} | {"commitments", "subject"}
"""By an option of the command, or by the program."""

ERASED_BY_COMMAND = "payload"
"""What the command `erase` destroys itself, so that nobody declares it of something that is still there."""
NAME_CHARACTERS_MIN = 3

Fields: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A field as a person is asked for it."""

    name: str
    needed: bool
    words: str  # what may stand there


def asked(kind: type[Declaration]) -> Iterator[Asked]:
    """The fields of a declaration that a person gives, in order."""
    rules = rules_of(kind)
    for field in fields(kind):
        if field.name not in _GIVEN_OTHERWISE:
            yield Asked(name=field.name, needed=field.default is MISSING, words=_words(rules[field.name]))


def read(name: str, given: Sequence[str]) -> tuple[type[Declaration], Fields]:
    """The class and the fields of a declaration, from FIELD=VALUE words.

    A list is written with commas, figures as `auc:0.51,advantage:0.02`. A field that may be null is left out.

    Raises:
        EntryRefused: No such declaration; a field that it does not have, lacks or has twice; a value out of its rule.
    """
    kind = DECLARED.get(name)
    if kind is None:
        raise EntryRefused("the fact", repr(name[:60]), ", ".join(DECLARED))
    known = {one.name: one for one in asked(kind)}
    rules, found = rules_of(kind), Fields()
    for word in given:
        field, equals, text = word.partition("=")
        if not equals or field not in known:
            raise EntryRefused(name, repr(field[:60]), f"FIELD=VALUE with a field of {', '.join(known)}")
        if field in found:
            raise EntryRefused(f"{name}.{field}", "given twice", "each field once")
        rule = rules[field]
        found[field] = rule.read(f"{name}.{field}", _value(rule, text))
    missing = [one.name for one in known.values() if one.needed and one.name not in found]
    if missing:
        raise EntryRefused(
            name, f"nothing for {', '.join(missing)}", "; ".join(f"{m}={known[m].words}" for m in missing)
        )
    if kind is ErasureExecuted and found["what"] == ERASED_BY_COMMAND:
        raise EntryRefused(f"{name}.what", ERASED_BY_COMMAND, "what `audit erase` does not destroy and declare itself")
    return kind, found


def refuse_name(path: str, words: str, person: str) -> None:
    """Whoever types words for the log does not sign them with his own name: the log would have it for ever.

    Of names this one alone is known here. Raises EntryRefused if a part of it, of three letters or more and written as
    it was given, is a word among `words`.
    """
    parts = {part for part in _WORD.findall(person) if len(part) >= NAME_CHARACTERS_MIN}
    if parts & set(_WORD.findall(words)):
        raise EntryRefused(path, "your own name", "words without names; --note keeps what may be erased later")


def refuse_names(name: str, found: Fields, person: str) -> None:
    """`refuse_name` for every field of a declaration that a person wrote in words of his own."""
    rules = rules_of(DECLARED[name])
    for field, value in found.items():
        if isinstance(rules[field], Plain):
            refuse_name(f"{name}.{field}", value, person)


_WORD = re.compile(r"[^\W\d_]+")


def _value(rule: Rule, text: str) -> object:
    """A word of the command line as the value that its rule reads; what is no number stays a word, and is refused."""
    match rule:
        case Optional():
            return _value(rule.rule, text)
        case Each():
            items = [_value(rule.rule, item.strip()) for item in text.split(",")] if text else []
            return sorted(set(map(str, items))) if rule.ordered else items
        case Metrics():
            pairs = [pair.partition(":") for pair in text.split(",")]
            return {name.strip(): _number(value) for name, _, value in pairs}
        case Whole():
            return int(text) if text.isascii() and text.isdecimal() and len(text) <= 16 else text
        case Number():
            return _number(text)
        case _:
            return text


def _number(text: str) -> object:
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _words(rule: Rule) -> str:
    match rule:
        case Optional():
            return _words(rule.rule)
        case Each():
            return f"a list with commas, each {_words(rule.rule)}"
        case Choice():
            return "|".join(rule.words)
        case Pattern():
            return rule.allowed
        case Plain():
            return f"words, at most {rule.longest} characters"
        case Metrics():
            return "figures such as auc:0.51,advantage:0.02"
        case Whole():
            return f"a whole number, {rule.low} or more"
        case Number():
            return "a number"
        case _:
            return "a day such as 2027-12-31"

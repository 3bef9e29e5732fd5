"""A bundle's configuration files as plain values: text, numbers, lists, sections. Pure.

What JSON and YAML readers disagree about, or build from little, is refused before it is a value: a key given twice
(MONAI's JSON reader only warns, and the later one wins), YAML tags, anchors and aliases, NaN and Infinity, numbers of
hundreds of digits, sections nested deeper than any configuration.

MONAI gives a meaning to some keys: `a#b` or `a::b` reach into another section, `+a` adds to one, `_wrapper_` and its
like change how a target is called. A key of a bundle is a plain word, or one of the few with underscores that MONAI
documents and that change nothing here (`targets.SPECIAL_KEYS`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from consortium.contract import yaml_file
from consortium.contract.errors import shown
from site_agent.bundles.reading import BundleFile
from site_agent.bundles.refusals import BundleRefused, Finding

Value: TypeAlias = Any
"""None, bool, int, float, str, a list of values, or a dict from str to values."""

DEPTH_MAX = 24
NODES_MAX = 20_000
TEXT_MAX = 4_000  # characters of one text
NUMBER_MAX = 2**63

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,99}")
_DIGITS_MAX = 40


@dataclass(frozen=True, slots=True)
class _Twice:
    """In place of a value whose key was given before."""


@dataclass(frozen=True, slots=True)
class _Odd:
    """In place of a number that is none."""

    text: str


def parse(file: BundleFile) -> dict[str, Value]:
    """The sections of a configuration file.

    Raises:
        BundleRefused: With every place that is not plain data.
    """
    assert file.content is not None
    data = _yaml(file, file.content) if file.suffix != ".json" else _json(file, file.content)
    if not isinstance(data, dict):
        raise _whole(file, shown(data), "sections with names")
    findings = list(_findings(file.name, data))
    if findings:
        raise BundleRefused(findings)
    return data


def walk(value: Value, at: str = "") -> Iterator[tuple[str, Value]]:
    """Every value with its id ("train#handlers#0"), from the outside in."""
    yield at, value
    inner: Iterator[tuple[object, Value]] = iter(())
    if isinstance(value, dict):
        inner = iter(value.items())
    elif isinstance(value, list):
        inner = iter(enumerate(value))
    for key, part in inner:
        yield from walk(part, f"{at}#{key}" if at else str(key))


def _findings(name: str, data: Value) -> Iterator[Finding]:
    advice = "Write plain data."
    for count, (at, value) in enumerate(walk(data)):
        if count >= NODES_MAX:
            yield Finding(
                file=name, found="too many values", allowed=f"at most {NODES_MAX}", advice="Take out what is not used."
            )
            return
        match value:
            case _Twice():
                yield Finding(
                    file=name,
                    id=at,
                    found="the same key a second time",
                    allowed="each key once",
                    advice="Take one of them out: readers disagree about which one counts.",
                )
            case _Odd():
                yield Finding(
                    file=name, id=at, found=shown(value.text), allowed="a finite number below 2^63", advice=advice
                )
            case bool() | None:
                pass
            case int() | float() if not -NUMBER_MAX < value < NUMBER_MAX:
                yield Finding(file=name, id=at, found=shown(value), allowed="a finite number below 2^63", advice=advice)
            case str() if len(value) > TEXT_MAX:
                found = f"a text of {len(value)} characters"
                yield Finding(file=name, id=at, found=found, allowed=f"at most {TEXT_MAX}", advice="Shorten it.")
            case dict():
                for key in value:
                    if _KEY.fullmatch(key) is None:
                        yield Finding(
                            file=name,
                            id=f"{at}#{key}" if at else key,
                            found=f"the key {shown(key)}",
                            allowed="letters, digits, '_', '-', '.' and blanks",
                            advice="MONAI gives other signs in a key a meaning of their own; rename it.",
                        )
            case _:
                pass


def _json(file: BundleFile, content: bytes) -> Value:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _whole(file, "bytes that are not UTF-8", "a text file in UTF-8") from None
    if _depth(text) > DEPTH_MAX:  # before the reader, which would go down with it
        raise _whole(file, "sections nested too deeply", f"at most {DEPTH_MAX} levels")
    try:
        return json.loads(text, object_pairs_hook=_section, parse_int=_whole_number, parse_constant=_Odd)
    except json.JSONDecodeError as error:
        raise _whole(file, f"what is not JSON, in line {error.lineno}", "JSON") from None


def _depth(text: str) -> int:
    """How deep brackets nest, those within text left out."""
    depth = deepest = 0
    inside = escaped = False
    for character in text:
        if inside:
            inside = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _section(pairs: list[tuple[str, Value]]) -> Value:
    found: dict[str, Value] = {}
    for key, value in pairs:
        found[key] = _Twice() if key in found else value
    return found


def _whole_number(digits: str) -> int | _Odd:
    return int(digits) if len(digits) <= _DIGITS_MAX else _Odd(digits)


def _yaml(file: BundleFile, content: bytes) -> Value:
    try:
        parsed = yaml_file.parse(content)
    except yaml_file.Unreadable as error:
        line = f", in line {error.problem.line}" if error.problem.line else ""
        raise _whole(file, f"{error.problem.found}{line}", error.problem.allowed) from None
    if parsed.problems:
        raise BundleRefused(
            [
                Finding(
                    file=file.name,
                    id="#".join(map(str, path)),
                    found=problem.found,
                    allowed=problem.allowed,
                    advice="Write plain values, each where it belongs.",
                )
                for path, problem in parsed.problems
            ]
        )
    return _lists(parsed.data)


def _lists(value: object) -> Value:
    """What our own reader gives, with lists as JSON has them and dates as the text they were."""
    match value:
        case Mapping():
            return {key: _lists(part) for key, part in value.items()}
        case tuple():
            return [_lists(part) for part in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def _whole(file: BundleFile, found: str, allowed: str) -> BundleRefused:
    return BundleRefused([Finding(file=file.name, found=found, allowed=allowed, advice="Mend the file.")])

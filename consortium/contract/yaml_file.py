"""From a YAML file to a model, or to every problem in it with path and line.

The subset of YAML read here is the one people mean: sections, lists, text, numbers, true/false, dates, comments. The
rules for plain words are those of YAML 1.2, so `no` is a word, `1e-3` a number and `010` ten. Refused, each by name:
a key given twice (the later one would silently win), anchors and aliases (a few hundred bytes can stand for
gigabytes), tags (they ask the reader to build objects), several documents in a file, and files of more than 1 MiB.
"""

import json
import re
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import yaml

from consortium.contract import schema
from consortium.contract.errors import FileInvalid, Problem, shown
from consortium.contract.schema import Section

FILE_BYTES_MAX = 2**20
_DEPTH_MAX = 24
_NODES_MAX = 50_000
_NUMBER_DIGITS_MAX = 400

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WORDS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip

Model = TypeVar("Model", bound=Section)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A file as plain values, with the line of every key and list item."""

    data: object  # str, int, float, bool, date, None, tuple, dict
    lines: Mapping[schema.Path, int]
    problems: tuple[tuple[schema.Path, Problem], ...]  # keys given twice, aliases, tags


def load(path: Path, model: type[Model], *, former: Collection[str] = ()) -> Model:
    """The file at `path` as a `model`; raises FileInvalid with every problem in it, sorted by line.

    Args:
        path: The file.
        model: What it should be.
        former: Keys of its uppermost level that an earlier release knew: whatever stands there is passed over.
    """
    try:
        parsed = parse(_read(path))
    except Unreadable as error:
        raise FileInvalid(path, [error.problem]) from None
    if not isinstance(parsed.data, dict):
        found = Problem(path="", line=1, found=shown(parsed.data), allowed=schema.describe(model))
        raise FileInvalid(path, [problem for _, problem in parsed.problems] or [found])
    data = {key: value for key, value in parsed.data.items() if key not in former}
    problems = [problem for _, problem in parsed.problems]
    spoiled = [schema.dotted(where) for where, _ in parsed.problems]
    problems += [
        problem
        for problem in schema.problems_of(model, data, parsed.lines)
        if not any(problem.path == where or problem.path.startswith((f"{where}.", f"{where}[")) for where in spoiled)
    ]
    if problems:
        raise FileInvalid(path, sorted(problems, key=lambda problem: (problem.line or 0, problem.path)))
    return model.model_validate(data)


def keys_of(path: Path) -> tuple[str, ...]:
    """The keys of the uppermost level of a file that `load` has read."""
    data = parse(_read(path)).data
    return tuple(str(key) for key in data) if isinstance(data, dict) else ()


def parse(raw: bytes) -> Parsed:
    """YAML bytes as plain values with lines. Sizes, depth and number of nodes are checked before values are built."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise Unreadable("bytes that are not UTF-8", "a text file in UTF-8", line) from None
    builder = _Builder(events=yaml.parse(text, Loader=yaml.SafeLoader))
    try:
        data = builder.document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark if error.problem_mark is not None else error.context_mark
        raise Unreadable(
            f"YAML that cannot be read ({error.problem or error.context})",
            "YAML: keys and values separated by a colon and a blank, sections indented with blanks",
            mark.line + 1 if mark is not None else 1,
        ) from None
    except yaml.YAMLError:
        raise Unreadable("a control character", "printable text") from None
    return Parsed(data=data, lines=builder.lines, problems=tuple(builder.problems))


class Unreadable(Exception):
    """The file as a whole cannot be read."""

    def __init__(self, found: str, allowed: str, line: int | None = None) -> None:
        self.problem = Problem(path="", line=line, found=found, allowed=allowed)
        super().__init__(found)


def _read(path: Path) -> bytes:
    """The bytes of a regular file, at most FILE_BYTES_MAX of them."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Unreadable("something that is not a file", "the path of a YAML file")
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise Unreadable("no such file", "the path of a YAML file") from None
    except OSError as error:
        raise Unreadable(f"a file that cannot be opened ({error.strerror})", "a file this user may read") from None
    if len(raw) > FILE_BYTES_MAX:
        raise Unreadable(f"more than {FILE_BYTES_MAX} bytes", f"a file of at most {FILE_BYTES_MAX} bytes")
    return raw


@dataclass(slots=True, kw_only=True)
class _Builder:
    """Builds values from YAML events. Mutable: it collects lines and problems on its way through one file."""

    events: Iterator[Any]
    lines: dict[schema.Path, int] = field(default_factory=dict)
    problems: list[tuple[schema.Path, Problem]] = field(default_factory=list)
    nodes: int = 0

    def document(self) -> object:
        """The one document of the file."""
        value: object = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise Unreadable("a second document", "one document per file", _line_of(event))
                value = self.value(next(self.events), ())
        return value

    def value(self, event: Any, path: schema.Path) -> object:
        """The value that starts with `event`."""
        line = _line_of(event)
        self.nodes += 1
        if self.nodes > _NODES_MAX:
            raise Unreadable("too many entries", f"at most {_NODES_MAX} keys and values", line)
        if len(path) > _DEPTH_MAX:
            raise Unreadable("sections nested too deeply", f"at most {_DEPTH_MAX} levels", line)
        self.lines.setdefault(path, line)
        anchor = f"&{event.anchor}" if not isinstance(event, yaml.AliasEvent) else f"*{event.anchor}"
        if event.anchor:
            self.problem(path, line, f"the anchor or alias {anchor}", "the value itself, written out in every place")
        tag = getattr(event, "tag", None)
        if tag and tag != "!":
            self.problem(path, line, f"the tag {shown(tag)[1:-1]}", "a plain value without a tag")
        match event:
            case yaml.MappingStartEvent():
                return self.section(path)
            case yaml.SequenceStartEvent():
                return self.sequence(path)
            case yaml.ScalarEvent():
                return event.value if event.style in ("'", '"', "|", ">") else plain(event.value)
            case _:
                return None

    def section(self, path: schema.Path) -> dict[str, object]:
        """A mapping, up to its end event. Of a key that comes twice the first value is kept and the second reported."""
        result: dict[str, object] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            line = _line_of(event)
            key = self.key(event, path)
            inner = (*path, key)
            if key in result:
                first = self.lines[inner]
                self.problem(inner, line, "the same key a second time", f"once; it already stands on line {first}")
                self.value(next(self.events), (*path, f"{key} (again)"))
                continue
            self.lines[inner] = line
            result[key] = self.value(next(self.events), inner)
        return result

    def key(self, event: Any, path: schema.Path) -> str:
        """A mapping's key, which must be text."""
        line = _line_of(event)
        if isinstance(event, yaml.ScalarEvent):
            self.value(event, (*path, event.value))
            if event.value and (event.style in ("'", '"') or isinstance(plain(event.value), str)):
                return str(event.value)
            self.problem((*path, event.value), line, f"the key {shown(plain(event.value))}", "a name as key")
            return str(event.value)
        self.problem(path, line, "a key that is not a name", "a name as key")
        self.value(event, (*path, "?"))
        return "?"

    def sequence(self, path: schema.Path) -> tuple[object, ...]:
        """A list, up to its end event."""
        items: list[object] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.value(event, (*path, len(items))))
        return tuple(items)

    def problem(self, path: schema.Path, line: int, found: str, allowed: str) -> None:
        """Note what is wrong and read on."""
        self.problems.append((path, Problem(path=schema.dotted(path), line=line, found=found, allowed=allowed)))


def _line_of(event: Any) -> int:
    """The line an event starts on, counted from 1."""
    return int(event.start_mark.line) + 1


def quoted(text: str) -> str:
    """Text as a double-quoted YAML value, for files the program writes."""
    return json.dumps(text, ensure_ascii=False)


def plain(text: str) -> object:
    """A word without quotes, by the rules of YAML 1.2.

    | text | value |
    |---|---|
    | (nothing), null, ~ | None |
    | true, false | a bool; yes, no, on, off stay text |
    | 12, -3, 010 | an int, in decimal |
    | 0.5, .5, 1e-3 | a float |
    | 2027-12-31 | a date; 2027-02-31 stays text |
    """
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _NUMBER_DIGITS_MAX:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _DATE.fullmatch(text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            return text
    return text

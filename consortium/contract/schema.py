"""What a section of a file is: its keys, their bounds, and the rules that tie several of them together.

A `Section` is a frozen, strict pydantic model that refuses unknown keys. Bounds live in the types of its fields;
whatever relates two fields is a `Rule`, a pure function of the values it reads. Two things follow from keeping rules
apart: they also run when other parts of the file are wrong, so that an author sees every problem at once, and they can
be listed and tested one by one.

`describe` says in words what a field allows, from the same types that enforce it; messages and the reference pages
use those words, so they cannot drift from what is checked.
"""

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeAlias, Union, get_args, get_origin

import annotated_types as at
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from consortium.contract.errors import Problem, shown

Path: TypeAlias = tuple[str | int, ...]
"""Where in a file: keys of sections and indices of lists, from the top."""


@dataclass(frozen=True, slots=True)
class Words:
    """What a field allows, where its type alone does not say it well."""

    text: str


@dataclass(frozen=True, slots=True)
class NotYet:
    """Values the design names but this version does not have; saying so beats calling them unknown."""

    values: tuple[str, ...]


class Refused(ValueError):
    """A field's value fails a check that its type cannot express; `found` replaces the plain value in the message."""

    def __init__(self, found: str | None = None) -> None:
        self.found = found
        super().__init__(found or "not allowed here")


class Finding(NamedTuple):
    """What a rule found wrong: the path, relative to the rule's section, what is there, and what is allowed."""

    at: str | Path  # "required[2]"; as steps where the author's own names may have dots in them
    found: str
    allowed: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A relation between fields: `check` gets the values at `reads`, in order, and yields what is wrong.

    A path may lead into one member of a union of sections; where the file has another member, the rule has no say.
    """

    reads: tuple[str, ...]  # dotted paths below the section that has the rule
    check: Callable[..., Iterator[Finding]]


class RulesBroken(ValueError):
    """A section built in code, or sent by a peer, breaks its rules."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join(f"{dotted(_steps(f.at))}: found {f.found}; allowed: {f.allowed}" for f in findings))


class Section(BaseModel):
    """A part of a file: strict types, no unknown keys, no infinities, frozen once read."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        findings = [finding for rule in self.rules for finding in self._found_by(rule)]
        if findings:
            raise RulesBroken(findings)
        return self

    def _found_by(self, rule: Rule) -> Iterator[Finding]:
        try:
            values = [_attribute(self, path) for path in rule.reads]
        except _Unknown:
            return
        yield from rule.check(*values)


def problems_of(model: type[Section], data: object, lines: Mapping[Path, int] | None = None) -> list[Problem]:
    """Everything that keeps `data` from being a `model`: wrong fields first, then rules on the fields that are right.

    `data` holds str, int, float, bool, date, None, tuples and dicts, as `yaml_file.parse` makes them. `lines` says on
    which line of the file each path stands. Sorted by line; an empty list means that `data` is valid.
    """
    try:
        model.model_validate(data)
    except ValidationError as error:
        found = field_problems(model, data, error)
    else:
        return []
    for section, part, path in _sections(model, data, ()):
        found += [_placed(finding, path) for finding in _broken_rules(section, part)]
    located = {
        (problem.path, problem.allowed): Problem(
            path=problem.path, line=_line_of(path, lines), found=problem.found, allowed=problem.allowed
        )
        for path, problem in reversed(found)
    }
    return sorted(located.values(), key=lambda p: (p.line or 0, p.path))


def field_problems(model: type[Section], data: object, error: ValidationError) -> list[tuple[Path, Problem]]:
    """Pydantic's errors in plain words, each with its path. A root rule that was broken is among them."""
    found: list[tuple[Path, Problem]] = []
    for item in error.errors(include_url=False):
        cause = item.get("ctx", {}).get("error")
        path, kind, metadata, value = _walk(model, data, item["loc"])
        if isinstance(cause, RulesBroken):
            found += [_placed(finding, path) for finding in cause.findings]
            continue
        allowed, seen = describe(kind, metadata), shown(value)
        match item["type"]:
            case "missing" if value is None:
                seen = "nothing"
            case "extra_forbidden":
                allowed, seen = _known_keys(model, data, path), "an unknown key"
            case "union_tag_invalid" | "union_tag_not_found":
                tag, _ = _tagged(kind, metadata) or ("", {})
                path = (*path, tag)
                seen = shown(value.get(tag) if isinstance(value, Mapping) else None)
                allowed = _choice(_tags(kind, metadata))
            case _ if isinstance(cause, Refused) and cause.found is not None:
                seen = cause.found
        found.append((path, Problem(path=dotted(path), line=None, found=seen, allowed=allowed)))
    return found


def describe(kind: object, metadata: tuple[object, ...] = ()) -> str:
    """What a type allows, in words: "a number greater than 0 and at most 1"."""
    kind, metadata = _unwrap(kind, metadata)
    for item in reversed(metadata):  # the outermost words are the most specific
        if isinstance(item, Words):
            return item.text
    later = [value for item in metadata if isinstance(item, NotYet) for value in item.values]
    arguments = get_args(kind)
    match get_origin(kind) or kind:
        case origin if origin is Literal:
            suffix = f" ({' and '.join(later)}: not available in this version)" if later else ""
            return _choice([str(argument) for argument in arguments]) + suffix
        case origin if origin is bool:
            return "true or false"
        case origin if origin is int:
            return "a whole number" + _bounds(metadata)
        case origin if origin is float:
            return "a number" + _bounds(metadata)
        case origin if origin is str:
            return "text"
        case origin if origin is date:
            return "a date such as 2027-12-31, without quotes"
        case origin if origin is tuple:
            if arguments[-1] is not Ellipsis:
                return f"a list of {len(arguments)}, each {describe(arguments[0])}"
            return f"a list{_length(metadata)}, each {describe(arguments[0])}"
        case origin if isinstance(origin, type) and issubclass(origin, Section):
            return "a section with the keys " + ", ".join(keys_of(origin))
        case _ if _is_mapping(kind):
            return f"a section{_length(metadata)} of your own names, for each {describe(arguments[1])}"
        case _:
            tag, members = _tagged(kind, metadata) or ("", {})
            return f"a section whose {tag} is {_choice(list(members))}"


def keys_of(section: type[Section]) -> dict[str, FieldInfo]:
    """The keys of a section as they are spelled in a file, in the order they are declared."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def dotted(path: Path) -> str:
    """`("sites", "required", 2)` as `sites.required[2]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{shown(part)[1:-1]}"
    return text.removeprefix(".")


# --- words ---------------------------------------------------------------------------------------------------------


def _bounds(metadata: tuple[object, ...]) -> str:
    low = high = ""
    least = most = None
    for item in metadata:
        match item:
            case at.Gt(gt=bound):
                low = f"greater than {shown(bound)}"
            case at.Ge(ge=bound):
                low, least = f"at least {shown(bound)}", bound
            case at.Lt(lt=bound):
                high = f"less than {shown(bound)}"
            case at.Le(le=bound):
                high, most = f"at most {shown(bound)}", bound
    if least is not None and most is not None:
        return f" from {shown(least)} to {shown(most)}"
    words = " and ".join(part for part in (low, high) if part)
    return f" {words}" if words else ""


def _length(metadata: tuple[object, ...]) -> str:
    low = max((item.min_length for item in metadata if isinstance(item, at.MinLen | at.Len)), default=0)
    high = next((item.max_length for item in metadata if isinstance(item, at.MaxLen | at.Len)), None)
    if low and high is not None:
        return f" of {low} to {high}"
    words = [f"at least {low}"] if low else []
    words += [f"at most {high}"] if high is not None else []
    return f" of {' and '.join(words)}" if words else ""


def _choice(values: list[str]) -> str:
    return values[0] if len(values) == 1 else "one of " + ", ".join(values)


def _known_keys(model: type[Section], data: object, path: Path) -> str:
    import difflib  # noqa: PLC0415 - only for mistakes

    _, kind, metadata, value = _walk(model, data, path[:-1])
    section = _member(kind, metadata, value)
    keys = list(keys_of(section)) if section else []
    close = difflib.get_close_matches(str(path[-1]), keys, n=1)
    hint = f"{close[0]} (did you mean that?); " if close else ""
    return f"{hint}the keys here are {', '.join(keys)}" if keys else "no key at all: this section is empty"


# --- types ---------------------------------------------------------------------------------------------------------


def _unwrap(kind: object, metadata: tuple[object, ...]) -> tuple[Any, tuple[object, ...]]:
    """Take off Annotated and `| None`, keeping what they say."""
    while True:
        if get_origin(kind) is Annotated:
            kind, *more = get_args(kind)
            for item in more:
                metadata += tuple(item.metadata) if isinstance(item, FieldInfo) else ()
                metadata += (item,)
        elif get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind):
            (kind,) = (member for member in get_args(kind) if member is not type(None))
        else:
            return kind, metadata


def _tagged(kind: object, metadata: tuple[object, ...]) -> tuple[str, dict[str, type[Section]]] | None:
    """The key that tells the members of a union of sections apart, and the member for each of its values."""
    tag = next((item.discriminator for item in metadata if isinstance(item, FieldInfo) and item.discriminator), None)
    if not isinstance(tag, str):
        return None
    members: dict[str, type[Section]] = {}
    for member in get_args(kind):
        section, _ = _unwrap(member, ())
        members |= dict.fromkeys(get_args(section.model_fields[tag].annotation), section)
    return tag, members


def _tags(kind: object, metadata: tuple[object, ...]) -> list[str]:
    found = _tagged(kind, metadata)
    return list(found[1]) if found else []


def _member(kind: object, metadata: tuple[object, ...], data: object) -> type[Section] | None:
    """The section that `data` is meant to be, looking at its tag if the type is a union."""
    kind, metadata = _unwrap(kind, metadata)
    if isinstance(kind, type) and issubclass(kind, Section):
        return kind
    union = _tagged(kind, metadata)
    if union is None or not isinstance(data, Mapping):
        return None
    value = data.get(union[0])
    return union[1].get(value) if isinstance(value, str) else None


def _field_type(field: FieldInfo) -> tuple[Any, tuple[object, ...]]:
    metadata = tuple(field.metadata)
    return _unwrap(field.annotation, (*metadata, field) if field.discriminator else metadata)


def _is_mapping(kind: Any) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


# --- walking -------------------------------------------------------------------------------------------------------


def _walk(model: type[Section], data: object, location: Path) -> tuple[Path, Any, tuple[object, ...], Any]:
    """Follow a pydantic location: the path in the file, the type and metadata there, and the value found.

    Pydantic also names union members in its locations; those steps are not in the file and are left out.
    """
    if location[-1:] == ("[key]",):
        path, mapping, _, _ = _walk(model, data, location[:-2])
        if _is_mapping(mapping):  # one of the author's own names is wrong, not what stands under it
            return (*path, location[-2]), *_unwrap(get_args(mapping)[0], ()), location[-2]
    path = ()
    kind: Any = model
    metadata: tuple[object, ...] = ()
    for step in location:
        section = _member(kind, metadata, data)
        if section is not None and _tags(kind, metadata) and step in _tags(kind, metadata):
            kind, metadata = section, ()
        elif section is not None:
            field = keys_of(section).get(str(step))
            path, data = (*path, step), data.get(step) if isinstance(data, Mapping) else None
            if field is None:
                break
            kind, metadata = _field_type(field)
        elif _is_mapping(kind):
            path, data = (*path, step), data.get(step) if isinstance(data, Mapping) else None
            kind, metadata = _unwrap(get_args(kind)[1], ())
        elif get_origin(kind) is tuple and isinstance(step, int) and isinstance(data, tuple) and step < len(data):
            path, data = (*path, step), data[step]
            members = get_args(kind)
            kind, metadata = _unwrap(members[0] if members[-1] is Ellipsis else members[step], ())
        else:
            break
    return path, kind, metadata, data


def _sections(kind: object, data: object, path: Path) -> Iterator[tuple[type[Section], Mapping[str, object], Path]]:
    """Every section in `data`, from the top down, as the types say it should be."""
    kind, metadata = _unwrap(kind, ())
    yield from _sections_of(kind, metadata, data, path)


def _sections_of(
    kind: Any, metadata: tuple[object, ...], data: object, path: Path
) -> Iterator[tuple[type[Section], Mapping[str, object], Path]]:
    section = _member(kind, metadata, data)
    if isinstance(data, Mapping):
        if section is not None:
            yield section, data, path
            for key, field in keys_of(section).items():
                if key in data:
                    yield from _sections_of(*_field_type(field), data[key], (*path, key))
        elif _is_mapping(kind):
            for key, value in data.items():
                yield from _sections_of(*_unwrap(get_args(kind)[1], ()), value, (*path, key))


class _Unknown(Exception):
    """A value that a rule reads is itself wrong, or of another member of a union, so the rule has no say."""


def _broken_rules(section: type[Section], data: Mapping[str, object]) -> Iterator[Finding]:
    for rule in section.rules:
        try:
            values = [_value(section, data, path.split(".")) for path in rule.reads]
        except _Unknown:
            continue
        yield from rule.check(*values)


def _value(section: type[Section], data: object, names: list[str]) -> Any:
    """The validated value at a dotted path, though other parts of the section may be wrong."""
    field = keys_of(section).get(names[0])
    if field is None or not isinstance(data, Mapping):
        raise _Unknown
    if names[0] not in data:
        if field.is_required() or len(names) > 1:
            raise _Unknown
        return field.get_default(call_default_factory=True)
    kind, metadata = _field_type(field)
    if len(names) > 1:
        inner = _member(kind, metadata, data[names[0]])
        if inner is None:
            raise _Unknown
        return _value(inner, data[names[0]], names[1:])
    annotation: Any = field.annotation
    for item in (*field.metadata, *([field] if field.discriminator else [])):
        annotation = Annotated[annotation, item]
    try:
        nested = isinstance(kind, type) and issubclass(kind, BaseModel)
        settings = None if nested else ConfigDict(strict=True, allow_inf_nan=False)
        return TypeAdapter(annotation, config=settings).validate_python(data[names[0]])
    except ValidationError:
        raise _Unknown from None


def _attribute(section: Section, path: str) -> Any:
    value: Any = section
    for name in path.split("."):
        if name not in type(value).model_fields:
            raise _Unknown
        value = getattr(value, name)
    return value


def _placed(finding: Finding, base: Path) -> tuple[Path, Problem]:
    path = (*base, *_steps(finding.at))
    return path, Problem(path=dotted(path), line=None, found=finding.found, allowed=finding.allowed)


def _steps(at: str | Path) -> Path:
    """`"required[2]"` as `("required", 2)`."""
    if not isinstance(at, str):
        return at
    path: Path = ()
    for part in at.split(".") if at else ():
        name, _, index = part.partition("[")
        path = (*path, name, int(index.rstrip("]"))) if index else (*path, name)
    return path


def _line_of(path: Path, lines: Mapping[Path, int] | None) -> int | None:
    """The line of a path, or of the nearest section around it when it is not in the file."""
    if lines is None:
        return None
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)

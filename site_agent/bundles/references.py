"""`@` references and `%` macros of a configuration, as MONAI reads them but without running anything. Pure.

| text | what it stands for |
|---|---|
| `"@train#lr"`, also `"@train::lr"` | the value of that id, computed |
| `"$@epochs * 2"` | a reference inside an expression |
| `"%train#transforms"` | the configuration at that id, copied word for word |
| `"@#lr"`, `"@##lr"` | relative: beside this one, one level further out |

A macro that names another file is refused, inside the bundle or out of it. Macros may stand in what a macro copies,
which MONAI leaves half done; circles end with the ids they go through, and copies of copies are counted, so that a few
hundred bytes do not unfold to gigabytes.
"""

import re

from consortium.contract.errors import shown
from site_agent.bundles.documents import NODES_MAX, Value
from site_agent.bundles.refusals import BundleRefused, Finding

CHAIN_MAX = 32  # references to references, and macros within macros

_ID = r"[A-Za-z0-9_. -]*"
_WHOLE = re.compile(rf"[@%](?P<up>(?:#)*)(?P<id>{_ID}(?:#{_ID})*)")
_RELATIVE = re.compile(r"@(?P<up>(?:#|::)+)")
_FILE = re.compile(r"\.(?:json|ya?ml)(?:#|$)", re.IGNORECASE)


class ReferenceRefused(Exception):
    """A reference or macro that is not taken; whoever knows its place says so."""

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(f"found {found}; allowed: {allowed}")
        self.found = found
        self.allowed = allowed


def find(config: Value, id_: str) -> Value:
    """The configuration at an id; raises ReferenceRefused."""
    value = config
    for part in id_.split("#") if id_ else []:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isascii() and part.isdigit() and len(part) < 8 and int(part) < len(value):
            value = value[int(part)]
        else:
            raise ReferenceRefused(f"a reference to {shown(id_)}, which is not there", "an id of this file")
    return value


def referred(text: str) -> str:
    """The id that a whole text "@id" or "%id" names; relative ones are absolute by now. Raises ReferenceRefused."""
    normal = text.replace("::", "#")
    if text.startswith("%") and _FILE.search(normal):
        raise ReferenceRefused(f"a macro that includes a file, {shown(text)}", "macros of ids in the same file")
    match = _WHOLE.fullmatch(normal)
    if match is None or not match["id"]:
        raise ReferenceRefused(
            f"the text {shown(text)}", "a whole id after @ or %; other text must not begin with them"
        )
    return match["id"]


def resolve(file: str, config: dict[str, Value]) -> dict[str, Value]:
    """The configuration with relative ids made absolute and macros replaced by what they copy.

    Raises:
        BundleRefused: With every macro that goes nowhere, in a circle, to a file, or copies too much.
    """
    absolute, findings = _absolute(file, config)
    if findings:
        raise BundleRefused(findings)
    unfolder = _Unfolder(file, absolute)
    resolved = unfolder.copy("", absolute, ())
    if unfolder.findings:
        raise BundleRefused(unfolder.findings)
    assert isinstance(resolved, dict)
    return resolved


def _absolute(file: str, config: Value) -> tuple[Value, list[Finding]]:
    findings: list[Finding] = []

    def made(at: str, value: Value) -> Value:
        match value:
            case dict():
                return {key: made(f"{at}#{key}" if at else key, part) for key, part in value.items()}
            case list():
                return [made(f"{at}#{index}" if at else str(index), part) for index, part in enumerate(value)]
            case str() if value[:1] in ("@", "%", "$"):
                try:
                    return _absolute_text(at, value)
                except ReferenceRefused as error:
                    findings.append(_finding(file, at, error))
                    return None
            case _:
                return value

    return made("", config), findings


def _absolute_text(at: str, text: str) -> str:
    levels = at.split("#")

    def outer(count: int) -> str:
        if count > len(levels):
            raise ReferenceRefused(f"a relative id in {shown(text)} that leads out", f"at most {len(levels)} levels up")
        return "".join(f"{level}#" for level in levels[: len(levels) - count])

    if text[0] == "$":
        return _RELATIVE.sub(lambda match: f"@{outer(len(match['up'].replace('::', '#')))}", text)
    normal = text.replace("::", "#")
    rest = normal[1:].lstrip("#")
    up = len(normal) - 1 - len(rest)
    return f"{text[0]}{outer(up)}{rest}" if up else text


class _Unfolder:
    """Copies a configuration and what its macros stand for. Mutable: it counts the values it copies."""

    def __init__(self, file: str, config: Value) -> None:
        self._file = file
        self._config = config
        self._copied = 0
        self.findings: list[Finding] = []

    def copy(self, at: str, value: Value, through: tuple[str, ...]) -> Value:
        """The value at an id, unfolded; `through` are the macros on the way here."""
        self._copied += 1
        if self._copied > NODES_MAX:
            if self._copied == NODES_MAX + 1:
                self._note(at, ReferenceRefused("macros that copy too much", f"at most {NODES_MAX} values in all"))
            return None
        match value:
            case dict():
                return {key: self.copy(f"{at}#{key}" if at else key, part, through) for key, part in value.items()}
            case list():
                return [self.copy(f"{at}#{index}" if at else str(index), p, through) for index, p in enumerate(value)]
            case str() if value.startswith("%"):
                try:
                    id_ = self._followed(at, value, through)
                    target = find(self._config, id_)
                except ReferenceRefused as error:
                    self._note(at, error)
                    return None
                return self.copy(at, target, (*through, id_))
            case _:
                return value

    def _followed(self, at: str, text: str, through: tuple[str, ...]) -> str:
        """The id a macro names, if it may be followed from here."""
        id_ = referred(text)
        if id_ in through or f"{at}#".startswith(f"{id_}#"):
            circle = " -> ".join([*through, id_][-4:])
            raise ReferenceRefused(f"macros that go in a circle, {shown(circle)}", "macros that end")
        if len(through) >= CHAIN_MAX:
            raise ReferenceRefused("macros within macros", f"at most {CHAIN_MAX}")
        return id_

    def _note(self, at: str, error: ReferenceRefused) -> None:
        self.findings.append(_finding(self._file, at, error))


def _finding(file: str, at: str, error: ReferenceRefused) -> Finding:
    return Finding(file=file, id=at, found=error.found, allowed=error.allowed, advice="Write what is meant in place.")

"""What can be wrong with a file or a signed document, said so that its author can put it right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_SHOWN_MAX = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One place that is not as it must be."""

    path: str  # "privacy.epsilon", "sites.required[2]"; empty for the file as a whole
    line: int | None  # 1 is the first line; None where there are no lines, as in a document sent by a peer
    found: str
    allowed: str

    def __str__(self) -> str:
        place = [f"line {self.line}"] if self.line is not None else []
        place += [self.path] if self.path else []
        return f"{', '.join(place) or 'the file'}: found {self.found}; allowed: {self.allowed}"


class ContractError(Exception):
    """Something in a study, a plan or a configuration file that cannot be accepted."""

    def advice(self) -> str:
        """What the person who sees this should do next."""
        raise NotImplementedError


class FileInvalid(ContractError):
    """A file a person wrote, with everything that is wrong in it. Whose fault: the author of the file."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        super().__init__("\n".join([f"{path} is not valid:", *(f"  {problem}" for problem in problems)]))

    def __reduce__(self) -> tuple[type[Self], tuple[Path, tuple[Problem, ...]]]:
        return type(self), (self.path, self.problems)

    def advice(self) -> str:
        """What the author should do next."""
        places = "the place" if len(self.problems) == 1 else f"all {len(self.problems)} places"
        return f"Put right {places} listed above in {self.path} and run the command again; nothing was changed."


class DocumentInvalid(ContractError):
    """Canonical bytes from a peer that are not what they must be. Whose fault: the peer that sent or stored them."""

    def __init__(self, what: str, problems: Sequence[Problem]) -> None:
        self.what = what
        self.problems = tuple(problems)
        super().__init__("\n".join([f"not a valid {what}:", *(f"  {problem}" for problem in problems)]))

    def __reduce__(self) -> tuple[type[Self], tuple[str, tuple[Problem, ...]]]:
        return type(self), (self.what, self.problems)

    def advice(self) -> str:
        """What the operator should do next."""
        return (
            f"This {self.what} was refused and nothing was done with it. "
            "If both sides run the same version of the software, tell the coordinator's operator."
        )


def shown(value: object) -> str:
    """A value from a file in one short printable line, as its author would recognise it.

    | value | shown |
    |---|---|
    | None | nothing |
    | True | true |
    | -1, 120.0 | -1, 120 |
    | "abc" | "abc" |
    | a tuple of 3 | a list of 3 |
    | a mapping | a section with the keys a, b |
    """
    match value:
        case None:
            text = "nothing"
        case bool():
            text = "true" if value else "false"
        case str():
            text = f'"{value}"'
        case tuple() | list():
            text = f"a list of {len(value)}"
        case dict():
            text = "a section with the keys " + ", ".join(map(str, value)) if value else "an empty section"
        case float() if value.is_integer() and abs(value) < 10**15:
            text = str(int(value))
        case int() if abs(value) >= 10**_SHOWN_MAX:
            text = f"a whole number of more than {_SHOWN_MAX} digits"
        case _:
            text = str(value)
    # A file may hold control characters or right-to-left marks; a terminal must never obey them.
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 1] + "…"

"""Which of a network's parameters are sent, kept by each hospital, or frozen (pure).

| part | `training.trainable` | `training.site_kept` | is trained | leaves the hospital |
|---|---|---|---|---|
| sent | names it, or is absent | does not name it | yes | in the masked update |
| kept | names it, or is absent | names it | yes | never; it lies in the agent's home between rounds |
| frozen | does not name it | - | no | never; it is what the study's seed builds |

Patterns are those of `tensor_clips.py`: a name, or `*` for any characters. Every pattern must name a parameter, so that
no slip of the pen goes unnoticed, and at least one parameter is sent. The masked vector, the global model and
`aggregation.tensor_clips` speak of the sent parameters alone.

A kept parameter is clipped and gets noise like any other: what is sent in later rounds depends on it, so that its own
steps must be private too although it never leaves.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from consortium.contract.errors import ContractError, Problem, shown
from consortium.contract.global_model import ParameterLayout
from consortium.contract.schema import Refused, Words
from consortium.contract.tensor_clips import PATTERN_CHARACTERS_MAX

PARTS_MAX = 64
"""Patterns in one list."""

_PATTERN = re.compile(rf"[A-Za-z0-9_.*-]{{1,{PATTERN_CHARACTERS_MAX}}}")


def _pattern(text: str) -> str:
    if _PATTERN.fullmatch(text) is None:
        raise Refused
    return text


ParameterPattern: TypeAlias = Annotated[
    str,
    AfterValidator(_pattern),
    Words(
        f"a parameter's name, or a pattern with '*' for any characters: at most {PATTERN_CHARACTERS_MAX} letters, "
        "digits, '_', '.', '-' and '*'"
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A network's parameters by what happens to them, each sorted by name."""

    sent: ParameterLayout
    kept: ParameterLayout
    frozen: ParameterLayout


class PartsRefused(ContractError):
    """`training.trainable` or `training.site_kept` does not fit the network. Whose fault: the study's author."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(["the study's parts do not fit its network:", *(f"  {p}" for p in self.problems)]))

    def advice(self) -> str:
        """What to do next."""
        return "Correct the patterns under training and submit the study under a new id."


def parts_of(
    parameters: ParameterLayout, trainable: tuple[str, ...] | None, site_kept: tuple[str, ...] | None
) -> Parts:
    """The parameters, divided.

    Raises:
        PartsRefused: A pattern names no parameter that it may name, or no parameter would be sent.
    """
    problems = parts_problems(parameters, trainable, site_kept)
    if problems:
        raise PartsRefused(problems)
    trained = tuple(p for p in parameters if trainable is None or _named(p[0], trainable))
    return Parts(
        sent=tuple(p for p in trained if not _named(p[0], site_kept or ())),
        kept=tuple(p for p in trained if _named(p[0], site_kept or ())),
        frozen=tuple(p for p in parameters if p not in trained),
    )


def parts_problems(
    parameters: ParameterLayout, trainable: tuple[str, ...] | None, site_kept: tuple[str, ...] | None
) -> tuple[Problem, ...]:
    """Everything that keeps the patterns from fitting the parameters; the paths are those of the study file."""
    names = [name for name, _ in parameters]
    trained = [name for name in names if trainable is None or _named(name, trainable)]
    found: list[Problem] = []
    for key, patterns, among, of_what in (
        ("trainable", trainable, names, "no parameter of the network has"),
        ("site_kept", site_kept, trained, "no trained parameter has"),
    ):
        for index, pattern in enumerate(patterns or ()):
            if not any(fnmatchcase(name, pattern) for name in among):
                path = f"training.{key}[{index}]"
                allowed = f"one of {', '.join(shown(name)[1:-1] for name in among[:6])}" if among else "nothing"
                found.append(Problem(path=path, line=None, found=f"a name that {of_what}", allowed=allowed))
    if not found and not any(not _named(name, site_kept or ()) for name in trained):
        found.append(
            Problem(
                path="training.site_kept", line=None, found="patterns that name every trained parameter",
                allowed="patterns that leave at least one parameter to be sent",
            )
        )  # fmt: skip
    return tuple(found)


def _named(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)

"""Which clip bounds which parameter of an update: `aggregation.tensor_clips` against a network's parameters (pure).

A study gives one `update_clip` for all parameters, and may give some of them a clip of their own, by name or by a
pattern in which `*` stands for any characters: `0.weight`, `classifier.*`. Every pattern must name a parameter and no
parameter may be named twice, so that nothing hangs on the order of a file and no slip of the pen goes unnoticed.

Parameters keep the order of their layout, sorted by name. Neighbours with one clip travel in one lane of the masked
vector (protocol section 5).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from operator import itemgetter

from consortium.contract.errors import ContractError, Problem, shown
from consortium.contract.global_model import ParameterLayout

PATTERNS_MAX = 64
PATTERN_CHARACTERS_MAX = 200
STRETCHES_MAX = 1000
"""No update is cut into more stretches than this: every one is a lane of the round plan."""

_NAMES_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedStretch:
    """Neighbouring parameters with one clip."""

    length: int  # values, over all of them
    clip: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """What is wrong between the patterns and the parameters."""

    pattern: str  # the one to put right; empty where it is all of them together
    found: str
    allowed: str


class TensorClipsRefused(ContractError):
    """The clips of a study do not fit the parameters of the model it is about. Whose fault: the study's author.

    Where the study's network is known without building it, the study file is refused for the same reasons, with the
    line; this is raised where a model has been built or has arrived.
    """

    def __init__(self, misfits: Sequence[Misfit]) -> None:
        self.problems = tuple(
            Problem(path=".".join(filter(None, ("aggregation.tensor_clips", m.pattern))), line=None, found=m.found,
                    allowed=m.allowed)
            for m in misfits
        )  # fmt: skip
        super().__init__("\n".join(["the study's clips do not fit its network:", *(f"  {p}" for p in self.problems)]))

    def advice(self) -> str:
        """What to do next."""
        return (
            "Correct aggregation.tensor_clips and submit the study under a new id. If `consortium study validate` "
            "accepts the file, the software of this machine and the coordinator's differ: install the same release."
        )


def clipped_stretches(
    parameters: ParameterLayout, update_clip: float, tensor_clips: Mapping[str, float]
) -> tuple[ClippedStretch, ...]:
    """The update's stretches in the order of the parameters; one stretch if `tensor_clips` is empty.

    Raises:
        TensorClipsRefused: A pattern names no parameter, a parameter is named twice, or there are too many stretches.
    """
    stretches, misfits = _cut(parameters, update_clip, tensor_clips)
    if misfits:
        raise TensorClipsRefused(misfits)
    return stretches


def misfits_of(
    parameters: ParameterLayout, update_clip: float, tensor_clips: Mapping[str, float]
) -> tuple[Misfit, ...]:
    """Everything that keeps the patterns from fitting the parameters, in the order of the patterns."""
    _, misfits = _cut(parameters, update_clip, tensor_clips)
    return misfits


def _cut(
    parameters: ParameterLayout, update_clip: float, tensor_clips: Mapping[str, float]
) -> tuple[tuple[ClippedStretch, ...], tuple[Misfit, ...]]:
    """The stretches, and what is wrong with them."""
    misfits: list[Misfit] = []
    taken: dict[str, str] = {}  # parameter -> the first pattern that names it
    for pattern in sorted(tensor_clips):
        matched = [name for name, _ in parameters if fnmatchcase(name, pattern)]
        if not matched:
            allowed = "one of " + _some([name for name, _ in parameters])
            misfits.append(
                Misfit(pattern=pattern, found="a name that no parameter of the network has", allowed=allowed)
            )
        twice = next((name for name in matched if name in taken), None)
        if twice is not None:
            found = f"the parameter {shown(twice)}, which {shown(taken[twice])} names too"
            misfits.append(Misfit(pattern=pattern, found=found, allowed="every parameter under one name or pattern"))
        taken |= {name: pattern for name in matched if name not in taken}
    sized = [
        (tensor_clips[taken[name]] if name in taken else update_clip, math.prod(shape)) for name, shape in parameters
    ]
    stretches = tuple(
        ClippedStretch(length=sum(size for _, size in run), clip=clip)
        for clip, run in groupby((item for item in sized if item[1]), key=itemgetter(0))
    )
    if len(stretches) > STRETCHES_MAX:
        found = f"patterns that cut the update into {len(stretches)} stretches with different clips"
        allowed = f"at most {STRETCHES_MAX}: parameters are sorted by name, so name whole layers"
        misfits.append(Misfit(pattern="", found=found, allowed=allowed))
    return stretches, tuple(misfits)


def _some(names: Sequence[str]) -> str:
    """A few names in one line, and how many more there are."""
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(shown(name)[1:-1] for name in names[:_NAMES_SHOWN]) + more

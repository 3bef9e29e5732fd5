"""Rounds in sequence: what a study does next, from where it stands (pure)."""

from dataclasses import dataclass
from typing import TypeAlias

from consortium.contract.layout import last_round
from consortium.contract.names import RoundNumber
from consortium.contract.plan import RoundKind
from consortium.contract.study import StudyFile
from consortium.database import StudyRow

ATTEMPTS_MAX = 5
"""A round that aborts this often pauses its study: somebody has to look. `resume` allows as many again."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """No global model yet: the sites must build it and agree on it."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run one attempt at one round."""

    kind: RoundKind
    round: RoundNumber
    attempt: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop until the lead resumes the study."""

    reason: str


@dataclass(frozen=True, slots=True)
class Complete:
    """Every round is closed, or the study's own rule has ended it before."""


Decision: TypeAlias = Prepare | Run | Pause | Complete


def decide(study: StudyFile, row: StudyRow, *, ended: bool = False, chosen: bool = False) -> Decision:
    """Training rounds 1 to `training.rounds`, then one evaluation of the final model, then nothing.

    With validation patients that evaluation is theirs and makes the choice, if none of the rounds before has; one on
    the test patients follows the choice.

    In groups there is no evaluation: its sums are exact (protocol section 10).

    Args:
        study: The study.
        row: Where it stands.
        ended: Whether the round that closed last ended the study (`contract/best_model.py`): none follows it.
        chosen: Whether the present model was chosen, and test patients wait for it.
    """
    if not row.model_digest:
        return Prepare()
    if ended or row.next_round > last_round(study):
        return Complete()
    if row.next_attempt > row.last_attempt:
        times = row.next_attempt - 1
        return Pause(f"round {row.next_round} was attempted {times} times; see `consortium audit log` for why")
    kind = RoundKind.TRAIN if row.next_round <= study.training.rounds and not chosen else RoundKind.EVALUATE
    return Run(kind, row.next_round, row.next_attempt)

"""How the test figures of a study stand in the ledger: a line of their own beside the training's, with its own caps.

Training and test figures are two mechanisms at two deltas, so they are never added up under one study. The figures'
line has a digest that follows from the study's (`budget_digest`); for the total of a dataset both count.

| cap | over | held by |
|---|---|---|
| draws | the figures | as many as their noise was calibrated for (`Limits.study_steps`) |
| `evaluation.privacy.epsilon` | the figures | the ledger, at every draw |
| `max_epsilon_per_study` | training and figures, simply added | `policy.decide` |
| `max_epsilon_total` | everything on the dataset | the ledger; before a study begins all of it (`admit_figures`) |
"""

import hashlib

from consortium.contract.figures_budget import figures_privacy, measured_rounds, mechanism_of
from consortium.contract.names import Digest, StudyId
from consortium.contract.study import StudyFile
from consortium.contract.subgroups import EvaluationPrivacy
from privacy.dp.events import DpEvent
from site_agent.ledger import Ledger
from site_agent.ledger_caps import Limits
from site_agent.site_file import Policy

NAME_CHARACTERS_MAX = 64
_SUFFIX = "-test-figures"


def budget_digest(study: Digest) -> Digest:
    """The name under which a ledger keeps a study's test figures, beside the study's own digest."""
    return Digest(hashlib.sha256(b"consortium/test-figures/v1\n" + study.encode()).hexdigest())


def ledger_name(study: StudyId) -> StudyId:
    """What that line is called where nobody knows the study any more; a study's name too."""
    return StudyId(f"{study[: NAME_CHARACTERS_MAX - len(_SUFFIX)].rstrip('-')}{_SUFFIX}")


def figures_event(study: StudyFile) -> DpEvent | None:
    """What all measured rounds of a study cost together; None if its test figures have no budget.

    Raises:
        LocalProtocolError: No noise keeps the budget.
    """
    return None if figures_privacy(study) is None else DpEvent(mechanism=mechanism_of(study))


def figures_limits(policy: Policy, study: StudyFile) -> Limits:
    """The caps a draw of test figures is held against. Of studies with a budget for them."""
    wanted = budget_of(study)
    return Limits(
        study_epsilon=min(wanted.epsilon, policy.max_epsilon_per_study),
        study_delta=wanted.delta,
        total_epsilon=policy.max_epsilon_total,
        total_delta=policy.max_delta,
        study_steps=measured_rounds(study),
    )


def budget_of(study: StudyFile) -> EvaluationPrivacy:
    """The section of a study that has one."""
    wanted = figures_privacy(study)
    assert wanted is not None  # asked only for studies with such a budget
    return wanted


def admit_figures(
    ledger: Ledger, *, study: StudyFile, digest: Digest, dataset: str, policy: Policy, training: DpEvent
) -> None:
    """Whether the test figures of a whole study fit beside all of its training and all other studies. Writes nothing.

    Does nothing for a study whose test figures have no budget.

    Raises:
        BudgetExceeded: They do not.
        LedgerBehind: The file is older than what this hospital has signed.
        LocalProtocolError: No noise keeps the budget.
    """
    event = figures_event(study)
    if event is None:
        return
    ledger.admit(
        dataset=dataset,
        study_digest=budget_digest(digest),
        event=event,
        limits=figures_limits(policy, study),
        besides={digest: training},
    )

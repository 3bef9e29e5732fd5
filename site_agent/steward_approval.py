"""Whether the stewards' signatures under a study are enough for it to run here (pure).

Asked before a study is prepared, and again before anything leaves for it. What the agent remembers of a decision is
not believed by itself: the signatures are verified each time, under keys whose private halves are not in its home.
"""

from collections.abc import Collection
from functools import lru_cache

from audit.entry_types.steward_entries import StewardSignature
from audit.errors import VerificationError
from audit.stewards import APPROVED, WITHDRAWN, About, check_decision
from site_agent.policy import Refuse
from site_agent.site_file import Policy

NOT_APPROVED = Refuse("require_approval", "the steward of this hospital has not approved this study")
NOT_SIGNED = Refuse("require_approval", "no steward of this hospital has signed this study with a key of their own")
TAKEN_BACK = Refuse("withdrawn", "this hospital has taken its approval of the study back")
NOT_ENTITLED = Refuse("may_approve", "whoever signed the approval may not approve studies at this hospital")
TOO_FEW = Refuse("approvals_needed", "the study has not been approved by as many stewards as this hospital asks for")


def objection_to_approval(
    about: About, decision: str | None, signed: Collection[StewardSignature], keys: Collection[str], policy: Policy
) -> Refuse | None:
    """Why a study must not run here as far as its approval goes; None if nothing stands against it.

    Args:
        about: The study, the hospital and the log.
        decision: What was decided last: approved, rejected, withdrawn; None if nothing was.
        signed: The signatures that are remembered with it.
        keys: The stewards' public keys that count now.
        policy: The hospital's.
    """
    if decision == WITHDRAWN:
        return TAKEN_BACK
    if decision != APPROVED:
        return NOT_APPROVED
    valid = {one.key for one in signed if one.decision == APPROVED and one.key in keys and _holds(about, one)}
    if not valid:
        return NOT_SIGNED
    if policy.may_approve:
        valid &= set(policy.may_approve)
    if not valid:
        return NOT_ENTITLED
    return TOO_FEW if len(valid) < policy.approvals_needed else None


@lru_cache(maxsize=64)
def _holds(about: About, signed: StewardSignature) -> bool:
    try:
        check_decision(about, signed)
    except VerificationError:
        return False
    return True

"""Whether anybody here can approve a study: stewards' keys against what the hospital's policy asks for (pure)."""

from collections.abc import Collection

from site_agent.check_result import CheckFailed, CheckWarns
from site_agent.site_file import Policy
from site_agent.steward_rows import StewardRow

ADD = "`site-agent stewards add NAME` makes a key for one; whoever approves studies runs it, not the agent's account."


def check_stewards(rows: Collection[StewardRow], policy: Policy) -> str:
    """How many stewards have keys that count here, and how many of them have to sign.

    | found | |
    |---|---|
    | nobody has a key, or any more | warns: nothing can be approved |
    | keys of fewer stewards than `approvals_needed` may approve | fails: no approval can be enough |
    | `may_approve` names a key that is none here, or was removed | warns |

    Args:
        rows: Every key there ever was.
        policy: The hospital's.

    Raises:
        CheckWarns, CheckFailed: As the table says.
    """
    standing = {row.key: row.steward for row in rows if row.standing}
    gone = len(rows) - len(standing)
    removed = f"; removed: {_counted(gone, 'key')}" if gone else ""
    if not standing:
        raise CheckWarns(f"no steward has a key here, so nobody can approve a study{removed}", ADD)
    entitled = {key for key in standing if not policy.may_approve or key in policy.may_approve}
    stewards = {standing[key] for key in entitled}
    found = f"{_counted(len(set(standing.values())), 'steward')} with {_counted(len(standing), 'key')}{removed}"
    if policy.may_approve:
        found += f"; {len(stewards)} of them may approve (may_approve)"
    found += f"; {policy.approvals_needed} must sign each study"
    if len(stewards) < policy.approvals_needed:
        raise CheckFailed(
            f"{found}: no study can be approved",
            f"{ADD} Or whoever keeps site.yaml changes policy.approvals_needed or policy.may_approve.",
        )
    unknown = [key for key in policy.may_approve if key not in standing]
    if unknown:
        named = ", ".join(key[:16] for key in unknown)
        raise CheckWarns(
            f"{found}; policy.may_approve names what is no steward's key here: {named}",
            "`site-agent stewards list` shows the keys that are; correct may_approve in site.yaml.",
        )
    return found


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")

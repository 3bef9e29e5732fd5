"""What a person's account may do: one table of commands and roles, and the one rule that reads it. Pure.

    lead        everything here, accounts and releases among it
    scientist   submits studies, and sees and aborts those that it submitted itself
    auditor     reads everything and exports evidence; changes nothing
    operator    hospitals come and go, studies start and pause

A command that stands in no row is nobody's: it needs the coordinator's home (threat G-10). Whoever has the home has its
keys, and is asked for nothing here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from consortium.errors import ConsortiumError


class PersonRole(StrEnum):
    """What a person is to the consortium."""

    LEAD = "lead"
    SCIENTIST = "scientist"
    AUDITOR = "auditor"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who gives a command."""

    role: PersonRole | None  # None for whoever has the coordinator's home
    account: str  # its name, which is no part of the log
    subject: str  # how it appears in the log
    signing_key: str | None = None  # 64 hexadecimal characters: what it signs studies with


HOME = Caller(role=None, account="", subject="operator")
"""The command line beside the coordinator's keys."""


class RoleRefused(ConsortiumError):
    """A command that is not of this account's role. Whose fault: nobody's; or of who gave the role."""

    def __init__(self, command: str, found: str, allowed: str) -> None:
        super().__init__(f"{command}: found {found}; allowed: {allowed}")
        self.command = command

    def advice(self) -> str:
        """What to do next."""
        return "Ask somebody of a role that may, or the consortium lead for another role (`consortium account role`)."


_LEAD, _SCIENTIST = PersonRole.LEAD, PersonRole.SCIENTIST
_AUDITOR, _OPERATOR = PersonRole.AUDITOR, PersonRole.OPERATOR
_EVERYBODY = frozenset(PersonRole)
_READERS = frozenset({_LEAD, _AUDITOR})
_RUNNERS = frozenset({_LEAD, _OPERATOR})
_LEADS = frozenset({_LEAD})

MAY: Mapping[str, frozenset[PersonRole]] = {
    "status": frozenset({_LEAD, _AUDITOR, _OPERATOR}),
    "account.invite": _LEADS,
    "account.list": _READERS,
    "account.renew": _EVERYBODY,  # its own certificate
    "account.revoke": _LEADS,
    "account.role": _LEADS,
    "site.invite": _RUNNERS,
    "site.list": frozenset({_LEAD, _AUDITOR, _OPERATOR}),
    "site.reinstate": _RUNNERS,
    "site.revoke": _RUNNERS,
    "site.suspend": _RUNNERS,
    "study.submit": frozenset({_LEAD, _SCIENTIST}),
    "study.list": _EVERYBODY,
    "study.show": _EVERYBODY,
    "study.start": _RUNNERS,
    "study.pause": _RUNNERS,
    "study.resume": _RUNNERS,
    "study.abort": frozenset({_LEAD, _SCIENTIST}),
    "study.release": _LEADS,
    "study.model": _LEADS,
    "record": _LEADS,
    "audit.export": _READERS,
    "audit.export-part": _READERS,
    "audit.log": _READERS,
    "audit.payloads": _READERS,
    "audit.proof": _READERS,
    "audit.retention": _LEADS,
    "audit.erase": _LEADS,
    "audit.rotate-key": _LEADS,
}

OWN_ALONE = frozenset({_SCIENTIST})
"""Roles that see the studies they submitted, and no others."""


def require_role(caller: Caller, command: str) -> None:
    """Raise RoleRefused unless a caller of this role may give this command at all."""
    if caller.role is None:
        return
    allowed = MAY.get(command, frozenset())
    if caller.role not in allowed:
        who = ", ".join(sorted(allowed)) if allowed else "nobody's account: the command line in the coordinator's home"
        raise RoleRefused(command, f"the role {caller.role}", who)


def may_see(caller: Caller, owner: str) -> bool:
    """Whether a study of this owner is one that the caller is shown."""
    return caller.role not in OWN_ALONE or (owner != "" and owner == caller.subject)


def require_study(caller: Caller, command: str, owner: str | None) -> None:
    """Raise RoleRefused for a study that the caller is not shown; it is not said whether there is one.

    Args:
        caller: Who asks.
        command: What for.
        owner: Of the study; None if there is none of that name.
    """
    if not may_see(caller, owner or ""):
        raise RoleRefused(command, f"a study that this {caller.role} did not submit", "its own studies")

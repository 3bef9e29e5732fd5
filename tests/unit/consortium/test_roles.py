"""The table of commands and roles: every command stands in it, and it gives each role no more than its work."""

import pytest

from consortium.commands import ALL_COMMANDS
from consortium.roles import HOME, MAY, Caller, PersonRole, RoleRefused, may_see, require_role, require_study

READS = {
    "status",
    "account.list",
    "site.list",
    "study.list",
    "study.show",
    "audit.log",
    "audit.payloads",
    "audit.proof",
}
EXPORTS = {"audit.export", "audit.export-part"}
RENEWS = {"account.renew"}  # its own certificate


def caller(role: str) -> Caller:
    return Caller(role=PersonRole(role), account="ada-example", subject="u:" + "a" * 32)


def may(role: str) -> set[str]:
    return {command for command, roles in MAY.items() if role in roles}


def test_every_command_has_its_row_and_every_row_its_command() -> None:
    assert set(MAY) == ALL_COMMANDS


def test_each_role_may_do_its_own_work_and_no_more() -> None:
    assert may("lead") == ALL_COMMANDS
    assert may("auditor") == READS | EXPORTS | RENEWS
    assert may("scientist") == {"study.submit", "study.list", "study.show", "study.abort"} | RENEWS
    sites = {f"site.{verb}" for verb in ("invite", "list", "reinstate", "revoke", "suspend")}
    studies = {f"study.{verb}" for verb in ("list", "show", "start", "pause", "resume")}
    assert may("operator") == {"status"} | sites | studies | RENEWS


@pytest.mark.parametrize("role", list(PersonRole))
def test_a_command_without_a_row_is_nobodys_but_the_homes(role: str) -> None:
    with pytest.raises(RoleRefused, match="the command line in the coordinator's home"):
        require_role(caller(role), "study.forge")
    require_role(HOME, "study.forge")


def test_a_refusal_says_the_role_the_command_and_who_may() -> None:
    with pytest.raises(RoleRefused, match=r"study.release: found the role auditor; allowed: lead") as refused:
        require_role(caller("auditor"), "study.release")
    assert "account role" in refused.value.advice()


def test_a_scientist_sees_only_what_it_submitted() -> None:
    scientist, owner = caller("scientist"), caller("scientist").subject
    require_study(scientist, "study.show", owner)
    for other in ("u:" + "b" * 32, "", None):
        with pytest.raises(RoleRefused, match="did not submit"):
            require_study(scientist, "study.show", other)
        require_study(caller("auditor"), "study.show", other)
    assert not may_see(Caller(role=PersonRole.SCIENTIST, account="x", subject=""), "")

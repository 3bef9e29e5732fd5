"""G-10: an account does what its role may not.

Held by `roles.require_role` before a command's arguments are read, `roles.require_study` before it is carried out, and
`Accounts.caller`, which reads role and revocation with every call. Tried by deleting, one at a time: the two calls in
`commands._carry_out`, the line there that sets `by`, the check of the role in `Coordinator.watch` and in
`authenticate_reader`, and each reason in `Accounts.caller`. For each of them one test here fails
(g10 of `mutations.py`).
"""

import pytest

from consortium.commands import ALL_COMMANDS
from consortium.errors import AccessDenied
from consortium.roles import HOME, MAY, PersonRole, RoleRefused
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.people import enrolled
from tests.fakes.small_study import SITES, small_study

STUDY = small_study()


async def test_every_command_that_a_role_may_not_give_is_refused_and_logged(tmp_path):
    with coordinator_in(tmp_path) as world:
        world.submit(STUDY)
        before = len(world.log())
        people = {role: enrolled(world, f"{role}-person", role) for role in PersonRole}
        for role, person in people.items():
            for command in sorted(ALL_COMMANDS):
                if role in MAY[command]:
                    continue
                # The arguments are right, where that matters: it is the role that refuses.
                with pytest.raises(RoleRefused, match=f"found the role {role}; allowed: "):
                    await person.runs(command, study=STUDY.id, site=SITES[0], account="lead-person", role="lead")
        assert world.studies.get(STUDY.id).state == "submitted"
        assert {row.account: row.role for row in world.rooms.accounts.all()} == {
            f"{role}-person": role for role in PersonRole
        }
        world.sites.access.settle()
        denied = {(one["subject"], one["action"]) for one in world.bodies("authz.denied")}
        wanted = {
            (people[role].subject, command)
            for role in PersonRole
            for command in ALL_COMMANDS
            if role not in MAY[command]
        }
        assert denied | {(one["subject"], one["action"]) for one in world.bodies("access.repeated")} == wanted
        assert "-person" not in str(world.log()[before:])


async def test_a_scientist_has_no_hand_in_somebody_elses_study(tmp_path):
    with coordinator_in(tmp_path) as world:
        ada, eve = enrolled(world, "ada-example", "scientist"), enrolled(world, "eve-example", "scientist")
        await ada.submits(STUDY)
        for command in ("study.show", "study.abort"):
            with pytest.raises(RoleRefused, match="did not submit"):
                await eve.runs(command, study=STUDY.id)
            with pytest.raises(RoleRefused, match="did not submit"):  # nor is it said what there is
                await eve.runs(command, study="no-such-study")
        assert (await eve.runs("study.list"))["studies"] == []
        assert (await ada.runs("study.list"))["studies"][0]["study"] == STUDY.id
        await ada.runs("study.abort", study=STUDY.id)
        assert world.studies.get(STUDY.id).state == "aborted"


async def test_a_certificate_outlives_neither_its_role_nor_its_account(tmp_path):
    with coordinator_in(tmp_path) as world:
        lea = enrolled(world, "lea-lead", "lead")
        world.rooms.accounts.change_role("lea-lead", PersonRole.AUDITOR, HOME)
        with pytest.raises(RoleRefused):
            await lea.runs("site.invite", site=SITES[0])
        watching = world.coordinator.watch(lea.peer)
        await anext(watching)
        world.rooms.accounts.change_role("lea-lead", PersonRole.SCIENTIST, HOME)
        world.rooms.sessions.notify()
        with pytest.raises(RoleRefused):  # what was being watched ends, too
            await anext(watching)
        with pytest.raises(RoleRefused):
            await world.coordinator.authenticate_reader(lea.peer)  # of the log over HTTPS
        before = lea.peer
        world.rooms.accounts.revoke("lea-lead", HOME)
        with pytest.raises(AccessDenied, match="revoked"):
            await world.coordinator.authenticate(before)
        again = enrolled(world, "lea-lead", "lead")
        await world.coordinator.authenticate(again.peer)
        with pytest.raises(AccessDenied, match="not that of an account"):  # of the keys that were revoked
            await world.coordinator.authenticate(before)


async def test_nobody_records_in_somebody_elses_name(tmp_path):
    with coordinator_in(tmp_path) as world:
        lea = enrolled(world, "lea-lead", "lead")
        words = ["first_leaf=0", "last_leaf=0", "findings=0", "summary=nothing unusual"]
        await lea.runs("record", kind="log.reviewed", fields=words, by="Ada Example")
        (reviewed,) = world.bodies("log.reviewed")
        assert reviewed["on_behalf"] == lea.subject
        assert world.coordinator.home.vault.known("Ada Example") is None


async def test_a_hospital_gives_no_commands_whatever_the_wire_lets_through(tmp_path):
    with coordinator_in(tmp_path) as world:
        amber = world.enrol("amber-clinic")
        with pytest.raises(AccessDenied, match="gives no commands"):
            await world.coordinator.execute(amber.identity, "site.invite", b'{"site":"other-clinic"}')

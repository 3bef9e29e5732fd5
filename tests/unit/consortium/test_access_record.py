"""Who got in and who did not: every kind is in the log, none so often that it fills it, none in their own words."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from consortium.access_record import ALIKE_MAX, KIND_MAX, WINDOW_S, AccessRecord, rule_of
from consortium.commands import execute
from consortium.contract.certificates import CertificateRefused, Fault
from consortium.contract.names import SiteId
from consortium.errors import AccessDenied, ConsortiumError, EnrolmentRefused, StudyConflict, UploadRefused
from consortium.sessions import SessionReplaced
from consortium.wire.errors import WireViolation
from tests.fakes.coordinator_home import coordinator_in, new_hospital
from tests.fakes.small_study import small_study

AMBER = SiteId("amber-clinic")
PLANTED = "patient-00417-of-ward-9"


def test_a_flood_is_counted_and_not_written_one_by_one(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        for _ in range(10 * ALIKE_MAX):
            with pytest.raises(EnrolmentRefused):
                world.certify(world.request(new_hospital(AMBER), "f" * 64))
        assert world.types().count("auth.failed") == ALIKE_MAX
        world.sites.access.settle()
        world.sites.access.settle()
        (repeated,) = world.bodies("access.repeated")
        assert repeated["count"] == 9 * ALIKE_MAX
        assert (repeated["of"], repeated["subject"], repeated["action"]) == ("auth.failed", "unknown", "enrolment")


def test_many_different_failures_do_not_fill_the_log_either(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        access = AccessRecord(world.rooms.recorder)
        for number in range(KIND_MAX + 7):
            access.denied(f"site:hospital-{number}", "connect", "revoked")
        assert world.types().count("authz.denied") == KIND_MAX
        access.unproven("enrolment", "another kind has places of its own")
        assert world.types().count("auth.failed") == 1
        access.settle()
        assert sum(body["count"] for body in world.bodies("access.repeated")) == 7


def test_after_its_window_a_failure_is_written_again_behind_what_was_counted(tmp_path: Path) -> None:
    now = [100.0]
    with coordinator_in(tmp_path) as world:
        access = AccessRecord(world.rooms.recorder, clock=lambda: now[0])
        for _ in range(ALIKE_MAX + 3):
            access.denied("site:amber-clinic", "connect", "revoked")
        now[0] += WINDOW_S - 1
        access.denied("site:amber-clinic", "connect", "revoked")
        now[0] += 1
        access.denied("site:amber-clinic", "connect", "revoked")
        assert world.types()[-3:] == ["authz.denied", "access.repeated", "authz.denied"]
        assert world.bodies("access.repeated")[0]["count"] == 4


@pytest.mark.parametrize(
    ("error", "written"),
    [
        (CertificateRefused(Fault.EXPIRED, found=PLANTED, allowed="x"), "auth.failed"),
        (WireViolation("header", found=PLANTED, allowed="fewer bytes"), "authz.denied"),
        (AccessDenied(PLANTED), "authz.denied"),
        (SessionReplaced(AMBER), "authz.denied"),
        (UploadRefused(PLANTED), None),  # an honest upload that comes too late
        (OSError(5, PLANTED), None),  # our own fault
    ],
)
def test_which_errors_of_a_hospitals_call_are_denials(tmp_path: Path, error: Exception, written: str | None) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        before = world.types()
        asyncio.run(world.coordinator.turned_away(amber.identity, "UploadVector", error))
        assert world.types()[len(before) :] == ([written] if written else [])
        assert PLANTED.encode() not in b"".join(world.rooms.recorder.log.entries())


def test_who_cannot_be_told_is_unknown(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        asyncio.run(world.coordinator.turned_away(None, "Enrol", WireViolation("token", found=PLANTED, allowed="hex")))
        assert world.bodies("auth.failed") == [{"reason": "Enrol: a message beyond its bounds, or out of place"}]


@pytest.mark.parametrize(
    ("command", "arguments", "action", "rule"),
    [
        ("study.start", {"study": PLANTED}, "study.start", "no such study"),
        ("study.pause", {"study": "small-study"}, "study.pause", "the study is not in a state that allows it"),
        ("site.revoke", {"site": PLANTED}, "site.revoke", "no such site"),
        (f"erase {PLANTED}", {}, "unknown command", "a command or arguments that the coordinator does not take"),
        ("audit.proof", {"index": PLANTED}, "audit.proof", "a command or arguments that the coordinator does not take"),
    ],
)
def test_a_refused_command_is_written_down_without_what_was_typed(
    tmp_path: Path, command: str, arguments: dict[str, Any], action: str, rule: str
) -> None:
    with coordinator_in(tmp_path) as world:
        world.submit(small_study())
        arguments = {name: small_study().id if value == "small-study" else value for name, value in arguments.items()}
        with pytest.raises(ConsortiumError):
            asyncio.run(execute(world.coordinator, command, json.dumps(arguments).encode()))
        assert world.bodies("authz.denied") == [{"subject": "operator", "action": action, "rule": rule}]
        assert PLANTED.encode() not in b"".join(world.rooms.recorder.log.entries())


def test_a_command_that_is_carried_out_is_no_denial(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        asyncio.run(execute(world.coordinator, "status", b"{}"))
        assert world.types() == ["log.opened"]
    assert rule_of(StudyConflict(PLANTED)) == "the study is not in a state that allows it"
    assert rule_of(ValueError(PLANTED)) == ""

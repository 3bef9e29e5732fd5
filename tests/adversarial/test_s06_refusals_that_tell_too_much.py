"""S-06: what a hospital says when it refuses, and what it logs, must not have its numbers, paths or patients in it.

Held by: `refusals.refusal_of`, and logs that quote only errors about others. Tried: rows s06 of `mutations.py`.
"""

import re

import pytest
from structlog.testing import capture_logs

from consortium.contract.names import Digest
from privacy.errors import BudgetExceeded, PeerViolation
from privacy.secagg.messages import KeyBundle
from site_agent.errors import LedgerUnavailable, PolicyViolation, TrainingFailed
from site_agent.ledger import Limits
from site_agent.plan_check import PlanRefused
from site_agent.refusals import refusal_of
from site_agent.store import PeerChanged, StoreUnwritable
from tests.fakes.site_world import CAP, DECLARED_PATIENTS, PATIENTS, everything_said, hospital, write_site_file

SECRETS = ("SECRET", "patients.csv", "ward.csv")
NUMBERS = (str(DECLARED_PATIENTS), str(CAP))  # as numbers: within a digest or a time, their digits are chance


def tells_nothing(world, logs):
    said = everything_said(world) + repr(logs)
    for secret in (*SECRETS, str(world.home.folder)):
        assert secret not in said, secret
    for number in NUMBERS:
        assert not re.search(rf"(?<![\w.-]){re.escape(number)}(?!\w)", said), number


@pytest.mark.parametrize(
    "error",
    [
        BudgetExceeded(0.3, 0.731, 0.731, "ward-7"),
        LedgerUnavailable("/srv/731/ledger.db could not be used"),
        StoreUnwritable("agent.db 731"),
        PolicyViolation("max_epsilon_total", "731 patients"),
        TrainingFailed("731 values"),
        PeerViolation("alder", "share", "rule", "731"),
        PeerChanged("alder-731"),
        PlanRefused("layout", "731", "731"),
        ValueError("patient 731"),
        OSError(2, "No such file", "/srv/731"),
    ],
)
def test_no_error_tells_more_than_its_rule(error):
    refusal = refusal_of(error)
    assert not re.search(r"731|ward|srv|alder", f"{refusal.rule} {refusal.explanation}")


async def test_a_round_the_budget_does_not_allow(tmp_path):
    with capture_logs() as logs:
        async with hospital(tmp_path) as world:
            event = world.work._prepared.spec.privacy.study_event()
            limits = Limits(study_epsilon=99, study_delta=1e-3, total_epsilon=99, total_delta=1e-3)
            world.ledger.reserve(
                dataset="ward",
                study=world.study.study_id,
                study_digest=Digest("e" * 64),
                round_number=1,
                attempt=1,
                event=event,
                limits=limits,
            )
            write_site_file(tmp_path, world.study, max_epsilon_total=1.0731)
            assert isinstance(await world.ask(world.plan()), KeyBundle)
            refusal = await world.hear()
            assert refusal.rule == "max_epsilon_total"
            await world.idle()
            assert not re.search(r"\d", refusal.explanation)
            tells_nothing(world, logs)
            assert not re.search(r"[0-9]\.[0-9]", "".join(str(one.get("reason")) for one in logs))


async def test_data_that_are_wrong(tmp_path):
    with capture_logs() as logs:
        async with hospital(tmp_path, ready=False) as world:
            path = tmp_path / "patients.csv"
            path.write_text(path.read_text() + "SECRET-999,old,9,x\nSECRET-998,400,2,1\n")
            refusal = await world.prepare()
            assert refusal.explanation == "this site cannot take part (DataInvalid)"
            tells_nothing(world, logs)
            path.unlink()
            await world.prepare()
            tells_nothing(world, logs)


async def test_too_few_patients(tmp_path):
    with capture_logs() as logs:
        async with hospital(tmp_path, ready=False, minimum_patients=PATIENTS + 1) as world:
            assert (await world.prepare()).rule == "minimum_patients"
            assert str(PATIENTS) not in re.sub(r"[0-9a-f]{12,}", "", everything_said(world) + repr(logs))


async def test_an_error_of_a_library_that_quotes_a_record(tmp_path):
    with capture_logs() as logs:
        async with hospital(tmp_path) as world:

            def fails(*_args):
                raise ValueError("could not convert 'SECRET-007' in patients.csv")

            world.work._values._train = fails
            await world.ask(world.plan())
            assert (await world.hear()).rule == "failure"
            world.work._attempt, world.line.send = None, fails
            await world.tell(world.invitation(world.plan(attempt=2)))
            await world.idle()
            tells_nothing(world, logs)
            assert any("ValueError at" in str(one.get("error")) for one in logs)


async def test_a_whole_study_tells_nothing_but_sums(tmp_path):
    with capture_logs() as logs:
        async with hospital(tmp_path) as world:
            for _ in range(3):
                await world.attempt()
            tells_nothing(world, logs)
            patients = [entry.patients for entry in world.line.log if hasattr(entry, "patients")]
            assert patients == ["20-49"]

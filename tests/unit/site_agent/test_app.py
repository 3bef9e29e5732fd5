"""What the command line asks for: list, describe, decide, budget, run."""

import asyncio
import os
import signal

import pytest

from audit import entries
from audit.errors import EntryRefused
from consortium.contract.digest import digest_of
from consortium.wire.errors import CoordinatorUnreachable, WireError, WireViolation
from site_agent import app
from site_agent.app import (
    DatasetUnknown,
    dataset_budgets,
    list_studies,
    objection_to,
    open_store,
    run_until_stopped,
    study_sheet,
)
from site_agent.calls import StudyAltered, StudyUnknown
from site_agent.deciding import NothingToWithdraw, decide_study
from site_agent.home import HomeInvalid, open_home
from site_agent.ledger import Ledger, Limits
from site_agent.training_spec import spec_of
from tests.fakes import stewards
from tests.fakes.site_wire import STUDY, StudyService, dialled, document_of
from tests.fakes.site_world import small_study, write_site_file

STEWARD = stewards.NAME
OTHER = small_study(governance={"purpose": "Something else."})


def logged(world):
    return [entries.parse_entry(entry) for entry in world.service.events]


async def decide(folder, decision="approved", *, statement="I have read it."):
    key = stewards.registered(open_home(folder), open_store(folder))
    made = await decide_study(folder, "small-study", decision, steward=STEWARD, statement=statement, key=key)
    return made.digest


async def test_list_says_what_was_decided_here(tmp_path):
    async with dialled(tmp_path):
        (row,) = await list_studies(tmp_path)
        assert row == {
            "study": "small-study",
            "digest": STUDY.digest(),
            "state": "submitted",
            "title": STUDY.title,
            "decision": "undecided",
        }
        await decide(tmp_path)
        assert (await list_studies(tmp_path))[0]["decision"] == "approved"


async def test_one_study_that_is_none_does_not_hide_the_others(tmp_path):
    nonsense = document_of(STUDY, document=b"{}", study_digest=digest_of(b"{}"))
    renamed = document_of(OTHER, study="other-name")
    async with dialled(tmp_path, StudyService(offered=[nonsense, renamed, document_of(STUDY)])):
        rows = await list_studies(tmp_path)
        assert [row["title"].startswith("(cannot be read") for row in rows] == [True, True, False]


async def test_describe(tmp_path):
    async with dialled(tmp_path):
        text = (await study_sheet(tmp_path, "small-study")).text()
        assert STUDY.digest() in text
        with pytest.raises(StudyUnknown) as caught:
            await study_sheet(tmp_path, "lung-study")
        assert "small-study" in str(caught.value)
        assert "list" in caught.value.advice()


async def test_an_altered_study_is_neither_described_nor_approved(tmp_path):
    altered = document_of(STUDY, document=OTHER.document())
    renamed = document_of(OTHER, study="other-name")
    async with dialled(tmp_path, StudyService(offered=[renamed])) as (world, home):
        key = stewards.registered(home, open_store(tmp_path))
        for offered, name, error in (
            ([renamed], "other-name", StudyAltered),
            ([altered], "small-study", WireViolation),
        ):
            world.service.offered = offered
            with pytest.raises(error):
                await study_sheet(tmp_path, name)
            with pytest.raises(error) as caught:
                await decide_study(tmp_path, name, "approved", steward=STEWARD, statement="yes", key=key)
            assert caught.value.advice()
        assert open_store(tmp_path).decisions() == ()
        assert world.service.events == []


async def test_approve_remembers_signs_and_tells(tmp_path):
    async with dialled(tmp_path) as (world, home):
        assert await decide(tmp_path) == STUDY.digest()
        store = open_store(tmp_path)
        decision = store.decision(STUDY.digest())
        assert (decision.decision, decision.steward, decision.document) == ("approved", STEWARD, STUDY.document())
        (approved,) = logged(world)
        assert isinstance(approved, entries.StudyApproved)
        assert (approved.study_digest, approved.statement) == (STUDY.digest(), "I have read it.")
        assert approved.steward.startswith("u:")
        assert "Ada" not in repr(world.service.events)
        assert store.pending_events() == ()
        key = bytes.fromhex(home.identity.signing_key)
        assert entries.verify_site_entry(world.service.events[0], key) == approved


async def test_a_statement_the_log_would_refuse_decides_nothing(tmp_path):
    async with dialled(tmp_path) as (world, _):
        with pytest.raises(EntryRefused):
            await decide(tmp_path, statement="two\nlines")
        assert open_store(tmp_path).decisions() == ()
        assert open_store(tmp_path).pending_events() == ()
        assert world.service.events == []


async def test_the_coordinator_goes_away_between_reading_and_telling(tmp_path, monkeypatch):
    async with dialled(tmp_path) as (world, _):
        world.service.failing["submit_events"] = RuntimeError("gone")
        with pytest.raises(WireError):
            await decide(tmp_path)
        # It is decided all the same, and the entry waits for the agent.
        store = open_store(tmp_path)
        assert store.decision(STUDY.digest()).decision == "approved"
        assert len(store.pending_events()) == 1


async def test_reject_an_undecided_study(tmp_path):
    async with dialled(tmp_path) as (world, _):
        await decide(tmp_path, "rejected", statement="No.")
        (rejected,) = logged(world)
        assert isinstance(rejected, entries.StudyRejected)
        assert rejected.reason == "No."
        assert open_store(tmp_path).decision(STUDY.digest()).decision == "rejected"


async def test_taking_back_an_approval_needs_nobody(tmp_path):
    async with dialled(tmp_path):
        await decide(tmp_path)
    digest = await decide(tmp_path, "rejected", statement="Second thoughts.")  # the coordinator is gone
    assert digest == STUDY.digest()
    store = open_store(tmp_path)
    assert store.decision(digest).decision == "rejected"
    ((_, waiting),) = store.pending_events()
    assert entries.parse_entry(waiting).reason == "Second thoughts."
    with pytest.raises(CoordinatorUnreachable):
        await decide(tmp_path)  # an approval is of what the coordinator offers


async def test_withdrawing_needs_an_approval(tmp_path):
    async with dialled(tmp_path) as (world, _):
        with pytest.raises(NothingToWithdraw) as caught:
            await decide(tmp_path, "withdrawn", statement="No.")
        assert "reject" in caught.value.advice()
        await decide(tmp_path)
        await decide(tmp_path, "withdrawn", statement="Second thoughts.")
        assert open_store(tmp_path).decision(STUDY.digest()).decision == "withdrawn"
        rejected = logged(world)[-1]
        assert [(one.decision, one.words) for one in rejected.signed] == [("withdrawn", "Second thoughts.")]


async def test_taking_back_takes_back_every_version(tmp_path):
    async with dialled(tmp_path) as (world, _):
        await decide(tmp_path)
        world.service.offered = [document_of(OTHER)]
        await decide(tmp_path)
        await decide(tmp_path, "rejected")
        store = open_store(tmp_path)
        assert {made.decision for made in store.decisions()} == {"rejected"}
        assert [type(entry).__name__ for entry in logged(world)].count("StudyRejected") == 2


async def test_budget(tmp_path):
    async with dialled(tmp_path):
        assert [one.epsilon for one in dataset_budgets(tmp_path, None)] == [0.0]
        event = spec_of(STUDY, declared_patients=100).privacy.study_event()
        Ledger(tmp_path / "ledger.db").reserve(
            dataset="ward",
            study=STUDY.study_id,
            study_digest=STUDY.digest(),
            round_number=1,
            attempt=1,
            event=event,
            limits=Limits(study_epsilon=9, study_delta=1e-3, total_epsilon=9, total_delta=1e-3),
        )
        (ward,) = dataset_budgets(tmp_path, None)
        (row,) = ward.studies
        assert (ward.dataset, row.study, row.training.open_rounds, ward.cap) == ("ward", "small-study", 1, 7.631)
        assert ward.epsilon == row.training.epsilon == pytest.approx(1.0, abs=0.02)
        with pytest.raises(DatasetUnknown):
            dataset_budgets(tmp_path, "another")


async def test_what_stands_against_an_approved_study(tmp_path):
    async with dialled(tmp_path):
        digest = await decide(tmp_path)
        assert objection_to(tmp_path, digest) is None
        write_site_file(tmp_path, STUDY, max_epsilon_total=0.5, max_epsilon_per_study=0.5)
        assert "do NOT allow it (max_epsilon_total" in objection_to(tmp_path, digest)
        write_site_file(tmp_path, STUDY, dataset=None)
        assert "names no dataset for it yet" in objection_to(tmp_path, digest)
        (tmp_path / "site.yaml").unlink()
        assert "site.yaml is missing" in objection_to(tmp_path, digest)
        assert objection_to(tmp_path, "0" * 64) is None


async def test_no_home(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "log_as_facts", lambda: None)
    with pytest.raises(HomeInvalid):
        open_store(tmp_path)
    with pytest.raises(HomeInvalid):
        await run_until_stopped(tmp_path)


async def test_run_until_a_signal(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "log_as_facts", lambda: None)
    async with dialled(tmp_path) as (world, _):
        running = asyncio.create_task(run_until_stopped(tmp_path))
        async with asyncio.timeout(60):
            while not world.service.sessions:  # noqa: ASYNC110 - what is waited for is no event
                await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 60)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)


async def test_run_finds_a_wrong_site_yaml_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "log_as_facts", lambda: None)
    async with dialled(tmp_path):
        (tmp_path / "site.yaml").unlink()
        with pytest.raises(HomeInvalid):
            await run_until_stopped(tmp_path)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)

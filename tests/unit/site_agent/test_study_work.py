"""A study at one hospital: whole rounds with a real cohort, retries, restarts, and how it ends."""

import asyncio
import json

import pytest

from audit import entries
from consortium.contract.digest import digest_of
from consortium.contract.messages import (
    PrepareStudy,
    Refusal,
    ResultVerified,
    RoundAborted,
    SendInitialModel,
    StudyEnded,
    StudyOutcome,
    StudyPrepared,
    VectorKind,
)
from consortium.contract.names import Digest
from privacy.secagg.messages import KeyBundle, SurvivorProposal, UnmaskRequest
from site_agent.ledger import Limits
from site_agent.progress import standings
from site_agent.store import StoreUnwritable
from tests.fakes.mlflow_server import mlflow_server
from tests.fakes.site_world import (
    ME,
    ZEROS,
    all_but,
    endorsement,
    hospital,
    keys,
    make_world,
    small_study,
    write_site_file,
)

EVERY_PHASE = ["KeyBundle", "SealedShares", "UploadHeader", "Confirmation", "UnmaskShares", "ResultVerified"]


async def test_a_whole_study(tmp_path):
    async with hospital(tmp_path) as world:
        for number in (1, 2, 3):
            outcome = await world.attempt()
            assert outcome.plan.round == number
            assert outcome.said_kinds() == EVERY_PHASE
        ended = StudyEnded(
            study=world.study.study_id,
            study_digest=world.digest,
            outcome=StudyOutcome.COMPLETED,
            model_digest=world.model.digest(),
            reason="",
        )
        await world.tell(ended)
        await asyncio.wait_for(world.task, 60)
    kinds = [type(entry).__name__ for entry in world.line.log]
    of_a_training_round = ["DpSpent", "UpdateSubmitted", "ModelVerified"]
    assert kinds == [
        "CohortSnapshot",
        "DpConfigured",
        "DpAudited",
        *of_a_training_round,
        *of_a_training_round,
        "UpdateSubmitted",
        "ModelVerified",
        "DpCertificate",
    ]
    (row,) = world.ledger.report()
    certificate = world.line.log[-1]
    assert (certificate.epsilon, certificate.event.steps) == (row.epsilon, row.steps)
    assert (row.rounds, row.open_rounds, row.steps) == (2, 0, 2)
    assert row.epsilon == pytest.approx(1.0, abs=0.02)
    assert world.store.chain(world.digest).round == 3
    results = json.loads((tmp_path / "results/small-study.json").read_text())
    assert [one["round"] for one in results["rounds"]] == [1, 2, 3]
    assert (results["outcome"], results["model_digest"], results["verified"]) == (
        "completed",
        world.model.digest(),
        True,
    )
    # The first and the last global model are kept, and none that a closed round started from.
    assert len(list((tmp_path / "models").iterdir())) == 2


async def test_the_sum_has_this_hospitals_figures_only_if_it_shares_them(tmp_path):
    async with hospital(tmp_path / "open") as world:
        sums = (await world.attempt()).sums
        assert (sums["sites_reporting"][0], sums["test_patients"][0]) == (1, 16)
        assert abs(sums["update"]).max() > 0
    async with hospital(tmp_path / "closed", share_exact_metrics=False) as world:
        sums = (await world.attempt()).sums
        assert all(not sums[name].any() for name in sums if name not in ("update", "weight"))
        assert abs(sums["update"]).max() > 0


async def test_the_first_model_is_uploaded_when_it_is_the_one_asked_for(tmp_path):
    async with hospital(tmp_path) as world:
        await world.tell(SendInitialModel(study_digest=world.digest, model_digest=ZEROS))
        await world.idle()
        assert world.line.uploads == []
        await world.tell(SendInitialModel(study_digest=world.digest, model_digest=world.model.digest()))
        await world.idle()
        ((header, data),) = world.line.uploads
        assert header.kind is VectorKind.INITIAL_MODEL
        assert (header.size_bytes, header.sha256.hex()) == (len(data), digest_of(data))


async def test_preparing_again_answers_again_and_announces_once(tmp_path):
    async with hospital(tmp_path) as world:
        await world.tell(PrepareStudy(study_digest=world.digest))
        again = await world.hear()
        assert isinstance(again, StudyPrepared)
    await world.start()
    assert await world.prepare() == again
    await world.stop()
    assert len(world.line.logged(entries.DpConfigured)) == len(world.line.logged(entries.CohortSnapshot)) == 1


# --- ADR 4: a retry masks the same private update --------------------------------------------------------------------


async def test_an_attempt_that_released_nothing_leaves_its_update_for_the_next(tmp_path):
    async with hospital(tmp_path) as world:
        failed = await world.attempt(to_victim=all_but(SurvivorProposal), result=False)
        assert failed.said_kinds() == ["KeyBundle", "SealedShares", "UploadHeader"]
        await world.idle()
        outcome = await world.attempt(world.plan(attempt=2))
        assert outcome.closed
        assert len(world.line.logged(entries.DpSpent)) == 1
        assert world.ledger.report()[0].rounds == 1
        assert outcome.said[2].masked_update_hash != failed.said[2].masked_update_hash  # under other masks


async def test_the_update_outlives_the_connection(tmp_path):
    async with hospital(tmp_path) as world:
        assert isinstance(await world.ask(world.plan()), KeyBundle)
        await world.computed()
        world.work.session_ended()
        outcome = await world.attempt(world.plan(attempt=2))
        assert outcome.closed
        assert world.ledger.report()[0].rounds == 1


async def test_after_a_restart_the_retry_is_charged(tmp_path):
    async with hospital(tmp_path) as world:
        await world.ask(world.plan())
        await world.computed()
        await world.stop()
        await world.start()
        await world.prepare()
        assert (await world.attempt(world.plan(attempt=2))).closed
        (row,) = world.ledger.report()
        assert row.rounds == 2


async def test_training_goes_on_when_its_attempt_is_aborted(tmp_path):
    async with hospital(tmp_path) as world:
        started, go_on = asyncio.Event(), asyncio.Event()
        values, loop = world.work._values, asyncio.get_running_loop()
        train = values._train

        def slowly(*args):
            loop.call_soon_threadsafe(started.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
            return train(*args)

        values._train = slowly
        bundle = await world.ask(world.plan())
        await started.wait()
        await world.tell(RoundAborted(context=bundle.context, reason="somebody left"))
        await world.idle()
        await world.ask(world.plan(attempt=2))
        go_on.set()
        await world.computed()
        assert len(world.store.pending_events()) == 1  # one dp.spent
        assert world.ledger.report()[0].rounds == 1


# --- what is answered and what is not --------------------------------------------------------------------------------


async def test_an_end_the_coordinator_announced_is_not_answered_with_a_refusal(tmp_path):
    async with hospital(tmp_path) as world:
        bundle = await world.ask(world.plan())
        await world.tell(RoundAborted(context=bundle.context, reason="somebody left"))
        await world.idle()
        assert world.line.refusals() == []
        assert world.work._attempt is None


async def test_a_later_invitation_ends_the_attempt_under_way(tmp_path):
    async with hospital(tmp_path) as world:
        first = await world.ask(world.plan())
        second = await world.ask(world.plan(attempt=2))
        assert first.context != second.context
        assert world.work.concerns(second.context)
        assert not world.work.concerns(first.context)


async def test_not_ready_without_approval_dataset_or_budget(tmp_path):
    async with hospital(tmp_path, ready=False, approved=False) as world:
        refusal = await world.prepare()
        assert (refusal.rule, refusal.round, refusal.attempt) == ("require_approval", 0, 0)
        world.decide()
        write_site_file(tmp_path, world.study, dataset=None)
        assert (await world.prepare()).rule == "studies"
        write_site_file(tmp_path, world.study, max_epsilon_per_study=0.5)
        assert (await world.prepare()).rule == "max_epsilon_per_study"
        write_site_file(tmp_path, world.study, max_epsilon_per_study=0.9999, max_epsilon_total=0.9999)
        assert (await world.prepare()).rule == "max_epsilon_per_study"
        (tmp_path / "site.yaml").write_text("not: [a site file")
        assert (await world.prepare()).rule == "failure"
        write_site_file(tmp_path, world.study)
        assert isinstance(await world.prepare(), StudyPrepared)


async def test_an_invitation_before_the_study_is_prepared_is_declined(tmp_path):
    async with hospital(tmp_path) as world:
        plan = world.plan()
        await world.stop()
        await world.start()
        assert (await world.ask(plan)).rule == "preparation"


async def test_rules_that_changed_since_hold_at_the_next_invitation(tmp_path):
    async with hospital(tmp_path) as world:
        write_site_file(tmp_path, world.study, minimum_patients=46)
        assert (await world.ask(world.plan())).rule == "minimum_patients"
        write_site_file(tmp_path, world.study, dataset=None)
        assert (await world.ask(world.plan())).rule == "studies"
        write_site_file(tmp_path, world.study, max_egress_bytes_per_round=1)
        assert (await world.ask(world.plan())).rule == "max_egress_bytes_per_round"
        write_site_file(tmp_path, world.study)
        assert isinstance(await world.ask(world.plan()), KeyBundle)


async def test_a_training_that_fails_costs_the_attempt_and_no_more(tmp_path):
    async with hospital(tmp_path) as world:
        values = world.work._values
        train, values._train = values._train, lambda *_: 1 / 0
        outcome = await world.attempt()
        assert not outcome.closed or ME not in outcome.state.survivors
        (refusal,) = world.line.refusals()
        assert (refusal.rule, refusal.round, refusal.attempt) == ("failure", 1, 1)
        values._train = train
        assert (await world.attempt(world.plan(attempt=2))).said_kinds() == EVERY_PHASE


async def test_a_full_disk_keeps_the_shares_here(tmp_path, monkeypatch):
    async with hospital(tmp_path) as world:

        def full(*_):
            raise StoreUnwritable("agent.db could not be used: database or disk is full")

        def asked(message):
            world.patient = not isinstance(message, UnmaskRequest)  # its shares are there or never
            return message

        monkeypatch.setattr(world.store, "record_release", full)
        outcome = await world.attempt(to_victim=asked, result=False)
        assert "UnmaskShares" not in outcome.said_kinds()
        assert world.work._attempt is None


# --- missed rounds and results ---------------------------------------------------------------------------------------


async def test_a_site_that_missed_a_round_accepts_what_the_others_endorsed(tmp_path):
    async with hospital(tmp_path) as world:
        missed = await world.attempt(result=False)
        world.go_on(missed)
        world.work.session_ended()
        signed = tuple(
            endorsement(keys().members[name], missed.plan, world.model.digest())
            for name in ("alder", "cedar", "dogwood")
        )
        outcome = await world.attempt(endorsements=signed)
        assert outcome.said_kinds() == EVERY_PHASE
        assert (VectorKind.GLOBAL_MODEL, outcome.plan.model_digest) in world.line.downloads
        assert world.store.chain(world.digest).round == 2


async def test_a_result_after_the_connection_came_back_is_still_verified(tmp_path):
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(result=False)
        await world.idle()
        world.work.session_ended()
        assert isinstance(await world.announce(outcome), ResultVerified)


async def test_a_result_after_a_restart_is_still_verified(tmp_path):
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(result=False)
        await world.idle()
        await world.stop()
        await world.start()
        assert isinstance(await world.announce(outcome), ResultVerified)
        assert world.store.chain(world.digest).round == 1
        await world.tell(outcome.result)
        await world.idle()
        assert len(world.line.logged(entries.ModelVerified)) == 1
        await world.prepare()
        assert (await world.attempt()).said_kinds() == EVERY_PHASE


async def test_a_damaged_model_file_is_fetched_again(tmp_path):
    async with hospital(tmp_path) as world:
        (tmp_path / "models" / f"{world.model.digest()}.safetensors").write_bytes(b"damaged")
        world.line.vectors[world.model.digest()] = world.model.to_safetensors()
        assert (await world.attempt()).closed


async def test_figures_that_cannot_be_written_cost_nobody_the_round(tmp_path):
    async with hospital(tmp_path) as world:
        (tmp_path / "results").write_text("a file where the folder should be")
        assert (await world.attempt()).said_kinds() == EVERY_PHASE


async def test_a_hospital_sees_how_far_a_study_has_come_and_draws_curves_where_it_wants_them(tmp_path):
    async with hospital(tmp_path) as world:
        await world.attempt()
        (found,) = standings(tmp_path)
        assert (found.study, found.round, found.rounds) == (world.study.id, 1, world.study.training.rounds)
        assert (tmp_path / "progress").stat().st_mode & 0o077 == 0
        assert not (tmp_path / "tensorboard").exists()
        with mlflow_server() as server:
            with (tmp_path / "site.yaml").open("a") as file:
                file.write(f"tensorboard: true\nmlflow: {{server: '{server.tracking.server}'}}\n")
            assert (await world.attempt()).said_kinds() == EVERY_PHASE
            (sent,) = await asyncio.to_thread(server.until, "runs/log-batch")
            (run,) = server.until("runs/create")
        assert run["run_name"] == f"{world.study.id} at birch"
        assert {row["step"] for row in sent["metrics"]} == {2}
        assert "accuracy" in {row["key"] for row in sent["metrics"]}
        (path,) = (tmp_path / "tensorboard" / world.study.id).iterdir()
        assert path.read_bytes().count(b"accuracy") == 1
        assert path.parent.stat().st_mode & 0o077 == 0


async def test_a_final_model_of_others_is_fetched_and_marked(tmp_path):
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(result=False)
        world.go_on(outcome)
        ended = StudyEnded(
            study=world.study.study_id,
            study_digest=world.digest,
            outcome=StudyOutcome.ABORTED,
            model_digest=world.model.digest(),
            reason="by the operator",
        )
        await world.tell(ended)
        await asyncio.wait_for(world.task, 60)
        assert json.loads((tmp_path / "results/small-study.json").read_text())["verified"] is False


async def test_an_end_before_any_model(tmp_path):
    world = make_world(tmp_path)
    await world.start()
    ended = StudyEnded(
        study=world.study.study_id,
        study_digest=world.digest,
        outcome=StudyOutcome.ABORTED,
        model_digest=Digest("0" * 64),
        reason="",
    )
    await world.tell(ended)
    await asyncio.wait_for(world.task, 60)
    assert world.line.sent == []


# --- the budget ------------------------------------------------------------------------------------------------------


async def test_a_budget_that_ran_out_is_told_by_its_rule_and_logged_once(tmp_path):
    async with hospital(tmp_path) as world:
        write_site_file(tmp_path, world.study, max_epsilon_per_study=0.2, max_epsilon_total=0.2)
        world.study = small_study(privacy={"epsilon": 1.0})
        for attempt in (1, 2):
            answer = await world.ask(world.plan(attempt=attempt))
            assert isinstance(answer, Refusal)
            assert answer.rule == "max_epsilon_per_study"


async def test_rounds_are_held_against_the_budget_as_it_is_now(tmp_path):
    async with hospital(tmp_path) as world:
        assert (await world.attempt()).closed
        # The same epsilon was spent on the patients by other means since; the cap is now too near for another round.
        write_site_file(tmp_path, world.study, max_epsilon_per_study=1.0, max_epsilon_total=1.0)
        world.ledger.reserve(
            dataset="ward",
            study=world.study.study_id,
            study_digest=Digest("e" * 64),
            round_number=1,
            attempt=1,
            event=world.work._prepared.spec.privacy.study_event(),
            limits=Limits(study_epsilon=9, study_delta=1e-3, total_epsilon=9, total_delta=1e-3),
        )
        for attempt in (1, 2):
            assert isinstance(await world.ask(world.plan(attempt=attempt)), KeyBundle)
            refusal = await world.hear()
            assert refusal.rule == "max_epsilon_total"
            await world.idle()
        (exhausted,) = world.line.logged(entries.DpExhausted)
        assert exhausted.rule == "max_epsilon_total"

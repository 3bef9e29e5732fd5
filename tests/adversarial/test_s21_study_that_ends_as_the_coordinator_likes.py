"""S-21: the coordinator goes on after the figures ended the study, ends it sooner, or hands out another model.

Held by: the choice, which is a part of the step of protocol 4.5 that every hospital repeats; `plan_check._check_turn`
and `check_model_fits` for rounds after the end, and for rounds of another kind than the model is for; `study_work._end`
for an end that came too soon; and a step of verify.py. Tried: rows s21 of `mutations.py`, which delete each:
the line that asks `chain.ended`, the one that asks `has_ended` before training, the one that asks for the kind, the
`and chain.ended`, and `step_choice` as a whole.
"""

import dataclasses
import hashlib
import json
import zipfile

import pytest

from audit import entries, verify
from consortium.contract.global_model import GlobalModel
from consortium.contract.messages import Refusal, ResultVerified, StudyEnded, StudyOutcome
from consortium.contract.plan import RoundKind
from privacy.secagg.messages import KeyBundle
from tests.fakes.sample_study_log import STUDY, SampleConsortium, evidence, failed_steps, model_file
from tests.fakes.site_world import SITES, endorsement, hospital, keys, small_study

RULE = {"keep_best": "accuracy", "stop_early": {"patience": 1, "min_delta": 0.99}}  # nothing can be so much better


def stopping():
    """A study that stops after round 2 of 4 and keeps the first model."""
    return small_study(training={"rounds": 4}, evaluation={**RULE, "every_rounds": 1})


async def stopped(world):
    await world.attempt()
    assert world.model.state
    await world.attempt()
    assert world.model.state == ()


def ended(world, model):
    return StudyEnded(
        study=world.study.study_id,
        study_digest=world.digest,
        outcome=StudyOutcome.COMPLETED,
        model_digest=model.digest(),
        reason="every round is closed",
    )


def results(world):
    return json.loads((world.home.folder / "results" / "small-study.json").read_text())


async def test_no_round_is_answered_after_the_stop(tmp_path):
    async with hospital(tmp_path, stopping(), share_exact_metrics=True) as world:
        await stopped(world)
        for plan in (world.plan(round=3), world.plan(round=5, kind=RoundKind.EVALUATE)):
            assert (await world.ask(plan)).rule == "plan: round"
        await world.stop()
        await world.start()  # it is on disk
        await world.prepare()
        assert (await world.ask(world.plan(round=3))).rule == "plan: round"
        await world.tell(ended(world, world.model))
        await world.task
        assert results(world)["verified"] is True


async def test_a_hospital_that_missed_the_stop_sees_it_in_the_model(tmp_path):
    async with hospital(tmp_path, stopping(), share_exact_metrics=True) as world:
        await world.attempt()
        outcome = await world.attempt(result=False)
        world.go_on(outcome)
        assert world.model.state == ()
        signed = tuple(endorsement(keys().members[site], outcome.plan, world.model.digest()) for site in SITES)
        assert isinstance(await world.ask(world.plan(round=3), endorsements=signed), KeyBundle)
        assert (await refused(world)).rule == "plan: model"


async def test_an_end_that_came_too_soon_is_not_verified(tmp_path):
    async with hospital(tmp_path, stopping(), share_exact_metrics=True) as world:
        await world.attempt()
        await world.tell(ended(world, world.model))
        await world.task
        assert results(world)["verified"] is False


async def test_another_model_than_the_best_is_not_verified(tmp_path):
    async with hospital(tmp_path, stopping(), share_exact_metrics=True) as world:
        await world.attempt()
        last = world.model
        outcome = await world.attempt(result=False)
        another = GlobalModel(last.parameters, last.vector)  # a model the hospitals made, but not the one to keep
        await world.tell(dataclasses.replace(outcome.result, next_model_digest=another.digest()))
        await world.idle()
        assert len([m for m in world.line.sent if isinstance(m, ResultVerified)]) == 1
        assert world.store.decision(world.digest).decision == "withdrawn"


def choosing():
    """As `stopping`, but by validation patients: 14 of the 45, where 9 are tested on and 22 trained on."""
    study = stopping()
    split = {"test_fraction": 0.2, "validation_fraction": 0.3, "seed": 1, "stratify": False}
    record = study.model_dump(mode="python", by_alias=True, exclude_none=True)
    record["data"]["split"] = split
    return type(study).model_validate(record)


async def test_the_chosen_model_is_measured_once_on_the_test_patients_and_never_trained(tmp_path):
    async with hospital(tmp_path, choosing(), share_exact_metrics=True) as world:
        # An evaluation where training is to go on would be figures of the test patients to choose by.
        assert isinstance(await world.ask(world.plan(kind=RoundKind.TRAIN)), KeyBundle)
        first = await world.attempt(world.plan(attempt=2))
        assert first.sums["test_patients"] == 14
        assert isinstance(await world.ask(world.plan(kind=RoundKind.EVALUATE)), KeyBundle)
        assert (await refused(world)).rule == "plan: kind"
        stop = await world.attempt(world.plan(attempt=2))
        assert stop.sums["test_patients"] == 14
        assert [name for name, _ in world.model.state] == ["~~tally"]
        assert isinstance(await world.ask(world.plan(kind=RoundKind.TRAIN)), KeyBundle)
        assert (await refused(world)).rule == "plan: kind"
        last = await world.attempt(world.plan(kind=RoundKind.EVALUATE, attempt=2))
        assert last.sums["test_patients"] == 9
        assert world.model.state == ()
        for number in (4, 6):
            assert (await world.ask(world.plan(round=number, kind=RoundKind.EVALUATE))).rule == "plan: round"
        await world.tell(ended(world, world.model))
        await world.task
        assert results(world)["verified"] is True
        assert [row["of"] for row in results(world)["rounds"]] == ["validation", "validation", "test"]


async def refused(world):
    """The refusal that follows when the model has been looked at, which is before there are values."""
    if world.work._attempt is not None:
        await world.computed()
    await world.idle()
    while not isinstance(answer := world.line.inbox.get_nowait(), Refusal):
        pass
    return answer


# --- the log --------------------------------------------------------------------------------------------------------


def log(rounds, data=None, **evaluation):
    """AUC rises from round to round, always by less than 0.99."""
    sample = SampleConsortium(rounds=rounds)
    document = {**json.loads(sample.document), "evaluation": {"keep_best": "auc", **evaluation}}
    document |= {"data": data} if data else {}
    sample.document = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    sample.study_digest = hashlib.sha256(sample.document).hexdigest()
    sample.opening()
    sample.agreeing()
    return sample


def auc(number):
    return round(0.62 + 0.24 * (1 - 0.7**number), 6)


def chosen(sample, number, made, **changed):
    fields = {"figure": auc(made + 1), "origin": made, "model_digest": model_file(min(number, sample.rounds))[1]}
    about = {"study": STUDY, "round": number, "attempt": 1, "metric": "auc", "reason": "it was the best"}
    sample.coordinator(entries.ModelChosen, **about, **(fields | changed))


def test_an_honest_choice_verifies_and_is_in_the_report(tmp_path):
    sample = log(2)
    for number in (1, 2):
        sample.one_round(number)
    sample.one_round(3, kind="evaluate")
    chosen(sample, 3, 2)
    sample.coordinator(entries.StudyCompleted, study=STUDY, model_digest=model_file(2)[1])
    archive, policy = evidence(tmp_path, sample)
    result = verify.check(str(archive), policy)
    assert failed_steps(result) == {}
    assert any("optimistic" in note and "in no epsilon" in note for note in result["notes"])


STOP = {"stop_early": {"patience": 1, "min_delta": 0.99}}


@pytest.mark.parametrize(
    "lie", ["none", "goes on", "sooner", "unsaid", "another figure", "another round", "said before"]
)
def test_what_does_not_follow_from_the_figures_does_not_verify(tmp_path, lie):
    sample = log(4, **STOP)
    sample.one_round(1)
    if lie == "said before":
        chosen(sample, 1, 0)
    if lie != "sooner":
        sample.one_round(2)
    if lie not in {"sooner", "unsaid"}:
        changed = {"another figure": {"figure": 0.9}, "another round": {"origin": 1}}.get(lie, {})
        chosen(sample, 2, 0, **changed)
    if lie == "goes on":
        sample.one_round(3)
    last = {"sooner": 1, "goes on": 3}.get(lie, 2)
    sample.coordinator(entries.StudyCompleted, study=STUDY, model_digest=model_file(last)[1])
    sample.rounds = last  # its model is what is exported
    archive, policy = evidence(tmp_path, sample)
    failed = failed_steps(verify.check(str(archive), policy))
    assert list(failed) == ([] if lie == "none" else ["choice of the model"]), failed


@pytest.mark.parametrize("lie", ["none", "trains on", "chosen too soon", "by the test patients", "untested"])
def test_a_model_chosen_by_validation_patients_is_tested_once_on_others(tmp_path, lie):
    rule = {"patience": 1, "min_delta": 0.06}  # round 3 is so much better than round 1, and round 2 is not
    sample = log(4, data={"split": {"validation_fraction": 0.2}}, stop_early=rule)
    sample.one_round(1)
    sample.one_round(2)  # ends training; what follows is the test
    if lie == "chosen too soon":
        chosen(sample, 2, 0)
    if lie != "untested":
        sample.one_round(3, kind="train" if lie == "trains on" else "evaluate")
    if lie not in {"chosen too soon", "untested"}:
        # The test patients' figure is the best of all, and nothing is chosen by it.
        changed = {"figure": auc(3), "origin": 2} if lie == "by the test patients" else {}
        chosen(sample, 3, 0, **changed, model_digest=model_file(3 if lie == "trains on" else 2)[1])
    sample.coordinator(entries.StudyCompleted, study=STUDY, model_digest=model_file(3 if lie == "trains on" else 2)[1])
    sample.rounds = 3 if lie == "trains on" else 2
    archive, policy = evidence(tmp_path, sample)
    result = verify.check(str(archive), policy)
    assert list(failed_steps(result)) == ([] if lie == "none" else ["choice of the model"]), failed_steps(result)
    if lie == "none":
        assert any("round 3 are of test patients" in note for note in result["notes"])
        page = zipfile.ZipFile(archive).read("report.html").decode()
        assert "Those of round 3 are of the test patients, whom nothing was chosen by." in page


def test_a_choice_in_a_study_that_makes_none_does_not_verify(tmp_path):
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing()
    sample.one_round(1)
    chosen(sample, 1, 0)
    archive, policy = evidence(tmp_path, sample)
    assert list(failed_steps(verify.check(str(archive), policy))) == ["choice of the model"]

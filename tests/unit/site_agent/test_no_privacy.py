"""A study that promises patients no differential privacy, at one hospital: allowed in writing, nothing pretended."""

import asyncio
import json

import pytest

from audit import entries
from consortium.contract.messages import Refusal, StudyEnded, StudyOutcome
from consortium.contract.study import StudyFile
from site_agent.app import promises_nothing
from site_agent.certification import certificate_of, sign_certificate
from site_agent.description import describe
from site_agent.privacy_certificate import CertificateRefused, certify
from site_agent.signed_events import SignedEvents
from tests.fakes.site_world import ZEROS, hospital, small_study

WHY = "Eight volumes at each hospital: noise of any use would drown them."


def exact_study(**training: object) -> StudyFile:
    record = small_study().model_dump(mode="python", by_alias=True, exclude_none=True)
    record["privacy"] = {
        "mechanism": "none", "unit": "patient", "justification": WHY, "max_records_per_patient": 1,
    }  # fmt: skip
    record["training"] |= training
    return StudyFile.model_validate(record)


async def test_nothing_runs_unless_the_hospital_allows_it_by_itself(tmp_path):
    async with hospital(tmp_path, exact_study(), ready=False) as world:
        answer = await world.prepare()
        assert isinstance(answer, Refusal)
        assert answer.rule == "allow_no_privacy"
        text = describe(world.study, digest=world.digest, config=world.home.config, ledger=world.ledger)
    assert "NO DIFFERENTIAL PRIVACY" in text
    assert " ".join(WHY.split()) in " ".join(text.split())
    assert "do NOT allow the study (allow_no_privacy" in " ".join(text.split())


async def test_a_whole_study_spends_nothing_and_says_nothing_of_privacy(tmp_path):
    async with hospital(tmp_path, exact_study(), allow_no_privacy=True) as world:
        for _ in (1, 2, 3):
            assert (await world.attempt()).closed
        ended = StudyEnded(
            study=world.study.study_id,
            study_digest=world.digest,
            outcome=StudyOutcome.COMPLETED,
            model_digest=world.model.digest(),
            reason="",
        )
        await world.tell(ended)
        await asyncio.wait_for(world.task, 60)
        assert [type(entry).__name__ for entry in world.line.log] == [
            "CohortSnapshot", *["UpdateSubmitted", "ModelVerified"] * 3,
        ]  # fmt: skip
        assert world.ledger.report() == ()
        events = SignedEvents(world.home, world.store)
        assert sign_certificate(world.home, world.store, world.ledger, events, world.digest) is None
        with pytest.raises(CertificateRefused, match="nothing to certify"):
            certify(
                study=world.study, digest=world.digest, policy=world.home.config.policy, declared_patients=1,
                ledger=world.ledger, signed=[],
            )  # fmt: skip
        assert promises_nothing(tmp_path, world.digest)
        assert not promises_nothing(tmp_path, ZEROS)
        text = describe(world.study, digest=world.digest, config=world.home.config, ledger=world.ledger)
        assert "own rules allow it (allow_no_privacy" in " ".join(text.split())


async def test_an_update_that_left_is_never_summed_a_second_time(tmp_path):
    async with hospital(tmp_path, exact_study(), allow_no_privacy=True) as world:
        values = world.work._values
        plan = world.plan(measured=False)
        first = await values.contribution(plan, world.model, world.home.config.policy)
        again = await values.contribution(plan, world.model, world.home.config.policy)
        assert first.lanes["update"].tolist() == again.lanes["update"].tolist()
        values.uploading()
        later = await values.contribution(plan, world.model, world.home.config.policy)
        assert later.lanes["update"].tolist() != first.lanes["update"].tolist()


@pytest.mark.parametrize("is_private", [True, False])
async def test_what_a_hospital_keeps_outlives_its_process_and_belongs_to_its_round(tmp_path, is_private):
    training = {"local_steps": 3, "site_kept": ("0.bias",)}
    study = small_study(training=training) if is_private else exact_study(**training)
    async with hospital(tmp_path, study, allow_no_privacy=True) as world:
        assert [name for name, _ in world.model.parameters] == ["0.weight"]
        await world.attempt()
        carried = world.work._prepared.room._carried
        after_first = carried.kept(2).tolist()
        assert carried.kept(1) is None
        assert after_first != [0.0]
        await world.stop()
        await world.start()
        await world.prepare()
        assert world.work._prepared.room._carried.kept(2).tolist() == after_first
        await world.attempt()
        assert world.work._prepared.room._carried.kept(2).tolist() == after_first
        assert world.work._prepared.room._carried.kept(3).tolist() != after_first
        folder = tmp_path / "carried" / world.digest[:16] / "kept"
        assert sorted(path.name for path in folder.iterdir()) == [
            "round-000001.safetensors", "round-000002.safetensors",
        ]  # fmt: skip
        assert (folder / "round-000001.safetensors").stat().st_mode & 0o777 == 0o600


async def test_a_control_variate_counts_when_its_update_is_in_a_sum(tmp_path):
    study = exact_study(local_steps=2, algorithm="scaffold")
    async with hospital(tmp_path, study, allow_no_privacy=True) as world:
        control = world.work._prepared.room._carried._control
        assert not control.shift(1, world.model).any()
        await world.attempt()
        world.work._prepared.room._released = world.work._released_rounds()
        # Three puppets sent nothing, so c is a quarter of this hospital's c_i, but for encodings.
        shift = control.shift(2, world.model)
        own = control._own(2)
        assert own is not None
        assert shift == pytest.approx(-0.75 * own, abs=1e-4)
        assert control._files.newest_before(2, lambda _: False) is None
        assert all(not isinstance(entry, entries.DpSpent) for entry in world.line.log)
        (path, *_) = (tmp_path / "carried").rglob("round-000001.safetensors")
        header = path.read_bytes()[8:].split(b"}}")[0]
        assert b'"0.weight"' in header
        assert json.loads(header + b"}}")


async def test_a_certificate_says_that_the_same_patients_were_in_a_study_without(tmp_path):
    async with hospital(tmp_path) as world:
        await world.attempt()
        before = certificate_of(world.home, world.store, world.ledger, world.digest)
        SignedEvents(world.home, world.store).add(
            entries.CohortSnapshot, study="exact-study", dataset="ward", columns=("age",), patients="20-49",
            contract_digest="0" * 64,
        )  # fmt: skip
        after = certificate_of(world.home, world.store, world.ledger, world.digest)
    assert set(after.outside) - set(before.outside) == {after.outside[0]}
    assert "without differential privacy, in exact-study: no epsilon bounds" in after.outside[0]

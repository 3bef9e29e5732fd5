"""Threat 25: weights of zero. Their sum is what the sum of updates is divided by.

Held by: `federated_average` (consortium/contract/server_optimizer.py), which the coordinator and every site run on the
sum and which refuses weights that add up to 0 or less; `RoundValues.contribution` (site_agent), which masks no update
of weight 0; and `site.yaml`, in which a hospital cannot declare a cohort of nobody.
Tried: rows 25 of `mutations.py`.
"""

import dataclasses
import hashlib

import numpy as np
import pytest
import yaml

from consortium.contract.errors import FileInvalid
from consortium.contract.global_model import GlobalModel
from consortium.contract.layout import weight_max
from consortium.contract.messages import ResultVerified, RoundResult, VectorKind
from consortium.contract.names import Digest
from consortium.contract.server_optimizer import AggregateRefused, federated_average
from site_agent.round_values import RoundValues
from site_agent.site_file import load_site_file
from tests.fakes import scripted_site
from tests.fakes.scripted_site import serving
from tests.fakes.site_world import hospital, small_study, write_site_file
from tests.fakes.small_study import SITES, first_model
from tests.fakes.small_study import small_study as coordinators_study


@pytest.mark.parametrize("weight", [0.0, -0.0, -1.0])
def test_no_model_follows_from_weights_that_sum_to_nothing(weight):
    model = first_model()
    sums = {"update": np.zeros(model.vector.size), "weight": np.array([weight])}
    with pytest.raises(AggregateRefused, match="weights sum to"):
        federated_average(model, sums, weight_max=1.0, server_learning_rate=1.0)
    sums["weight"] = np.array([1.0])
    assert isinstance(federated_average(model, sums, weight_max=1.0, server_learning_rate=1.0), GlobalModel)


async def test_the_coordinator_applies_nothing_and_says_why(tmp_path, monkeypatch):
    """Every hospital uploads a weight of 0, which is within the range of its lane, as it is masked."""
    honest = scripted_site.encode

    def weightless(values, layout, dither):
        return honest({name: 0 * v if name == "weight" else v for name, v in values.items()}, layout, dither)

    monkeypatch.setattr(scripted_site, "encode", weightless)
    study = coordinators_study(rounds=1, round_deadline_s=1.0, upload_deadline_s=1.0)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study, *SITES[:3])
        await world.command("study.start", study=study.id)
        await world.until(lambda: "round.aborted" in world.home.types())
        reasons = [body["reason"] for body in world.home.bodies("round.aborted")]
        assert any("weights sum to 0" in reason for reason in reasons)
        assert world.home.studies.get(study.id).model_digest == first_model().digest()
        assert not any(site.told(RoundResult) for site in sites.values())
        assert "round.closed" not in world.home.types()


def test_a_hospital_cannot_declare_a_cohort_of_nobody(tmp_path):
    study = small_study()
    write_site_file(tmp_path, study)
    record = yaml.safe_load((tmp_path / "site.yaml").read_text())
    for patients in (0, -1):
        record["datasets"]["ward"]["declared_patients"] = patients
        (tmp_path / "site.yaml").write_text(yaml.safe_dump(record))
        with pytest.raises(FileInvalid):
            load_site_file(tmp_path / "site.yaml")


async def test_a_hospital_masks_no_update_of_weight_zero(tmp_path, monkeypatch):
    monkeypatch.setattr(RoundValues, "_weight", property(lambda _: 0.0))
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(result=False)
        assert (outcome.said[-1].rule, "TrainingFailed" in outcome.said[-1].explanation) == ("site", True)
        assert world.line.uploads == []
        assert world.ledger.report() == ()  # nothing was trained for it


async def test_a_hospital_takes_no_model_from_a_sum_without_weight(tmp_path):
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(result=False)
        assert weight_max(world.study) > 0
        vector = np.frombuffer(outcome.aggregate, dtype=outcome.plan.layout.dtype).copy()
        for lane, stretch in outcome.plan.layout.stretches():
            if lane.name == "weight":
                vector[stretch] = 0
        sha256 = hashlib.sha256(vector.tobytes()).digest()
        world.line.vectors[Digest(sha256.hex())] = vector.tobytes()
        await world.tell(dataclasses.replace(outcome.result, aggregate_hash=sha256))
        await world.idle()
        assert (VectorKind.AGGREGATE, Digest(sha256.hex())) in world.line.downloads
        assert not [message for message in world.line.sent if isinstance(message, ResultVerified)]
        decision = world.store.decision(world.digest)
        assert decision.decision == "withdrawn"
        assert "weights sum to 0" in decision.statement

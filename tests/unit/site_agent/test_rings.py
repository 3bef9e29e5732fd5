"""A whole study in every ring, with clips by parameter and with weights: the real agent, and a sum it recomputes."""

import numpy as np
import pytest
from structlog.testing import capture_logs

from consortium.contract import study as study_file
from consortium.contract.layout import update_lanes
from consortium.contract.messages import StudyPrepared
from consortium.contract.plan import RoundKind
from tests.fakes.site_world import hospital, small_study


def study_in(bits, tensor_clips, weighting, **aggregation):
    patients = 8190 if bits == 16 else 10_000_000
    clips = {} if tensor_clips is None else {"tensor_clips": tensor_clips}
    return small_study(
        aggregation={"modulus_bits": bits, "max_patients_per_site": patients, **clips, **aggregation},
        training={"weighting": weighting},
    )


@pytest.mark.parametrize(
    ("bits", "weighting", "tensor_clips"),
    [
        (16, "uniform", None),
        (16, "patients", {"0.bias": 1e-3}),
        (32, "patients", {"0.bias": 1e-3}),
        (64, "uniform", {"*.bias": 1e-3}),
        (64, "patients", None),
    ],
)
async def test_a_study_closes_and_the_hospital_computes_every_model_itself(tmp_path, bits, weighting, tensor_clips):
    async with hospital(tmp_path, study_in(bits, tensor_clips, weighting, update_clip=0.01), ready=False) as world:
        # What 16 bits can carry for four hospitals is fewer patients than this one declares elsewhere.
        site_file = world.home.folder / "site.yaml"
        site_file.write_text(site_file.read_text().replace("8317", "817"))
        assert isinstance(await world.prepare(), StudyPrepared)
        for kind in (RoundKind.TRAIN, RoundKind.TRAIN, RoundKind.EVALUATE):
            before = world.model
            outcome = await world.attempt()
            assert outcome.closed
            layout = outcome.plan.layout
            assert (outcome.plan.kind, layout.modulus_bits) == (kind, bits)
            assert len(outcome.aggregate) == layout.length * bits // 8
            moved = np.abs(world.model.vector - before.vector).max()
            assert (moved > 0) == (kind is RoundKind.TRAIN)
            lanes = {RoundKind.TRAIN: 1 if tensor_clips is None else 2, RoundKind.EVALUATE: 0}
            assert len(update_lanes(layout)) == lanes[kind]
        assert world.store.chain(world.digest).model_digest == world.model.digest()
        assert world.line.refusals() == []


async def test_what_the_clip_cuts_is_in_the_agents_own_log_and_nowhere_else(tmp_path):
    async with hospital(tmp_path, study_in(32, {"0.bias": 1e-9}, "uniform")) as world:
        with capture_logs() as logs:
            assert (await world.attempt()).closed
        (line,) = [log for log in logs if log["event"] == "update.clipped"]
        assert (line["round"], line["fraction"]) == (1, 0.25)  # one of four values: noise alone is beyond 1e-9
        assert "0.25" not in "".join(repr(message) for message in world.line.sent)
        assert not any(hasattr(entry, "fraction") for entry in world.line.log)


async def test_a_clip_of_a_parameter_that_the_network_built_here_lacks_is_refused_by_name(tmp_path, monkeypatch):
    """Possible only where the study was checked by another release: there the network had the parameter."""
    monkeypatch.setattr(study_file, "parameters_of", lambda *_: (("head.weight", (4,)),))
    study = study_in(32, {"head.*": 1.0}, "uniform")
    async with hospital(tmp_path, study, ready=False) as world:
        with capture_logs() as logs:
            answer = await world.prepare()
        assert (answer.rule, answer.round) == ("aggregation.tensor_clips", 0)
        (line,) = [log for log in logs if log["event"] == "study.refused"]
        assert "aggregation.tensor_clips.head.*: found a name that no parameter of the network has" in line["reason"]
        assert "0.bias, 0.weight" in line["reason"]


async def test_an_update_within_its_clip_is_not_worth_a_line(tmp_path):
    async with hospital(tmp_path, study_in(32, None, "uniform", update_clip=1e6)) as world:
        with capture_logs() as logs:
            assert (await world.attempt()).closed
        assert [log for log in logs if log["event"] == "update.clipped"] == []

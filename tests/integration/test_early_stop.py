"""Studies that keep their best model, through a real coordinator: how they end, and what the log says of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from audit import entries
from consortium.contract.messages import RoundResult, StudyEnded
from consortium.contract.study import StudyFile
from tests.fakes.scripted_site import serving
from tests.fakes.small_study import DOCUMENT, first_model

APART = {"validation_fraction": 0.4}


def study_with(rounds: int, validation_fraction: float | None = None, **evaluation: object) -> StudyFile:
    """Scripted hospitals predict half of their test patients right, in every round: nothing gets better."""
    record = json.loads(json.dumps(DOCUMENT))
    record["id"] = "small-study"
    record["training"]["rounds"] = rounds
    record["evaluation"] |= {"keep_best": "accuracy", **evaluation}
    if validation_fraction is not None:
        record["data"]["split"]["validation_fraction"] = validation_fraction
    return StudyFile.model_validate_json(json.dumps(record))


@pytest.mark.parametrize(
    ("rounds", "rule", "closed", "reason"),
    [
        (
            9,
            {"stop_early": {"patience": 2}},
            ["train"] * 3,
            "stopped early after round 3: 2 measured rounds without",
        ),
        (
            9,
            {"stop_early": {"patience": 1}, **APART},
            ["train"] * 2 + ["evaluate"],
            "stopped early after round 2: 1 measured rounds",
        ),
        (1, {}, ["train", "evaluate"], "kept the first model: accuracy 0.5, the best measured"),
        (1, APART, ["train"] + ["evaluate"] * 2, "kept the first model: accuracy 0.5, the best measured on valid"),
    ],
)
async def test_the_study_ends_with_the_best_model(
    tmp_path: Path, rounds: int, rule: Mapping[str, Any], closed: list[str], reason: str
) -> None:
    study = study_with(rounds, **rule)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "completed")
        assert [one["kind"] for one in world.history(study)] == closed
        row = world.home.studies.get(study.id)
        assert row.model_digest == first_model().digest()
        await world.until(lambda: all(site.told(StudyEnded) for site in sites.values()))
        for site in sites.values():
            assert len(site.told(RoundResult)) == len(closed)
            assert site.model.digest() == row.model_digest
            assert site.told(StudyEnded)[0].reason.startswith(reason)
        (chosen,) = world.home.bodies(entries.ModelChosen.TYPE)
        assert chosen["reason"].startswith(reason)
        assert (chosen["metric"], chosen["figure"], chosen["origin"]) == ("accuracy", 0.5, 0)
        assert chosen["model_digest"] == row.model_digest
        whom = [said["basis"].partition(" over all")[0] for said in world.home.bodies(entries.ModelEvaluated.TYPE)]
        apart = ["exact sums of validation patients"] * (len(closed) - 1) + ["exact sums of test patients"]
        assert whom == (apart if study.has_validation else ["exact sums"] * len(closed))
    # A coordinator that starts again has not forgotten that it is over.
    async with serving(tmp_path) as again:
        assert again.state(study) == "completed"
        assert len(again.history(study)) == len(closed)

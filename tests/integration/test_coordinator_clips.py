"""A first model that the study's clips do not fit: the coordinator pauses and says so, and no round begins."""

import json
from pathlib import Path

from consortium.contract.study import StudyFile
from tests.fakes.scripted_site import serving
from tests.fakes.small_study import DOCUMENT


def clipped_study(**tensor_clips: float) -> StudyFile:
    record = json.loads(json.dumps(DOCUMENT))
    record["aggregation"]["tensor_clips"] = tensor_clips
    return StudyFile.model_validate_json(json.dumps(record))


async def test_clips_that_name_no_parameter_of_the_first_model_pause_the_study(tmp_path: Path) -> None:
    # The scripted hospitals call their parameters layer.bias and layer.weight; the study's network has 0.bias.
    study = clipped_study(**{"0.bias": 1.0})
    async with serving(tmp_path) as world:
        await world.hospitals(study)
        await world.command("study.start", study=study.id)
        await world.until(lambda: world.state(study) == "paused")
        reason = world.home.studies.get(study.id).reason
        assert "aggregation.tensor_clips.0.bias" in reason
        assert "one of layer.bias, layer.weight" in reason
        assert world.history(study) == []
        assert "study.started" not in world.home.types()
        assert "round.started" not in world.home.types()


async def test_clips_that_fit_the_first_model_let_it_begin(tmp_path: Path) -> None:
    study = clipped_study(**{"*": 4.0})
    async with serving(tmp_path) as world:
        await world.hospitals(study)
        await world.command("study.start", study=study.id)
        await world.until(lambda: len(world.history(study)) >= 1)
        assert world.home.types().count("study.started") == 1

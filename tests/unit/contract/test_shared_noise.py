"""The noise that hospitals share: calibrated to h of them, on the lane's grid, with room beside it."""

import json
from pathlib import Path
from typing import Any

import pytest

from consortium.contract.errors import FileInvalid
from consortium.contract.layout import round_layout, update_lanes
from consortium.contract.plan import RoundKind
from consortium.contract.shared_noise import NoiseRefused, noise_line, require_room, shared_noise
from consortium.contract.study import StudyFile, load_study
from privacy.dp import accountant
from privacy.dp.calibrate import calibrate
from privacy.dp.events import DpEvent
from tests.fakes.small_study import DOCUMENT

EXAMPLE = Path(__file__).parents[3] / "configs/studies/heart-disease-distributed.yaml"


def distributed(**sections: dict[str, Any]) -> StudyFile:
    record = json.loads(json.dumps(DOCUMENT))
    record["privacy"]["mechanism"] = "distributed-dp-sgd"
    record["aggregation"]["update_clip"] = 64.0
    for name, changes in sections.items():
        record[name] |= changes
    return StudyFile.model_validate_json(json.dumps(record))


def test_the_grid_is_the_lanes_and_the_noise_keeps_the_studys_epsilon_at_h_shares() -> None:
    study = distributed(privacy={"colluding": 1}, training={"spare_rounds": 3})
    noise = shared_noise(study)
    mechanism, privacy = noise.mechanism, study.privacy
    layout = round_layout(study, parameters=study.parameters, kind=RoundKind.TRAIN, measured=False)
    (lane,) = update_lanes(layout)
    assert mechanism.grid_spacing == 1 / lane.scale
    assert (mechanism.shares, mechanism.steps, mechanism.dimension) == (2, 2 + 3, lane.length)
    assert noise.sum_bound + mechanism.share_tail == lane.clip == study.aggregation.update_clip
    assert accountant.epsilon([DpEvent(mechanism=mechanism)], delta=privacy.delta) <= privacy.epsilon
    # Cross-check: as much noise as one party with all records would need, to the grid of calibration.
    alone = calibrate(epsilon_target=privacy.epsilon, delta=privacy.delta, sampling_rate=0.5, steps=5)
    assert mechanism.noise_multiplier == pytest.approx(alone.noise_multiplier, abs=2e-4)
    # The survivors' sum has at least that noise: two honest shares of it, whoever else is there.
    assert 2 * mechanism.share_std**2 == pytest.approx(mechanism.noise_std**2)


@pytest.mark.parametrize("clip", [32.0, 64.0, 1e6])
def test_a_ring_of_64_bits_draws_the_same_noise_on_a_grid_that_is_exact_in_float64(clip: float) -> None:
    wide = shared_noise(distributed(aggregation={"modulus_bits": 64, "update_clip": clip}))
    narrow = shared_noise(distributed())
    assert wide.mechanism.noise_multiplier == narrow.mechanism.noise_multiplier
    assert 2.0**38 < clip / wide.mechanism.grid_spacing <= 2.0**40
    assert wide.mechanism.share_std / wide.mechanism.grid_spacing < 2.0**40


def test_more_colluding_hospitals_mean_more_noise_from_each() -> None:
    trusting, wary = shared_noise(distributed()), shared_noise(distributed(privacy={"colluding": 1}))
    assert wary.mechanism.noise_multiplier == trusting.mechanism.noise_multiplier
    assert wary.mechanism.share_std == pytest.approx(trusting.mechanism.share_std * (3 / 2) ** 0.5)


@pytest.mark.parametrize(
    ("sections", "path", "words"),
    [
        ({"aggregation": {"update_clip": 4.0}}, "aggregation.update_clip", "the noise of one hospital may take"),
        (
            {"aggregation": {"update_clip": 64.0, "modulus_bits": 16, "max_patients_per_site": 1000}},
            "aggregation", "not wide enough for the grid",
        ),
    ],
)  # fmt: skip
def test_noise_that_does_not_fit_is_refused_with_what_would(
    sections: dict[str, dict[str, Any]], path: str, words: str
) -> None:
    study = distributed(**sections)
    with pytest.raises(NoiseRefused, match=words) as caught:
        shared_noise(study)
    assert caught.value.problem.path == path
    assert "submit the study under a new id" in caught.value.advice()
    with pytest.raises(FileInvalid, match=words):
        require_room(Path("study.yaml"), study)


def test_the_example_has_room_and_a_local_study_is_not_asked() -> None:
    study = load_study(EXAMPLE)
    require_room(EXAMPLE, study)
    assert "any 3 make up the study's" in noise_line(study)
    require_room(Path("study.yaml"), StudyFile.model_validate_json(json.dumps(DOCUMENT)))

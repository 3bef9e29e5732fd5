"""A study without differential privacy at a real coordinator: sums over hospitals that differ by one are not asked for.

The hospitals are scripted; the coordinator, its database, its log and the wire are real.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from consortium.contract.study import StudyFile
from consortium.status import snapshot
from consortium.training_round import Phase
from tests.fakes.scripted_site import serving, update_of
from tests.fakes.small_study import DOCUMENT, SITES
from tests.unit.contract.test_algorithms import NO_PRIVACY

DELTA = SITES[3]
ROUNDS = 3


def exact_study() -> StudyFile:
    record = json.loads(json.dumps(DOCUMENT)) | {"privacy": NO_PRIVACY}
    record["training"] |= {
        "rounds": ROUNDS, "algorithm": "fedadam", "server_optimizer": {"beta1": 0.9, "beta2": 0.99, "tau": 0.1},
        "server_learning_rate": 0.1,
    }  # fmt: skip
    record["evaluation"]["every_rounds"] = ROUNDS
    record["aggregation"] |= {"round_deadline_s": 1.0, "upload_deadline_s": 1.0}
    return StudyFile.model_validate_json(json.dumps(record))


async def test_the_study_waits_for_the_one_hospital_that_its_sums_would_give_away(tmp_path: Path) -> None:
    study = exact_study()
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[DELTA].script[2, 1] = Phase.COLLECTING
        sites[DELTA].stays_away = True
        await world.command("study.start", study=study.id)
        await world.until(lambda: "round.aborted" in world.home.types(), 20)
        driver = world.home.coordinator.drivers[study.id]
        await world.until(lambda: driver.progress.phase == "waiting for hospitals")
        (reason,) = [entry["body"]["reason"] for entry in world.home.log() if entry["type"] == "round.aborted"]
        assert "one hospital" in reason
        assert len(world.history(study)) == 1
        sites[DELTA].come_back()
        await world.until(lambda: world.state(study) == "completed", 20)
        assert {tuple(closed["survivors"]) for closed in world.history(study)} == {tuple(sorted(SITES))}
        # Reddi et al. 2021, algorithm 2, on a mean that is the same in every round; every site repeated it.
        mean = np.mean([update_of(name) for name in SITES], axis=0)
        m, v, weights = np.zeros(3), np.full(3, 0.1**2), np.zeros(3)
        for _ in range(ROUNDS):
            m, v = 0.9 * m + 0.1 * mean, 0.99 * v + 0.01 * mean**2
            weights += 0.1 * m / (np.sqrt(v) + 0.1)
        assert world.model(study) == pytest.approx(weights.tolist(), abs=1e-4)
        (created,) = world.home.bodies("study.created")
        assert (created["mechanism"], created["epsilon"], created["delta"]) == ("none", 1e9, 1.0)
        (shown,) = snapshot(world.home.rooms, world.home.coordinator.drivers)["studies"]
        assert shown["epsilon"] is None

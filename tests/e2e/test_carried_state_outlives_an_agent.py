"""An agent is killed in the middle of rounds and goes on with what it carries, as if it had not been.

Real processes from a nursery. The study has no noise, every step sees every patient, and no round closes without all
four hospitals, so that two runs of it must end with one model but for the rounding of sums. Tried with a `RoundFiles`
that keeps its vectors in memory: the killed hospital went on with a new optimizer, and the models differed by 0.07.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from consortium.contract.global_model import GlobalModel
from tests.e2e.faulty_world import Break, FaultyWorld, Nursery, until
from tests.e2e.world import HEART, SITES, STUDY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

VICTIM, ROUNDS, AGAIN = "hungary", 4, "undisturbed"
BREAKS = (
    Break(round=2, moment="before-upload", how="kill"),  # trained, and its state on disk; no sum will have it
    Break(round=3, moment="released", how="kill"),  # the sum may be opened without it: this state counts
)
CHANGES: dict[str, dict[str, Any]] = {
    "training": {
        "rounds": ROUNDS,
        "local_steps": 3,
        "sampling_rate": 1.0,
        "optimizer": {"name": "adam", "learning_rate": 0.05},
        "optimizer_state": "carried",
    },
    "sites": {"minimum": len(SITES)},
    "aggregation": {"threshold": 3},
    "evaluation": {"every_rounds": ROUNDS},
    "privacy": {
        "mechanism": "none",
        "unit": "patient",
        "justification": "Public records of 1988, for a test of what outlives a process.",
        "max_records_per_patient": 1,
    },
}


def study_file(folder: Path, name: str) -> Path:
    """The study of the demonstration with an optimizer that goes on from round to round, under a name."""
    record = yaml.safe_load((HEART / "study.yaml").read_text())
    for section, changes in CHANGES.items():
        record[section] = changes if section == "privacy" else {**record[section], **changes}
    record["id"] = name
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(record, sort_keys=False))
    return path


class World(FaultyWorld):
    """Hospitals that take part without differential privacy, in either study."""

    def enrol(self, site: str) -> None:
        super().enrol(site)
        path = self.folder / site / "site.yaml"
        record = yaml.safe_load(path.read_text())
        record["studies"][AGAIN] = record["studies"][STUDY]
        record["policy"] |= {"allow_no_privacy": True, "share_exact_metrics": True}
        path.write_text(yaml.safe_dump(record))

    def run_study(self, name: str) -> None:
        self.study_id, self.source = name, study_file(self.folder, name)
        self.submit()

    def study(self) -> dict[str, Any]:
        studies = self.snapshots[-1]["studies"] if self.snapshots else []
        return next((s for s in studies if s["study"] == self.study_id), {"history": [], "sites": [], "state": ""})

    def last_model(self) -> np.ndarray:
        self.wait_for(lambda s: s["state"] == "completed", "the study to end")
        (end,) = [e for e in self.entries() if e["type"] == "study.completed" and e["study"] == self.study_id]
        return GlobalModel.open(self.home / "models" / end["body"]["model_digest"]).vector.copy()


def test_killed_twice_and_the_model_is_the_same(tmp_path: Path, nursery: Nursery) -> None:
    world = World(tmp_path, nursery)
    world.breaks = {VICTIM: list(BREAKS)}
    try:
        world.create()
        world.start_coordinator()
        world.follow()
        for site in SITES:
            world.enrol(site)
            world.start_agent(site)
        world.run_study(STUDY)
        for wanted in BREAKS:
            until(lambda: world.reached(VICTIM, wanted), wanted.moment)  # noqa: B023 - asked at once
            world.child(VICTIM).wait()
            world.start_agent(VICTIM)
        killed = world.last_model()
        history = world.study()["history"]
        assert [(r["round"], r["survivors"]) for r in history][:ROUNDS] == [
            (number, list(SITES)) for number in range(1, ROUNDS + 1)
        ]
        begun = [e for e in world.entries() if e["type"] == "round.started" and e["round"] == "2"]
        assert len(begun) > 1  # the round in which it died was trained again, by everybody

        world.run_study(AGAIN)
        undisturbed = world.last_model()
    finally:
        world.stop()
    assert np.abs(undisturbed).max() > 0.1
    assert killed == pytest.approx(undisturbed, abs=1e-4)

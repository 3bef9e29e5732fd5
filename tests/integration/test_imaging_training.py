"""Studies on images from files on a hospital's disk to the last global model, through secure aggregation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from audit import entries
from consortium.contract.layout import largest_layout
from consortium.contract.messages import StudyPrepared
from consortium.contract.study import StudyFile
from consortium.simulate import SimulationRefused, simulate
from site_agent.description import describe
from site_agent.ledger_caps import events_of
from site_agent.networks import layout_of
from site_agent.training_spec import network_spec_of
from tests.fakes.site_world import ME, hospital, small_study

PICTURES: dict[str, Any] = {
    "kind": "imaging",
    "task": "classification",
    "modality": "DX",
    "channels": 1,
    "shape": (28, 28),
    "intensity": {"range": (0.0, 255.0), "scale": {"mean": 127.5, "std": 127.5}},
    "label": {"type": "binary", "positive_above": 0.0},
    "minimum_patients": 40,
    "split": {"test_fraction": 0.25, "seed": 1, "stratify": False},
}
CLASSES = PICTURES | {"label": {"type": "classes", "values": (0, 1, 2)}}
MASKS = PICTURES | {"task": "segmentation", "shape": (16, 16), "label": {"type": "mask", "values": (0, 1)}}
ADAM = {"name": "adam", "learning_rate": 0.01}
SGD = {"name": "sgd", "learning_rate": 0.5, "momentum": 0.5}


def study_of(data, *, mechanism="local-dp-sgd", model=None, **training):
    record = small_study().model_dump(mode="python", by_alias=True, exclude_none=True)
    record["data"] = data
    record["model"] = model or {"network": "cnn"}
    record["training"] |= {"rounds": 12, "local_steps": 1, "sampling_rate": 0.5, "weighting": "uniform"}
    record["training"] |= {"optimizer": ADAM if mechanism.startswith("distributed") else SGD, **training}
    record["privacy"] |= {"mechanism": mechanism, "epsilon": 8.0, "delta": 1e-3, "clip_norm_l2": 1.0}
    record["aggregation"] |= {"update_clip": 64.0}
    metric = "dice" if data["label"]["type"] == "mask" else "accuracy"
    record["evaluation"] = {
        "split": "site-held-out", "metrics": (metric,), "every_rounds": 1, "score_bins": 50, "decision_threshold": 0.5,
    }  # fmt: skip
    return StudyFile.model_validate(record)


def drawn(random, label, side=28):
    """A noisy picture whose bright square stands where its label says."""
    picture = random.integers(0, 80, size=(side, side)).astype(np.uint8)
    if label:
        start = 2 + 6 * (label - 1)
        picture[start : start + 10, start : start + 10] += 120
    return picture


def write_site_file(folder: Path, site: str, dataset: dict[str, Any]) -> None:
    record = {
        "schema": "consortium/site/v1",
        "site": site,
        "datasets": {"pictures": {"declared_patients": 40, **dataset}},
        "studies": {"small-study": "pictures"},
        "policy": {"max_epsilon_total": 20.0, "max_epsilon_per_study": 10.0, "minimum_patients": 20},
    }
    (folder / "site.yaml").write_text(yaml.safe_dump(record))


def write_labelled(folder: Path, study: StudyFile, classes: int) -> Path:
    """A MedMNIST file at every site."""
    for number, site in enumerate(study.sites.roster):
        random = np.random.default_rng(number)
        (folder / site).mkdir()
        arrays = {}
        for part, count in (("train", 44), ("val", 6), ("test", 10)):
            labels = random.integers(classes, size=count)
            arrays[f"{part}_images"] = np.stack([drawn(random, label) for label in labels])
            arrays[f"{part}_labels"] = labels[:, None].astype(np.uint8)
        np.savez(folder / site / "set.npz", **arrays)
        write_site_file(folder / site, site, {"path": "set.npz", "format": "medmnist"})
    return folder


def write_masked(folder: Path, study: StudyFile) -> Path:
    """PNG files and masks at every site, two pictures of each patient."""
    for number, site in enumerate(study.sites.roster):
        random = np.random.default_rng(number)
        (folder / site / "files").mkdir(parents=True)
        lines = ["file,patient,label"]
        for picture in range(100):
            row, column = random.integers(1, 9, size=2)
            mask = np.zeros((16, 16), dtype=np.uint8)
            mask[row : row + 6, column : column + 6] = 1
            pixels = random.integers(0, 80, size=(16, 16)).astype(np.uint8) + 120 * mask
            Image.fromarray(pixels).save(folder / site / f"files/{picture}.png")
            Image.fromarray(mask).save(folder / site / f"files/{picture}-mask.png")
            lines.append(f"{picture}.png,P{picture // 2},{picture}-mask.png")
        (folder / site / "list.csv").write_text("\n".join(lines) + "\n")
        write_site_file(folder / site, site, {"path": "files", "format": "image-folder", "table": "list.csv"})
    return folder


@pytest.mark.parametrize("mechanism", ["local-dp-sgd", "distributed-dp-sgd"])
def test_pictures_with_a_binary_label(tmp_path, mechanism):
    study = study_of(PICTURES, mechanism=mechanism)
    found = simulate(study, data=write_labelled(tmp_path, study, 2))
    assert found.last.patients == 4 * 15
    assert found.last.auc > 0.95 > found.first.auc
    assert found.epsilon <= 8.0


def test_pictures_of_several_classes(tmp_path):
    study = study_of(CLASSES, loss="cross-entropy")
    found = simulate(study, data=write_labelled(tmp_path, study, 3))
    assert found.last.accuracy > 0.8 > found.first.accuracy
    assert dict(found.rows())["after 12 rounds"].startswith("AUC n/a, accuracy ")


def test_masks_of_two_pictures_a_patient(tmp_path):
    unet = {"network": "unet", "args": {"channels": (8, 16), "res_units": 1}}
    study = study_of(MASKS, model=unet, loss="dice-cross-entropy", mechanism="distributed-dp-sgd", rounds=10)
    assert study.parameters is None
    found = simulate(study, data=write_masked(tmp_path, study))
    assert found.last.dice > 0.6 > found.first.dice
    assert found.to_json()["after"] == {"patients": 52, "auc": None, "accuracy": None, "dice": found.last.dice}


async def test_the_agent_takes_part_with_a_network_of_monai(tmp_path):
    """The real agent: it reads the pictures, says what the study costs, trains, masks, and computes the next model."""
    study = study_of(
        MASKS, model={"network": "unet", "args": {"channels": (3, 5)}}, loss="dice-cross-entropy", rounds=2
    )
    async with hospital(tmp_path, study, ready=False) as world:
        write_masked(tmp_path, study)
        (tmp_path / ME).rename(tmp_path / "ward")
        rules = {"max_epsilon_total": 20.0, "max_epsilon_per_study": 10.0, "allowed_networks": ["unet"]}
        record = yaml.safe_load((tmp_path / "site.yaml").read_text())
        record["datasets"]["ward"] = yaml.safe_load((tmp_path / "ward/site.yaml").read_text())["datasets"]["pictures"]
        record["datasets"]["ward"] |= {"path": "ward/files", "table": "ward/list.csv"}
        (tmp_path / "site.yaml").write_text(yaml.safe_dump(record | {"policy": record["policy"] | rules}))
        said = describe(study, world.digest, world.home.config, world.ledger)
        assert isinstance(await world.prepare(), StudyPrepared)
        assert world.model.parameters == layout_of(network_spec_of(study))
        for _ in range(2):
            before, outcome = world.model, await world.attempt()
            assert outcome.closed
            lanes = {lane.name: lane.length for lane in outcome.plan.layout.lanes}
            assert lanes["update"] == before.vector.size
            assert not (world.model.vector == before.vector).all()
    assert f"{largest_layout(study, parameters=before.parameters).size_bytes:,} bytes" in said
    assert "unet network" in said
    (audited,) = world.line.logged(entries.DpAudited)
    assert (audited.outcome, audited.failed) == ("0", ())
    (spent,) = world.ledger.counted("ward").values()
    assert sum(event.mechanism.steps for event in events_of(spent)) == 2


def test_canaries_are_for_tables(tmp_path):
    with pytest.raises(SimulationRefused, match="images have none"):
        simulate(study_of(PICTURES), data=tmp_path, audit=True)

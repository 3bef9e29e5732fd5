"""What the agent tells the training child is what the child hears."""

import json
from dataclasses import replace
from pathlib import Path

from site_agent.datasets import CsvDataset, DatalistDataset
from site_agent.image_cache import ImageCache
from site_agent.left_out import NOBODY
from site_agent.site_file import ClientAlgoFile, TrainingChild
from site_agent.training_child.orders import noise_fields, order_fields, order_of, readable_by, spec_from, writable_by
from site_agent.training_room import Order
from site_agent.training_spec import spec_of
from tests.fakes.site_world import ME, small_study

STUDY = small_study()
LIST = DatalistDataset(path="/data/ct/list.json", format="datalist", declared_patients=9)
TABLE = CsvDataset(path="/data/heart.csv", format="csv", patient_id="patient", declared_patients=40)


def order_in(home, **changes):
    order = Order(
        study=STUDY, dataset=TABLE, site=ME, device="auto", precision="float32", engine="auto", weights={},
        client_algo=None, images=ImageCache(folder=home / "images", quota_bytes=7), carried=home / "carried/1",
        models=home / "models", scratch=home / "training/1", limits=TrainingChild(), withdrawn=NOBODY,
    )  # fmt: skip
    return replace(order, **changes)


def heard(order):
    fields = json.loads(json.dumps(order_fields(order)))  # as a frame's head has them
    return order_of(fields, order.study.document())


def test_an_order_arrives_as_it_was_said(tmp_path):
    algo = ClientAlgoFile.model_validate(
        {"file": "/code/ward.py", "sha256": "a" * 64, "class": "Ward", "args": {"n": 2}}
    )
    order = order_in(tmp_path, weights={"b" * 64: "/weights/first.pt"}, client_algo=algo)
    for said in (order, order_in(tmp_path), order_in(tmp_path, dataset=LIST)):
        assert heard(said) == said


def test_the_noise_is_the_one_that_was_charged_for(tmp_path):
    order = order_in(tmp_path)
    spec = spec_of(STUDY, declared_patients=40).at(ME)
    fields = json.loads(json.dumps(noise_fields(spec)))
    assert spec_from(order, fields) == spec
    fields["noise"]["numbers"]["noise_multiplier"] += 1.0  # what it is told, and nothing of its own
    louder = spec_from(order, fields)
    assert louder.privacy.mechanism.noise_multiplier == spec.privacy.mechanism.noise_multiplier + 1.0


def test_it_reads_this_studys_files_and_writes_to_three_folders(tmp_path):
    order = order_in(tmp_path, weights={"b" * 64: "/weights/first.pt"})
    assert readable_by(order) == (Path("/data/heart.csv"), Path("/weights/first.pt"), tmp_path / "models")
    assert readable_by(replace(order, dataset=LIST))[:2] == (Path("/data/ct/list.json"), Path("/data/ct"))
    folders = writable_by(order)
    assert folders == (tmp_path / "training/1", tmp_path / "carried/1", tmp_path / "images")
    assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in folders)

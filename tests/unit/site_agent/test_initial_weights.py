"""Training that begins from a file: made, converted, named by a study, loaded, and a released model made whole."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from consortium import simulate as simulation
from consortium.contract.global_model import GlobalModel
from consortium.contract.study import StudyFile
from site_agent.cli import app
from site_agent.errors import WeightsRefused
from site_agent.home import open_home
from site_agent.networks import build_from, layout_of
from site_agent.preparation import Declined, prepare
from site_agent.room_in_process import RoomInProcess
from site_agent.starting_point import objection_to_weights, require_named_file, words_of
from site_agent.store import Decision
from site_agent.trainer import DpTrainer
from site_agent.training_spec import network_spec_of
from site_agent.update import global_model_of
from site_agent.weights_files import converted, drawn, whole, write_new
from tests.fakes.bundle_folder import write_bundle
from tests.fakes.site_world import make_world
from tests.fakes.small_study import DOCUMENT
from tests.fakes.stewards import signed
from tests.unit.contract.test_algorithms import NO_PRIVACY

MLP = {"network": "mlp", "args": {"hidden": [4], "activation": "tanh"}}


def study_with(*, initial: dict[str, Any] | None = None, seed: int = 1, **training: Any) -> StudyFile:
    record = json.loads(json.dumps(DOCUMENT)) | {"model": MLP}
    record["training"] |= {"seed": seed} | training
    if initial is not None:
        record["initial_weights"] = initial
    return StudyFile.model_validate_json(json.dumps(record))


def first_model(study: StudyFile, path: Path | None) -> GlobalModel:
    named = study.initial_weights
    files = {} if named is None or path is None else {named.sha256: str(path)}
    return global_model_of(build_from(network_spec_of(study, files)))


def test_the_file_decides_and_not_the_seed(tmp_path: Path) -> None:
    file = tmp_path / "first.safetensors"
    sha256 = write_new(file, drawn(study_with(seed=7)))
    others = study_with(seed=8, initial={"sha256": sha256})
    assert first_model(others, file).digest() == first_model(study_with(seed=7), None).digest()
    assert first_model(others, file).digest() != first_model(study_with(seed=8), None).digest()
    # What is frozen is the file's too, although it is in no global model.
    part = study_with(seed=8, initial={"sha256": sha256}, trainable=["2.*"])
    module = build_from(network_spec_of(part, {sha256: str(file)}))
    wanted = build_from(network_spec_of(study_with(seed=7)))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), wanted.parameters(), strict=True))
    assert [name for name, _ in layout_of(network_spec_of(part))] == ["2.bias", "2.weight"]  # no file is needed for it
    with pytest.raises(WeightsRefused, match="no path of the file"):
        first_model(others, None)


def test_a_study_without_them_keeps_its_digest() -> None:
    plain = study_with()
    assert b"initial_weights" not in plain.document()
    assert b"adapter" not in plain.document()
    assert study_with(initial={"sha256": "a" * 64}).digest() != plain.digest()


def test_a_backbone_alone_only_where_the_study_says_so(tmp_path: Path) -> None:
    backbone = {"0.weight": torch.full((4, 2), 0.5), "0.bias": torch.zeros(4), "head.weight": torch.zeros(1000, 4)}
    torch.save(backbone, tmp_path / "elsewhere.pt")
    found = converted(study_with(), tmp_path / "elsewhere.pt")
    assert (found.left_out, found.missing) == (("head.weight",), ("2.bias", "2.weight"))
    sha256 = write_new(tmp_path / "backbone.safetensors", found.model)
    with pytest.raises(WeightsRefused, match="2 of 4 parameters are not in the file"):
        first_model(study_with(initial={"sha256": sha256}), tmp_path / "backbone.safetensors")
    part = first_model(study_with(initial={"sha256": sha256, "missing": "drawn"}), tmp_path / "backbone.safetensors")
    drawn_alone = first_model(study_with(), None)
    assert np.array_equal(part.vector[4:12], np.full(8, 0.5, dtype=np.float32))
    assert np.array_equal(part.vector[12:], drawn_alone.vector[12:])


def test_a_whole_simulation_begins_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "first.safetensors"
    sha256 = write_new(file, GlobalModel(drawn(study_with()).parameters, np.full(17, 0.25, dtype=np.float32)))
    study = study_with(initial={"sha256": sha256})
    run = simulation._Run(study, DpTrainer, {sha256: str(file)})
    assert set(run.first_model.vector.tolist()) == {0.25}
    with pytest.raises(WeightsRefused, match="no path of the file"):
        simulation.simulate(study)
    write_new(tmp_path / "other", drawn(study_with()))
    with pytest.raises(WeightsRefused, match="a file with the SHA-256"):
        simulation.simulate(study, weights=tmp_path / "other")


def test_a_hospital_takes_part_if_it_has_the_file(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    sha256 = write_new(tmp_path / "first.safetensors", drawn(world.study))
    changes = {"initial_weights": {"sha256": sha256}, "privacy": NO_PRIVACY}  # with nothing to calibrate and to audit
    study = StudyFile.model_validate_json(json.dumps(json.loads(world.study.document()) | changes))
    approved = Decision(
        study_digest=study.digest(), study=study.study_id, document=study.document(), decision="approved",
        steward="Dr Somebody", statement="", at=1.0, signatures=signed(world.home, world.store, study),
    )  # fmt: skip
    world.store.add_events([], decision=approved)
    with pytest.raises(Declined, match="weights: this hospital does not have"):
        prepare(world.home, world.store, world.ledger, study.digest(), RoomInProcess)
    (words,) = words_of(study, {})
    assert "site.yaml does not list it, so it is refused" in words[1]
    record = yaml.safe_load((tmp_path / "site.yaml").read_text()) | {"weights": {sha256: "first.safetensors"}}
    record["policy"]["allow_no_privacy"] = True
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(record))
    config = open_home(tmp_path).config
    assert objection_to_weights(study, config.weights) is None
    require_named_file(sha256, Path(config.weights[sha256]))
    with pytest.raises(WeightsRefused, match="as it is listed"):
        require_named_file("a" * 64, Path(config.weights[sha256]))
    ready = prepare(open_home(tmp_path), world.store, world.ledger, study.digest(), RoomInProcess)
    assert ready.first_model.digest() == drawn(world.study).digest()


def test_commands_make_convert_and_complete(tmp_path: Path) -> None:
    run, study = CliRunner(), tmp_path / "study.yaml"
    record = json.loads(json.dumps(DOCUMENT)) | {"model": MLP}
    record["governance"]["expires"] = date(2099, 12, 31)
    study.write_text(yaml.safe_dump(record))
    made = run.invoke(app, ["weights", "make", str(study), "--out", str(tmp_path / "a.safetensors")])
    assert made.exit_code == 0
    sha256 = made.output.split("sha256: ")[1].split()[0]
    again = ["weights", "convert", str(tmp_path / "a.safetensors"), "--study", str(study), "--out"]
    assert sha256 in run.invoke(app, [*again, str(tmp_path / "b.safetensors")]).output
    torch.save({"0.bias": torch.zeros(4)}, tmp_path / "little.pt")
    little = ["weights", "convert", str(tmp_path / "little.pt"), "--study", str(study), "--out", str(tmp_path / "c")]
    assert run.invoke(app, little).exit_code == 1
    assert not (tmp_path / "c").exists()
    assert "missing: drawn" in run.invoke(app, [*little, "--partial"]).output
    # A study that trains its last layer alone releases that layer alone.
    record["training"]["trainable"] = ["2.*"]
    record["initial_weights"] = {"sha256": sha256}
    study.write_text(yaml.safe_dump(record))
    released = GlobalModel((("2.bias", (1,)), ("2.weight", (1, 4))), np.arange(5, dtype=np.float32))
    write_new(tmp_path / "released", released)
    export = ["weights", "export", str(study), str(tmp_path / "released"), "--out", str(tmp_path / "whole")]
    assert isinstance(run.invoke(app, export).exception, WeightsRefused)  # it needs the first weights
    assert run.invoke(app, [*export, "--weights", str(tmp_path / "a.safetensors")]).exit_code == 0
    complete, first = GlobalModel.open(tmp_path / "whole"), GlobalModel.open(tmp_path / "a.safetensors")
    assert complete.parameters == first.parameters
    assert np.array_equal(complete.vector[:12], first.vector[:12])
    assert np.array_equal(complete.vector[12:], released.vector)
    with pytest.raises(WeightsRefused, match="a model with other parameters"):
        whole(study_with(), tmp_path / "released")
    with pytest.raises(WeightsRefused, match="the name of a new file"):
        write_new(tmp_path / "whole", complete)


def test_the_weights_of_a_bundle(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    (folder / "models").mkdir()
    torch.save({"0.weight": torch.ones(4, 2), "0.bias": torch.zeros(4)}, folder / "models/model.pt")
    found = converted(study_with(), folder)
    assert [name for name, _ in found.model.parameters] == ["0.bias", "0.weight"]

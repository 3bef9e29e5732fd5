"""Overlays are drawn on demand, of masks alone, into the agent's home, under names that say nothing."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from consortium.contract.names import Digest
from consortium.contract.networks import UNet
from site_agent import overlays
from site_agent.cli import app
from site_agent.cohort import Records
from site_agent.model_folder import ModelFolder
from site_agent.networks import build_from
from site_agent.overlay_picture import side_by_side, slice_shown
from site_agent.overlays import NoOverlays, draw_overlays, pictures
from site_agent.training_spec import network_spec_of
from site_agent.update import global_model_of
from tests.fakes.imaging_study import PICTURES, VOLUMES, imaging_study

DIGEST = Digest("d" * 64)


def study(**changes):
    made = imaging_study(VOLUMES, **{"shape": (16, 24, 16), **changes})
    return made.model_copy(
        update={"model": UNet.model_validate({"network": "unet", "args": {"channels": (4, 8), "res_units": 0}})}
    )


def records(shape, patients=9):
    random = np.random.default_rng(4)
    labels = np.zeros((2 * patients, *shape), dtype=np.float32)
    labels[:, 2:5, 1:3] = 2
    return Records(
        features=random.normal(size=(2 * patients, 1, *shape)).astype(np.float32),
        labels=labels,
        patients=np.repeat(np.arange(patients), 2),
        patient_count=patients,
    )


@pytest.mark.parametrize("shape", [(16, 24), (16, 24, 16)])
def test_a_picture_of_each_of_some_patients(shape):
    made = study(shape=shape)
    model = global_model_of(build_from(network_spec_of(made)))
    drawn = pictures(made, model, None, records(shape), 4)
    assert len(drawn) == 4
    rows, columns = (16, 24) if len(shape) == 2 else (24, 16)  # of a volume: to the front, to the right
    scale = -(-256 // rows)
    assert all(one.shape == (rows * scale, 3 * columns * scale + 8, 3) for one in drawn)
    assert len(pictures(made, model, None, records(shape, patients=2), 4)) == 2


def test_masks_are_coloured_and_the_image_is_not():
    image = np.arange(256, dtype=np.float32).reshape(16, 16)
    truth, predicted = np.zeros((2, 16, 16), dtype=np.int64)
    truth[0, 0], predicted[15, 15] = 1, 2
    found = side_by_side(image, truth, predicted).reshape(16, 16, -1, 3)[:, 0]
    panels = [found[:, start : start + 256 : 16].astype(int) for start in (0, 260, 520)]
    grey = [(panel == panel[..., :1]).all(axis=-1) for panel in panels]
    assert grey[0].all()
    assert np.argwhere(~grey[1]).tolist() == [[0, 0]]
    assert np.argwhere(~grey[2]).tolist() == [[15, 15]]
    assert panels[0][0, 0, 0] == 0
    assert panels[0][15, 15, 0] == 255


def test_an_image_of_one_value_or_without_numbers_is_drawn_black():
    empty = np.zeros((300, 8), dtype=np.int64)
    for value in (7.0, np.nan):
        assert side_by_side(np.full((300, 8), value, dtype=np.float32), empty, empty)[:, :8].max() == 0


def test_the_slice_with_most_to_see_is_shown():
    labels = np.zeros((4, 4, 6), dtype=np.int64)
    assert slice_shown(labels) == 3
    labels[:2, :2, 1] = 2
    labels[0, 0, 4] = 1
    assert slice_shown(labels) == 1


def world(tmp_path, made, *, round_closed=True, dataset="a dataset"):
    model = global_model_of(build_from(network_spec_of(made)))
    ModelFolder(tmp_path / "models").save(model)
    link = SimpleNamespace(round=3, model_digest=model.digest()) if round_closed else None
    config = SimpleNamespace(dataset_for=lambda _: dataset, device="cpu", precision="float32", weights={})
    home = SimpleNamespace(folder=tmp_path, images=None, config=config)
    return home, SimpleNamespace(chain=lambda _: link, withdrawn_marks=lambda: (frozenset(), frozenset(), 0))


def test_they_are_numbered_and_nobody_else_may_look(tmp_path, monkeypatch):
    made = study()
    monkeypatch.setattr(overlays, "read_cohort", lambda *_: SimpleNamespace(test=records((16, 24, 16))))
    home, store = world(tmp_path, made)
    first = draw_overlays(home, store, made, DIGEST, 5)
    assert [path.name for path in first] == ["001.png", "002.png", "003.png", "004.png", "005.png"]
    assert first[0].parent == tmp_path / "overlays" / made.id
    assert {path.stat().st_mode & 0o777 for path in first} == {0o600}
    assert first[0].parent.stat().st_mode & 0o777 == 0o700
    with Image.open(first[0]) as picture:
        assert (picture.format, picture.mode, picture.info) == ("PNG", "RGB", {})
    draw_overlays(home, store, made, DIGEST, 2)
    assert sorted(path.name for path in first[0].parent.iterdir()) == ["001.png", "002.png"]


def test_what_cannot_be_drawn_is_said(tmp_path):
    made = study()
    scored = imaging_study(PICTURES)
    for refused, world_of in (
        (made, {"round_closed": False}),
        (made, {"dataset": None}),
    ):
        home, store = world(tmp_path, made, **world_of)
        with pytest.raises(NoOverlays) as error:
            draw_overlays(home, store, refused, DIGEST, 5)
        assert "once a round" in error.value.advice()
    home, store = world(tmp_path, made)
    with pytest.raises(NoOverlays, match="of type binary, not masks"):
        draw_overlays(home, store, scored, DIGEST, 5)
    assert not (tmp_path / "overlays").exists()


def test_the_command_says_where_they_are(tmp_path, monkeypatch):
    asked = []

    def drawn(folder, name, count):
        asked.append((folder, name, count))
        return tuple(tmp_path / "overlays" / name / f"{number:03}.png" for number in range(1, count + 1))

    monkeypatch.setattr("site_agent.app.overlays_of_study", drawn)
    shown = CliRunner().invoke(app, ["overlays", "livers", "--home", str(tmp_path), "--count", "3"])
    assert shown.exit_code == 0
    assert f"3 pictures (image, true mask, predicted mask) are in {tmp_path / 'overlays' / 'livers'}" in shown.stdout
    assert asked == [(tmp_path, "livers", 3)]
    assert CliRunner().invoke(app, ["overlays", "livers", "--home", str(tmp_path), "--count", "0"]).exit_code == 2

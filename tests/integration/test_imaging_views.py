"""Studies with augmentation and patches from files on disk to the last global model, with and without privacy."""

import numpy as np
import pytest

from consortium.simulate import simulate
from site_agent.cohort import read_cohort
from site_agent.networks import build_from
from site_agent.overlays import pictures
from site_agent.site_file import load_site_file
from site_agent.training_spec import network_spec_of
from site_agent.update import global_model_of
from tests.integration.test_imaging_training import MASKS, study_of, write_masked

VIEWS = MASKS | {
    "augmentation": (
        {"transform": "flip", "axes": (0, 1)},
        {"transform": "affine", "degrees": (15.0,), "shift": (1.0, 1.0)},
        {"transform": "scale-intensity", "limit": 0.1},
    ),
    "patch": {"shape": (8, 8), "per_record": 2, "foreground": 0.7, "overlap": 0.5},
}
UNET = {"network": "unet", "args": {"channels": (8, 16), "res_units": 1}}


@pytest.mark.parametrize("mechanism", ["local-dp-sgd", "none"])
def test_a_network_of_patches_segments_whole_pictures(tmp_path, mechanism):
    study = study_of(VIEWS, model=UNET, loss="dice-cross-entropy", mechanism="local-dp-sgd", rounds=3)
    if mechanism == "none":
        record = study.model_dump(mode="python", by_alias=True, exclude_none=True)
        k = record["privacy"]["max_records_per_patient"]
        record["privacy"] = {
            "mechanism": "none",
            "unit": "patient",
            "justification": "Pictures drawn for this test; nobody is in them.",
            "max_records_per_patient": k,
        }
        study = type(study).model_validate(record)
    assert study.data.input_shape == (1, 8, 8)
    found = simulate(study, data=write_masked(tmp_path, study))
    assert found.last.patients == 52
    assert found.last.dice > found.first.dice + 0.02


def test_overlays_are_of_whole_pictures(tmp_path):
    study = study_of(VIEWS, model=UNET, loss="dice-cross-entropy")
    write_masked(tmp_path, study)
    site = load_site_file(tmp_path / study.sites.roster[0] / "site.yaml")
    test = read_cohort(study, site.dataset_for(study.study_id), None).test
    model = global_model_of(build_from(network_spec_of(study)))
    (drawn,) = pictures(study, model, None, test, 1)
    whole = study.model_copy(update={"data": study.data.model_copy(update={"patch": None})})
    assert drawn.shape == pictures(whole, model, None, test, 1)[0].shape
    assert np.ptp(drawn) > 0

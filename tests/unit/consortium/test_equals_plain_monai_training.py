"""Secure aggregation changes nothing but the last digits: federated training is plain MONAI training.

The other side of each comparison is a loop that anybody would write: MONAI's network, MONAI's loss, torch's optimizer,
and nothing of ours but the first weights. Both take full steps, because a hospital draws its batches by chance.

How far the two may be apart follows from `privacy/encoding.py`: stochastic rounding moves a value by less than one step
of its lane, 1 / scale, so the mean over hospitals is off by less than that in every round. In the ring of 16 bits
that is far more than what float32 leaves open, so that it is the encoding that is looked at.

A round is held to that bound exactly. Over a whole training the network's own steps carry a difference on and may
enlarge it, most of all where it tips a unit over the kink of its activation: `CARRIED` leaves room for that, and what
was learned must still be twenty times more.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses.dice import DiceCELoss
from monai.networks.nets.unet import UNet

from consortium import simulate as simulation
from consortium.contract.layout import round_layout, update_lanes
from consortium.contract.plan import RoundKind
from consortium.contract.study import StudyFile
from site_agent.cohort import Records
from site_agent.update import load_vector, parameter_layout, vector_of
from tests.fakes.imaging_study import PICTURES
from tests.fakes.small_study import DOCUMENT, SITES
from tests.unit.contract.test_algorithms import NO_PRIVACY

SIDE, EACH = 16, 6
CHANNELS = (5, 7, 11)  # of widths that have no divisor but 1, every group norm of a study has one group
RATE = 0.1
CARRIED = 16  # 250 trainings with other draws of the rounding were at most 3 times the sum of their rounds apart


def study_of(sites: Sequence[str], *, modulus_bits: int, local_steps: int) -> StudyFile:
    record = json.loads(json.dumps(DOCUMENT)) | {"privacy": NO_PRIVACY}
    record["sites"] = {"required": list(sites), "minimum": 3}
    record["data"] = {
        **PICTURES,
        "task": "segmentation",
        "shape": [SIDE, SIDE],
        "label": {"type": "mask", "values": [0, 1, 2]},
        "minimum_patients": EACH,
    }
    record["model"] = {"network": "unet", "args": {"channels": CHANNELS, "res_units": 0}}
    record["training"] |= {
        "rounds": 4,
        "local_steps": local_steps,
        "sampling_rate": 1.0,
        "optimizer": {"name": "sgd", "learning_rate": RATE, "momentum": 0.0},
        "loss": "dice-cross-entropy",
    }
    record["aggregation"] |= {"modulus_bits": modulus_bits, "update_clip": 0.25, "max_patients_per_site": 100}
    record["evaluation"] = {"split": "site-held-out", "metrics": ["dice"], "every_rounds": 4}
    return StudyFile.model_validate_json(json.dumps(record))


def pictures(seed: int) -> Records:
    """A hospital's: two kinds of blots on noise, and where they are."""
    random = np.random.default_rng(seed)
    labels = np.zeros((EACH, SIDE, SIDE), dtype=np.float32)
    for mask in labels:
        for kind in (1, 2):
            top, left = random.integers(0, SIDE - 5, 2)
            mask[top : top + 5, left : left + 5] = kind
    features = (labels + random.normal(0, 0.3, labels.shape)).astype(np.float32)[:, None]
    return Records(features=features, labels=labels, patients=np.arange(EACH, dtype=np.int64), patient_count=EACH)


class PlainMonai:
    """The loop of a tutorial, on some records."""

    def __init__(self, parts: Sequence[Records]) -> None:
        self.network = UNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=3,
            channels=CHANNELS,
            strides=(2, 2),
            num_res_units=0,
            norm=("group", {"num_groups": 1}),
        )
        self._images = torch.from_numpy(np.concatenate([one.features for one in parts]))
        self._masks = torch.from_numpy(np.concatenate([one.labels for one in parts]))[:, None]
        self._loss = DiceCELoss(
            include_background=False, to_onehot_y=True, softmax=True, smooth_nr=1.0, smooth_dr=1.0
        )  # fmt: skip
        self._optimizer = torch.optim.SGD(self.network.parameters(), lr=RATE)

    def train(self, model: np.ndarray, steps: int) -> np.ndarray:
        """So many steps from these weights; the weights they lead to."""
        load_vector(self.network, model)
        for _ in range(steps):
            self._optimizer.zero_grad()
            self._loss(self.network(self._images), self._masks).backward()
            self._optimizer.step()
        return vector_of(self.network)


def assert_equal_to_the_encodings_bound(study: StudyFile, cohorts: dict[str, Records], plain: PlainMonai) -> None:
    """Every round from where it started, and the whole training from its first weights."""
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def watch(model: Any, _updates: Any, total: np.ndarray) -> None:
        seen.append((model.vector, total / len(cohorts)))

    run = simulation._Run(study, simulation.DpTrainer)
    first = run.first_model
    assert first.parameters == parameter_layout(plain.network)
    found = run.train(cohorts, say=lambda _: None, watch=watch).vector

    rounds, steps = study.training.rounds, study.training.local_steps
    (lane,) = update_lanes(round_layout(study, parameters=first.parameters, kind=RoundKind.TRAIN, measured=False))
    step = 1 / lane.scale
    # A step of either side rounds each weight, none of which reaches 2, and the sums of its gradient.
    float32 = 2 * 2 * steps * float(np.finfo(np.float32).eps)
    assert np.abs(found).max() < 2
    for model, mean in seen:
        update = plain.train(model, steps) - model
        assert np.abs(update).max() < lane.clip
        assert np.abs(mean - update).max() < step + float32
    expected = plain.train(first.vector, rounds * steps)
    apart = np.abs(found - expected).max()
    assert apart < CARRIED * rounds * (step + float32)
    if study.aggregation.modulus_bits == 16:
        assert apart > rounds * float32  # the encoding was there
    assert np.abs(expected - first.vector).max() > 20 * CARRIED * rounds * (step + float32)  # something was learned


@pytest.mark.parametrize("modulus_bits", [16, 32])
def test_hospitals_with_one_cohort_train_as_one_of_them_would_with_monai_alone(modulus_bits: int) -> None:
    """FedAvg over a single hospital's records: a sum needs three hospitals, so three have the same."""
    study = study_of(SITES[:3], modulus_bits=modulus_bits, local_steps=3)
    one = pictures(0)
    assert_equal_to_the_encodings_bound(study, dict.fromkeys(SITES[:3], one), PlainMonai([one]))


@pytest.mark.parametrize("modulus_bits", [16, 32])
def test_four_hospitals_of_a_kind_train_as_all_their_records_in_one_place(modulus_bits: int) -> None:
    study = study_of(SITES, modulus_bits=modulus_bits, local_steps=1)
    cohorts = {site: pictures(number) for number, site in enumerate(SITES)}
    assert_equal_to_the_encodings_bound(study, cohorts, PlainMonai(list(cohorts.values())))

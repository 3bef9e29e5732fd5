"""Events keep what an accountant needs, and nothing unknown gets in."""

import json

import pytest

from privacy.dp.events import DpEvent, PrivacySpend, Relation, Unit
from privacy.dp.mechanism import PoissonSampledGaussian
from privacy.errors import UnknownEvent

EVENT = DpEvent(mechanism=PoissonSampledGaussian(noise_multiplier=3.4484, sampling_rate=0.2, steps=2, clip_norm_l2=1.0))


def test_an_event_survives_json():
    assert DpEvent.from_dict(json.loads(json.dumps(EVENT.to_dict()))) == EVENT


def test_an_event_says_whose_privacy_it_is_about():
    record = EVENT.to_dict()
    assert (record["unit"], record["relation"]) == ("patient", "add-or-remove-one")


def test_other_steps_are_the_same_mechanism():
    assert EVENT.with_steps(40).mechanism.steps == 40
    assert EVENT.with_steps(2) == EVENT


@pytest.mark.parametrize(
    "change",
    [
        {"mechanism": "laplace"},
        {"mechanism": None},
        {"unit": "record"},
        {"relation": "replace-one"},
        {"noise_multiplier": 0},
        {"noise_multiplier": "3"},
        {"noise_multiplier": True},
        {"noise_multiplier": float("nan")},
        {"sampling_rate": 2},
        {"steps": 0},
        {"steps": 2.0},
        {"steps": True},
        {"clip_norm_l2": -1},
        {"extra": 1},
    ],
)
def test_what_is_not_known_is_refused(change):
    with pytest.raises(UnknownEvent):
        DpEvent.from_dict(EVENT.to_dict() | change)


@pytest.mark.parametrize("field", sorted(EVENT.to_dict()))
def test_a_missing_field_is_refused(field):
    record = EVENT.to_dict()
    del record[field]
    with pytest.raises(UnknownEvent):
        DpEvent.from_dict(record)


def test_a_spend_is_about_patients_by_default():
    spend = PrivacySpend(epsilon=1.0, delta=1e-3)
    assert (spend.unit, spend.relation) == (Unit.PATIENT, Relation.ADD_OR_REMOVE_ONE)

"""Events keep what an accountant needs, and nothing unknown gets in."""

import json

import pytest

from privacy.dp.events import KNOWN, DpEvent, PrivacySpend, Relation, Unit
from privacy.dp.mechanism import PoissonSampledDiscreteGaussian, PoissonSampledGaussian
from privacy.errors import UnknownEvent

EVENT = DpEvent(mechanism=PoissonSampledGaussian(noise_multiplier=3.4484, sampling_rate=0.2, steps=2, clip_norm_l2=1.0))
SHARED = DpEvent(
    mechanism=PoissonSampledDiscreteGaussian(
        noise_multiplier=3.4484,
        sampling_rate=0.2,
        steps=2,
        clip_norm_l2=1.0,
        shares=3,
        grid_spacing=2.0**-22,
        dimension=21,
    )
)
BOTH = pytest.mark.parametrize("event", [EVENT, SHARED], ids=KNOWN)


@BOTH
def test_an_event_survives_json(event):
    assert DpEvent.from_dict(json.loads(json.dumps(event.to_dict()))) == event


@BOTH
def test_an_event_says_whose_privacy_it_is_about(event):
    record = event.to_dict()
    assert (record["unit"], record["relation"]) == ("patient", "add-or-remove-one")


def test_an_event_says_what_kind_it_is():
    assert (EVENT.kind, SHARED.kind) == KNOWN == ("poisson-sampled-gaussian", "poisson-sampled-discrete-gaussian")
    assert [one.to_dict()["mechanism"] for one in (EVENT, SHARED)] == list(KNOWN)


@BOTH
def test_other_steps_are_the_same_mechanism(event):
    assert event.with_steps(40).mechanism.steps == 40
    assert event.with_steps(40).kind == event.kind
    assert event.with_steps(2) == event


@BOTH
@pytest.mark.parametrize(
    "change",
    [
        {"mechanism": "laplace"},
        {"mechanism": None},
        {"mechanism": ["poisson-sampled-gaussian"]},
        {"unit": "record"},
        {"relation": "replace-one"},
        {"noise_multiplier": 0},
        {"noise_multiplier": "3"},
        {"noise_multiplier": True},
        {"noise_multiplier": float("nan")},
        {"noise_multiplier": 10**400},
        {"sampling_rate": 2},
        {"steps": 0},
        {"steps": 2.0},
        {"steps": True},
        {"clip_norm_l2": -1},
        {"extra": 1},
    ],
)
def test_what_is_not_known_is_refused(event, change):
    with pytest.raises(UnknownEvent):
        DpEvent.from_dict(event.to_dict() | change)


@pytest.mark.parametrize(
    "change",
    [
        {"shares": 0},
        {"shares": 3.0},
        {"shares": True},
        {"dimension": 0},
        {"dimension": 10**12},
        {"grid_spacing": 0.3},
        {"grid_spacing": 1.0},
        {"grid_spacing": "1"},
        {"mechanism": "poisson-sampled-gaussian"},
    ],
)
def test_shares_that_make_no_sense_are_refused(change):
    with pytest.raises(UnknownEvent):
        DpEvent.from_dict(SHARED.to_dict() | change)


@BOTH
def test_a_missing_field_is_refused(event):
    for field in event.to_dict():
        record = event.to_dict()
        del record[field]
        with pytest.raises(UnknownEvent):
            DpEvent.from_dict(record)


def test_a_spend_is_about_patients_by_default():
    spend = PrivacySpend(epsilon=1.0, delta=1e-3)
    assert (spend.unit, spend.relation) == (Unit.PATIENT, Relation.ADD_OR_REMOVE_ONE)

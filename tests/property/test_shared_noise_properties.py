"""For any consortium and ring a study file allows, shared noise is refused by name, or it is what it says.

Calibration is with the Renyi bound in the place of loss distributions: a bound too, and a hundred times quicker, so
that more studies can be tried. What is held here does not depend on which of the two it was.
"""

import json
import math

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from consortium.contract.errors import Problem
from consortium.contract.layout import round_layout, update_lanes
from consortium.contract.plan import RoundKind
from consortium.contract.shared_noise import NoiseRefused, shared_noise
from consortium.contract.study import StudyFile
from privacy.dp import accountant, calibrate
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import SHARE_STD_MIN, TAIL_PROBABILITY, noisy_share
from privacy.dp.randomness import CryptographicGenerator
from privacy.encoding import decode, encode
from privacy.secret import Secret
from tests.fakes.small_study import DOCUMENT

PATHS = ("aggregation", "aggregation.update_clip")
"""What a refusal names."""


@pytest.fixture(scope="module", autouse=True)
def quick_calibration():
    """The bound instead of the figure; nothing of it is kept for other tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calibrate, "epsilon", accountant.renyi_epsilon)
        patched.setattr(calibrate, "calibrate_shares", calibrate.calibrate_shares.__wrapped__)
        yield


@st.composite
def studies(draw):
    """n hospitals, threshold t and c that collude with 2t > n + c; any ring, clip and length of the update."""
    n = draw(st.integers(3, 40))
    c = draw(st.integers(0, max(0, n // 3)))
    t = draw(st.integers((n + c) // 2 + 1, n))
    record = json.loads(json.dumps(DOCUMENT))
    record["sites"] = {"required": [f"hospital-{number:02}" for number in range(n)], "minimum": draw(st.integers(3, n))}
    features = {
        f"input-{number}": {"type": "number", "range": [0.0, 1.0]} for number in range(draw(st.integers(1, 30)))
    }
    record["data"]["features"] = features
    record["training"] |= {
        "rounds": draw(st.sampled_from([1, 10, 100])),
        "spare_rounds": draw(st.integers(0, 5)),
        "sampling_rate": draw(st.sampled_from([0.02, 0.2, 1.0])),
    }
    record["privacy"] |= {
        "mechanism": "distributed-dp-sgd",
        "epsilon": draw(st.sampled_from([1.0, 3.0, 10.0])),
        "clip_norm_l2": draw(st.floats(1e-3, 100.0)),
        "colluding": c,
    }
    record["aggregation"] |= {
        "threshold": t,
        "modulus_bits": draw(st.sampled_from([16, 32, 32, 64, 64])),
        "update_clip": min(1e6, record["privacy"]["clip_norm_l2"] * 2.0 ** draw(st.floats(0, 14))),
        "max_patients_per_site": 50,
    }
    try:
        return StudyFile.model_validate_json(json.dumps(record))
    except ValidationError:  # the file itself is refused, for instance for a ring too small for so many hospitals
        assume(False)
        raise


def noise_or_problem(study):
    try:
        return shared_noise(study)
    except NoiseRefused as error:
        return error.problem


@settings(max_examples=200, deadline=None)
@given(study=studies(), key=st.binary(min_size=32, max_size=32))
def test_it_is_refused_by_name_or_it_is_wide_enough_private_enough_and_carried_exactly(study, key):
    noise = noise_or_problem(study)
    if isinstance(noise, Problem):
        event(f"refused: {noise.path}")
        assert noise.path in PATHS
        assert noise.allowed
        return
    event(f"a ring of {study.aggregation.modulus_bits} bits")
    mechanism, n = noise.mechanism, len(study.sites.required)
    t, c = study.aggregation.threshold, study.privacy.colluding

    # A share is wide enough for the sum of shares to be as good as one discrete Gaussian.
    share = mechanism.share_std / mechanism.grid_spacing
    assert share >= SHARE_STD_MIN
    # Whoever survives, without the colluding ones: at least the noise that keeps the study's epsilon.
    planned = DpEvent(mechanism=mechanism)
    assert mechanism.steps == study.training.rounds + study.training.spare_rounds
    assert accountant.renyi_epsilon([planned], delta=study.privacy.delta) <= study.privacy.epsilon
    for survivors in (t, n):
        left = (survivors - c) * mechanism.share_std**2
        assert left >= mechanism.noise_std**2 * (1 - 1e-12)

    # Each vector is within the lane's clip but for the stated probability, and n such vectors do not wrap, exactly.
    layout = round_layout(study, parameters=study.parameters, kind=RoundKind.TRAIN, measured=False)
    (lane,) = update_lanes(layout)
    assert (lane.scale, lane.length) == (1 / mechanism.grid_spacing, mechanism.dimension)
    deviations = mechanism.share_tail / mechanism.share_std
    assert 2 * math.exp(-(deviations**2) / 2) * mechanism.dimension <= TAIL_PROBABILITY * (1 + 1e-9)
    assert noise.sum_bound >= study.privacy.clip_norm_l2
    most_steps = math.floor(lane.clip * lane.scale)
    assert math.floor(noise.sum_bound * lane.scale) + round(mechanism.share_tail * lane.scale) <= most_steps
    assert n * most_steps < 2 ** (layout.modulus_bits - 1)

    # Whole steps travel as they are: noisy vectors of everybody, and the largest that there can be.
    entropy = CryptographicGenerator(lambda size: key[:size])
    clean = np.full(mechanism.dimension, 2**62) * np.resize([1, -1], mechanism.dimension)
    vectors = [noisy_share(clean, mechanism, noise.sum_bound, entropy) for _ in range(n)]
    largest = [np.full(mechanism.dimension, most_steps)] * n
    for steps in (vectors, largest):
        total = np.zeros(layout.length, dtype=layout.dtype)
        for vector in steps:
            values = {"update": vector * mechanism.grid_spacing, "weight": np.ones(1)}
            total += encode(values, layout, Secret(key))
        decoded = decode(total, layout, survivors=n)["update"] / mechanism.grid_spacing
        assert decoded.tolist() == np.sum(steps, axis=0).tolist()

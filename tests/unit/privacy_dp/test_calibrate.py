"""The least noise that keeps a promise, never a little less."""

import math
import time

import pytest

from privacy.dp import accountant
from privacy.dp.calibrate import calibrate, calibrate_shares
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledDiscreteGaussian, PoissonSampledGaussian
from privacy.errors import LocalProtocolError


@pytest.mark.parametrize(
    ("target", "delta", "rate", "steps"),
    [(1.0, 1e-3, 0.2, 40), (3.0, 1e-3, 0.2, 40), (10.0, 1e-3, 0.2, 40), (1.0, 1e-5, 1.0, 1), (0.1, 1e-5, 0.05, 100)],
)
def test_keeps_the_target_and_a_hair_less_noise_does_not(target, delta, rate, steps):
    found = calibrate(epsilon_target=target, delta=delta, sampling_rate=rate, steps=steps)
    assert accountant.epsilon([DpEvent(mechanism=found)], delta=delta) <= target
    less = PoissonSampledGaussian(
        noise_multiplier=found.noise_multiplier - 1e-4, sampling_rate=rate, steps=steps, clip_norm_l2=1.0
    )
    assert accountant.epsilon([DpEvent(mechanism=less)], delta=delta) > target


def test_is_a_whole_number_of_ten_thousandths():
    found = calibrate(epsilon_target=1.0, delta=1e-3, sampling_rate=0.2, steps=40)
    assert found.noise_multiplier == round(found.noise_multiplier, 4)


def test_carries_the_clip_norm():
    found = calibrate(epsilon_target=1.0, delta=1e-3, sampling_rate=0.2, steps=40, clip_norm_l2=0.5)
    assert (found.clip_norm_l2, found.steps, found.sampling_rate) == (0.5, 40, 0.2)


def test_the_heart_study_is_calibrated_while_one_waits():
    accountant.epsilon(
        [DpEvent(mechanism=PoissonSampledGaussian(noise_multiplier=5.0, sampling_rate=0.5, steps=1, clip_norm_l2=1.0))],
        delta=1e-3,
    )  # the library is loaded
    calibrate.cache_clear()
    start = time.process_time()
    calibrate(epsilon_target=1.0, delta=1e-3, sampling_rate=0.2, steps=40)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("target", [0.0, -1.0, math.inf, math.nan])
def test_a_target_is_a_number(target):
    with pytest.raises(LocalProtocolError, match="target epsilon"):
        calibrate(epsilon_target=target, delta=1e-3, sampling_rate=0.2, steps=40)


def test_a_target_that_needs_no_noise_is_refused():
    with pytest.raises(LocalProtocolError, match="not a protection"):
        calibrate(epsilon_target=100.0, delta=0.5, sampling_rate=1.0, steps=1)


def test_a_target_no_noise_can_keep_is_refused():
    with pytest.raises(LocalProtocolError, match="no noise multiplier"):
        calibrate(epsilon_target=1e-6, delta=1e-10, sampling_rate=1.0, steps=10_000)


def shares_for(target=1.0, **changes):
    fields = {
        "delta": 1e-3,
        "sampling_rate": 0.2,
        "steps": 40,
        "clip_norm_l2": 1.0,
        "shares": 3,
        "grid_spacing": 2.0**-22,
        "dimension": 21,
    }
    return calibrate_shares(epsilon_target=target, **(fields | changes))


@pytest.mark.parametrize(
    ("target", "changes"),
    [
        (1.0, {}),
        (3.0, {"shares": 1}),
        (10.0, {"clip_norm_l2": 0.25}),
        (3.0, {"dimension": 7_000_000, "steps": 200, "sampling_rate": 0.05, "delta": 1e-5}),
    ],
)
def test_shares_keep_the_target_and_a_hair_less_noise_does_not(target, changes):
    found = shares_for(target, **changes)
    delta = changes.get("delta", 1e-3)
    assert accountant.epsilon([DpEvent(mechanism=found)], delta=delta) <= target
    fields = {name: getattr(found, name) for name in found.__slots__}
    less = PoissonSampledDiscreteGaussian(**(fields | {"noise_multiplier": found.noise_multiplier - 1e-4}))
    assert accountant.epsilon([DpEvent(mechanism=less)], delta=delta) > target


def test_shares_need_no_more_noise_together_than_one_gaussian():
    assert (
        shares_for().noise_multiplier
        == calibrate(epsilon_target=1.0, delta=1e-3, sampling_rate=0.2, steps=40).noise_multiplier
    )


def test_a_grid_too_coarse_for_little_noise_is_refused():
    with pytest.raises(LocalProtocolError, match="wide enough for the grid"):
        shares_for(10.0, grid_spacing=2.0**-7)


def test_a_grid_too_coarse_for_a_long_vector_is_refused():
    with pytest.raises(LocalProtocolError, match="choose a ring with more bits"):
        shares_for(1.0, grid_spacing=2.0**-7, shares=2, dimension=4000, steps=20_000, sampling_rate=0.01, delta=1e-6)


@pytest.mark.parametrize(("spacing", "bits"), [(2.0**-58, "fewer"), (2.0**13, "more")])
def test_a_grid_that_no_noise_fits_is_refused(spacing, bits):
    with pytest.raises(LocalProtocolError, match=f"a ring with {bits} bits"):
        shares_for(1.0, grid_spacing=spacing)


def test_a_grid_too_fine_for_whole_numbers_is_refused():
    with pytest.raises(LocalProtocolError, match="no noise multiplier up to"):
        shares_for(1.0, grid_spacing=2.0**-41, shares=1)

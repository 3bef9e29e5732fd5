"""Clip, round, sum, add noise: what the accountant is told is what happens."""

import numpy as np
import pytest

from privacy.dp.mechanism import Grid, PoissonSampledGaussian, clip_to_grid, noisy
from privacy.dp.randomness import CryptographicGenerator
from privacy.errors import LocalProtocolError
from tests.fakes.training import entropy_of


def mechanism(**changes):
    fields = {"noise_multiplier": 2.0, "sampling_rate": 0.2, "steps": 40, "clip_norm_l2": 1.0} | changes
    return PoissonSampledGaussian(**fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("noise_multiplier", 0.0),
        ("noise_multiplier", 0.0999),
        ("noise_multiplier", float("inf")),
        ("noise_multiplier", float("nan")),
        ("sampling_rate", 0.0),
        ("sampling_rate", 1.0001),
        ("sampling_rate", float("nan")),
        ("steps", 0),
        ("steps", 10_000_001),
        ("clip_norm_l2", 0.0),
        ("clip_norm_l2", -1.0),
        ("clip_norm_l2", float("inf")),
        ("clip_norm_l2", float("nan")),
    ],
)
def test_refuses_what_protects_nobody(field, value):
    with pytest.raises(LocalProtocolError, match=field):
        mechanism(**{field: value})


def test_noise_is_in_multiples_of_the_clip_norm():
    assert mechanism(noise_multiplier=3.0, clip_norm_l2=0.5).noise_std == 1.5


def test_a_clipped_vector_is_within_the_norm_also_after_rounding():
    grid = Grid.of(mechanism(), 1000)
    random = np.random.default_rng(1)
    for scale in (0.01, 1.0, 1e6):
        total, _ = clip_to_grid(scale * random.normal(size=(1, 1000)), grid)
        assert np.linalg.norm(total * grid.spacing) <= 1.0


def test_a_short_vector_keeps_its_values():
    grid = Grid.of(mechanism(), 3)
    total, clipped = clip_to_grid(np.array([[0.25, -0.5, 0.125]]), grid)
    assert clipped == 0
    assert total * grid.spacing == pytest.approx([0.25, -0.5, 0.125], abs=grid.spacing)


def test_a_long_vector_keeps_its_direction():
    grid = Grid.of(mechanism(), 2)
    total, clipped = clip_to_grid(np.array([[30.0, 40.0]]), grid)
    assert clipped == 1
    assert total * grid.spacing == pytest.approx([0.6, 0.8], abs=1e-8)


@pytest.mark.parametrize("largest", [1e200, 1.7e308])
def test_a_huge_finite_vector_is_clipped_not_lost(largest):
    grid = Grid.of(mechanism(), 2)
    total, clipped = clip_to_grid(np.array([[largest, 0.0]]), grid)
    assert clipped == 1
    assert total[0] * grid.spacing == pytest.approx(1.0)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_a_zero(broken):
    grid = Grid.of(mechanism(), 2)
    rows = np.array([[0.25, 0.5], [broken, 0.5]])
    total, clipped = clip_to_grid(rows, grid)
    alone, _ = clip_to_grid(rows[:1], grid)
    assert clipped == 0
    assert (total == alone).all()


def test_no_rows_is_a_sum_of_zeros():
    total, clipped = clip_to_grid(np.zeros((0, 4)), Grid.of(mechanism(), 4))
    assert (total == 0).all()
    assert clipped == 0


def test_the_sum_does_not_depend_on_the_order_of_patients():
    grid = Grid.of(mechanism(), 7)
    random = np.random.default_rng(2)
    rows = random.normal(size=(500, 7)) * 10.0 ** random.integers(-8, 8, size=(500, 1))
    total, _ = clip_to_grid(rows, grid)
    for _ in range(5):
        again, _ = clip_to_grid(random.permutation(rows), grid)
        assert (again == total).all()


def test_adding_a_patient_moves_the_sum_by_at_most_the_norm():
    grid = Grid.of(mechanism(), 9)
    random = np.random.default_rng(3)
    rows = random.normal(size=(50, 9)) * 3
    without, _ = clip_to_grid(rows[1:], grid)
    with_one, _ = clip_to_grid(rows, grid)
    assert np.linalg.norm((with_one - without) * grid.spacing) <= 1.0


def test_every_output_is_on_the_grid():
    # Mironov 2012: low-order bits of a floating-point sum tell which sums are possible. Here there are none.
    generator = CryptographicGenerator(entropy_of("grid"))
    grid = Grid.of(mechanism(), 1000)
    total, _ = clip_to_grid(np.random.default_rng(4).normal(size=(20, 1000)), grid)
    steps = noisy(total, 2.0, grid, generator) / grid.spacing
    assert (steps == np.rint(steps)).all()
    assert np.log2(grid.spacing) == round(np.log2(grid.spacing))
    assert 2**32 <= 2.0 / grid.spacing < 2**33


def test_noise_has_the_standard_deviation_it_is_told():
    generator = CryptographicGenerator(entropy_of("std"))
    grid = Grid.of(mechanism(), 200_000)
    values = noisy(np.zeros(200_000, dtype=np.int64), 2.0, grid, generator)
    assert values.std() == pytest.approx(2.0, rel=0.01)
    assert values.mean() == pytest.approx(0.0, abs=0.02)


def test_a_vector_too_long_for_its_grid_is_refused():
    with pytest.raises(LocalProtocolError, match="coordinates"):
        Grid.of(mechanism(noise_multiplier=1e6), 10**9)

"""D-11: a distributed study counts on shares of noise that need not be in its sums, or leaves its grid out of account.

At n hospitals, threshold t and c that collude, a sum may be over t of them, and the shares of c are known to whoever
colludes: h = t - c are left. The grid moves every patient a little after clipping, and a lane too narrow for a share's
tail would cut the noise. Held by: `consortium/contract/shared_noise.py` and `privacy.dp.mechanism.Grid`.
Tried: rows d11 of `mutations.py`.
"""

import json

import numpy as np
import pytest

from consortium.contract.shared_noise import NoiseRefused, shared_noise
from consortium.contract.study import StudyFile
from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import Grid, PoissonSampledDiscreteGaussian, clip_to_grid
from tests.fakes.small_study import DOCUMENT

THRESHOLD = DOCUMENT["aggregation"]["threshold"]


def distributed(*, colluding=0, update_clip=64.0, **training):
    record = json.loads(json.dumps(DOCUMENT))
    record["privacy"] |= {"mechanism": "distributed-dp-sgd", "colluding": colluding}
    record["aggregation"]["update_clip"] = update_clip
    record["training"] |= training
    return StudyFile.model_validate_json(json.dumps(record))


@pytest.mark.parametrize("colluding", [0, 1])
def test_a_sum_of_the_fewest_hospitals_without_the_colluding_ones_has_all_the_noise(colluding):
    study = distributed(colluding=colluding)
    mechanism = shared_noise(study).mechanism
    honest = THRESHOLD - colluding
    left = mechanism.with_shares(honest)
    assert honest * mechanism.share_std**2 == pytest.approx(left.noise_std**2)
    assert accountant.epsilon([DpEvent(mechanism=left)], delta=study.privacy.delta) <= study.privacy.epsilon


def test_every_round_and_every_spare_one_is_paid_for():
    study = distributed(rounds=3, spare_rounds=4)
    mechanism = shared_noise(study).mechanism
    every = DpEvent(mechanism=mechanism).with_steps(7)
    assert accountant.epsilon([every], delta=study.privacy.delta) <= study.privacy.epsilon


def test_rounding_to_the_grid_moves_nobody_beyond_the_clip_norm():
    """On a coarse grid, with vectors that rounding makes longer in every coordinate."""
    dimension, spacing = 100, 2.0**-8
    mechanism = PoissonSampledDiscreteGaussian(
        noise_multiplier=5.0,
        sampling_rate=0.5,
        steps=1,
        clip_norm_l2=1.0,
        shares=3,
        grid_spacing=spacing,
        dimension=dimension,
    )
    grid = Grid.of(mechanism, dimension)
    # Clipped to 1, every coordinate is 0.1 = 25.6 steps and becomes 26: together 1.016.
    total, clipped = clip_to_grid(np.full((1, dimension), 10.0), grid)
    assert clipped == 1
    assert 0.9 < np.linalg.norm(total * spacing) <= mechanism.clip_norm_l2


def test_a_lane_too_narrow_for_the_noise_is_refused():
    with pytest.raises(NoiseRefused, match="the noise of one hospital may take") as caught:
        shared_noise(distributed(update_clip=4.0))
    assert caught.value.problem.path == "aggregation.update_clip"

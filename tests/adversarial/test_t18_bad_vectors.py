"""Threat 18: an update with NaN, of the wrong length or ring, or out of range, is refused before anything is sent."""

import numpy as np
import pytest

from privacy.encoding import encode
from privacy.errors import EncodingRefused
from privacy.secagg import site
from privacy.secagg.masks import RunningSum
from privacy.secagg.messages import Phase
from tests.fakes.memory_round import MemoryRound, consortium, site_name

GROUP = consortium(4)
A, B = site_name(0), site_name(1)
GOOD = {"update": np.zeros(5), "weight": np.array([50.0])}


@pytest.mark.parametrize(
    ("lane", "values"),
    [
        ("update", np.array([0, 0, np.nan, 0, 0])),
        ("update", np.array([0, 0, np.inf, 0, 0])),
        ("update", np.zeros(4)),
        ("update", np.zeros(6)),
        ("update", np.zeros((5, 1))),
        ("weight", np.array([101.0])),
        ("weight", np.array([0.5])),
        ("weight", np.array([np.nan])),
    ],
)
def test_the_site_sends_nothing_and_is_a_dropout(lane, values):
    with pytest.raises(EncodingRefused) as caught:
        encode({**GOOD, lane: values}, GROUP.context.layout, encode_seed())
    round_ = MemoryRound(GROUP)
    round_.run(until=Phase.MASK)
    masking, _ = site.step(round_.site_states[A], round_.request_for(A))
    ended, effects = site.step(masking, site.AttemptEnded(reason=caught.value))
    assert ended.reason.lane == lane
    assert effects == (site.Abandon(reason=caught.value),)


def encode_seed():
    round_ = MemoryRound(GROUP)
    round_.run(until=Phase.MASK)
    return site.step(round_.site_states[A], round_.request_for(A))[0].dither


def test_out_of_range_values_have_no_more_weight_than_the_clip():
    values = {
        name: {"update": np.full(5, 1e30 if name == A else 0.5), "weight": np.array([1])}
        for name in GROUP.context.sites
    }
    round_ = MemoryRound(GROUP, values=values)
    round_.run()
    assert round_.sums()["update"] == [1.0 + 3 * 0.5] * 5


@pytest.mark.parametrize("vector", [np.zeros(5, np.uint32), np.zeros(7, np.uint32), np.zeros(6, np.uint64)])
def test_the_running_sum_takes_only_its_own_ring_and_length(vector):
    with pytest.raises(EncodingRefused):
        RunningSum(GROUP.context.layout).add(vector)

"""Whole rounds in memory in every ring, with the lanes of a study: keys, masks, a dropout, and exact sums."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from consortium.contract.global_model import GlobalModel
from consortium.contract.layout import round_layout, update_lanes
from consortium.contract.names import SiteId
from consortium.contract.plan import RoundKind
from consortium.contract.server_optimizer import federated_average
from consortium.contract.study import StudyFile, load_study
from privacy.encoding import Layout, decode
from privacy.secagg.messages import Phase
from tests.fakes.memory_round import Link, MemoryRound, consortium, random_values

HEART = load_study(Path(__file__).parents[2] / "configs/heart-disease/study.yaml")
PARAMETERS = (("0.bias", (4,)), ("0.weight", (4, 6)), ("2.bias", (1,)), ("2.weight", (1, 4)))
COUNT = 4 + 24 + 1 + 4
CLIPS = {"*.bias": 0.01, "2.weight": 2.0}
PATIENTS = {16: 1000, 32: 100_000, 64: 10_000_000}
DOUBLE = 1e-15  # beyond 2^53 steps, what a double can tell apart is coarser than a step
EXTREMES = (1.0, -1.0, 3.0, -3.0)  # times the clip: at it, and beyond


def layout_in(bits: int, sites: int) -> Layout:
    names = tuple(SiteId(f"site-{number:03}") for number in range(sites))
    aggregation = HEART.aggregation.model_copy(
        update={
            "modulus_bits": bits,
            "update_clip": 1.0,
            "tensor_clips": CLIPS,
            "max_patients_per_site": PATIENTS[bits],
        }
    )
    study: StudyFile = HEART.model_copy(
        update={
            "sites": HEART.sites.model_copy(update={"required": names}),
            "training": HEART.training.model_copy(update={"weighting": "patients"}),
            "aggregation": aggregation,
        }
    )
    return round_layout(study, parameters=PARAMETERS, kind=RoundKind.TRAIN, measured=True)


@pytest.mark.parametrize("dropout", [None, Phase.ADVERTISE, Phase.MASK], ids=["all", "lost early", "lost late"])
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_the_sum_is_exact_in_every_ring(bits: int, dropout: Phase | None) -> None:
    group = consortium(5, layout=layout_in(bits, 5))
    links = {} if dropout is None else {group.members[1].site: Link(lose_reply=dropout)}
    round_ = MemoryRound(group, links=links)
    round_.run()
    assert len(round_.survivors) == (5 if dropout is None else 4)
    assert np.array_equal(round_.aggregate(), round_.plain_aggregate())
    layout = group.context.layout
    sums = decode(round_.aggregate(), layout, survivors=len(round_.survivors))
    for lane in layout.lanes:
        values = sum(round_.values[site][lane.name] for site in round_.survivors)
        if lane.is_count:
            assert sums[lane.name].tolist() == values.tolist(), lane.name
        else:
            assert np.abs(sums[lane.name] - values).max() <= len(round_.survivors) / lane.scale + DOUBLE * lane.clip


@pytest.mark.parametrize("factor", EXTREMES)
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_every_hospital_at_its_clip_does_not_wrap(bits: int, factor: float) -> None:
    """The largest sum there can be, in each lane: the clip times the hospitals, of the right sign."""
    group = consortium(5, layout=layout_in(bits, 5))
    layout = group.context.layout
    sign = np.sign(factor)
    values = {
        member.site: {
            lane.name: np.full(lane.length, lane.clip * (sign if lane.is_count else factor)) for lane in layout.lanes
        }
        for member in group.members
    }
    round_ = MemoryRound(group, values=values)
    round_.run()
    sums = decode(round_.aggregate(), layout, survivors=5)
    for lane in layout.lanes:
        # Exact where C*S is a whole number; otherwise each hospital rounds its own last step, and the clip is the clip.
        slack = 0.0 if (Fraction(lane.clip) * Fraction(lane.scale)).denominator == 1 else 5 / lane.scale
        assert np.abs(sums[lane.name] - 5 * sign * lane.clip).max() <= slack + DOUBLE * lane.clip, lane.name


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_the_next_model_is_the_weighted_mean_of_what_was_quantised(bits: int) -> None:
    group = consortium(4, layout=layout_in(bits, 4))
    layout, weight_max = group.context.layout, float(PATIENTS[bits])
    weights = dict(zip((m.site for m in group.members), (30.0, 97.0, 301.0, 999.0), strict=True))
    values = random_values(group, "weighted")
    for site, lanes in values.items():
        lanes["weight"] = np.array([weights[site]])
        for lane in update_lanes(layout):
            lanes[lane.name] *= weights[site] / weight_max
    round_ = MemoryRound(group, values=values)
    round_.run()
    before = GlobalModel(PARAMETERS, np.random.default_rng(1).normal(size=COUNT).astype(np.float32))
    sums = decode(round_.aggregate(), layout, survivors=4)
    after = federated_average(before, sums, weight_max=weight_max, server_learning_rate=1.0)

    encoded = [round_.encoded[site].view(f"<i{bits // 8}") for site in round_.survivors]
    share = Fraction(sum(int(weight) for weight in weights.values())) / Fraction(weight_max)
    scales = [Fraction(lane.scale) for lane in update_lanes(layout) for _ in range(lane.length)]
    for position, scale in enumerate(scales):
        mean = Fraction(sum(int(vector[position]) for vector in encoded)) / scale / share
        exact = Fraction(float(before.vector[position])) + mean
        assert after.vector[position] == np.float32(float(exact))
    assert len(scales) == COUNT

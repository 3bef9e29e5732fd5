"""FedAvg on sums: the same bytes at the coordinator and at every site."""

from typing import Any

import numpy as np
import pytest

from consortium.contract.global_model import GlobalModel
from consortium.contract.plan import RoundKind
from consortium.contract.server_optimizer import AggregateRefused, federated_average, next_global_model
from privacy.encoding import Lane, Layout, decode
from tests.fakes.attempt_play import Play
from tests.fakes.small_study import first_model, small_study


def average(sums: dict[str, Any], *, weight_max: float = 1.0, rate: float = 1.0, fill: float = 0.0) -> list[float]:
    values = {name: np.asarray(value, np.float64) for name, value in sums.items()}
    moved = federated_average(first_model(fill=fill), values, weight_max=weight_max, server_learning_rate=rate)
    assert moved.vector.dtype == np.float32
    return moved.vector.tolist()


def test_uniform_weights_give_the_mean() -> None:
    updates = np.array([[0.5, -1.0, 0.25], [1.5, 1.0, 0.25], [1.0, 3.0, 0.25], [0.0, 0.0, 0.25]])
    assert average({"update": updates.sum(0), "weight": [4.0]}, fill=1.0) == [1.75, 1.75, 1.25]


def test_patients_as_weights_give_the_weighted_mean() -> None:
    # Updates travel multiplied by weight / W_max, so that none exceeds its clip (protocol section 5).
    weights, weight_max = np.array([100.0, 300.0, 400.0]), 1000.0
    updates = np.array([[0.5, -1.0, 0.25], [1.5, 1.0, 0.5], [1.0, 3.0, 0.75]])
    scaled = (updates * (weights / weight_max)[:, None]).sum(0)
    found = average({"update": scaled, "weight": [weights.sum()]}, weight_max=weight_max)
    expected = np.average(updates, axis=0, weights=weights).astype(np.float32)
    assert found == pytest.approx(expected.tolist(), abs=1e-7)


def test_the_server_learning_rate_scales_the_step() -> None:
    assert average({"update": [4.0, 4.0, 4.0], "weight": [4.0]}, rate=0.5, fill=1.0) == [1.5, 1.5, 1.5]


def test_rounding_happens_once_from_float64() -> None:
    model = first_model(fill=1.0)
    sums = {"update": np.full(3, 1e-8), "weight": np.array([1.0])}
    moved = federated_average(model, sums, weight_max=1.0, server_learning_rate=1.0)
    assert moved.vector.tolist() == np.full(3, np.float64(1.0) + 1e-8).astype(np.float32).tolist()
    tenth = {"update": np.full(3, 0.3), "weight": np.array([3.0])}
    moved = federated_average(first_model(), tenth, weight_max=1.0, server_learning_rate=1.0)
    assert moved.vector.tolist() == np.full(3, 0.3 / 3.0).astype(np.float32).tolist()


def test_repeating_it_gives_the_same_digest() -> None:
    generator = np.random.default_rng(1)
    sums = {"update": generator.normal(size=3), "weight": np.array([3.0])}
    digests = {
        federated_average(first_model(), sums, weight_max=1.0, server_learning_rate=1.0).digest() for _ in range(3)
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("sums", "why"),
    [
        ({"update": [1.0, 1.0], "weight": [1.0]}, "2 values"),
        ({"update": [1.0, 1.0, 1.0], "weight": [0.0]}, "sum to 0"),
        ({"update": [1.0, 1.0, 1.0], "weight": [-1.0]}, "sum to -1"),
        ({"update": [1e300, 1.0, 1.0], "weight": [1.0]}, "not finite"),
        ({"update": [np.nan, 1.0, 1.0], "weight": [1.0]}, "not finite"),
    ],
)
def test_a_sum_from_which_no_model_follows(sums: dict[str, Any], why: str) -> None:
    with pytest.raises(AggregateRefused, match=why) as caught:
        average(sums)
    assert caught.value.code == "invalid"
    assert caught.value.advice()


def test_an_evaluation_leaves_the_model_as_it_is() -> None:
    model, plan = first_model(), Play(kind=RoundKind.EVALUATE).plan
    assert next_global_model(small_study(), plan, model, {}, survivors=4) is model


def test_a_training_round_takes_the_studys_rate_and_weighting() -> None:
    sums = {"update": np.array([1.0, 2.0, 3.0]), "weight": np.array([4.0])}
    after = next_global_model(small_study(), Play().plan, first_model(), sums, survivors=4)
    assert after.vector.tolist() == [0.25, 0.5, 0.75]


@pytest.mark.parametrize("weight", [1.0, 3.0, 5.0])
def test_sites_of_weight_one_sum_to_their_number(weight: float) -> None:
    """One of four that claimed the weight -2 would make everybody's mean four times as large."""
    sums = {"update": np.array([1.0, 2.0, 3.0]), "weight": np.array([weight])}
    with pytest.raises(AggregateRefused, match="sum to 4"):
        next_global_model(small_study(), Play().plan, first_model(), sums, survivors=4)


@pytest.mark.parametrize("length", [1, 32_767, 32_768, 100_001])
def test_block_by_block_is_the_same_bytes_as_at_once(length: int) -> None:
    random = np.random.default_rng(length)
    lanes = (
        Lane(name="update", length=length, clip=3.0, scale=2.0**20),
        Lane(name="weight", length=1, clip=9.0, scale=1.0),
    )
    layout = Layout(modulus_bits=32, lanes=lanes)
    aggregate = random.integers(0, 2**32, length + 1, dtype=np.uint32)
    aggregate[-1] = 7
    model = GlobalModel((("a", (length,)),), random.normal(size=length).astype(np.float32))
    sums = decode(aggregate, layout)
    after = federated_average(model, sums, weight_max=3.0, server_learning_rate=0.7)
    at_once = (model.vector.astype(np.float64) + 0.7 * (sums["update"] / (7.0 / 3.0))).astype(np.float32)
    assert after.vector.tobytes() == at_once.tobytes()
    written_out = federated_average(model, dict(sums), weight_max=3.0, server_learning_rate=0.7)
    assert written_out.vector.tobytes() == at_once.tobytes()


def test_an_update_in_several_lanes_is_one_update() -> None:
    model, update = first_model(fill=1.0), np.array([0.5, -1.0, 0.25])
    whole = {"update": update, "weight": np.array([2.0])}
    parts = {"update/0": update[:1], "update/1": update[1:], "weight": np.array([2.0]), "updates": np.ones(3)}
    one = federated_average(model, whole, weight_max=1.0, server_learning_rate=1.0)
    several = federated_average(model, parts, weight_max=1.0, server_learning_rate=1.0)
    assert one.digest() == several.digest()
    assert update.tolist() == [0.5, -1.0, 0.25]


def test_lanes_that_are_too_short_or_too_long_together_are_refused() -> None:
    for lengths in ((1, 1), (2, 2), (0, 0)):
        parts = {f"update/{i}": np.ones(length) for i, length in enumerate(lengths)}
        with pytest.raises(AggregateRefused, match=f"{sum(lengths)} values"):
            federated_average(
                first_model(), {**parts, "weight": np.array([1.0])}, weight_max=1.0, server_learning_rate=1.0
            )

"""Server-side SGD, Adam and averaging: torch's steps to rounding, the same bytes everywhere, state that travels."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from consortium.contract.global_model import STATE_MARK, GlobalModel, ModelRefused, parameters_in
from consortium.contract.names import RoundNumber
from consortium.contract.schedules import power
from consortium.contract.server_optimizer import AggregateRefused, next_global_model, state_layout
from consortium.contract.study import StudyFile
from tests.fakes.attempt_play import Play
from tests.fakes.small_study import DOCUMENT, first_model

SGD = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}
ADAM = {"name": "adam", "learning_rate": 0.02, "betas": [0.9, 0.99], "eps": 1e-8}
DIVISOR = 0.5 * 10 * 4  # sampling rate, minimum_patients, survivors
ROUNDS = 6


def study_with(optimizer: dict[str, Any], averaging: float | None = None) -> StudyFile:
    record = json.loads(json.dumps(DOCUMENT))
    record["training"] |= {"optimizer": optimizer, "rounds": ROUNDS}
    record["training"] |= {"averaging": {"decay": averaging}} if averaging else {}
    record["privacy"]["mechanism"] = "distributed-dp-sgd"
    record["aggregation"]["update_clip"] = 100.0
    return StudyFile.model_validate_json(json.dumps(record))


def sums_of(round_number: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(round_number)
    return {"update": generator.integers(-4096, 4096, 3) / 64, "weight": np.array([4.0])}


def after_rounds(study: StudyFile, rounds: int) -> list[GlobalModel]:
    models = [first_model(fill=0.25)]
    for number in range(1, rounds + 1):
        plan = replace(Play().plan, round=RoundNumber(number))
        models.append(next_global_model(study, plan, models[-1], sums_of(number), survivors=4))
    return models


def torch_weights(optimizer: dict[str, Any], rounds: int) -> list[np.ndarray]:
    weights = torch.full((3,), 0.25, dtype=torch.float64, requires_grad=True)
    steps: torch.optim.Optimizer
    if optimizer["name"] == "sgd":
        steps = torch.optim.SGD([weights], lr=optimizer["learning_rate"], momentum=optimizer["momentum"])
    else:
        steps = torch.optim.Adam(
            [weights], lr=optimizer["learning_rate"], betas=tuple(optimizer["betas"]), eps=optimizer["eps"]
        )
    seen = []
    for number in range(1, rounds + 1):
        weights.grad = torch.tensor(sums_of(number)["update"] / DIVISOR)
        steps.step()
        seen.append(weights.detach().numpy().copy())
    return seen


@pytest.mark.parametrize("optimizer", [SGD, SGD | {"momentum": 0.0}, ADAM], ids=["momentum", "sgd", "adam"])
def test_every_step_is_torchs_step_on_the_mean_gradient(optimizer: dict[str, Any]) -> None:
    models = after_rounds(study_with(optimizer), ROUNDS)
    for model, weights in zip(models[1:], torch_weights(optimizer, ROUNDS), strict=True):
        # State and parameters are rounded to float32 once a round.
        assert np.allclose(model.vector, weights, rtol=0, atol=2e-6)


def test_state_travels_with_the_model_until_the_last_round_and_is_under_its_digest() -> None:
    study = study_with(ADAM, averaging=0.5)
    models = after_rounds(study, ROUNDS)
    names = [f"{STATE_MARK}{part}/layer.{name}" for part in ("adam/first", "adam/second", "average")
             for name in ("bias", "weight")]  # fmt: skip
    assert [name for name, _ in models[1].state] == names
    assert models[1].state == state_layout(study, models[0].parameters)
    assert models[1].parameters == models[0].parameters
    assert models[0].state == models[-1].state == ()
    changed = GlobalModel(models[1].parameters, models[1].vector, models[1].state, models[1].state_vector * 2)
    assert changed.digest() != models[1].digest()


def test_a_site_that_missed_a_round_goes_on_from_the_file(tmp_path: Any) -> None:
    study = study_with(ADAM, averaging=0.5)
    models = after_rounds(study, 3)
    path = tmp_path / "model.safetensors"
    path.write_bytes(models[2].to_safetensors())
    plan = replace(Play().plan, round=RoundNumber(3))
    for read in (GlobalModel.open(path), GlobalModel.from_safetensors(path.read_bytes())):
        assert (read.parameters, read.state, read.digest()) == (
            models[2].parameters, models[2].state, models[2].digest(),
        )  # fmt: skip
        assert read.vector.tolist() == models[2].vector.tolist()
        assert next_global_model(study, plan, read, sums_of(3), survivors=4).digest() == models[3].digest()
    assert parameters_in(path) == models[2].parameters


def test_the_last_round_ends_on_the_weighted_mean_of_all_models() -> None:
    decay = 0.5
    averaged = after_rounds(study_with(SGD, averaging=decay), ROUNDS)
    plain = after_rounds(study_with(SGD), ROUNDS)
    assert [m.vector.tolist() for m in averaged[1:-1]] == [m.vector.tolist() for m in plain[1:-1]]
    weights = np.array([decay ** (ROUNDS - number) for number in range(1, ROUNDS + 1)])
    mean = np.average([m.vector for m in plain[1:]], axis=0, weights=weights)
    assert np.allclose(averaged[-1].vector, mean, rtol=0, atol=1e-6)
    assert not np.allclose(averaged[-1].vector, plain[-1].vector, rtol=0, atol=1e-3)


def test_averaging_works_for_model_differences_too() -> None:
    record = json.loads(json.dumps(DOCUMENT))
    record["training"] |= {"rounds": 2, "averaging": {"decay": 0.5}}
    study = StudyFile.model_validate_json(json.dumps(record))
    before, between, last = after_rounds(study, 2)
    moved = [sums_of(number)["update"] / 4 for number in (1, 2)]
    assert between.vector.tolist() == (before.vector + moved[0]).astype(np.float32).tolist()
    first = before.vector + moved[0]
    assert np.allclose(last.vector, (first + 2 * (first + moved[1])) / 3, rtol=0, atol=1e-5)
    assert [name for name, _ in between.state] == ["~average/layer.bias", "~average/layer.weight"]


def test_a_long_model_is_stepped_in_blocks_with_the_bytes_of_one_step() -> None:
    study = study_with(ADAM)
    count = 3 * (1 << 15) + 7
    model = GlobalModel((("w", (count,)),), np.linspace(-1, 1, count, dtype=np.float32))
    update = np.random.default_rng(1).normal(0, 20, count)
    plan = replace(Play().plan, round=RoundNumber(1))
    after = next_global_model(study, plan, model, {"update": update, "weight": np.array([4.0])}, survivors=4)
    gradient = update / DIVISOR
    first, second = gradient * (1 - 0.9), gradient * gradient * (1 - 0.99)
    scale = np.sqrt(second / (1 - 0.99)) + 1e-8
    at_once = model.vector.astype(np.float64) - first / (1 - 0.9) / scale * 0.02
    assert after.vector.tobytes() == at_once.astype(np.float32).tobytes()
    assert after.state_vector.tobytes() == np.concatenate([first, second]).astype(np.float32).tobytes()


def test_the_bytes_are_those_of_every_machine() -> None:
    """Known answers: a platform whose arithmetic differs would part from the others in the first round."""
    told = "".join(model.digest() for model in after_rounds(study_with(ADAM, averaging=0.9), ROUNDS))
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "3cf087cd99e6942a"


@given(base=st.floats(0, 1, exclude_max=True), exponent=st.integers(0, 100_000))
def test_powers_are_repeated_multiplications(base: float, exponent: int) -> None:
    assert power(base, exponent) == pytest.approx(base**exponent, rel=1e-9, abs=1e-300)


def test_state_of_another_optimizer_is_refused() -> None:
    model = after_rounds(study_with(SGD), 1)[1]
    plan = replace(Play().plan, round=RoundNumber(2))
    with pytest.raises(AggregateRefused, match="another optimizer"):
        next_global_model(study_with(ADAM), plan, model, sums_of(2), survivors=4)


def test_weights_that_are_not_one_each_are_refused() -> None:
    plan = replace(Play().plan, round=RoundNumber(1))
    sums = sums_of(1) | {"weight": np.array([3.0])}
    with pytest.raises(AggregateRefused, match="the weights sum to 3"):
        next_global_model(study_with(SGD), plan, first_model(), sums, survivors=4)


def test_a_second_moment_beyond_float32_is_refused() -> None:
    plan = replace(Play().plan, round=RoundNumber(1))
    sums = sums_of(1) | {"update": np.full(3, 1e30)}
    with pytest.raises(AggregateRefused, match="not finite"):
        next_global_model(study_with(ADAM), plan, first_model(), sums, survivors=4)


def test_names_of_state_and_parameters_do_not_mix() -> None:
    one = np.zeros(1, dtype=np.float32)
    with pytest.raises(ModelRefused, match="no parameter's name"):
        GlobalModel((("~a", (1,)),), one)
    with pytest.raises(ModelRefused, match="no parameter's name"):
        GlobalModel((("a", (1,)),), one, (("b", (1,)),), one)
    with pytest.raises(ModelRefused, match="its layout 1"):
        GlobalModel((("a", (1,)),), one, (("~b", (1,)),), np.zeros(2, dtype=np.float32))
    only_state = GlobalModel((), np.zeros(0, dtype=np.float32), (("~b", (1,)),), one)
    with pytest.raises(ModelRefused, match="no parameters"):
        GlobalModel.from_safetensors(only_state.to_safetensors())

"""Server-side algorithms against a plain re-implementation of each paper, and which go with which mechanism."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consortium.contract.errors import ContractError
from consortium.contract.global_model import GlobalModel
from consortium.contract.names import RoundNumber
from consortium.contract.parameter_parts import PartsRefused, parts_of
from consortium.contract.schema import problems_of
from consortium.contract.server_optimizer import next_global_model, state_layout
from consortium.contract.study import SITES_MAX, StudyFile
from consortium.contract.study_training import ALGORITHM_REFUSALS, ALGORITHMS, SERVER_ARGUMENTS, SITES_MOST
from tests.fakes.attempt_play import Play
from tests.fakes.small_study import DOCUMENT, first_model

ROUNDS, RATE, STEPS, LOCAL_RATE = 6, 0.3, 3, 0.5
ARGUMENTS = {"momentum": 0.7, "beta1": 0.9, "beta2": 0.95, "tau": 0.01}
NO_PRIVACY = {
    "mechanism": "none", "unit": "patient", "justification": "Made-up patients.", "max_records_per_patient": 1,
}  # fmt: skip
Moved = list[np.ndarray]


def document(algorithm: str, **training: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps(DOCUMENT))
    record["training"] |= {"algorithm": algorithm, "rounds": ROUNDS, "local_steps": STEPS}
    record["training"]["server_learning_rate"] = RATE
    if algorithm in SERVER_ARGUMENTS:
        record["training"]["server_optimizer"] = {name: ARGUMENTS[name] for name in SERVER_ARGUMENTS[algorithm]}
    if algorithm == "fedprox":
        record["training"]["proximal_mu"] = 0.1
    record["training"] |= training
    return record


def study_with(algorithm: str, **training: Any) -> StudyFile:
    return StudyFile.model_validate_json(json.dumps(document(algorithm, **training)))


def sums_of(number: int, sites: int = 4) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(number)
    return {"update": generator.integers(-4096, 4096, 3) / 1024, "weight": np.array([float(sites)])}


def models_of(study: StudyFile, survivors: Callable[[int], int] = lambda _: 4) -> list[GlobalModel]:
    models = [first_model(fill=0.25)]
    for number in range(1, ROUNDS + 1):
        plan = replace(Play().plan, round=RoundNumber(number))
        sites = survivors(number)
        models.append(next_global_model(study, plan, models[-1], sums_of(number, sites), survivors=sites))
    return models


def fedavg(mean: Moved) -> Moved:
    return [RATE * one for one in mean]


def fedavgm(mean: Moved) -> Moved:
    """Hsu et al. 2019, section 4.1: v = beta v + D, w = w + rate v."""
    v, moves = np.zeros(3), []
    for one in mean:
        v = ARGUMENTS["momentum"] * v + one
        moves.append(RATE * v)
    return moves


def adaptive(mean: Moved, second: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Moved:
    """Reddi et al. 2021, algorithm 2, with v_{-1} = tau^2."""
    m, v, moves = np.zeros(3), np.full(3, ARGUMENTS["tau"] ** 2), []
    for one in mean:
        m = ARGUMENTS["beta1"] * m + (1 - ARGUMENTS["beta1"]) * one
        v = second(v, one**2)
        moves.append(RATE * m / (np.sqrt(v) + ARGUMENTS["tau"]))
    return moves


B2 = ARGUMENTS["beta2"]
PAPERS: dict[str, Callable[[Moved], Moved]] = {
    "fedavg": fedavg,
    "fedprox": fedavg,
    "scaffold": fedavg,
    "fedavgm": fedavgm,
    "fedadagrad": lambda mean: adaptive(mean, lambda v, d: v + d),
    "fedadam": lambda mean: adaptive(mean, lambda v, d: B2 * v + (1 - B2) * d),
    "fedyogi": lambda mean: adaptive(mean, lambda v, d: v - (1 - B2) * d * np.sign(v - d)),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_step_is_the_papers_on_the_mean_of_model_differences(algorithm: str) -> None:
    models = models_of(study_with(algorithm))
    mean = [sums_of(number)["update"] / 4 for number in range(1, ROUNDS + 1)]
    expected = 0.25 + np.cumsum(PAPERS[algorithm](mean), axis=0)
    for model, values in zip(models[1:], expected, strict=True):
        # State and parameters are rounded to float32 once a round.
        assert np.allclose(model.vector, values, rtol=1e-5, atol=1e-5)
    assert models[-1].state == ()


def test_scaffolds_control_variate_is_the_one_that_sites_would_have_sent() -> None:
    """Karimireddy et al. 2020, algorithm 1, option II, site by site, with two of four sites in the second round."""
    study, generator = study_with("scaffold"), np.random.default_rng(5)
    x, c, own = np.full(3, 0.25), np.zeros(3), np.zeros((4, 3))
    model = first_model(fill=0.25)
    for number, sites in enumerate(([0, 1, 2, 3], [1, 3, 2], [0, 2, 3]), start=1):
        differences = {site: generator.integers(-4096, 4096, 3) / 1024 for site in sites}
        moved = sum(differences.values())
        changes = np.zeros(3)
        for site, difference in differences.items():
            after = own[site] - c + (x - (x + difference)) / (STEPS * LOCAL_RATE)
            changes += after - own[site]
            own[site] = after
        x, c = x + RATE * moved / len(sites), c + changes / 4
        plan = replace(Play().plan, round=RoundNumber(number))
        sums = {"update": np.asarray(moved), "weight": np.array([float(len(sites))])}
        model = next_global_model(study, plan, model, sums, survivors=len(sites))
        assert np.allclose(model.vector, x, rtol=1e-5, atol=1e-5)
        assert np.allclose(model.state_vector, c, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_state_is_what_the_study_says_and_comes_from_the_file_again(algorithm: str) -> None:
    study = study_with(algorithm, averaging={"decay": 0.5})
    models = models_of(study, lambda number: 3 + number % 2)
    assert {model.state for model in models[1:-1]} == {state_layout(study, models[0].parameters)}
    read = GlobalModel.from_safetensors(models[3].to_safetensors())
    plan = replace(Play().plan, round=RoundNumber(4))
    again = next_global_model(study, plan, read, sums_of(4, 3), survivors=3)
    assert again.digest() == models[4].digest()


@given(
    st.sampled_from(ALGORITHMS),
    st.integers(1, 40),
    st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3),
)
def test_a_step_is_a_function_of_its_arguments_and_changes_none_of_them(
    algorithm: str, number: int, values: list[float]
) -> None:
    study = study_with(algorithm, rounds=50)
    model = first_model(fill=0.25)
    if number > 1:
        state = state_layout(study, model.parameters)
        model = GlobalModel(model.parameters, model.vector, state, np.ones(3 * (len(state) // 2), np.float32))
    plan = replace(Play().plan, round=RoundNumber(number))
    sums = {"update": np.array(values, np.float64), "weight": np.array([4.0])}
    before = (model.vector.copy(), model.state_vector.copy(), sums["update"].copy())
    found = {next_global_model(study, plan, model, sums, survivors=4).digest() for _ in range(2)}
    assert len(found) == 1
    for kept, now in zip(before, (model.vector, model.state_vector, sums["update"]), strict=True):
        assert np.array_equal(kept, now)


# --- what goes with what -----------------------------------------------------------------------------------


def problems(record: dict[str, Any]) -> dict[str, str]:
    def as_read(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_read(inner) for key, inner in value.items()}
        return tuple(as_read(inner) for inner in value) if isinstance(value, list) else value

    data = as_read(record)
    data["governance"] = data["governance"] | {"expires": date(2099, 12, 31)}
    return {problem.path: problem.allowed for problem in problems_of(StudyFile, data)}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("mechanism", ["local-dp-sgd", "distributed-dp-sgd", "none"])
def test_a_pair_is_allowed_or_refused_with_the_reason(mechanism: str, algorithm: str) -> None:
    record = document(algorithm)
    if mechanism == "none":
        record["privacy"] = NO_PRIVACY
    else:
        record["privacy"]["mechanism"] = mechanism
    if mechanism == "distributed-dp-sgd":
        record["training"] |= {"local_steps": 1, "server_learning_rate": 1.0}
    why = ALGORITHM_REFUSALS.get((mechanism, algorithm))
    if why is None:
        assert problems(record) == {}
    else:
        assert why in problems(record)["training.algorithm"]


def test_hospitals_that_take_no_step_keep_nothing() -> None:
    record = document("fedavg", site_kept=["0.bias"], local_steps=1, server_learning_rate=1.0)
    record["privacy"]["mechanism"] = "distributed-dp-sgd"
    assert "takes no step of its own" in problems(record)["training.site_kept"]


@pytest.mark.parametrize(
    ("algorithm", "training", "path", "allowed"),
    [
        ("fedavg", {"server_optimizer": {"momentum": 0.5}}, "training.server_optimizer", "nothing with fedavg"),
        ("fedadam", {"server_optimizer": None}, "training.server_optimizer", "with fedadam: beta1, beta2, tau"),
        ("fedyogi", {"server_optimizer": {"beta1": 0.9, "tau": 0.1}}, "training.server_optimizer.beta2", "beta1"),
        (
            "fedadagrad", {"server_optimizer": {"beta1": 0.9, "beta2": 0.9, "tau": 0.1}},
            "training.server_optimizer.beta2", "with fedadagrad: beta1, tau",
        ),
        ("fedprox", {"proximal_mu": None}, "training.proximal_mu", "it belongs to fedprox"),
        ("fedavg", {"proximal_mu": 0.5}, "training.proximal_mu", "nothing with fedavg"),
        ("fedprox", {"local_steps": 1}, "training.local_steps", "at least 2 with fedprox"),
        ("scaffold", {"weighting": "patients"}, "training.weighting", "uniform with scaffold"),
        (
            "scaffold", {"optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}},
            "training.optimizer.momentum", "0 with scaffold",
        ),
        ("scaffold", {"optimizer": {"name": "adam", "learning_rate": 0.1}}, "training.optimizer.name", "sgd with"),
        ("fedavg", {"trainable": ["2.*"]}, "training.trainable[0]", "one of 0.bias, 0.weight"),
        ("fedavg", {"trainable": ["0.bias"], "site_kept": ["0.weight"]}, "training.site_kept[0]", "one of 0.bias"),
        ("fedavg", {"site_kept": ["*"]}, "training.site_kept", "at least one parameter to be sent"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense(algorithm: str, training: dict[str, Any], path: str, allowed: str) -> None:
    assert allowed in problems(document(algorithm, **training))[path]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"aggregation": {"group_size": 64}}, "aggregation.group_size"),
        ({"evaluation": {"privacy": {"epsilon": 1.0, "delta": 1e-5}}}, "evaluation.privacy"),
        ({"privacy": {"epsilon": 1.0}}, "privacy.epsilon"),
        ({"privacy": {"justification": None}}, "privacy.justification"),
    ],
)
def test_no_privacy_goes_without_what_would_pretend_some(change: dict[str, Any], path: str) -> None:
    record = document("fedavg")
    record["privacy"] = dict(NO_PRIVACY)
    for section, values in change.items():
        record[section] |= values
    assert path in problems(record)


def test_whoever_asks_a_study_without_privacy_for_its_figures_hears_the_truth() -> None:
    record = document("fedavg") | {"privacy": NO_PRIVACY}
    study = StudyFile.model_validate_json(json.dumps(record))
    assert not study.is_private
    assert (study.privacy.epsilon, study.privacy.delta) == (float("inf"), 1.0)
    assert StudyFile.from_document(study.document()) == study


def test_parts_divide_the_parameters_and_only_the_sent_ones_are_in_the_layout() -> None:
    names = tuple((name, (2,)) for name in ("a.bias", "a.weight", "b.norm", "c.weight"))
    parts = parts_of(names, ("a.*", "b.*"), ("b.norm",))
    assert [[name for name, _ in part] for part in (parts.sent, parts.kept, parts.frozen)] == [
        ["a.bias", "a.weight"], ["b.norm"], ["c.weight"],
    ]  # fmt: skip
    assert parts_of(names, None, None).sent == names
    with pytest.raises(PartsRefused, match="no trained parameter has") as caught:
        parts_of(names, ("a.*",), ("b.*",))
    assert isinstance(caught.value, ContractError)
    assert "under training" in caught.value.advice()
    assert study_with("fedavg", site_kept=["0.bias"]).parameters == (("0.weight", (1, 2)),)


def test_the_roster_has_one_largest_size() -> None:
    assert SITES_MOST == SITES_MAX

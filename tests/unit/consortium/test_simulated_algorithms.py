"""Whole studies in one process: without privacy they are pooled training to the encoding's bound, whatever is kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from consortium import simulate as simulation
from consortium.contract.layout import round_layout, update_lanes
from consortium.contract.plan import RoundKind
from consortium.contract.study import StudyFile
from consortium.simulate import SimulationRefused, simulate
from consortium.study_plan import NoPlan, plan
from site_agent.cohort import Records
from site_agent.networks import build_from
from site_agent.training_spec import network_spec_of
from site_agent.update import global_model_of, load_vector
from tests.fakes.small_study import DOCUMENT, SITES
from tests.unit.contract.test_algorithms import NO_PRIVACY

EACH = 40


def study_with(**training: Any) -> StudyFile:
    record = json.loads(json.dumps(DOCUMENT)) | {"privacy": NO_PRIVACY}
    record["data"]["minimum_patients"] = 10
    record["model"] = {"network": "mlp", "args": {"hidden": [4], "activation": "tanh"}}
    record["training"] |= {"rounds": 5, "local_steps": 1, "sampling_rate": 1.0} | training
    return StudyFile.model_validate_json(json.dumps(record))


def cohorts() -> dict[str, Records]:
    random = np.random.default_rng(3)
    made = {}
    for site in SITES:
        features = random.normal(size=(EACH, 2)).astype(np.float32)
        made[site] = Records(
            features=features,
            labels=(features[:, 0] + features[:, 1] > 0.2).astype(np.float32),
            patients=np.arange(EACH, dtype=np.int64),
            patient_count=EACH,
        )
    return made


def trained(study: StudyFile) -> tuple[Any, np.ndarray]:
    run = simulation._Run(study, simulation.DpTrainer)
    model = run.train(cohorts(), say=lambda _: None)
    return run, model.vector


def test_full_steps_without_privacy_are_pooled_gradient_descent_to_the_encodings_bound() -> None:
    study = study_with()
    _, found = trained(study)
    module = build_from(network_spec_of(study))
    pooled = cohorts().values()
    features = torch.from_numpy(np.concatenate([one.features for one in pooled]))
    labels = torch.from_numpy(np.concatenate([one.labels for one in pooled]))
    steps = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(study.training.rounds):
        steps.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(module(features).squeeze(1), labels).backward()
        steps.step()
    first = global_model_of(module)
    (lane,) = update_lanes(round_layout(study, parameters=first.parameters, kind=RoundKind.TRAIN, measured=False))
    # Each of the sum's n encodings is off by less than one step; float32 of other sums of gradients adds a little.
    bound = study.training.rounds / lane.scale + 1e-5
    assert np.abs(found - first.vector).max() <= bound
    assert np.abs(found - global_model_of(build_from(network_spec_of(study))).vector).max() > 0.05


@pytest.mark.parametrize(
    "training",
    [
        {"algorithm": "fedprox", "proximal_mu": 0.5},
        {"algorithm": "scaffold"},
        {"algorithm": "fedyogi", "server_optimizer": {"beta1": 0.9, "beta2": 0.99, "tau": 0.05},
         "server_learning_rate": 0.3},
        {"algorithm": "fedavg", "optimizer": {"name": "adam", "learning_rate": 0.05}},
    ],
    ids=lambda training: str(training["algorithm"]),
)  # fmt: skip
def test_every_algorithm_learns(training: dict[str, Any]) -> None:
    study = study_with(rounds=8, local_steps=4, sampling_rate=0.5, **training)
    run, last = trained(study)
    parts = cohorts().values()
    features = torch.from_numpy(np.concatenate([one.features for one in parts]))
    labels = torch.from_numpy(np.concatenate([one.labels for one in parts]))

    def loss(vector: np.ndarray) -> float:
        module = build_from(network_spec_of(study))
        load_vector(module, vector)
        with torch.no_grad():
            logits = module(features).squeeze(1)
        return float(torch.nn.functional.binary_cross_entropy_with_logits(logits, labels))

    assert loss(last) < 0.75 * loss(run.first_model.vector)


def test_kept_and_frozen_parameters_are_in_no_sum() -> None:
    study = study_with(trainable=["0.*", "2.bias"], site_kept=["2.bias"], local_steps=2)
    run, last = trained(study)
    assert [name for name, _ in run.first_model.parameters] == ["0.bias", "0.weight"]
    assert study.parameters == run.first_model.parameters
    assert len(last) == 4 + 8
    kept = [run._kept[site] for site in SITES]
    assert all(one is not None and one.shape == (1,) for one in kept)
    assert len({float(one[0]) for one in kept}) == len(SITES)


def test_a_simulation_says_that_nothing_is_promised(tmp_path: Path) -> None:
    study = study_with(rounds=1)
    found = simulate(study)
    assert found.epsilon == float("inf")
    assert dict(found.rows())["epsilon claimed"] == "none: the study promises patients no differential privacy"
    assert found.to_json()["epsilon_claimed"] is None
    with pytest.raises(SimulationRefused, match="nothing to audit"):
        simulate(study, audit=True)
    with pytest.raises(NoPlan, match="no noise to plan"):
        plan(study)

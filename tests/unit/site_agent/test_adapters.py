"""Low-rank adapters: what is trained, with which engines, what is sent, and the whole network that comes of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from consortium import simulate as simulation
from consortium.contract.global_model import GlobalModel
from consortium.contract.names import SiteId
from consortium.contract.schema import problems_of
from consortium.contract.study import StudyFile
from site_agent.cohort import Records
from site_agent.errors import AdapterRefused, EngineUnsuited
from site_agent.gradients.admission import ENGINES
from site_agent.gradients.losses import loss_of
from site_agent.gradients.self_test import self_test
from site_agent.gradients.workload import Workload
from site_agent.networks import build_from, layout_of
from site_agent.networks.adapters import merged_parameters, with_adapter
from site_agent.trainer import DpTrainer
from site_agent.training_spec import NetworkSpec, network_spec_of, spec_of
from site_agent.update import global_model_of, load_vector, parameter_layout, vector_of
from site_agent.weights_files import drawn, whole, write_new
from tests.fakes.imaging_study import PICTURES
from tests.fakes.small_study import DOCUMENT, SITES
from tests.fakes.training import entropy_of
from tests.unit.contract.test_algorithms import NO_PRIVACY

VIT = {
    "network": "vit", "args": {"patch_size": 8, "hidden_size": 8, "mlp_size": 8, "layers": 1, "heads": 2},
}  # fmt: skip
SWIN = {"feature_size": 12, "depths": (1, 1, 1, 1), "heads": (1, 2, 2, 2), "window": 2}
LORA: dict[str, Any] = {"type": "lora", "rank": 2, "alpha": 4.0, "targets": ["*.attn.qkv"]}
NAMES = ("blocks.0.attn.qkv.lora_A.default.weight", "blocks.0.attn.qkv.lora_B.default.weight")


def record_with(lora: dict[str, Any] | None = None, **training: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(json.dumps(DOCUMENT)) | {"model": VIT, "adapter": LORA | (lora or {})}
    record["data"] = {**PICTURES, "shape": [16, 16]}
    record["training"] |= training
    return record


def study_with(lora: dict[str, Any] | None = None, **training: Any) -> StudyFile:
    return StudyFile.model_validate_json(json.dumps(record_with(lora, **training)))


def pictures_of(patients: int, seed: int) -> Records:
    random = np.random.default_rng(seed)
    return Records(
        features=random.normal(size=(patients, 1, 16, 16)).astype(np.float32),
        labels=(np.arange(patients) % 2).astype(np.float32),
        patients=np.arange(patients, dtype=np.int64),
        patient_count=patients,
    )


def names_of(study: StudyFile) -> list[str]:
    return [name for name, _ in layout_of(network_spec_of(study))]


def test_the_adapter_is_what_is_trained() -> None:
    study = study_with()
    module = build_from(network_spec_of(study))
    assert tuple(names_of(study)) == NAMES
    assert parameter_layout(module) == layout_of(network_spec_of(study))
    assert names_of(study_with({"trained": "b"})) == [NAMES[1]]
    head = names_of(study_with(trainable=["classification_head.*"]))
    assert head == [*NAMES, "classification_head.bias", "classification_head.weight"]
    # B begins at zero: the first model computes what the network computes without.
    plain = build_from(network_spec_of(study.model_copy(update={"adapter": None})))
    pictures = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(module.eval()(pictures), plain.eval()(pictures))
    # The same study gives the same first model, whoever builds it and whatever was drawn before.
    torch.manual_seed(99)
    assert global_model_of(build_from(network_spec_of(study))).digest() == global_model_of(module).digest()


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_every_engine_trains_a_vision_transformers_adapter(engine: str) -> None:
    network = network_spec_of(study_with(trainable=["classification_head.*"]))
    workload = Workload.of(network.input_shape, expected_patients=4, records_each=1)
    self_test(ENGINES[engine], build_from(network), loss_of(network), workload)


def test_two_engines_cannot_tell_the_records_of_windows_apart() -> None:
    network = NetworkSpec(
        network="swin-unetr", args=SWIN, input_shape=(1, 32, 32), outputs=2, label_shape=(32, 32),
        loss="cross-entropy", seed=1, adapter={**LORA, "targets": ("swinViT.layers1.*.qkv",)},
        trainable=("*.lora_B.*",),
    )  # fmt: skip
    workload = Workload.of((1, 32, 32), expected_patients=2, records_each=1, label_shape=(32, 32), classes=2)
    module = build_from(network)
    with pytest.raises(EngineUnsuited, match="rows"):
        self_test(ENGINES["bookkeeping"], module, loss_of(network), workload)


def test_a_private_round_moves_the_adapter_alone() -> None:
    study = study_with(local_steps=2)
    spec = spec_of(study, declared_patients=12)
    trainer = DpTrainer(spec, pictures_of(12, 2), entropy=entropy_of("adapter"))
    first = global_model_of(build_from(spec.network))
    update = trainer.train_round(first.vector).update
    assert update.shape == first.vector.shape == (2 * 8 + 24 * 2,)
    assert np.abs(update).min() > 0  # every coordinate has its noise
    trained = trainer._module
    bare = dict(build_from(spec.network).named_parameters())
    moved = [name for name, p in trained.named_parameters() if not torch.equal(p.detach(), bare[name].detach())]
    assert tuple(sorted(moved)) == NAMES


def test_hospitals_under_masks_train_an_adapter_as_their_patients_together_would() -> None:
    record = record_with(local_steps=1, sampling_rate=1.0, rounds=2) | {"privacy": NO_PRIVACY}
    study = StudyFile.model_validate_json(json.dumps(record))
    cohorts = {SiteId(site): pictures_of(6, seed) for seed, site in enumerate(SITES)}
    run = simulation._Run(study, DpTrainer)
    found = run.train(cohorts, say=lambda _: None)
    assert tuple(name for name, _ in found.parameters) == NAMES
    module = build_from(network_spec_of(study))
    features = torch.from_numpy(np.concatenate([one.features for one in cohorts.values()]))
    labels = torch.from_numpy(np.concatenate([one.labels for one in cohorts.values()]))
    steps = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        steps.zero_grad()
        loss_of(network_spec_of(study))(module(features), labels).mean().backward()  # type: ignore[no-untyped-call] # torch has no types for it
        steps.step()
    pooled = vector_of(module)
    assert np.abs(pooled - run.first_model.vector).max() > 1e-3
    assert np.abs(pooled - found.vector).max() < 1e-5


def test_the_released_adapter_is_worked_into_its_layers(tmp_path: Path) -> None:
    first = tmp_path / "first.safetensors"
    sha256 = write_new(first, drawn(study_with(seed=5)))
    study = StudyFile.model_validate_json(json.dumps(record_with() | {"initial_weights": {"sha256": sha256}}))
    files = {sha256: str(first)}
    adapted = build_from(network_spec_of(study, files))
    random = np.random.default_rng(1).normal(size=vector_of(adapted).size).astype(np.float32)
    load_vector(adapted, random)
    write_new(tmp_path / "released", GlobalModel(parameter_layout(adapted), random))
    complete = whole(study, tmp_path / "released", files)
    assert complete.parameters == drawn(study).parameters  # the network's own names
    plain = build_from(network_spec_of(study.model_copy(update={"adapter": None, "initial_weights": None})))
    load_vector(plain, complete.vector)
    pictures = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(plain.eval()(pictures), adapted.eval()(pictures), atol=1e-5)
        load_vector(plain, GlobalModel.open(first).vector)
        assert not torch.allclose(plain(pictures), adapted(pictures), atol=1e-2)
    a, b = (adapted.get_parameter(name).detach() for name in NAMES)
    base = adapted.get_parameter("blocks.0.attn.qkv.base_layer.weight").detach()
    merged = merged_parameters(adapted)["blocks.0.attn.qkv.weight"]
    assert torch.allclose(merged, base + 2.0 * b @ a, atol=1e-5)  # alpha / rank is 2


PEFT = {
    "0.base_layer.weight": [[0.5, -0.125, -0.625], [-1.0, 0.75, 0.25], [-0.375, 0.125, -1.125], [0.5, -1.5, -0.625]],
    "0.base_layer.bias": [0.125, -0.25, 0.5, 0.0],
    "0.lora_A.default.weight": [[1.375, 1.5, 0.375], [1.0, -2.25, 0.25]],
    "0.lora_B.default.weight": [[-1.0, -0.375], [-1.0, 0.875], [-0.5, 0.75], [-0.75, -1.0]],
}
INPUTS = [[-0.125, 0.375, -0.5], [-1.0, 0.0, -1.5]]
OUTPUTS = [[0.638671875, -1.708984375, -0.2265625, 1.099609375], [4.2421875, 1.4765625, 2.46875, 4.6796875]]
MERGED = [
    [-2.125, -1.109375, -1.328125], [-1.75, -4.453125, 0.015625], [-0.28125, -3.53125, -1.125],
    [-2.546875, 0.1875, -1.421875],
]  # fmt: skip


def test_names_and_numbers_are_those_of_peft() -> None:
    """As peft 0.21.2 has them: `LoraConfig(r=2, lora_alpha=3.0, target_modules="0")` on `Sequential(Linear(3, 4))`.

    All values are multiples of 1/8, so that sums are exact and nothing hangs on their order.
    """
    section = {"type": "lora", "rank": 2, "alpha": 3.0, "targets": ("0",)}
    module = with_adapter(torch.nn.Sequential(torch.nn.Linear(3, 4)), section, seed=1)
    assert {name for name, _ in module.named_parameters()} == PEFT.keys()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.tensor(PEFT[name]))
        assert torch.equal(module(torch.tensor(INPUTS)), torch.tensor(OUTPUTS))
    merged = merged_parameters(module)
    assert torch.equal(merged["0.weight"], torch.tensor(MERGED))
    assert merged.keys() == {"0.bias", "0.weight"}


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    record = record_with() | {"model": {"network": "resnet", "args": {}}}
    (problem,) = [one for one in problems_of(StudyFile, _tuples(record)) if one.path.startswith("adapter")]
    assert "adapters go with vit, swin-unetr, unetr" in problem.allowed
    spec = network_spec_of(study_with())
    assert spec.adapter is not None
    for change, field in (({"targets": ("nothing.*",)}, r"adapter.targets\[0\]"), ({"rank": 9}, "adapter.rank")):
        with pytest.raises(AdapterRefused, match=field):
            build_from(replace(spec, adapter={**spec.adapter, **change}))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value

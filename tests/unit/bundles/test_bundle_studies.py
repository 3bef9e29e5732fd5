"""A study whose network a bundle defines: built from the study, trained privately, held against the hospital's copy."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from consortium.contract.networks import ModelChoice, misfits_of_data
from privacy.dp.mechanism import PoissonSampledGaussian
from site_agent.bundles.approval import NOT_APPROVED, NOT_THE_SAME, bundle_at, objection_to_bundle
from site_agent.bundles.checking import Bundle, check_bundle
from site_agent.bundles.definition import component_of, definition_of, study_name_of
from site_agent.bundles.reading import read_bundle
from site_agent.bundles.refusals import BundleRefused
from site_agent.errors import NetworkRefused
from site_agent.networks import build, layout_of
from site_agent.trainer import DpTrainer
from site_agent.training_spec import NetworkSpec, OptimizerSpec, PrivacySpec, TrainingSpec
from site_agent.update import global_model_of, parameter_layout, vector_of
from tests.fakes.bundle_folder import changed, pack, write_bundle
from tests.fakes.small_networks import images

MODEL: TypeAdapter[Any] = TypeAdapter(ModelChoice)
VIT = {
    "_target_": "ViT", "spatial_dims": 2, "in_channels": 1, "img_size": [16, 16], "patch_size": [8, 8],
    "hidden_size": 8, "mlp_dim": 8, "num_layers": 2, "num_heads": 2, "num_classes": 3, "classification": True,
    "post_activation": "none",
}  # fmt: skip
UNET = {
    "_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 3,
    "channels": "$[3 + 2 * i for i in range(2)]", "strides": [2], "num_res_units": 1, "norm": "batch",
}  # fmt: skip


def bundle_of(folder: Path, network: dict[str, Any]) -> Bundle:
    return check_bundle(read_bundle(write_bundle(folder, changed("network_def", network))))


def args_of(bundle: Bundle) -> dict[str, str]:
    return {"digest": bundle.digest, "definition": definition_of(bundle.network)}


def spec_of(bundle: Bundle, sides: tuple[int, ...]) -> NetworkSpec:
    masks = study_name_of(bundle.network) == "bundle-segmenter"
    return NetworkSpec(
        network=study_name_of(bundle.network),
        args=args_of(bundle),
        input_shape=(1, *sides),
        outputs=3,
        label_shape=sides if masks else (),
        loss="dice-cross-entropy" if masks else "cross-entropy",
        seed=1,
    )


@pytest.mark.parametrize(("network", "sides"), [(VIT, (16, 16)), (UNET, (16, 8))], ids=["classifier", "segmenter"])
def test_it_is_built_from_the_study_alone_and_takes_a_private_step(
    tmp_path: Path, network: dict[str, Any], sides: tuple[int, ...]
) -> None:
    """The agent's own trainer: Poisson sampling of patients, clipping, noise, and an update in the model's layout."""
    spec = spec_of(bundle_of(tmp_path / "bundle", network), sides)
    privacy = PrivacySpec(
        mechanism=PoissonSampledGaussian(noise_multiplier=0.1, sampling_rate=1.0, steps=1, clip_norm_l2=1.0),
        delta=1e-3,
        local_steps=1,
        max_records_per_patient=1,
        declared_patients=3,
    )
    training = TrainingSpec(network=spec, optimizer=OptimizerSpec(learning_rate=0.5), privacy=privacy)
    module = build(spec.network, spec.args, input_shape=spec.input_shape, outputs=3, seed=1)
    trained = DpTrainer(training, images(spec, 3)).train_round(vector_of(module))
    moved, noise = np.linalg.norm(trained.update), 0.1 / 3 / 2 * np.sqrt(trained.update.size)
    assert trained.events[0].mechanism.steps == 1
    assert 0.7 * noise < moved < 1.3 * (0.5 + noise)  # three clip norms over three move the weights half as far
    assert layout_of(spec) == parameter_layout(module) == global_model_of(module).parameters


def test_the_contract_knows_what_each_takes(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "bundle", UNET)
    model = MODEL.validate_python({"network": study_name_of(bundle.network), "args": args_of(bundle)})
    assert list(misfits_of_data(model, kind="imaging", task="segmentation", shape=(16, 8))) == []
    (finding,) = misfits_of_data(model, kind="imaging", task="classification", shape=(16, 8))
    assert finding.found == "bundle-segmenter for classification"
    for args in (
        {"digest": "b" * 63, "definition": "{}"},
        {"digest": "b" * 64, "definition": "UNet"},
        {"digest": "b" * 64, "definition": "{" + " " * 4000},
        {"digest": "b" * 64, "definition": '{"a":\n1}'},
    ):
        with pytest.raises(ValidationError):
            MODEL.validate_python({"network": "bundle-segmenter", "args": args})


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ('{"_target_": "os.system"}', '_target_: found "os.system"; allowed: a network of the allow-list'),
        ('{"_target_": ["UNet"]}', "_target_: found"),
        ('{"_target_": "DiceLoss"}', "_target_: found"),
        ('{"_target_": "monai.networks.nets.UNet"}', "by its short name"),
        ('{"_target_": "UNet", "_mode_": "callable"}', "_mode_: found an argument it may not be given"),
        (json.dumps(UNET), "channels: found"),
        ('{"_target_": "UNet", "_target_": "UNet"}', "a second time"),
        ("{", "what is not JSON"),
    ],
)
def test_a_definition_is_held_against_the_same_list(definition: str, words: str) -> None:
    """Whoever writes the study by hand gets no further than with a bundle."""
    with pytest.raises(BundleRefused) as caught:
        component_of(definition)
    assert words in str(caught.value)
    args = {"digest": "b" * 64, "definition": definition}
    with pytest.raises(NetworkRefused, match=r"model\.args\.definition"):
        build("bundle-segmenter", args, input_shape=(1, 16, 8), outputs=3, seed=1)


@pytest.mark.parametrize(
    ("shape", "outputs", "words"),
    [
        ((2, 16, 8), 3, "does not take"),
        ((1, 16, 8), 2, r"outputs of shape \(1, 3, 16, 8\)"),
        ((1, 8, 8, 8), 3, "does not take"),
    ],
)
def test_a_network_for_other_records_is_refused(
    tmp_path: Path, shape: tuple[int, ...], outputs: int, words: str
) -> None:
    args = args_of(bundle_of(tmp_path / "bundle", UNET))
    with pytest.raises(NetworkRefused, match=words):
        build("bundle-segmenter", args, input_shape=shape, outputs=outputs, seed=1)


def study_with(name: str, args: dict[str, str]) -> Any:
    return SimpleNamespace(model=MODEL.validate_python({"network": name, "args": args}))


def test_the_hospitals_copy_decides(tmp_path: Path) -> None:
    """Approved by digest in site.yaml; the copy is read again, and must be what the study says it is."""
    folder = write_bundle(tmp_path / "bundle", changed("network_def", UNET))
    bundle = check_bundle(read_bundle(folder))
    args, name = args_of(bundle), study_name_of(bundle.network)
    study = study_with(name, args)
    archive = pack(folder, tmp_path / "bundle.zip")
    for copy in (folder, archive):
        assert objection_to_bundle(study, {bundle.digest: str(copy)}) is None
    assert objection_to_bundle(study, {}) == NOT_APPROVED
    assert objection_to_bundle(study, {bundle.digest: str(tmp_path / "nowhere")}) == NOT_APPROVED
    other = args["definition"].replace("[3, 5]", "[3, 500]")
    assert objection_to_bundle(study_with(name, args | {"definition": other}), {bundle.digest: str(folder)}) == (
        NOT_THE_SAME
    )
    (folder / "LICENSE").write_text("changed")
    assert objection_to_bundle(study, {bundle.digest: str(folder)}) == NOT_APPROVED
    (folder / "evil.py").write_text("")
    assert objection_to_bundle(study, {bundle.digest: str(folder)}) == NOT_APPROVED
    with pytest.raises(BundleRefused, match=r"evil\.py: found a file of a kind"):
        bundle_at(bundle.digest, folder)
    with pytest.raises(BundleRefused, match=f"allowed: {'c' * 64}, as under bundles"):
        bundle_at("c" * 64, archive)
    plain = SimpleNamespace(model=MODEL.validate_python({"network": "logistic"}))
    assert objection_to_bundle(plain, {}) is None  # type: ignore[arg-type]

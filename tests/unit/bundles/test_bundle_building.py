"""From a checked bundle to a network that takes a private step, a loss for each record, transforms and weights."""

import inspect
import io
import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from site_agent.bundles import targets, weights
from site_agent.bundles.building import _MODULES, inferer_of, loss_of, network_of, transforms_of
from site_agent.bundles.checking import Bundle, check_bundle
from site_agent.bundles.reading import read_bundle
from site_agent.bundles.refusals import BundleRefused
from site_agent.bundles.report import left_out_by_reason, look_at
from site_agent.cli import app
from site_agent.gradients.engine import Batch
from site_agent.gradients.loop import LoopEngine
from site_agent.update import global_model_of, load_vector, vector_of
from tests.fakes.bundle_folder import TRAIN, changed, write_bundle


def bundle_of(tmp_path: Path, config: object = TRAIN) -> Bundle:
    return check_bundle(read_bundle(write_bundle(tmp_path / "bundle", config)))


def test_its_network_takes_a_private_step_on_what_its_transforms_make(tmp_path: Path) -> None:
    """Transforms, network and loss of the bundle; patients, clipping and the sum are the agent's own."""
    bundle = bundle_of(tmp_path)
    network, loss = network_of(bundle)(7), loss_of(bundle)
    assert loss is not None
    generator = torch.Generator().manual_seed(1)
    train, validation = transforms_of(bundle, 7)
    images, labels = [], []
    for _ in range(3):
        image = torch.rand((20, 20, 20), generator=generator) * 221 - 57
        (made,) = train({"image": image, "label": (image > 50).float()})
        images.append(made["image"].as_tensor())
        labels.append(made["label"].as_tensor())
    batch = Batch(features=torch.stack(images), labels=torch.stack(labels), sizes=(1, 2))
    assert batch.features.shape == (3, 1, 16, 16, 16)
    assert 0 <= batch.features.min() < batch.features.max() <= 1
    found = LoopEngine(network, loss).clipped_sum(batch, 0.1)
    assert (found.patients, found.clipped, found.broken) == (2, 2, 0)
    assert 0 < np.linalg.norm(found.total) <= 0.2
    before = loss(network(batch.features), batch.labels).mean()
    load_vector(network, vector_of(network) - 0.5 * found.total.astype(np.float32))
    assert loss(network(batch.features), batch.labels).mean() < before

    whole = validation({"image": torch.rand(20, 20, 20), "label": torch.zeros(20, 20, 20)})["image"]
    assert inferer_of(bundle)(whole[None].as_tensor(), network).shape == (1, 2, 20, 20, 20)


def test_the_same_seed_gives_the_same_network_and_leaves_torchs_generator_alone(tmp_path: Path) -> None:
    build = network_of(bundle_of(tmp_path))
    state = torch.get_rng_state()
    first, second, third = (global_model_of(build(seed)).digest() for seed in (1, 1, 2))
    assert (first == second, first == third) == (True, False)
    assert (torch.get_rng_state() == state).all()


def test_batch_norm_becomes_group_norm(tmp_path: Path) -> None:
    network = network_of(bundle_of(tmp_path, changed("network_def#norm", "batch")))(0)
    kinds = {type(layer).__name__ for layer in network.modules()}
    assert "GroupNorm" in kinds
    assert not any("BatchNorm" in kind for kind in kinds)


def test_what_breaks_the_unit_of_privacy_is_not_built(tmp_path: Path) -> None:
    coupled = bundle_of(tmp_path / "a", changed("loss#batch", True))
    with pytest.raises(BundleRefused, match="loss#batch: found true; allowed: false"):
        loss_of(coupled)
    crops = bundle_of(tmp_path / "b", changed("train#random_transforms#0#num_samples", 4))
    with pytest.raises(BundleRefused, match="train#random_transforms#0#num_samples: found 4; allowed: 1"):
        transforms_of(crops, 0)


def test_arguments_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match=r"network_def: found arguments that do not go together \(ValueError\)"):
        network_of(bundle_of(tmp_path, changed("network_def#strides", [2])))


@pytest.mark.parametrize("target", {one.name: one for one in targets.TARGETS.values()}.values(), ids=lambda t: t.name)
def test_every_argument_is_one_that_the_class_takes(target: targets.Target) -> None:
    """What is on the list is found by name in MONAI or torch, and everything it must be given is asked for."""
    modules = _MODULES.get(target.kind, ("torch.optim", "torch.optim.lr_scheduler", "monai.optimizers"))
    maker = next(getattr(module, target.name) for module in map(import_module, modules) if hasattr(module, target.name))
    parameters = inspect.signature(maker).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        assert set(target.arguments) <= set(parameters)
    needed = {
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    assert needed - targets.WIRING.get(target.kind, frozenset()) <= target.required


NETWORKS = {
    "BasicUNet": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": [4, 4, 8, 8, 8, 4]},
    "SegResNet": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "init_filters": 8, "dropout_prob": 0.1},
    "AttentionUnet": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]},
    "SwinUNETR": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "feature_size": 12},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_other_networks_of_the_list_are_built(tmp_path: Path, name: str) -> None:
    config = changed("network_def", {"_target_": f"monai.networks.nets.{name}", **NETWORKS[name]})
    network = network_of(bundle_of(tmp_path, config))(0)
    assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 2, 32, 32)


# --- weights and the report -------------------------------------------------------------------------------------------


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def test_weights_of_each_form_are_the_same(tmp_path: Path) -> None:
    network = network_of(bundle_of(tmp_path))(3)
    state = network.state_dict()
    files = {
        "models/model.pt": saved(state),
        "models/model.pth": saved({"model": state, "epoch": 3}),
        "models/model.safetensors": global_model_of(network).to_safetensors(),
    }
    for name, content in files.items():
        found = weights.read_state(name, content)
        assert weights.misfits(name, found, network) == []
        assert all(torch.equal(found[key], value) for key, value in state.items())


def test_weights_of_another_network(tmp_path: Path) -> None:
    network = network_of(bundle_of(tmp_path))(3)
    state = dict(network.state_dict())
    first = max(state, key=lambda key: state[key].numel())
    for other, words in [
        ({key: value for key, value in state.items() if key != first}, "1 missing"),
        (state | {"more": torch.zeros(1)}, "1 more than the network has"),
        (state | {first: torch.zeros(1)}, "of shape (1,)"),
        (state | {first: torch.full_like(state[first], float("nan"))}, "not finite"),
    ]:
        (finding,) = weights.misfits("models/model.pt", other, network)
        assert words in finding.found
    for value in ({"a": 1}, [1], {}):
        with pytest.raises(BundleRefused, match=r"something other than|no tensor"):
            weights.read_state("models/model.pt", saved(value))
    with pytest.raises(BundleRefused, match="safetensors"):
        weights.read_state("models/model.safetensors", b"no")


def test_the_report_of_a_good_bundle(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    (folder / "models").mkdir()
    (folder / "models/model.pt").write_bytes(saved(network_of(bundle_of(tmp_path / "other"))(0).state_dict()))
    found = look_at(folder)
    assert found.accepted
    assert (found.parameters, found.weights) == (35_034, "38 tensors in models/model.pt, those of the network")
    assert json.loads(json.dumps(found.to_json()))["used"][0]["arguments"]["channels"] == "[8, 16, 32]"
    assert found.bundle is not None
    assert ("seeds: the study's seed decides", "initialize#0") in left_out_by_reason(found.bundle.left_out)


def test_the_report_of_bundles_that_are_not_taken(tmp_path: Path) -> None:
    nowhere = look_at(tmp_path / "nowhere")
    assert (nowhere.digest, nowhere.refused[0].found) == (None, "no such file or folder")
    hostile = look_at(write_bundle(tmp_path / "a", changed("run#0", "$__import__('os')")))
    assert (hostile.accepted, hostile.digest is not None, hostile.refused[0].place) == (
        False,
        True,
        "configs/train.json: run#0",
    )
    unfit = look_at(write_bundle(tmp_path / "b", changed("loss#batch", True)))
    assert (unfit.accepted, unfit.refused, unfit.unfit[0].place) == (True, (), "configs/train.json: loss#batch")
    large = look_at(write_bundle(tmp_path / "d", changed("network_def#strides", [2])))
    assert (large.accepted, large.parameters, large.model) == (False, None, None)
    assert large.refused[0].place == "configs/train.json: network_def"
    bare = look_at(write_bundle(tmp_path / "c", TRAIN | {"loss": None}))
    assert bare.bundle is not None
    assert (bare.accepted, bare.bundle.loss) == (True, None)


def test_the_command_prints_it_all(tmp_path: Path) -> None:
    good = CliRunner().invoke(app, ["bundle", "check", str(write_bundle(tmp_path / "a", changed("loss#batch", True)))])
    assert good.exit_code == 0
    for words in ("UNet(spatial_dims=3", "35,034 parameters", "network: bundle-segmenter", "loss#batch", "never run:"):
        assert words in good.stdout
    bad = CliRunner().invoke(app, ["bundle", "check", str(write_bundle(tmp_path / "b", changed("run#0", "$exit()")))])
    assert bad.exit_code == 1
    assert "Refused, 1:\n  configs/train.json: run#0\n" in bad.stdout
    told = CliRunner().invoke(app, ["bundle", "check", str(tmp_path / "b"), "--json"])
    assert json.loads(told.stdout)["refused"][0]["place"] == "configs/train.json: run#0"

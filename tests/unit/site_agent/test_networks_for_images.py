"""MONAI's networks as studies may name them: first weights, layers, a private step, and the way through the masks."""

import random
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from consortium.contract.layout import round_layout
from consortium.contract.networks import NETWORKS
from consortium.contract.plan import RoundKind
from privacy.dp.mechanism import Grid, PoissonSampledGaussian
from privacy.encoding import decode, encode
from privacy.secret import Secret
from site_agent.errors import NetworkRefused
from site_agent.gradients.engine import FLOAT_MARGIN
from site_agent.mechanism_audit import NotMeasurable, audit_mechanism
from site_agent.networks import build, build_from, layout_of
from site_agent.networks.private_layers import groups_of, with_private_layers
from site_agent.trainer import DpTrainer
from site_agent.training_spec import OptimizerSpec, PrivacySpec, TrainingSpec
from site_agent.update import (
    global_model_of,
    load_vector,
    named_parameters,
    parameter_count,
    parameter_layout,
    vector_of,
)
from site_agent.update_lanes import lanes_of
from tests.fakes.site_world import small_study
from tests.fakes.small_networks import SMALL_NETWORKS, images
from tests.fakes.training import entropy_of

EVERY = pytest.mark.parametrize("network", sorted(SMALL_NETWORKS))
PICTURES = pytest.mark.parametrize("network", sorted(n for n, one in SMALL_NETWORKS.items() if len(one.sides) == 2))


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # as at a hospital


def test_every_network_for_images_is_tried():
    imaging = {name for name, network in NETWORKS.items() if "imaging" in network.kinds}
    imaging -= {"bundle-classifier", "bundle-segmenter"}  # of one shape each; tests/unit/bundles
    assert {one.name for one in SMALL_NETWORKS.values()} == imaging


# --- first weights -------------------------------------------------------------------------------------------------


@EVERY
def test_first_weights_follow_from_the_seed_alone(network):
    """Whatever the process did before: no generator of torch, numpy or Python is read or moved."""
    spec = SMALL_NETWORKS[network].spec()
    models, states = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - it is this generator that must not matter
        random.seed(seed)
        before = (torch.get_rng_state(), np.random.get_state()[1], random.getstate())  # noqa: NPY002
        models.append(global_model_of(build_from(spec)))
        after = (torch.get_rng_state(), np.random.get_state()[1], random.getstate())  # noqa: NPY002
        states.append(torch.equal(before[0], after[0]) and (before[1] == after[1]).all() and before[2] == after[2])
    assert models[0].digest() == models[1].digest()
    assert all(states)


def test_another_seed_gives_other_weights():
    spec = SMALL_NETWORKS["unet 2-D"].spec()
    assert not (vector_of(build_from(replace(spec, seed=2))) == vector_of(build_from(spec))).all()


# --- layers --------------------------------------------------------------------------------------------------------


@EVERY
def test_it_gives_logits_for_each_label_and_trains_every_parameter(network):
    one = SMALL_NETWORKS[network]
    spec = one.spec(channels=2)
    module = build_from(spec)
    given = torch.from_numpy(images(spec, 2).features)
    kept = given.clone()
    found = module(given)
    assert found.shape == ((2, 3, *one.sides) if one.masks else (2, 3))
    assert torch.equal(given, kept)
    found.square().sum().backward()
    assert [name for name, p in named_parameters(module) if p.grad is None] == []
    # Layers that DP-SGD allows, and no others.
    assert [type(part).__name__ for part in module.modules() if isinstance(part, _NormBase)] == []
    assert [type(part).__name__ for part in module.modules() if getattr(part, "inplace", False)] == []
    assert [name for name, buffer in module.named_buffers() if buffer.is_floating_point()] == []


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (2, 1), (3, 1), (4, 2), (5, 1), (6, 3), (7, 1), (15, 5), (16, 8), (600, 8)],
)
def test_groups_divide_the_channels_and_have_two_each(channels, groups):
    assert groups_of(channels) == groups
    assert nn.GroupNorm(groups, channels).train()(torch.ones(1, channels, 2, 2)).shape == (1, channels, 2, 2)


def test_a_norm_that_two_parents_hold_stays_one():
    norm = nn.BatchNorm2d(4)
    module = with_private_layers(nn.Sequential(nn.Sequential(norm), nn.Sequential(norm), nn.ReLU(inplace=True)))
    assert module[0][0] is module[1][0]
    assert isinstance(module[0][0], nn.GroupNorm)
    assert not module[2].inplace


# --- a private step ------------------------------------------------------------------------------------------------


def training_on(spec):
    return TrainingSpec(
        network=spec,
        optimizer=OptimizerSpec(learning_rate=0.5),
        privacy=PrivacySpec(
            mechanism=PoissonSampledGaussian(noise_multiplier=0.1, sampling_rate=1.0, steps=1, clip_norm_l2=1.0),
            delta=1e-3,
            local_steps=1,
            max_records_per_patient=1,
            declared_patients=3,
        ),
    )


@PICTURES
def test_it_takes_a_private_step(network):
    spec = SMALL_NETWORKS[network].spec()
    trainer_spec = training_on(spec)
    trainer = DpTrainer(trainer_spec, images(spec, 3), entropy=entropy_of(network))
    mechanism = trainer_spec.privacy.mechanism
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained = trainer.train_round(vector_of(build_from(spec)))
        clean = trainer.clean_sum(Grid.of(mechanism, trained.update.size, margin=FLOAT_MARGIN))
    assert trained.events[0].mechanism.steps == 1
    assert (clean.patients, clean.broken) == (3, 0)
    assert 0.1 < np.linalg.norm(clean.total) <= 3
    # Three patients' clip norms over three move the weights half as far; then there is the noise.
    moved, noise = np.linalg.norm(trained.update.astype(np.float64)), 0.1 / 3 / 2 * np.sqrt(trained.update.size)
    assert 0.8 * noise < moved < 1.2 * (0.5 + noise)


def test_the_audit_of_the_mechanism_says_that_it_cannot_measure_dropout():
    spec = SMALL_NETWORKS["vit 2-D"].spec()
    with pytest.raises(NotMeasurable):
        audit_mechanism(training_on(replace(spec, args={**spec.args, "dropout": 0.1})), DpTrainer)


# --- the way through the masks -------------------------------------------------------------------------------------


@PICTURES
def test_its_parameters_survive_encoding_masks_and_decoding(network):
    """The sum of two hospitals' updates, each alone hidden by a mask, is what both moved: to the last step."""
    spec = SMALL_NETWORKS[network].spec()
    module = build_from(spec)
    assert layout_of(spec) == parameter_layout(module)
    study = small_study(aggregation={"update_clip": 1.0})
    layout = round_layout(study, parameters=layout_of(spec), kind=RoundKind.TRAIN, measured=False)
    update_lane = layout.lanes[0]
    rng = np.random.default_rng(1)
    updates = [rng.uniform(-1, 1, size=parameter_count(module)).astype(np.float32) for _ in range(2)]
    mask = rng.integers(2**layout.modulus_bits, size=layout.length, dtype=layout.dtype)
    masked = []
    for number, (update, sign) in enumerate(zip(updates, (1, -1), strict=True)):
        lanes = {**lanes_of(update, layout), "weight": np.array([1])}
        encoded = encode(lanes, layout, Secret(bytes([number]) * 32))
        masked.append(encoded + mask if sign > 0 else encoded - mask)
    moved = decode(masked[0] + masked[1], layout, survivors=2)[update_lane.name]
    assert np.abs(moved - np.sum(updates, axis=0, dtype=np.float64)).max() <= 2 / update_lane.scale
    before = vector_of(module)
    integers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    load_vector(module, (before + moved).astype(np.float32))
    assert (vector_of(module) == (before + moved).astype(np.float32)).all()
    assert all(torch.equal(buffer, integers[name]) for name, buffer in module.named_buffers())


def test_layers_that_dynunet_lists_twice_are_sent_once():
    module = build_from(SMALL_NETWORKS["dynunet 2-D"].spec())
    every = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    assert len(every) > len(layout_of(SMALL_NETWORKS["dynunet 2-D"].spec())) == len(list(module.parameters()))


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "args", "field", "found", "allowed"),
    [
        ("densenet121", {"norm": "batch"}, "model.args.norm", "an unknown key", "growth_rate"),
        ("resnet", {"depth": 34}, "model.args.depth", "34", "10, 18, 50"),
        ("resnet", {"width": 100_000}, "model.args.width", "100000", "from 2 to 128"),
        ("efficientnet", {"size": "l2"}, "model.args.size", "l2", "b0, b1"),
        ("efficientnet", {"dropout": 1.0}, "model.args.dropout", "1", "less than 1"),
        ("vit", {"hidden_size": 10, "heads": 3}, "model.args.heads", "3", "a divisor of hidden_size, 10"),
        ("vit", {"layers": 1000}, "model.args.layers", "1000", "from 1 to 24"),
        ("vit", {"patch_size": 15}, "data.shape[0]", "32 with vit", "a whole multiple of 15, such as 30 or 45"),
        ("unet", {"channels": (16,)}, "model.args.channels", "a list of 1", "a list of 2 to 6"),
        ("unet", {"channels": (2,) * 6, "res_units": 9}, "model.args.res_units", "9", "from 0 to 4"),
        ("unet", {"strides": (2,)}, "model.args.strides", "an unknown key", "channels"),
        ("dynunet", {"channels": (4, 8)}, "model.args.channels", "a list of 2", "a list of 3 to 6"),
        ("segresnet", {"blocks_up": (1,)}, "model.args.blocks_up", "1 levels", "3, one fewer than blocks_down has"),
        ("attention-unet", {"dropout": "high"}, "model.args.dropout", "high", "a number"),
        ("basic-unet", {"channels": (2, 2)}, "model.args.channels", "a list of 2", "a list of 6"),
        ("swin-unetr", {"feature_size": 20}, "model.args.feature_size", "20", "a multiple of 12"),
        ("swin-unetr", {"heads": (5, 6, 12, 24)}, "model.args.heads[0]", "5", "this stage's width, 24"),
        ("unetr", {"hidden_size": 16, "heads": 5}, "model.args.heads", "5", "a divisor of hidden_size, 16"),
        ("cnn", {}, "data.shape[0]", "32 with cnn", "28"),
        ("logistic", {}, "model.network", "logistic with imaging data", "one of cnn"),
    ],
)
def test_bad_arguments_are_refused_with_a_sentence(network, args, field, found, allowed):
    with pytest.raises(NetworkRefused) as caught:
        build(network, args, input_shape=(1, 32, 32), outputs=2, seed=1)
    assert caught.value.field == field
    assert found in str(caught.value)
    assert allowed in str(caught.value)

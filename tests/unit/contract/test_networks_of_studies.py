"""Which records a network takes and which labels a loss, said of the study file before anybody builds anything."""

import json
from copy import deepcopy

import pytest

from consortium.contract.networks import NETWORKS, misfits_of_data, parameters_of
from consortium.contract.shared_noise import PARAMETERS_ASSUMED, expected_parameters, shared_noise
from consortium.contract.study import StudyFile
from consortium.study_plan import describe_plan, plan
from tests.fakes.imaging_study import PICTURES
from tests.fakes.small_study import DOCUMENT

MASK = {"task": "segmentation", "label": {"type": "mask", "values": (0, 1)}}
TEN = {"type": "classes", "values": tuple(range(10))}


def study_of(network, args=None, *, loss="binary-cross-entropy", mechanism="local-dp-sgd", **data):
    record = deepcopy(DOCUMENT)
    record["data"] = {**PICTURES, "minimum_patients": 20, **data}
    record["model"] = {"network": network, "args": args or {}}
    record["training"]["loss"] = loss
    record["privacy"]["mechanism"] = mechanism
    record["aggregation"]["update_clip"] = 64.0
    record["training"] |= {"sampling_rate": 1.0, "rounds": 1}  # quick to account for
    kind = data.get("label", {}).get("type", "binary")
    record["evaluation"]["metrics"] = {"binary": ["auc"], "classes": ["accuracy"], "mask": ["dice"]}[kind]
    return StudyFile.model_validate_json(json.dumps(record))


def refusal(*arguments, **fields):
    with pytest.raises(ValueError, match="found") as caught:
        study_of(*arguments, **fields)
    return str(caught.value)


@pytest.mark.parametrize(
    ("network", "data", "said"),
    [
        ("mlp", {}, "model.network: found mlp with imaging data; allowed: one of cnn"),
        ("unet", {}, "model.network: found unet for classification; allowed: one of cnn"),
        ("cnn", MASK, "model.network: found cnn for segmentation; allowed: one of unet, dynunet, segresnet"),
        ("cnn", {"shape": (8, 8, 8)}, "model.network: found cnn with records of 3 axes; allowed: one of densenet121"),
        ("cnn", {"shape": (28, 32)}, "data.shape[1]: found 32 with cnn; allowed: 28"),
        ("densenet121", {"shape": (28, 28)}, "data.shape[0]: found 28 with densenet121; allowed: at least 32"),
        ("unet", {**MASK, "shape": (64, 60)}, "data.shape[1]: found 60 with unet; allowed: a whole multiple of 8"),
        ("unet", {**MASK, "shape": (64, 60)}, "a whole multiple of 8, such as 56 or 64"),
        ("swin-unetr", {**MASK, "shape": (96, 96, 80)}, "data.shape[2]: found 80 with swin-unetr; allowed: a whole"),
        ("swin-unetr", {**MASK, "shape": (96, 96, 80)}, "multiple of 32, such as 64 or 96"),
        ("unetr", {**MASK, "shape": (8, 16)}, "data.shape[0]: found 8 with unetr; allowed: a whole multiple of 16"),
    ],
)  # fmt: skip
def test_a_network_that_does_not_take_the_records_is_refused_in_plain_words(network, data, said):
    args = {"hidden": (4,), "activation": "relu"} if network == "mlp" else {}
    loss = "dice-cross-entropy" if data.get("task") else "binary-cross-entropy"
    assert said in refusal(network, args, loss=loss, **{"shape": (32, 32), **data})


@pytest.mark.parametrize(
    ("loss", "data", "allowed"),
    [
        ("cross-entropy", {}, "one of binary-cross-entropy, with labels of type binary"),
        ("binary-cross-entropy", {"label": TEN}, "one of cross-entropy, with labels of type classes"),
        ("dice-cross-entropy", {"label": TEN}, "one of cross-entropy, with labels of type classes"),
        ("binary-cross-entropy", MASK, "one of cross-entropy, dice-cross-entropy, with labels of type mask"),
    ],
)
def test_a_loss_that_does_not_take_the_labels_is_refused(loss, data, allowed):
    network = "unet" if data == MASK else "cnn"
    said = refusal(network, loss=loss, **{"shape": (32, 32) if data == MASK else (28, 28), **data})
    assert f"training.loss: found {loss}; allowed: {allowed}" in said


@pytest.mark.parametrize("name", ["batch-dice", "weighted-cross-entropy", "dice"])
def test_losses_over_a_batch_have_no_name(name):
    with pytest.raises(ValueError, match=r"training\.loss"):
        study_of("cnn", loss=name, shape=(28, 28))


@pytest.mark.parametrize(
    "name",
    ["cnn", "densenet121", "resnet", "efficientnet", "vit", "unet", "dynunet", "segresnet", "attention-unet",
     "basic-unet", "swin-unetr", "unetr"],
)  # fmt: skip
def test_every_network_with_its_defaults_takes_some_picture(name):
    section = NETWORKS[name].section.model_validate({"network": name})
    (task,) = NETWORKS[name].tasks
    for axes in NETWORKS[name].axes:
        side = 28 if name == "cnn" else 96
        assert list(misfits_of_data(section, kind="imaging", task=task, shape=(side,) * axes)) == []
        assert list(misfits_of_data(section, kind="imaging", task=task, shape=(17,) * axes)) or name == "resnet"


def test_parameters_are_known_of_our_own_networks_alone():
    assert study_of("cnn", shape=(28, 28)).parameters == parameters_of(study_of("cnn", shape=(28, 28)).model, (1,), 1)
    unbuilt = study_of("unet", loss="dice-cross-entropy", shape=(16, 16), **MASK)
    assert unbuilt.parameters is None
    assert expected_parameters(unbuilt) == PARAMETERS_ASSUMED


def test_what_is_asked_before_a_hospital_has_built_the_network():
    """The plan counts noise for one parameter and says so; the noise of a distributed study for the most."""
    local = study_of("unet", loss="dice-cross-entropy", shape=(16, 16), **MASK)
    found = plan(local)
    assert found.to_json()["parameters"] is None
    assert "counted when hospitals build it" in " ".join(describe_plan(found).split())
    shared = study_of("unet", loss="dice-cross-entropy", shape=(16, 16), mechanism="distributed-dp-sgd", **MASK)
    few, most = (shared_noise(shared, parameters=number).mechanism for number in (1000, PARAMETERS_ASSUMED))
    assert few.noise_multiplier <= most.noise_multiplier <= 1.01 * few.noise_multiplier
    assert few.share_tail < most.share_tail


def test_a_distributed_study_of_an_unbuilt_network_needs_the_count():
    shared = study_of("unet", loss="dice-cross-entropy", shape=(16, 16), mechanism="distributed-dp-sgd", **MASK)
    with pytest.raises(AssertionError):
        shared_noise(shared)

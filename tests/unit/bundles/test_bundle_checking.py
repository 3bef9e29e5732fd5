"""What is used of a benign bundle, what is left out, and how values, references and macros are read."""

from pathlib import Path
from typing import Any

import pytest

from site_agent.bundles import expressions, references, targets
from site_agent.bundles.checking import Bundle, check_bundle
from site_agent.bundles.expressions import DataType, ExpressionRefused
from site_agent.bundles.fitting import changes, misfits
from site_agent.bundles.reading import read_bundle
from site_agent.bundles.refusals import BundleRefused
from tests.fakes.bundle_folder import TRAIN, changed, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return check_bundle(read_bundle(write_bundle(tmp_path_factory.mktemp("zoo") / "bundle")))


def test_what_is_used_in_the_order_of_a_run(bundle: Bundle) -> None:
    assert [part.target.name for part in bundle.components] == [
        *("UNet", "DiceCELoss", "Adam", "StepLR"),
        *("EnsureChannelFirstd", "ScaleIntensityRanged", "EnsureTyped", "RandCropByPosNegLabeld", "RandFlipd"),
        *("EnsureChannelFirstd", "ScaleIntensityRanged", "EnsureTyped"),
        "SlidingWindowInferer",
    ]
    assert bundle.network.arguments == {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [8, 16, 32],
        "strides": [2, 2],
        "num_res_units": 1,
        "norm": ["GROUP", {"num_groups": 2}],
    }
    assert bundle.schedule is not None
    assert bundle.schedule.arguments == {"step_size": 10, "gamma": 0.1}
    assert bundle.train_transforms[2].arguments["dtype"] == DataType("float32")
    assert (bundle.name, bundle.version) == ("organ_ct_segmentation", "0.1.0")


def test_what_is_left_out_is_said_with_its_place(bundle: Bundle) -> None:
    reasons = {one.place.removeprefix("configs/train.json: "): one.why.partition(":")[0] for one in bundle.left_out}
    assert reasons == {
        "LICENSE": "documents",
        "configs/logging.conf": "logging",
        "docs/README.md": "documents",
        "imports#0": "imports",
        "imports#1": "imports",
        "imports#2": "imports",
        "images": "finding files",
        "labels": "finding files",
        "device": "devices",
        "network": "devices",
        "optimizer#params": "the optimizer's wiring",
        "train#deterministic_transforms#0": "reading data",
        "train#dataset": "reading data",
        "train#dataset#data": "lists of files",
        "train#dataloader": "reading data",
        "train#handlers#0": "progress",
        "train#handlers#1": "progress",
        "train#handlers#1#output_transform": "loops",
        "train#trainer": "loops",
        "validate#inferer#device": "devices",
        "validate#handlers#0": "progress",
        "validate#handlers#1": "files",
        "validate#evaluator": "loops",
        "initialize#0": "seeds",
        "initialize#1": "devices",
        "run#0": "loops",
    }


def test_a_bundle_in_yaml_is_the_same(tmp_path: Path, bundle: Bundle) -> None:
    folder = write_bundle(tmp_path / "bundle")
    (folder / "configs/train.json").rename(folder / "configs/train.yaml")  # JSON is YAML
    found = check_bundle(read_bundle(folder))
    assert [part.arguments for part in found.components] == [part.arguments for part in bundle.components]
    assert found.digest != bundle.digest


@pytest.mark.parametrize("disabled", [True, "true", "$@epochs > 10"])
def test_what_is_disabled_is_not_used(tmp_path: Path, disabled: object) -> None:
    off = TRAIN["train"]["random_transforms"][1] | {"_disabled_": disabled}
    folder = write_bundle(tmp_path / "bundle", changed("train#random_transforms#1", off))
    names = [part.target.name for part in check_bundle(read_bundle(folder)).train_transforms]
    assert names[-1] == "RandCropByPosNegLabeld"


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    config = changed("network_def#channels", "$[8] * 10**9") | {"helper": "$open('x')", "other": "%a.json#b"}
    with pytest.raises(BundleRefused) as caught:
        check_bundle(read_bundle(write_bundle(tmp_path / "a", config)))
    assert [finding.id for finding in caught.value.findings] == ["helper", "other"]
    config = changed("network_def#channels", "$[8] * 10**9") | {"loss": {"_target_": "DiceLoss", "weight": [1]}}
    with pytest.raises(BundleRefused, match="loss#weight: found an argument it may not be given here") as caught:
        check_bundle(read_bundle(write_bundle(tmp_path / "b", config)))
    assert [finding.id for finding in caught.value.findings] == ["network_def#channels", "loss#weight"]


def test_what_breaks_the_unit_of_privacy_is_no_attack_but_does_not_fit(tmp_path: Path) -> None:
    config = changed("loss#batch", True)
    config["train"]["random_transforms"][0]["num_samples"] = 4
    config["network_def"]["norm"] = "batch"
    found = check_bundle(read_bundle(write_bundle(tmp_path / "bundle", config)))
    assert [finding.place for finding in misfits(found)] == [
        "configs/train.json: loss#batch",
        "configs/train.json: train#random_transforms#0#num_samples",
    ]
    assert changes(found)[0] == "network_def: norms (batch) become group norms with groups of their own"


# --- expressions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("2 ** 0.5 > 1", True),
        ("[16 * 2**i for i in range(3)]", [16, 32, 64]),
        ("[a + b for a, b in [[1, 2], [3, 4]] if a > 1]", [7]),
        ("'a' + '/b'", "a/b"),
        ("{'x': [1, 2][-1]}['x']", 2),
        ("(1, 2) + (3,)", [1, 2, 3]),
        ("@list[1:] if @on else @list[:1]", [6, 7]),
        ("max(@list) // 2 - -1", 4),
        ("[0] * 3", [0, 0, 0]),
        ("np.pi > 3 and torch.pi < 4", True),
        ("None is None or 1 / 0", True),
        ("1 < 2 < 2", False),
        ("torch.float32", DataType("float32")),
        ("round(2.345, 1)", 2.3),
        (" len('abc') ", 3),
    ],
)
def test_expressions_have_pythons_values(text: str, value: object) -> None:
    known: dict[str, Any] = {"list": [5, 6, 7], "on": True}
    assert expressions.compute(expressions.check(text), known.__getitem__) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("[1][5]", "IndexError"),
        ("{'a': 1}['b']", "KeyError"),
        ("-'a'", "TypeError"),
        ("[a for a, b in [1]]", "TypeError"),
        ("(-8) ** 0.5", "a power out of range"),
        ("1e300 * 1e300", "too large"),
        ("'a' * 3", "other than numbers"),
        ("range(3)[0][0]", "an item of something"),
        ("1[0:1]", "a slice of something"),
        ("[1] == [1]", "a comparison of lists"),
        ("round(1, 10**9)", "arguments it does not take"),
        ("min([])", "arguments it does not take"),
        ("int([1])", "arguments it does not take"),
        ("{1: 2}", "a key that is no text"),
        ("glob.glob('x')", "finding files"),
        ("[i for i in 3]", "a loop over something"),
        ("[x for x in [1] for y in [2]]", "a loop within a loop"),
        ("[x for x[0] in [1]]", "an odd variable"),
        ("b'a'", "a constant that is no number"),
        ("1j", "a constant that is no number"),
        ("'\\d'", "not one Python expression"),
        ("consortium_reference_0", "the name"),
        ("setattr(torch, 'x', True)", "setattr(torch, 'x', True)"),
        ("[*[1]]", "unpacked into another"),
        ("{**{'a': 1}}", "unpacked into another"),
        ("~1", "syntax of the kind UnaryOp"),
        ("1 in [1]", "syntax of the kind Compare"),
        ("range(1, 2, step=1)", "a call of"),
    ],
)
def test_expressions_without_a_value_here(text: str, words: str) -> None:
    with pytest.raises(ExpressionRefused) as caught:
        expressions.compute(expressions.check(text), lambda _: 1)
    assert words in caught.value.found


def test_a_call_is_shown_as_its_author_wrote_it() -> None:
    with pytest.raises(ExpressionRefused, match=r'a call of "@network_def\.apply"'):
        expressions.check("@network_def.apply(1)")


# --- references -------------------------------------------------------------------------------------------------------


def test_macros_and_relative_ids() -> None:
    config = {
        "a": 1,
        "b": {"c": "@##a", "d": ["@#1", "$@##c + @###a", "%b#c"], "e": "%##f"},
        "f": {"g": "%b::d#0", "h": "text with @ and %"},
    }
    assert references.resolve("x", config) == {
        "a": 1,
        "b": {"c": "@a", "d": ["@b#d#1", "$@b#c + @a", "@a"], "e": {"g": "@b#d#1", "h": "text with @ and %"}},
        "f": {"g": "@b#d#1", "h": "text with @ and %"},
    }


@pytest.mark.parametrize(
    ("config", "place", "words"),
    [
        ({"a": "@##b"}, "a", "leads out"),
        ({"a": "%b"}, "a", "not there"),
        ({"a": ["%a#0"]}, "a#0", "circle"),
        ({"a": "%b", "b": "%a"}, "a", "circle"),
        ({"a": "%x.yaml"}, "a", "includes a file"),
        ({f"a{n}": f"%a{n + 1}" for n in range(40)} | {"a40": 1}, "a0", "macros within macros"),
    ],
)
def test_macros_that_are_not_taken(config: dict[str, Any], place: str, words: str) -> None:
    with pytest.raises(BundleRefused) as caught:
        references.resolve("x.json", config)
    assert (caught.value.findings[0].id, words in caught.value.findings[0].found) == (place, True)


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("SGD", {"lr": 0.1}, []),
        ("SGD", {"lr": True}, ["lr"]),
        ("SGD", {"lr": "0.1"}, ["lr"]),
        ("monai.transforms.RandFlipd", {"keys": "image", "prob": 2}, ["prob"]),
        ("RandFlipd", {"prob": 0.5}, ["keys"]),
        ("RandFlipd", {"keys": ["image", "../x"]}, ["keys"]),
        ("Orientationd", {"keys": "image", "axcodes": "RAS"}, []),
        ("Resized", {"keys": "image", "spatial_size": [8, 8, 8, 8]}, ["spatial_size"]),
        ("EnsureTyped", {"keys": "image", "dtype": "object"}, ["dtype"]),
        ("SwinUNETR", {"in_channels": 1, "out_channels": 2, "feature_size": 24.0}, ["feature_size"]),
        ("SegResNet", {"norm": ["group", {"num_groups": 0}]}, ["norm"]),
        ("SegResNet", {"norm": ["sync", {}]}, ["norm"]),
        ("SegResNet", {"act": ["prelu", {"device": "x"}]}, ["act"]),
        ("SegResNet", {"blocks_down": [], "dropout_prob": None}, ["blocks_down"]),
    ],
)
def test_arguments_are_bounded(name: str, arguments: dict[str, Any], expected: list[str]) -> None:
    assert [found for found, _, _ in targets.objections(targets.TARGETS[name], arguments)] == expected

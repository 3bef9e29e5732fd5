"""B-01: a bundle that would run its author's code at a hospital, read its files, or take its memory.

MONAI executes a bundle by design: `_target_` imports any name, `$` is Python's `eval`, metadata and logging files are
evaluated too (GHSA-x6pr-233j-x5cw, GHSA-873f-pvrv-4x83, GHSA-wvpx-5qmp-46g3), archives were unpacked outside their
folder (GHSA-9rg3-9pvr-6p27), weights were pickles (GHSA-6vm5-6jv9-rjpj). Each row changes one thing in a bundle that is
accepted as it is (`test_the_bundle_is_accepted_as_it_is`), and must be refused at the exact place.

Tried: rows b01 of `mutations.py`, for a few of the checks. Each was taken out by hand besides, and the cases that cover
it failed (by their names below):

| taken out of | what | cases that failed |
|---|---|---|
| `checking._Look._target` | the refusal | target-*, *-target, lambda-transform, saves-images, confusable |
| `checking._Look._section` | unknown keys; `_mode_` | requires, wrapper; mode-* |
| `checking._Look._expression` | which modules may stand under imports | own-script |
| `checking._metadata_findings` | texts; keys | metadata that is evaluated |
| `checking` | dangling references; circles; sizes; kinds | dangling; reference-circle; lists that share; loss-* |
| `checking._train_file` | more than one | two-configurations |
| `expressions.check` | length; `_PLACEHOLDER` in text | long-text; quoted-reference |
| `expressions._Checker` | names; attributes; syntax; depth | *-name; class-walk; lambda, generator; deep-* |
| `expressions._Checker.call` | refusal; whose method; unpacking | open, torch-load; foreign-method; unpack |
| `expressions._Checker.setting` | the pattern | setattr |
| computing | exponents; repeats; ranges; numbers; steps | power; repeat; range; percent-format; long-loop |
| `references` | files; circles; copies; whole ids | include-*; macro-circle; macros that unfold; odd-reference |
| `targets.objections` | unknown arguments; bounds | unknown-argument; downloads, huge-kernel |
| `building._require_bounded` | the count | a network of terabytes |
| `documents` | twice; depth; NaN, digits, range; keys; values; YAML | RAW, YAML: the row of that name |
| `reading._findings_of`, `_require_name` | kinds; sizes; names | python to no-suffix; large; hidden, slip, absolute |
| `reading._of_folder` | links; pipes; depth | link, linked-folder; pipe; nested |
| `reading._of_archive` | links; encryption | zip-link; encrypted |
| `reading._checked` | case | case, zip-case, zip-twice |
| `reading._require_small_directory` | number; 64-bit; end | huge-directory; zip64; cut |
| `reading.read_weights`, `digest` | the hash; the bytes | weights that change; every byte |
| `weights` | globals; instructions | weights that call something |

The number of files is looked at twice, so that a folder is not listed to its end; one of the two is enough for the row.
"""

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from site_agent.bundles import reading
from site_agent.bundles.building import network_of
from site_agent.bundles.checking import check_bundle
from site_agent.bundles.reading import read_bundle
from site_agent.bundles.refusals import BundleRefused
from site_agent.bundles.weights import read_state
from tests.fakes.bundle_folder import METADATA, TRAIN, changed, pack, write_bundle

TRAIN_FILE = "configs/train.json"


def refusals(path: Path) -> dict[str, str]:
    with pytest.raises(BundleRefused) as caught:
        check_bundle(read_bundle(path))
    assert caught.value.advice()
    assert all(finding.found and finding.allowed and finding.advice for finding in caught.value.findings)
    return {finding.place: finding.found for finding in caught.value.findings}


def test_the_bundle_is_accepted_as_it_is(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    bundle = check_bundle(read_bundle(folder))
    assert (bundle.network.target.name, bundle.network.arguments["channels"]) == ("UNet", [8, 16, 32])
    for inside in ("", "organ_ct/"):
        archive = pack(folder, tmp_path / f"{len(inside)}.zip", inside=inside)
        assert check_bundle(read_bundle(archive)) == bundle


# --- the training configuration ---------------------------------------------------------------------------------------

HANDLER = "train#handlers#2"

CONFIGS: dict[str, tuple[str, Any, str, str]] = {
    # name: where it is put, what is put there, the place that must be named, words of what was found
    "target-os-system": (HANDLER, {"_target_": "os.system", "command": "id"}, f"{HANDLER}#_target_", "os.system"),
    "target-subprocess": ("helper", {"_target_": "subprocess.run", "args": ["id"]}, "helper#_target_", "subprocess"),
    "target-eval": ("helper", {"_target_": "builtins.eval", "source": "1"}, "helper#_target_", "builtins.eval"),
    "target-of-monai": ("helper", {"_target_": "monai.bundle.run"}, "helper#_target_", "monai.bundle.run"),
    "target-own-module": ("network_def#_target_", "scripts.net.Net", "network_def#_target_", "scripts.net.Net"),
    "lambda-transform": (
        "train#random_transforms#2",
        {"_target_": "Lambdad", "keys": "image", "func": "@epochs"},
        "train#random_transforms#2#_target_",
        "Lambdad",
    ),
    "saves-images": (
        "train#postprocessing#transforms#2",
        {"_target_": "SaveImaged", "keys": "pred", "output_dir": "/srv"},
        "train#postprocessing#transforms#2#_target_",
        "SaveImaged",
    ),
    "confusable": ("network_def#_target_", "U\u039det", "network_def#_target_", "\u039det"),
    "computed-target": ("helper", {"_target_": "$@network_def.forward"}, "helper#_target_", "forward"),
    "macro-target": ("helper", {"_target_": "%bundle_root"}, "helper#_target_", "%bundle_root"),
    "target-that-is-a-list": ("helper", {"_target_": ["os.system"]}, "helper#_target_", "a list"),
    "requires": ("loss#_requires_", ["@device"], "loss#_requires_", "_requires_"),
    "wrapper": ("loss#_wrapper_", "@device", "loss#_wrapper_", "_wrapper_"),
    "mode-callable": ("loss#_mode_", "callable", "loss#_mode_", "callable"),
    "mode-debug": ("loss#_mode_", "debug", "loss#_mode_", "debug"),
    "mode-computed": ("loss#_mode_", "@bundle_root", "loss#_mode_", "@bundle_root"),
    "import-call": ("run#1", "$__import__('os').system('id')", "run#1", "__import__"),
    "open": ("images", "$open('/etc/shadow').read()", "images", "open"),
    "torch-load": ("helper", "$torch.load(@bundle_root + '/x.pt')", "helper", "torch.load"),
    "class-walk": ("helper", "$().__class__.__base__", "helper", "__class__"),
    "builtin-name": ("helper", "$__builtins__", "helper", "__builtins__"),
    "module-name": ("helper", "$torch", "helper", "torch"),
    "foreign-method": ("helper", "$torch.hub.to('x')", "helper", "torch.hub.to"),
    "own-method": ("helper", "$@network_def.apply(@epochs)", "helper", "apply"),
    "lambda": ("helper", "$lambda x: x", "helper", "lambda"),
    "format": ("helper", "$f'{@epochs}'", "helper", "formatted text"),
    "percent-format": (
        "network_def#in_channels",
        "$'%999999999d' % 1",
        "network_def#in_channels",
        "other than numbers",
    ),
    "generator": ("helper", "$list(i for i in range(9))", "helper", "generator"),
    "assignment": ("helper", "$(x := 1)", "helper", "assignment"),
    "unpack": ("helper", "$torch.device(**{'type': 'cpu'})", "helper", "unpacked"),
    "setattr": ("initialize#1", "$setattr(torch.nn.Module, 'train', False)", "initialize#1", "setattr"),
    "quoted-reference": ("helper", "$'@network_def'", "helper", "inside quoted text"),
    "two-statements": ("helper", "$1; 2", "helper", "not one Python expression"),
    "import-elsewhere": ("helper", "$import os", "helper", "not one Python expression"),
    "own-script": ("imports#3", "$import scripts", "imports#3", "import scripts"),
    "from-import": ("imports#3", "$from os import system", "imports#3", "not one Python expression"),
    "power": ("network_def#in_channels", "$9**9**9", "network_def#in_channels", "power"),
    "repeat": ("network_def#channels", "$[8] * 10**9", "network_def#channels", "grows too long"),
    "range": ("network_def#channels", "$list(range(10**5))", "network_def#channels", "range"),
    "long-loop": ("width", "$[sum(range(4000)) for i in range(4000)][0]", "width", "too long"),
    "long-text": ("width", "$" + "1 + " * 400 + "1", "width", "characters"),
    "deep-expression": ("width", "$" + "-" * 100 + "1", "width", "too many parts"),
    "long-name": ("width", "$a" + ".a" * 290 + "()", "width", "a call of"),
    "calls-of-lists": ("width", "$" + "[" * 150 + "]" * 150 + "()", "width", "a call of"),
    "many-brackets": ("width", "$" + "(" * 250 + "1" + ")" * 250, "width", "not one Python expression"),
    "include-outside": ("helper", "%/etc/consortium/site.yaml#datasets", "helper", "includes a file"),
    "include-inside": ("helper", "%configs/other.json::net", "helper", "includes a file"),
    "macro-circle": ("helper", {"a": "%helper"}, "helper#a", "circle"),
    "reference-circle": ("epochs", "$@epochs + 1", "epochs", "circle"),
    "dangling": ("helper", "@nowhere#0", "helper", "not there"),
    "odd-reference": ("helper", "@nowhere()", "helper", "the text"),
    "downloads": (
        "network_def",
        {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "pretrained": True},
        "network_def#pretrained",
        "true",
    ),
    "huge-kernel": ("network_def#kernel_size", 99, "network_def#kernel_size", "99"),
    "unknown-argument": ("network_def#dimensions", 3, "network_def#dimensions", "may not be given"),
    "loss-as-network": ("network_def", {"_target_": "DiceLoss"}, "network_def", "something else"),
    "text-as-network": ("network_def", "a text", "network_def", "a text"),
}


@pytest.mark.parametrize(("at", "value", "place", "words"), CONFIGS.values(), ids=CONFIGS)
def test_a_configuration_that_is_more_than_data(tmp_path: Path, at: str, value: Any, place: str, words: str) -> None:
    found = refusals(write_bundle(tmp_path / "bundle", changed(at, value)))
    assert words in found[f"{TRAIN_FILE}: {place}"]


def test_macros_that_unfold_to_terabytes(tmp_path: Path) -> None:
    doubled = {f"x{n}": [f"%x{n + 1}", f"%x{n + 1}"] for n in range(30)} | {"x30": 1}
    assert "macros that copy too much" in refusals(write_bundle(tmp_path / "bundle", TRAIN | doubled)).values()


def test_lists_of_lists_that_share(tmp_path: Path) -> None:
    shared = {f"y{n}": f"$[@y{n + 1}, @y{n + 1}]" for n in range(14)} | {"y14": 1}
    found = refusals(write_bundle(tmp_path / "bundle", changed("width", "$len(@y0)") | shared))
    assert list(found.values()) == ["a value that grows too large"]


def test_a_network_of_terabytes(tmp_path: Path) -> None:
    """Every argument is within its bound, and together they are too much; no memory is taken to find out."""
    wide = {"channels": [1024] * 6, "strides": [1] * 5, "kernel_size": 7, "num_res_units": 8}
    folder = write_bundle(tmp_path / "bundle", changed("network_def", TRAIN["network_def"] | wide))
    with pytest.raises(BundleRefused, match=r"network_def: found [0-9,]{14,} parameters"):
        network_of(check_bundle(read_bundle(folder)))


RAW: dict[str, tuple[str, str, str]] = {
    # name: the whole file, the place, words of what was found
    "duplicate-key": (
        '{"network_def": {"_target_": "UNet", "_target_": "os.system"}}',
        "network_def#_target_",
        "second",
    ),
    "reaching-key": ('{"network_def#_target_": "UNet"}', "network_def#_target_", "the key"),
    "adding-key": ('{"+imports": ["$import os"]}', "+imports", "the key"),
    "deep": ('{"a": ' + "[" * 5000 + "]" * 5000 + "}", "", "nested too deeply"),
    "not-a-number": ('{"width": NaN}', "width", "NaN"),
    "digits": ('{"width": ' + "9" * 5000 + "}", "width", "99999"),
    "large-number": ('{"width": 1e400}', "width", "inf"),
    "no-sections": ("[1, 2]", "", "a list of 2"),
    "not-json": ('{"a": 1', "", "not JSON"),
    "many-values": ('{"a": [' + "0," * 30_000 + "0]}", "", "too many values"),
}


@pytest.mark.parametrize(("text", "place", "words"), RAW.values(), ids=RAW)
def test_a_file_that_readers_understand_differently(tmp_path: Path, text: str, place: str, words: str) -> None:
    found = refusals(write_bundle(tmp_path / "bundle", text.encode()))
    assert words in found[f"{TRAIN_FILE}: {place}" if place else TRAIN_FILE]


YAML: dict[str, tuple[str, str, str]] = {
    "tag": ("epochs: !!python/object/apply:os.system ['id']\n", "epochs", "the tag"),
    "alias-bomb": ("a: &a [1]\nb: [*a, *a]\n", "b#0", "alias"),
    "yaml-duplicate-key": ("epochs: 1\nepochs: 2\n", "epochs", "second time"),
    "two-documents": ("epochs: 1\n---\nepochs: 2\n", "", "second document"),
}


@pytest.mark.parametrize(("text", "place", "words"), YAML.values(), ids=YAML)
def test_yaml_that_builds_objects(tmp_path: Path, text: str, place: str, words: str) -> None:
    folder = write_bundle(tmp_path / "bundle")
    (folder / TRAIN_FILE).unlink()
    (folder / "configs/train.yaml").write_text(text)
    found = refusals(folder)
    assert words in found["configs/train.yaml: " + place if place else "configs/train.yaml"]


def test_metadata_that_is_evaluated(tmp_path: Path) -> None:
    odd = METADATA | {
        "task": "$__import__('os').system('id')",
        "authors": {"_target_": "os.system"},
        "x": "%/etc/x.json",
    }
    found = refusals(write_bundle(tmp_path / "bundle", metadata=odd))
    assert {
        "configs/metadata.json: task",
        "configs/metadata.json: authors#_target_",
        "configs/metadata.json: x",
    } == set(found)


def test_a_logging_file_with_code_is_never_read(tmp_path: Path) -> None:
    """`logging.config.fileConfig` evaluates its class and args; here the file is hashed, and named as left out."""
    bundle = check_bundle(read_bundle(write_bundle(tmp_path / "bundle")))
    assert next(one.why for one in bundle.left_out if one.place == "configs/logging.conf").startswith("logging: ")


# --- the files --------------------------------------------------------------------------------------------------------


def _write(name: str, content: bytes = b"x") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return write


def _link(folder: Path) -> None:
    (folder / "configs/datalist.json").symlink_to("/etc/passwd")


def _linked_folder(folder: Path) -> None:
    (folder / "models").symlink_to("/etc")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "configs/pipe.json")


def _large(folder: Path) -> None:
    with (folder / "configs/other.json").open("wb") as file:
        file.truncate(reading.CONFIG_BYTES_MAX + 1)


def _many(folder: Path) -> None:
    for number in range(reading.FILES_MAX + 1):
        (folder / f"docs/{number}.md").touch()


def _nested(folder: Path) -> None:
    (folder / "docs/a/b/c/d/e/f/g/h").mkdir(parents=True)


def _second(folder: Path) -> None:
    (folder / "configs/train.yaml").write_text("epochs: 1\n")


def _missing(folder: Path) -> None:
    (folder / "configs/metadata.json").unlink()


FILES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "python": (_write("scripts/net.py"), "scripts/net.py", "a kind that no bundle needs"),
    "compiled": (_write("scripts/net.pyc"), "scripts/net.pyc", "a kind that no bundle needs"),
    "torchscript": (_write("models/model.ts"), "models/model.ts", "a kind that no bundle needs"),
    "pickle": (_write("models/state.pkl"), "models/state.pkl", "a kind that no bundle needs"),
    "library": (_write("lib.so"), "lib.so", "a kind that no bundle needs"),
    "no-suffix": (_write("Makefile"), "Makefile", "a kind that no bundle needs"),
    "hidden": (_write(".git/config.json"), ".git/config.json", "a name that leads out"),
    "case": (_write("configs/TRAIN.json", b"{}"), "configs/train.json", "the same name a second time"),
    "link": (_link, "configs/datalist.json", "a link"),
    "linked-folder": (_linked_folder, "models", "a link"),
    "pipe": (_pipe, "configs/pipe.json", "not a file"),
    "large": (_large, "configs/other.json", "1048577 bytes"),
    "many": (_many, "the bundle", "too many files"),
    "nested": (_nested, "docs/a/b/c/d/e/f", "nested too deeply"),
    "two-configurations": (_second, "the bundle", "configs/train.json, configs/train.yaml"),
    "no-metadata": (_missing, "configs/metadata.json", "no such file"),
}


@pytest.mark.parametrize(("prepare", "place", "words"), FILES.values(), ids=FILES)
def test_a_folder_with_more_than_data(tmp_path: Path, prepare: Callable[[Path], None], place: str, words: str) -> None:
    folder = write_bundle(tmp_path / "bundle")
    prepare(folder)
    found = refusals(folder)
    assert any(where.startswith(place) and words in what for where, what in found.items()), found


def _entry(name: str, *, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def _added(name: str, content: str = "{}", *, mode: int = 0o100644) -> Callable[[Path], None]:
    def add(archive: Path) -> None:
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(_entry(name, mode=mode), content)

    return add


def _twice(archive: Path) -> None:
    with zipfile.ZipFile(archive, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("configs/train.json", "{}")


def _lying_size(archive: Path) -> None:
    """A directory that says 10 bytes of a file that unfolds to a megabyte."""
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("docs/bomb.md", "0" * 2**20)
    raw = bytearray(archive.read_bytes())
    at = raw.rindex(b"docs/bomb.md") - 46
    assert raw[at : at + 4] == b"PK\x01\x02"
    raw[at + 24 : at + 28] = struct.pack("<I", 10)
    archive.write_bytes(raw)


def _huge_claim(archive: Path) -> None:
    raw = bytearray(archive.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", 2**32 - 2)
    archive.write_bytes(raw)


def _huge_directory(archive: Path) -> None:
    raw = bytearray(archive.read_bytes())
    raw[-12:-10] = struct.pack("<H", 60_000)
    archive.write_bytes(raw)


def _encrypted(archive: Path) -> None:
    raw = bytearray(archive.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 8] |= 1
    archive.write_bytes(raw)


def _zip64(archive: Path) -> None:
    raw = archive.read_bytes()
    archive.write_bytes(raw[:-22] + b"PK\x06\x07" + bytes(16) + raw[-22:])


def _cut(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-30])


def _damaged(archive: Path) -> None:
    raw = bytearray(archive.read_bytes())
    raw[40] ^= 0xFF  # in the first file
    archive.write_bytes(raw)


ARCHIVES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "slip": (_added("../../etc/cron.json"), "../../etc/cron.json", "leads out of the bundle"),
    "slip-within": (_added("configs/../../x.json"), "configs/../../x.json", "leads out of the bundle"),
    "absolute": (_added("/etc/cron.json"), "/etc/cron.json", "leads out of the bundle"),
    "backslash": (_added("configs\\x.json"), "configs\\x.json", "leads out of the bundle"),
    "zero-byte": (_added("configs/x.py\0.json"), "configs/x.py", "a "),
    "zip-link": (_added("configs/x.json", "/etc/passwd", mode=0o120777), "configs/x.json", "a link"),
    "zip-python": (_added("scripts/net.py"), "scripts/net.py", "a kind that no bundle needs"),
    "zip-case": (_added("configs/Train.json"), "configs/Train.json", "a second time"),
    "zip-twice": (_twice, "configs/train.json", "a second time"),
    "lying-size": (_lying_size, "the bundle", "damaged"),
    "huge-claim": (_huge_claim, "docs/README.md", "4294967294 bytes"),
    "huge-directory": (_huge_directory, "the bundle", "too many files"),
    "encrypted": (_encrypted, "docs/README.md", "encrypted"),
    "zip64": (_zip64, "the bundle", "64-bit"),
    "cut": (_cut, "the bundle", "not a plain zip file"),
    "damaged": (_damaged, "the bundle", "damaged"),
}


@pytest.mark.parametrize(("prepare", "place", "words"), ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_that_unfolds_elsewhere(
    tmp_path: Path, prepare: Callable[[Path], None], place: str, words: str
) -> None:
    archive = pack(write_bundle(tmp_path / "bundle"), tmp_path / "bundle.zip")
    prepare(archive)
    found = refusals(archive)
    assert any(where.startswith(place) and words in what for where, what in found.items()), found


# --- weights ----------------------------------------------------------------------------------------------------------


class _Calls:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("id",)


def _torch_file(path: Path, pickled: bytes) -> bytes:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/version", "3\n")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("pickled", "words"),
    [
        (pickle.dumps({"w": _Calls()}, protocol=2), "posix system"),
        (pickle.dumps({"w": _Calls()}, protocol=4), "STACK_GLOBAL"),
        (b"cos\nsystem\n(S'id'\ntR.", "os system"),
        (b"(S'id'\nios\nsystem\n.", "the instruction STRING"),
        (b"not a pickle", "not torch's"),
    ],
)
def test_weights_that_call_something(tmp_path: Path, pickled: bytes, words: str) -> None:
    content = _torch_file(tmp_path / "x.pt", pickled)
    with pytest.raises(BundleRefused) as caught:
        read_state("models/model.pt", content)
    assert (caught.value.findings[0].file, words in caught.value.findings[0].found) == ("models/model.pt", True)


def test_weights_that_change_after_the_check(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    _write("models/model.pt", b"first")(folder)
    file = check_bundle(read_bundle(folder)).weights
    assert file is not None
    assert reading.read_weights(folder, file) == b"first"
    _write("models/model.pt", b"later")(folder)
    with pytest.raises(BundleRefused, match="other bytes than a moment ago"):
        reading.read_weights(folder, file)


def test_every_byte_is_in_the_digest(tmp_path: Path) -> None:
    """A hospital approves a digest: whatever changes in a bundle, used or not, must change it."""
    folder = write_bundle(tmp_path / "bundle")
    digest = read_bundle(folder).digest
    for name in ("configs/logging.conf", "docs/README.md", "LICENSE", "configs/metadata.json"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(before[:-1] + b"!")
        assert read_bundle(folder).digest != digest
        (folder / name).write_bytes(before)
    (folder / "LICENSE").rename(folder / "NOTICE")
    assert read_bundle(folder).digest != digest
    (folder / "NOTICE").rename(folder / "LICENSE")
    assert read_bundle(folder).digest == digest
    assert json.loads((folder / TRAIN_FILE).read_bytes()) == TRAIN

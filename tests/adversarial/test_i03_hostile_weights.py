"""I-03: initial weights from a file that may be anybody's: it is the named one and this network's, or not used at all.

Tried: rows i03 of `mutations.py`, which delete, one at a time, in `site_agent/networks/initial.py`: the comparison of
digests, the bound on the size, the look at what kind of file it is, and each of the four checks of `_require_fit`.
"""

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from consortium.contract.global_model import GlobalModel
from site_agent.errors import WeightsRefused
from site_agent.networks import build
from site_agent.networks.initial import load_initial
from site_agent.training_spec import InitialFile

NAMES = ("0.bias", "0.weight")


def network() -> torch.nn.Module:
    return build("logistic", {}, input_shape=(3,), seed=1)


def model(*, names: tuple[str, ...] = NAMES, inputs: int = 3, fill: float = 0.5) -> bytes:
    shapes = {name: (1, inputs) if name.endswith("weight") else (1,) for name in names}
    layout = tuple(sorted(shapes.items()))
    size = sum(int(np.prod(shape)) for _, shape in layout)
    return GlobalModel(layout, np.full(size, fill, dtype=np.float32)).to_safetensors()


def with_header(header: object, values: bytes = b"\0" * 16) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + values


def entry(shape: list[int], stop: int, dtype: str = "F32", start: int = 0) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


class Bomb:
    """What a pickle would do."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch HACKED",)


def state_of_an_optimizer() -> bytes:
    layout = (("0.bias", (1,)), ("0.weight", (1, 3)))
    state = (("~server/velocity", (4,)),)
    return GlobalModel(layout, np.ones(4, np.float32), state, np.ones(4, np.float32)).to_safetensors()


HOSTILE: dict[str, tuple[bytes, str]] = {
    "truncated": (model()[:-2], "bytes of values"),
    "something after the end": (model() + b"\0\0\0\0", "bytes of values"),
    "empty": (b"", "at least 8 bytes"),
    "a header of gigabytes": (struct.pack("<Q", 2**33) + b"{}", "the header claims 8589934592 bytes"),
    "a tensor of gigabytes": (with_header({"0.weight": entry([2**30], 2**32)}), "its header says 4294967296"),
    "a shape that overflows": (with_header({"0.weight": entry([2**31, 2**31], 16)}), "a shape that no parameter has"),
    "a negative offset": (with_header({"0.weight": entry([1, 3], 12, start=-4)}), "must lie at bytes"),
    "two tensors on the same bytes": (
        with_header({"0.bias": entry([1], 4), "0.weight": entry([1, 3], 12)}), "must lie at bytes",
    ),
    "half precision": (with_header({"0.weight": entry([8], 16, "F16")}), "only float32"),
    "not a number": (model(fill=float("nan")), "not finite"),
    "infinite": (model(fill=float("inf")), "not finite"),
    "deeply nested": (struct.pack("<Q", 100_000) + b"[" * 100_000, "not a safetensors file: RecursionError"),
    "a pickle": (pickle.dumps(Bomb()), "safetensors"),
    "another network's names": (model(names=("0.bias", "1.weight")), "1 tensors that the network does not have"),
    "another network's shape": (model(inputs=2), r"of shape \(1, 2\)"),
    "a part": (model(names=("0.bias",)), "1 of 2 parameters are not in the file"),
    "an optimizer's state": (state_of_an_optimizer(), "an optimizer's state"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_changes_nothing(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, words = HOSTILE[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(content)
    module = network()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    with pytest.raises(WeightsRefused, match=words):
        load_initial(module, named(content, tmp_path / "file"))
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert not (tmp_path / "HACKED").exists()


def named(content: bytes, path: Path, *, draw_missing: bool = False) -> InitialFile:
    return InitialFile(sha256=hashlib.sha256(content).hexdigest(), draw_missing=draw_missing, path=str(path))


def test_a_good_file_with_another_digest_is_another_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(model(fill=0.25))
    with pytest.raises(WeightsRefused, match="a file with the SHA-256"):
        load_initial(network(), named(model(fill=0.5), tmp_path / "file"))
    load_initial(good := network(), named(model(fill=0.25), tmp_path / "file"))
    assert {value for p in good.parameters() for value in p.flatten().tolist()} == {0.25}


def test_drawing_what_is_missing_allows_nothing_else(tmp_path: Path) -> None:
    for content, words in (HOSTILE["another network's names"], HOSTILE["another network's shape"]):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(WeightsRefused, match=words):
            load_initial(network(), named(content, tmp_path / "file", draw_missing=True))


def test_sizes_and_kinds_are_known_before_anything_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**26)  # takes no room, and would do no harm if it were read after all
    with pytest.raises(WeightsRefused, match="a file of 67108864 bytes"):
        load_initial(network(), named(b"", tmp_path / "huge"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsRefused, match="something that is no file"):
        load_initial(network(), named(b"", tmp_path / "pipe"))
    with pytest.raises(WeightsRefused, match="cannot be read"):
        load_initial(network(), named(b"", tmp_path / "nothing"))

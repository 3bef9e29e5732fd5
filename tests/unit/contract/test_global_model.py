"""The global model: one digest for its values, and no file from a peer that is anything else."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save

from consortium.contract.global_model import GlobalModel, ModelRefused, parameters_in
from tests.fakes.small_study import first_model


def entry(start: Any, stop: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [1], "data_offsets": [start, stop]}


def safetensors(header: Any, body: bytes = b"", *, claims: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if claims is None else claims) + text + body


def test_the_digest_is_the_one_its_docstring_spells_out() -> None:
    model = GlobalModel((("a", (2,)), ("b", ())), np.array([1.0, -2.5, 3.0], np.float32))
    header = b'{"parameters":[["a",[2]],["b",[]]],"schema":"consortium/global-model/v1"}'
    values = struct.pack("<3f", 1.0, -2.5, 3.0)
    assert model.digest() == hashlib.sha256(header + b"\n" + values).hexdigest()


def test_the_digest_covers_names_shapes_and_values() -> None:
    values = np.zeros(4, np.float32)
    models = [
        GlobalModel((("a", (4,)),), values),
        GlobalModel((("b", (4,)),), values),
        GlobalModel((("a", (2, 2)),), values),
        GlobalModel((("a", (4,)),), np.array([0, 0, 0, 1], np.float32)),
    ]
    assert len({model.digest() for model in models}) == len(models)


def test_it_travels_as_safetensors() -> None:
    model = GlobalModel((("bias", ()), ("weight", (2, 3)), ("z", (1,))), np.arange(8, dtype=np.float32) / np.float32(7))
    read = GlobalModel.from_safetensors(model.to_safetensors())
    assert read.parameters == model.parameters
    assert np.array_equal(read.vector, model.vector)
    assert read.digest() == model.digest()


def test_metadata_of_the_file_is_not_part_of_the_model() -> None:
    tensors = {"layer.bias": np.zeros(1, np.float32), "layer.weight": np.zeros((1, 2), np.float32)}
    read = GlobalModel.from_safetensors(save(tensors, metadata={"author": "somebody else"}))
    assert read.digest() == first_model().digest()


def test_parameters_are_sorted_and_distinct() -> None:
    with pytest.raises(ModelRefused, match="sorted"):
        GlobalModel((("b", (1,)), ("a", (1,))), np.zeros(2, np.float32))
    with pytest.raises(ModelRefused, match="sorted"):
        GlobalModel((("a", (1,)), ("a", (1,))), np.zeros(2, np.float32))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        safetensors({}, claims=2**63),  # a header larger than any memory
        safetensors({}, claims=3),  # one byte more than there is
        safetensors(b" " * (16 * 2**20 + 1)),  # more header than any model needs
        safetensors(b"[" * 100_000 + b"]" * 100_000),  # deeper than a parser's stack
        safetensors(b"not json"),
        safetensors([]),
        safetensors({}),  # no parameters
        safetensors({"a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**62]}}, bytes(4)),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),  # a hole
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(9)),  # more than it says
        safetensors({"a": {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        first_model().to_safetensors()[:-1],
        save({"a": np.zeros(2, np.float64)}),
        save({"a": np.zeros(2, np.float16)}),
        save({"a": np.zeros(2, np.int64)}),
        save({"a": np.array([1.0, np.nan], np.float32)}),
        save({"a": np.array([np.inf], np.float32)}),
        save({"a": np.array([-np.inf], np.float32)}),
        safetensors({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)),  # two parameters in one place
        safetensors({"a": entry(4, 8), "b": entry(0, 4)}, bytes(8)),  # not in the order of their names
        safetensors(b'{"a":%(e)s,"a":%(e)s}' % {b"e": json.dumps(entry(0, 4)).encode()}, bytes(4)),  # one name twice
        safetensors({"a": entry(0, 4) | {"more": 1}}, bytes(4)),
        safetensors({"a": entry(0, 4) | {"shape": [True]}}, bytes(4)),
        safetensors({"a": entry(0, 4) | {"shape": [-1, -1]}}, bytes(4)),
        safetensors({"a": entry(0, 4) | {"shape": [1.0]}}, bytes(4)),
        safetensors({"a": entry(0, 4) | {"shape": [1] * 9}}, bytes(4)),  # more dimensions than any parameter has
        safetensors({"a": entry(0.0, 4)}, bytes(4)),
        safetensors({"a": 4}, bytes(4)),
        safetensors({"a\n": entry(0, 4)}, bytes(4)),
        safetensors(b'{"\\ud800":' + json.dumps(entry(0, 4)).encode() + b"}", bytes(4)),  # not a character
        safetensors({"abc": entry(0, 4)}, bytes(4)),  # values that do not begin at a multiple of four bytes
        safetensors(json.dumps({"a": entry(0, 4)}).encode("utf-16"), bytes(4)),
    ],
    ids=range(35),
)
def test_a_hostile_file_is_refused(data: bytes) -> None:
    with pytest.raises(ModelRefused) as caught:
        GlobalModel.from_safetensors(data)
    assert caught.value.code == "invalid"
    assert caught.value.advice()


# --- files ---------------------------------------------------------------------------------------------------------

MODEL = GlobalModel(
    (("0.bias", (3,)), ("0.weight", (3, 2)), ("10.weight", (2, 1, 2)), ("scale", ()), ("übergang", (1,))),
    np.arange(15, dtype=np.float32) / np.float32(7),
)


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(MODEL.to_safetensors())
    tensors = load_file(path)
    assert {name: tensors[name].shape for name in tensors} == dict(MODEL.parameters)
    assert np.concatenate([tensors[name].ravel() for name in sorted(tensors)]).tolist() == MODEL.vector.tolist()
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"schema": "consortium/global-model/v1"}


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    tensors, start = {}, 0
    for name, shape in reversed(MODEL.parameters):
        tensors[name] = MODEL.vector[start : start + int(np.prod(shape))].reshape(shape)
        start += tensors[name].size
    path = tmp_path / "model.safetensors"
    path.write_bytes(save(tensors))
    model = GlobalModel.open(path)
    assert model.parameters == MODEL.parameters
    assert model.vector.tolist() == np.concatenate([tensors[name].ravel() for name in sorted(tensors)]).tolist()
    assert parameters_in(path) == MODEL.parameters


def test_the_values_of_an_opened_model_are_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(MODEL.to_safetensors())
    model = GlobalModel.open(path)
    assert model.digest() == MODEL.digest()
    assert not model.vector.flags.owndata
    assert not model.vector.flags.writeable
    other = first_model().to_safetensors()
    path.with_suffix(".new").write_bytes(other)
    path.with_suffix(".new").replace(path)  # replaced or removed, the model that is open stays what it was
    path.unlink()
    assert model.vector.tolist() == MODEL.vector.tolist()


def test_a_file_is_given_in_parts_that_are_not_copies() -> None:
    header, values = MODEL.file_parts()
    assert len(header) % 8 == 0
    assert np.shares_memory(np.frombuffer(values, np.uint8), MODEL.vector)
    assert bytes(header) + bytes(values) == MODEL.to_safetensors()


def test_a_model_cannot_be_written_to_and_its_digest_is_computed_once() -> None:
    model = GlobalModel((("a", (2,)),), np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="read-only"):
        model.vector[0] = 1
    assert model.digest() is model.digest()


@pytest.mark.parametrize("data", [b"", b"\x00" * 7, MODEL.to_safetensors()[:-1], MODEL.to_safetensors() + b"x"])
def test_a_file_of_another_length_is_refused_from_its_header_too(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelRefused):
        GlobalModel.open(path)
    with pytest.raises(ModelRefused):
        parameters_in(path)


def test_a_parameter_without_values_takes_no_place() -> None:
    model = GlobalModel((("a", (0,)), ("b", (2, 0))), np.zeros(0, np.float32))
    read = GlobalModel.from_safetensors(model.to_safetensors())
    assert (read.parameters, read.digest()) == (model.parameters, model.digest())

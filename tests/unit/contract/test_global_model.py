"""The global model: one digest for its values, and no file from a peer that is anything else."""

import hashlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from consortium.contract.global_model import GlobalModel, ModelRefused
from tests.fakes.small_study import first_model


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


def test_other_values_for_the_same_parameters() -> None:
    model = first_model()
    moved = model.with_vector(np.ones(3, np.float32))
    assert moved.parameters == model.parameters
    assert moved.digest() != model.digest()
    with pytest.raises(ModelRefused):
        model.with_vector(np.ones(4, np.float32))
    with pytest.raises(ModelRefused):
        model.with_vector(np.ones(3, np.float64))  # type: ignore[arg-type]


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
    ],
    ids=range(21),
)
def test_a_hostile_file_is_refused(data: bytes) -> None:
    with pytest.raises(ModelRefused) as caught:
        GlobalModel.from_safetensors(data)
    assert caught.value.code == "invalid"
    assert caught.value.advice()

"""Frames of the pipe between agent and training child: what is sent is what is read, and rubbish is refused."""

import json
import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_agent.training_child.frames import (
    HEAD_BYTES_MAX,
    MAGIC,
    PREFIX_BYTES,
    SIZE_OF,
    ArraySpec,
    FrameRefused,
    Head,
    encode_head,
    read_head,
    read_prefix,
)
from site_agent.training_child.pipe import Pipe

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
ARRAYS = st.lists(
    st.builds(ArraySpec, st.text(max_size=8), st.sampled_from(sorted(SIZE_OF)), SHAPES),
    max_size=4,
    unique_by=lambda array: array.name,
).map(tuple)
SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(SCALARS | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3), max_leaves=6)
HEADS = st.builds(Head, st.text(max_size=12), st.dictionaries(st.text(max_size=8), VALUES, max_size=3), ARRAYS)


def split(frame):
    head_bytes, body_bytes = read_prefix(frame[:PREFIX_BYTES])
    assert len(frame) == PREFIX_BYTES + head_bytes
    return frame[PREFIX_BYTES:], body_bytes


@given(HEADS)
def test_what_is_written_is_read(head):
    data, body_bytes = split(encode_head(head))
    assert read_head(data, body_bytes) == head
    assert body_bytes == head.body_bytes


@given(HEADS, st.data())
def test_bytes_that_are_no_frame_are_refused_and_nothing_else_is_raised(head, data):
    frame = bytearray(encode_head(head))
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] ^= data.draw(st.integers(1, 255))
    cut = bytes(frame[: data.draw(st.integers(0, len(frame)))])
    for tried in (bytes(frame), cut):
        try:
            _, body_bytes = read_prefix(tried[:PREFIX_BYTES])
            found = read_head(tried[PREFIX_BYTES:], body_bytes)
        except FrameRefused:
            pass
        else:  # another number, say: then it is a frame all the same
            assert found.body_bytes == body_bytes


@given(st.binary(max_size=64))
def test_any_bytes_as_a_head_are_refused_or_read(data):
    try:
        head = read_head(data, 0)
    except FrameRefused:
        return
    assert head.body_bytes == 0


@pytest.mark.parametrize(("head_bytes", "body_bytes"), [(HEAD_BYTES_MAX + 1, 0), (10, 101), (2**32 - 1, 2**64 - 1)])
def test_lengths_are_refused_before_memory_is_taken(head_bytes, body_bytes):
    prefix = MAGIC + head_bytes.to_bytes(4, "little") + body_bytes.to_bytes(8, "little")
    with pytest.raises(FrameRefused, match="allowed: at most"):
        read_prefix(prefix, body_max=100)


@pytest.mark.parametrize(
    "head",
    [
        {"arrays": [], "fields": {}},
        {"arrays": [["a", "<f4", [2]], ["a", "<f4", [2]]], "fields": {}, "kind": "x"},
        {"arrays": [["a", "|O", [2]]], "fields": {}, "kind": "x"},
        {"arrays": [["a", "<f4", [-1]]], "fields": {}, "kind": "x"},
        {"arrays": [["a", "<f4", [True]]], "fields": {}, "kind": "x"},
        {"arrays": [["a", "<f4", [2] * 9]], "fields": {}, "kind": "x"},
        {"arrays": [["a", "<f4"]], "fields": {}, "kind": "x"},
        {"arrays": [[str(n), "|u1", [0]] for n in range(17)], "fields": {}, "kind": "x"},
        {"arrays": [], "fields": [], "kind": "x"},
        {"arrays": [], "fields": {}, "kind": 1},
        [],
    ],
)
def test_a_head_of_another_form_is_refused(head):
    with pytest.raises(FrameRefused):
        read_head(json.dumps(head).encode(), 16)


@given(st.sampled_from(["<f4", "<f8", "<i8", "<u4", "|u1"]), st.integers(0, 300))
def test_arrays_arrive_as_they_were(dtype, length):
    ours, theirs = socket.socketpair()
    values = np.arange(length).astype(dtype)
    spec = ArraySpec("values", dtype, (length,))
    with ours, theirs:
        Pipe(ours).send("some", {"n": length}, [(spec, memoryview(values).cast("B") if length else memoryview(b""))])
        there = Pipe(theirs)
        head = there.receive_head(body_max=spec.size_bytes)
        found = np.empty(length, dtype=dtype)
        there.receive_into(memoryview(found).cast("B") if length else memoryview(b""))
    assert head == Head("some", {"n": length}, (spec,))
    assert (found == values).all()

"""Frames of the pipe between agent and training child: pure functions between bytes and values.

    16 bytes      b"CTC1", the head's length (4 bytes, little-endian), the body's length (8 bytes)
    the head      canonical JSON: {"arrays": [[name, dtype, [shape...]], ...], "fields": {...}, "kind": ...}
    the body      the arrays' bytes, one after the other in the order of the head, little-endian, rows first

A frame is refused by its first 16 bytes if it is larger than what is waited for, and by its head if the arrays do not
fill the body or are of another type than the six below. Nothing is unpickled; memory for the body is taken by whoever
has found that the head says what it should.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from consortium.contract.digest import Canonical, canonical_bytes
from site_agent.errors import SiteError

MAGIC = b"CTC1"
_PREFIX = struct.Struct("<4sIQ")
PREFIX_BYTES = _PREFIX.size
HEAD_BYTES_MAX = 16 * 2**20
BODY_BYTES_MAX = 2**37
ARRAYS_MAX, DIMENSIONS_MAX = 16, 8
SIZE_OF = {"<f4": 4, "<f8": 8, "<i8": 8, "<u4": 4, "|b1": 1, "|u1": 1}
"""Types of numbers, by numpy's names, and the bytes of one."""


class FrameRefused(SiteError):
    """What came over the pipe is no frame, or not the one that is waited for. Whose fault: the other end's."""

    def advice(self) -> str:
        """What to do next."""
        return "The training process is ended and the study prepared anew. Report it if it happens again."


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One array of a body."""

    name: str
    dtype: str  # a key of SIZE_OF
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Its length in the body."""
        return SIZE_OF[self.dtype] * math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Head:
    """What a frame says, and what is in its body."""

    kind: str
    fields: Mapping[str, Any]
    arrays: tuple[ArraySpec, ...] = ()

    @property
    def body_bytes(self) -> int:
        """The body's length."""
        return sum(array.size_bytes for array in self.arrays)


def encode_head(head: Head) -> bytes:
    """Everything of a frame that stands before its body; raises ValueError for numbers that JSON does not have."""
    arrays: list[Canonical] = [[array.name, array.dtype, list(array.shape)] for array in head.arrays]
    data = canonical_bytes({"arrays": arrays, "fields": dict(head.fields), "kind": head.kind})
    return _PREFIX.pack(MAGIC, len(data), head.body_bytes) + data


def read_prefix(data: bytes, *, head_max: int = HEAD_BYTES_MAX, body_max: int = BODY_BYTES_MAX) -> tuple[int, int]:
    """The lengths of head and body; raises FrameRefused if either is more than is allowed."""
    if len(data) != PREFIX_BYTES:
        raise FrameRefused(f"a frame begins with {len(data)} bytes, not {PREFIX_BYTES}")
    magic, head_bytes, body_bytes = _PREFIX.unpack(data)
    if magic != MAGIC:
        raise FrameRefused("what came begins like no frame")
    if head_bytes > head_max or body_bytes > body_max:
        raise FrameRefused(
            f"a frame of {head_bytes} + {body_bytes} bytes came; allowed: at most {head_max} + {body_max}"
        )
    return head_bytes, body_bytes


def read_head(data: bytes, body_bytes: int) -> Head:
    """The head of a frame whose body has so many bytes; raises FrameRefused."""
    try:
        said = json.loads(str(data, "utf-8"), object_pairs_hook=_distinct, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise FrameRefused(f"a frame's head is no JSON ({type(error).__name__})") from None
    if not isinstance(said, dict) or said.keys() != {"arrays", "fields", "kind"}:
        raise FrameRefused("a frame's head does not have arrays, fields and kind")
    kind, fields, arrays = said["kind"], said["fields"], said["arrays"]
    if not isinstance(kind, str) or not isinstance(fields, dict) or not isinstance(arrays, list):
        raise FrameRefused("a frame's head has a kind, fields or arrays of another type")
    if len(arrays) > ARRAYS_MAX:
        raise FrameRefused(f"a frame has {len(arrays)} arrays; allowed: at most {ARRAYS_MAX}")
    head = Head(kind, fields, tuple(_array(one) for one in arrays))
    if len({array.name for array in head.arrays}) != len(head.arrays) or head.body_bytes != body_bytes:
        raise FrameRefused(
            f"a frame's arrays have {head.body_bytes} bytes, each with a name of its own; {body_bytes} came"
        )
    return head


def _array(given: Any) -> ArraySpec:
    if not isinstance(given, list) or len(given) != 3:
        raise FrameRefused("an array is described by its name, type and shape")
    name, dtype, shape = given
    if not isinstance(name, str) or not isinstance(dtype, str) or dtype not in SIZE_OF or not isinstance(shape, list):
        raise FrameRefused("an array of a frame has a name, one of six types, and a shape")
    if len(shape) > DIMENSIONS_MAX or not all(type(side) is int and 0 <= side <= BODY_BYTES_MAX for side in shape):
        raise FrameRefused(f"the array {name[:40]!r} has a shape that no array has")
    return ArraySpec(name, dtype, tuple(shape))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_number(_: str) -> float:
    raise ValueError("no number")

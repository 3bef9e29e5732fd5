"""How many parts a message has, counted in its bytes before protobuf takes memory for any of them.

An empty entry of a list is two bytes on the wire and more than a hundred in memory, so the bound on a message's length
is not a bound on what it costs: 7 MiB of empty entries became 420 MiB. The count stops at its limit, and steps over the
contents of every field that has no lists in it, so that an honest message costs a few microseconds.
"""

from functools import cache
from typing import Any

from consortium.wire.errors import WireViolation

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIDTH = {_FIXED64: 8, _FIXED32: 4}
_VARINT_BYTES_MAX = 10
_TYPE_MESSAGE = 11  # descriptor.FieldDescriptor.TYPE_MESSAGE


def check_parts(kind: Any, data: bytes, most: int) -> None:
    """Raise WireViolation if there are more than `most` fields and entries in a message, or no message at all.

    Args:
        kind: The message's descriptor.
        data: Its bytes, of bounded length.
        most: How many parts it may have.
    """
    if not _has_lists(kind):
        return
    try:
        left = _count(kind, data, 0, len(data), most)
    except IndexError:
        raise WireViolation(kind.name, found=f"{len(data)} bytes of something else", allowed="protobuf") from None
    if left < 0:
        raise WireViolation(kind.name, found=f"more than {most} entries", allowed=f"at most {most} entries")


def _count(kind: Any, data: bytes, at: int, end: int, left: int) -> int:
    """What is left of the limit after the fields between `at` and `end`; negative as soon as it is passed."""
    inside = _with_lists(kind)
    while at < end:
        left -= 1
        if left < 0:
            return left
        tag, at = _varint(data, at)
        wire_type = tag & 7
        if wire_type == _LENGTH:
            length, at = _varint(data, at)
            if length > end - at:
                raise IndexError
            nested = inside.get(tag >> 3)
            if nested is not None:
                left = _count(nested, data, at, at + length, left)
                if left < 0:
                    return left
            at += length
        elif wire_type == _VARINT:
            _, at = _varint(data, at)
        else:
            # Groups are of another age: no schema of ours has any.
            at += _WIDTH.get(wire_type, end + 1)
    if at != end:
        raise IndexError
    return left


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a place, and the place after it."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for place in range(1, _VARINT_BYTES_MAX):
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise IndexError


@cache
def _with_lists(kind: Any) -> dict[int, Any]:
    """The fields of a message, by number, whose own fields are worth counting."""
    return {
        field.number: field.message_type
        for field in kind.fields
        if field.type == _TYPE_MESSAGE and _has_lists(field.message_type)
    }


@cache
def _has_lists(kind: Any) -> bool:
    """Whether there is a repeated field in a message, or in one of its fields. No message of ours contains itself."""
    return any(
        field.is_repeated or (field.type == _TYPE_MESSAGE and _has_lists(field.message_type)) for field in kind.fields
    )

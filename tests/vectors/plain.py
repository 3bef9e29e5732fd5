"""Messages and records <-> plain JSON: bytes as hexadecimal, tuples as lists, dataclasses as objects."""

import types
import typing
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any


def to_plain(value: Any) -> Any:
    """A dataclass, tuple, byte string or number -> what json.dumps takes."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    return value


def from_plain(kind: Any, plain: Any) -> Any:
    """The reverse, for a dataclass type and the types its fields are annotated with."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(plain)
    if kind is bytes:
        return bytes.fromhex(plain)
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: from_plain(hints[name], plain[name]) for name in plain})
    if typing.get_origin(kind) in (tuple, types.GenericAlias):
        arguments = typing.get_args(kind)
        if arguments[-1] is Ellipsis:
            return tuple(from_plain(arguments[0], item) for item in plain)
        return tuple(from_plain(argument, item) for argument, item in zip(arguments, plain, strict=True))
    return plain

"""Key material that cannot be printed, pickled or written as JSON by accident."""

import hmac
from typing import Generic, NoReturn, TypeVar, final

T = TypeVar("T")


@final
class Secret(Generic[T]):
    """A value that leaves only through `expose()`, so that every place that reads it can be found by name.

    It prints as `Secret(32 bytes)`, refuses pickling, and compares in constant time. Two secrets that are not bytes
    do not compare at all: there is no constant-time comparison for them. It is immutable, so copying returns itself.
    """

    __slots__ = ("_value",)

    _value: T

    def __init__(self, value: T) -> None:
        object.__setattr__(self, "_value", value)

    def expose(self) -> T:
        """The value itself. Whoever calls this is responsible for where it goes."""
        return self._value

    def __repr__(self) -> str:
        value = self._value
        return f"Secret({len(value)} bytes)" if isinstance(value, bytes) else f"Secret({type(value).__name__})"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return format(repr(self), format_spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine, theirs = self._value, other.expose()
        if not isinstance(mine, bytes) or not isinstance(theirs, bytes):
            raise TypeError("only secrets that hold bytes can be compared")
        return hmac.compare_digest(mine, theirs)

    __hash__ = None  # type: ignore[assignment]  # a hash of a secret would be a printable trace of it

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __copy__(self) -> "Secret[T]":
        return self

    def __deepcopy__(self, memo: object) -> "Secret[T]":
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled")

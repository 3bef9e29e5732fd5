"""The global model as both sides know it: named float32 parameters, one flat vector, one digest.

It travels and rests as safetensors. Its digest covers names, shapes and values but not the file format, so that any
tool that can read the numbers can recompute it:

    SHA-256( canonical JSON {"schema": "consortium/global-model/v1", "parameters": [[name, [shape...]], ...]}
             || 0x0A || the little-endian float32 values in that order )

Parameters are sorted by name.

Between rounds a model may carry what the next step of the optimizer needs and a hospital that missed a round could not
know: its momentum, say. That is further tensors, whose names begin with `~` and so stand after every parameter's; they
are in the file and under the digest like any other. Whoever trains, evaluates or counts sees the parameters alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from consortium.contract.digest import Canonical, canonical_bytes
from consortium.contract.errors import ContractError
from consortium.contract.names import Digest
from privacy.lazy_numpy import np

if TYPE_CHECKING:
    import numpy.typing as npt

SCHEMA = "consortium/global-model/v1"
ParameterLayout: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]
Float32Vector: TypeAlias = "npt.NDArray[np.float32]"

_HEADER_BYTES_MAX = 16 * 2**20
_DIMENSIONS_MAX = 8
_VALUES_MAX = 2**33
_BLOCK = 1 << 16  # values looked at a time
_VALUE_BYTES = 4
_LENGTH_BYTES = 8
STATE_MARK = "~"
"""What the name of every tensor begins with that is no parameter; it stands after all letters, digits and dots."""


class ModelRefused(ContractError):
    """A global model that is not what it should be."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "The model is not used. If it came from the coordinator, report it: every site must get the same bytes."


@dataclass(frozen=True, slots=True, eq=False)
class GlobalModel:
    """Named parameters as one vector: float32[sum of the shapes], in the order of `parameters`.

    The vectors cannot be written to through the model, and may be a file on disk (`open`). Whoever made them does not
    change them any more either: the digest is computed once.
    """

    parameters: ParameterLayout
    vector: Float32Vector
    state: ParameterLayout = ()  # of the server's optimizer: every name begins with STATE_MARK
    state_vector: Float32Vector = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    _digest: list[Digest] = field(init=False, repr=False, default_factory=list)  # empty until somebody asks

    def __post_init__(self) -> None:
        names = [name for name, _ in (*self.parameters, *self.state)]
        if names != sorted(set(names)):
            raise ModelRefused("the model's parameters must be sorted by name, each once")
        if [name.startswith(STATE_MARK) for name in names] != [False] * len(self.parameters) + [True] * len(self.state):
            raise ModelRefused(f"what begins with {STATE_MARK!r} is the optimizer's, and no parameter's name")
        for name, layout in (("vector", self.parameters), ("state_vector", self.state)):
            values: Float32Vector = getattr(self, name)
            wanted = parameter_count(layout)
            if values.dtype != np.float32 or values.shape != (wanted,):
                raise ModelRefused(f"the model has {values.size} values of {values.dtype}, its layout {wanted}")
            view = values.view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def digest(self) -> Digest:
        """The digest of the module docstring. The first call reads every value; it may take seconds."""
        if not self._digest:
            hasher = _begun_digest((*self.parameters, *self.state))
            for values in (self.vector, self.state_vector):
                hasher.update(np.ascontiguousarray(values, dtype="<f4").data)
            self._digest.append(Digest(hasher.hexdigest()))
        return self._digest[0]

    def file_parts(self) -> Iterator[bytes | memoryview]:
        """The file it travels and rests as, in parts: the header, and the values, which are not copied."""
        entries: dict[str, Any] = {"__metadata__": {"schema": SCHEMA}}
        start = 0
        for name, shape in (*self.parameters, *self.state):
            stop = start + _VALUE_BYTES * math.prod(shape)
            entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}
            start = stop
        header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        header += b" " * (-len(header) % _LENGTH_BYTES)  # so that the values are aligned, as safetensors has it
        yield len(header).to_bytes(_LENGTH_BYTES, "little") + header
        for values in (self.vector, self.state_vector):
            if values.size:
                yield np.ascontiguousarray(values, dtype="<f4").data.cast("B")

    def to_safetensors(self) -> bytes:
        """The file as bytes: a copy of every value."""
        return b"".join(self.file_parts())

    @classmethod
    def open(cls, path: Path) -> GlobalModel:
        """Read a file from an untrusted peer without holding it: its values are looked at where they lie on disk.

        The file is read once, to check it and to know its digest. It may be unlinked or replaced while the model is in
        use; it must not be written to.

        Raises:
            ModelRefused: As `from_safetensors`.
            OSError: It is not there, or cannot be read.
        """
        with path.open("rb") as file:
            tensors, first_byte = _header_of(file)
            file.seek(first_byte)
            hasher = _begun_digest(tensors)
            buffer = bytearray(_VALUE_BYTES * _BLOCK)
            while size_bytes := file.readinto(buffer):
                block = memoryview(buffer)[:size_bytes]
                _require_finite(np.frombuffer(block, dtype="<f4"))
                hasher.update(block)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        model = cls(*_parted(tensors, _values(memoryview(mapped), first_byte)))
        model._digest.append(Digest(hasher.hexdigest()))
        return model

    @classmethod
    def from_safetensors(cls, data: bytes | bytearray | memoryview) -> GlobalModel:
        """Read a file from an untrusted peer; raises ModelRefused for anything but finite float32 tensors.

        The tensors must lie in the file in the order of their names, as every library writes tensors of one type: then
        the vector is the file's own bytes, and nothing is copied. `data` must not change any more.
        """
        view = memoryview(data)
        tensors, first_byte = _read_header(view, len(view))
        values = _values(view, first_byte)
        _require_finite(values)
        return cls(*_parted(tensors, values))


def is_finite(vector: npt.NDArray[np.float32]) -> bool:
    """Whether every value is a number, block by block: a long vector takes no memory for it."""
    return all(bool(np.isfinite(vector[at : at + _BLOCK]).all()) for at in range(0, len(vector), _BLOCK))


def parameter_count(parameters: ParameterLayout) -> int:
    """How many values parameters of these shapes have."""
    return sum(math.prod(shape) for _, shape in parameters)


def parameters_in(path: Path) -> ParameterLayout:
    """Names and shapes of the parameters in a file, from its header alone; raises ModelRefused, OSError."""
    with path.open("rb") as file:
        return _parameters_of(_header_of(file)[0])


def state_in(path: Path) -> ParameterLayout:
    """Names and shapes of the state in a file, from its header alone; raises ModelRefused, OSError."""
    with path.open("rb") as file:
        return tuple(item for item in _header_of(file)[0] if item[0].startswith(STATE_MARK))


def _parameters_of(tensors: ParameterLayout) -> ParameterLayout:
    parameters = tuple(item for item in tensors if not item[0].startswith(STATE_MARK))
    if not parameters:
        raise ModelRefused("the model has no parameters")
    return parameters


def _parted(
    tensors: ParameterLayout, values: Float32Vector
) -> tuple[ParameterLayout, Float32Vector, ParameterLayout, Float32Vector]:
    """All tensors of a file as the fields of a model. Sorted as they are, the parameters come first."""
    parameters = _parameters_of(tensors)
    count = parameter_count(parameters)
    return parameters, values[:count], tensors[len(parameters) :], values[count:]


def _header_of(file: BufferedReader) -> tuple[ParameterLayout, int]:
    """As `_read_header`, of an open file."""
    start = file.read(_LENGTH_BYTES)
    header = file.read(min(int.from_bytes(start, "little"), _HEADER_BYTES_MAX + 1))
    return _read_header(memoryview(start + header), os.fstat(file.fileno()).st_size)


def _begun_digest(tensors: ParameterLayout) -> hashlib._Hash:
    """The digest of the module docstring, up to the values."""
    described: Canonical = {"schema": SCHEMA, "parameters": [[name, list(shape)] for name, shape in tensors]}
    return hashlib.sha256(canonical_bytes(described) + b"\n")


def _values(view: memoryview, first_byte: int) -> Float32Vector:
    """The bytes from there on as numbers."""
    if first_byte == len(view):  # numpy makes no array of nothing
        return np.zeros(0, dtype="<f4")
    return np.frombuffer(view, dtype="<f4", offset=first_byte)


def _require_finite(vector: Float32Vector) -> None:
    if not is_finite(vector):
        raise ModelRefused("the model holds a value that is not finite")


def _read_header(view: memoryview, size_bytes: int) -> tuple[ParameterLayout, int]:
    """The tensors of a file of `size_bytes` that begins with `view`, and where its values begin.

    Refuses a header that claims more than the file holds, or more than any model needs, before it is parsed; and
    tensors that are not float32, or do not fill the rest of the file one after the other in the order of their names.
    """
    if size_bytes < _LENGTH_BYTES:
        raise ModelRefused(f"a safetensors file has at least 8 bytes, this has {size_bytes}")
    length = int.from_bytes(view[:_LENGTH_BYTES], "little")
    allowed = min(_HEADER_BYTES_MAX, size_bytes - _LENGTH_BYTES)
    if length > allowed:
        raise ModelRefused(f"the header claims {length} bytes; allowed: at most {allowed}")
    first_byte = _LENGTH_BYTES + length
    try:
        entries = json.loads(str(view[_LENGTH_BYTES:first_byte], "utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"not a safetensors file: {type(error).__name__}") from error
    if not isinstance(entries, dict):
        raise ModelRefused("not a safetensors file: its header is not an object")
    entries.pop("__metadata__", None)  # what a tool writes about itself is no part of the model
    if not entries:
        raise ModelRefused("the model has no parameters")
    if first_byte % _VALUE_BYTES:
        raise ModelRefused(f"the values begin at byte {first_byte}; allowed: a multiple of {_VALUE_BYTES}")
    parameters, stop = [], 0
    for name in sorted(entries):
        shape, stop = _tensor(name, entries[name], stop)
        parameters.append((name, shape))
    if stop != size_bytes - first_byte:
        raise ModelRefused(f"the file holds {size_bytes - first_byte} bytes of values, its header says {stop}")
    return tuple(parameters), first_byte


def _tensor(name: str, entry: Any, start: int) -> tuple[tuple[int, ...], int]:
    """A tensor's shape, and where its bytes end; they begin at `start`. Raises ModelRefused."""
    keys = {"dtype", "shape", "data_offsets"}
    shown = repr(name[:100])
    if not name.isprintable() or not isinstance(entry, dict) or entry.keys() != keys:
        raise ModelRefused(f"parameter {shown} is not described by {', '.join(sorted(keys))}")
    if entry["dtype"] != "F32":
        raise ModelRefused(f"parameter {shown} is {str(entry['dtype'])[:20]}; only float32 is allowed")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _whole_numbers(shape) or len(shape) > _DIMENSIONS_MAX or math.prod(shape) > _VALUES_MAX:
        raise ModelRefused(f"parameter {shown} has a shape that no parameter has")
    stop = start + _VALUE_BYTES * math.prod(shape)
    if not _whole_numbers(offsets) or offsets != [start, stop]:
        raise ModelRefused(f"parameter {shown} must lie at bytes {start} to {stop}, where its name and shape put it")
    return tuple(shape), stop


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number <= 2**40 for number in value)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; ValueError if it says something twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found

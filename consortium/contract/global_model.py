"""The global model as both sides know it: named float32 parameters, one flat vector, one digest.

It travels and rests as safetensors. Its digest covers names, shapes and values but not the file format, so that any
tool that can read the numbers can recompute it:

    SHA-256( canonical JSON {"schema": "consortium/global-model/v1", "parameters": [[name, [shape...]], ...]}
             || 0x0A || the little-endian float32 values in that order )

Parameters are sorted by name.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from consortium.contract.digest import canonical_bytes
from consortium.contract.errors import ContractError
from consortium.contract.names import Digest

SCHEMA = "consortium/global-model/v1"
ParameterLayout: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]
Float32Vector: TypeAlias = npt.NDArray[np.float32]

_HEADER_BYTES_MAX = 16 * 2**20


class ModelRefused(ContractError):
    """A global model that is not what it should be."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "The model is not used. If it came from the coordinator, report it: every site must get the same bytes."


@dataclass(frozen=True, slots=True, eq=False)
class GlobalModel:
    """Named parameters as one vector: float32[sum of the shapes], in the order of `parameters`."""

    parameters: ParameterLayout
    vector: Float32Vector

    def __post_init__(self) -> None:
        names = [name for name, _ in self.parameters]
        if names != sorted(set(names)):
            raise ModelRefused("the model's parameters must be sorted by name, each once")
        wanted = sum(math.prod(shape) for _, shape in self.parameters)
        if self.vector.dtype != np.float32 or self.vector.shape != (wanted,):
            raise ModelRefused(f"the model has {self.vector.size} values of {self.vector.dtype}, its layout {wanted}")

    def digest(self) -> Digest:
        """The digest of the module docstring."""
        header = canonical_bytes({"schema": SCHEMA, "parameters": [[n, list(s)] for n, s in self.parameters]})
        hasher = hashlib.sha256(header + b"\n")
        hasher.update(np.ascontiguousarray(self.vector, dtype="<f4").data)
        return Digest(hasher.hexdigest())

    def with_vector(self, vector: Float32Vector) -> "GlobalModel":
        """The same parameters with other values."""
        return GlobalModel(self.parameters, vector)

    def to_safetensors(self) -> bytes:
        """The file format it travels in."""
        tensors: dict[str, npt.NDArray[np.float32]] = {}
        start = 0
        for name, shape in self.parameters:
            stop = start + math.prod(shape)
            tensors[name] = self.vector[start:stop].reshape(shape)
            start = stop
        return save(tensors, metadata={"schema": SCHEMA})

    @classmethod
    def from_safetensors(cls, data: bytes) -> "GlobalModel":
        """Read a file from an untrusted peer; raises ModelRefused for anything but finite float32 tensors."""
        _check_header(data)
        try:
            tensors = load(data)
        except Exception as error:
            raise ModelRefused(f"not a safetensors file: {type(error).__name__}") from error
        names = sorted(tensors)
        if not names:
            raise ModelRefused("the model has no parameters")
        for name in names:
            if tensors[name].dtype != np.float32:
                raise ModelRefused(f"parameter {name!r} is {tensors[name].dtype}; only float32 is allowed")
        vector = np.concatenate([tensors[name].ravel() for name in names])
        if not bool(np.isfinite(vector).all()):
            raise ModelRefused("the model holds a value that is not finite")
        return cls(tuple((name, tuple(tensors[name].shape)) for name in names), vector)


def _check_header(data: bytes) -> None:
    """Refuse a header that claims more than the file holds, or more than any model needs, before it is parsed."""
    if len(data) < 8:
        raise ModelRefused(f"a safetensors file has at least 8 bytes, this has {len(data)}")
    length = int.from_bytes(data[:8], "little")
    allowed = min(_HEADER_BYTES_MAX, len(data) - 8)
    if length > allowed:
        raise ModelRefused(f"the header claims {length} bytes; allowed: at most {allowed}")

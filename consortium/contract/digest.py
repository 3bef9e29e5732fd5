"""Canonical bytes, and the SHA-256 of them, for everything that both sides sign or refer to.

One rule for all: UTF-8 JSON, keys sorted, no blanks, no NaN or infinity; floats in Python's shortest
round-trip form. Two values are the same exactly when these bytes are.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from consortium.contract.names import Digest

Canonical: TypeAlias = "bool | int | float | str | Sequence[Canonical] | Mapping[str, Canonical] | None"


def canonical_bytes(value: Canonical) -> bytes:
    """The one byte string that stands for `value`; raises ValueError for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(data: bytes) -> Digest:
    """SHA-256 of bytes, as a Digest."""
    return Digest(hashlib.sha256(data).hexdigest())

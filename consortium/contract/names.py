"""The small types that name things, and their one spelling."""

import re
from typing import NewType

from privacy.secagg.messages import SiteId

__all__ = ["MODEL_BYTES_MAX", "Digest", "RoundNumber", "SiteId", "StudyId", "is_digest", "is_name"]

StudyId = NewType("StudyId", str)
"""A study's name: the same alphabet as a site's, 3 to 64 characters."""

Digest = NewType("Digest", str)
"""SHA-256 as 64 lowercase hexadecimal characters."""

RoundNumber = NewType("RoundNumber", int)
"""1 for a study's first round."""

MODEL_BYTES_MAX = 8 * 2**30
"""No vector of more than this many bytes is accepted from a peer, whatever its header says."""

_NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){2,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_name(text: str, *, longest: int = 40) -> bool:
    """Whether `text` may name a site (40 characters at most) or a study (64)."""
    return len(text) <= longest and _NAME.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether `text` is a SHA-256 in lowercase hexadecimal."""
    return _DIGEST.fullmatch(text) is not None

"""Checks of single fields: each takes the field's name and what arrived, and answers with the typed value.

A refusal says how long or how large the thing was, never what it was: a peer's bytes do not end up in our logs.
"""

import json
import re
from collections.abc import Collection, Sequence
from typing import TypeVar

from consortium.contract.digest import canonical_bytes
from consortium.contract.names import Digest, SiteId, StudyId, is_name
from consortium.wire.errors import WireViolation
from consortium.wire.limits import TEXT_CHARACTERS_MAX
from privacy.secagg.context import SITES_MAX
from privacy.secagg.messages import HASH_BYTES, SIGNATURE_BYTES

T = TypeVar("T")

_PRINTABLE = re.compile(r"[ -~]+")
_COMMAND = re.compile(r"[a-z][a-z0-9.-]{0,63}")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
_NOT_A_CONTROL_OR_LINE_FEED = re.compile(r"[^\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*")


def exactly(field: str, value: bytes, size: int) -> bytes:
    """Bytes of one fixed length."""
    if len(value) != size:
        raise WireViolation(field, found=f"{len(value)} bytes", allowed=f"{size} bytes")
    return value


def one_of(field: str, value: bytes, sizes: Collection[int]) -> bytes:
    """Bytes of one of a few fixed lengths: those of the suites, where only the machine knows which suite it has."""
    if len(value) not in sizes:
        allowed = " or ".join(str(size) for size in sorted(sizes))
        raise WireViolation(field, found=f"{len(value)} bytes", allowed=f"{allowed} bytes")
    return value


def hash_of(field: str, value: bytes) -> bytes:
    """A SHA-256 as bytes."""
    return exactly(field, value, HASH_BYTES)


def signature(field: str, value: bytes) -> bytes:
    """A signature: Ed25519, or ECDSA P-256 as r || s."""
    return exactly(field, value, SIGNATURE_BYTES)


def digest(field: str, value: bytes) -> Digest:
    """A SHA-256 as the contract writes it."""
    return Digest(exactly(field, value, HASH_BYTES).hex())


def between(field: str, value: bytes, least: int, most: int) -> bytes:
    """Bytes of bounded length."""
    if not least <= len(value) <= most:
        raise WireViolation(field, found=f"{len(value)} bytes", allowed=f"{least} to {most} bytes")
    return value


def whole(field: str, value: int, least: int, most: int) -> int:
    """A whole number in a range."""
    if not least <= value <= most:
        raise WireViolation(field, found=str(value), allowed=f"{least} to {most}")
    return value


def listed(field: str, values: Sequence[T], least: int, most: int = SITES_MAX) -> Sequence[T]:
    """A list of bounded length; by default the sites of one complete graph."""
    if not least <= len(values) <= most:
        raise WireViolation(field, found=f"{len(values)} entries", allowed=f"{least} to {most} entries")
    return values


def site(field: str, value: str) -> SiteId:
    """A site's name."""
    if not is_name(value):
        raise WireViolation(field, found=_shape(value), allowed="3 to 40 of a-z, 0-9 and '-', starting with a letter")
    return SiteId(value)


def study(field: str, value: str) -> StudyId:
    """A study's name."""
    return StudyId(name_64(field, value))


def name_64(field: str, value: str) -> str:
    """The name of a study or a consortium."""
    if not is_name(value, longest=64):
        raise WireViolation(field, found=_shape(value), allowed="3 to 64 of a-z, 0-9 and '-', starting with a letter")
    return value


def printable(field: str, value: str, most: int) -> str:
    """One line of printable ASCII, not empty."""
    if len(value) > most or not _PRINTABLE.fullmatch(value):
        raise WireViolation(field, found=_shape(value), allowed=f"1 to {most} printable ASCII characters")
    return value


def token(field: str, value: str, least: int, most: int) -> str:
    """A one-time token, in the URL-safe base64 alphabet."""
    if not least <= len(value) <= most or not _TOKEN.fullmatch(value):
        raise WireViolation(field, found=_shape(value), allowed=f"{least} to {most} of A-Z, a-z, 0-9, '-' and '_'")
    return value


def command(field: str, value: str) -> str:
    """The name of an operator's command."""
    if not _COMMAND.fullmatch(value):
        raise WireViolation(field, found=_shape(value), allowed="1 to 64 of a-z, 0-9, '.' and '-'")
    return value


def text(field: str, value: str, most: int = TEXT_CHARACTERS_MAX, *, least: int = 0) -> str:
    """Words for people. No control characters: they end up in somebody's terminal."""
    if not least <= len(value) <= most or not _NOT_A_CONTROL_OR_LINE_FEED.fullmatch(value):
        raise WireViolation(field, found=_shape(value), allowed=f"{least} to {most} characters without control codes")
    return value


def clipped(value: str, most: int = TEXT_CHARACTERS_MAX) -> str:
    """Our own words for people, made to fit `text` on the other side."""
    kept = "".join(c if _NOT_A_CONTROL_OR_LINE_FEED.fullmatch(c) and not _lone(c) else " " for c in value[: most + 1])
    return kept if len(kept) <= most else kept[: most - 3] + "..."


def json_object(field: str, value: bytes, most: int) -> bytes:
    """A JSON object in its one canonical spelling."""
    between(field, value, 2, most)
    try:
        parsed = json.loads(value)
        canonical = isinstance(parsed, dict) and canonical_bytes(parsed) == value
    except (ValueError, RecursionError):
        canonical = False
    if not canonical:
        raise WireViolation(field, found=f"{len(value)} bytes of something else", allowed="a canonical JSON object")
    return value


def _shape(value: str) -> str:
    return f"{len(value)} characters" + (
        "" if value.isascii() and value.isprintable() else ", some not printable ASCII"
    )


def _lone(character: str) -> bool:
    """Half of a surrogate pair, which UTF-8 cannot carry."""
    return "\ud800" <= character <= "\udfff"

"""Which leaves of a log are known by their hash only, because a retention policy let their entries go (pure).

Log format section 13. The list is one bit for each leaf from leaf 0, the highest bit of a byte first, in whole bundles
of 256 leaves (32 bytes), as far as the last bundle that lost an entry. It is written anew with every drop and holds
what went before, so the SHA-256 of the latest, which a `retention.applied` entry names, authenticates all of it.

Holds against: a missing entry that is called dropped when no entry of the log says so (threat A-30).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from audit.errors import AuditError, VerificationError
from audit.tiles import WIDTH

FILE = "dropped"
"""Beside the checkpoint, in a log's folder and in evidence."""
ARRIVING = "dropped.arriving"
"""In a copy: the list that came with entries, which counts once they are under the copy's checkpoint."""
BYTES_MAX = 1 << 20
"""Of a list: 8 million leaves."""
NAMED_BY = "retention.applied"
_BUNDLE_BYTES = WIDTH // 8


class EntriesDropped(AuditError):
    """Entries that a retention policy let go; their hashes are in the log for ever. Nobody's fault."""

    def __init__(self, first: int, last: int) -> None:
        leaves = f"entry {first} was" if first == last else f"entries between {first} and {last} were"
        super().__init__(f"{leaves} dropped under a retention policy, and only the hashes are kept")

    def advice(self) -> str:
        """What to do next."""
        return (
            "`consortium audit fsck` says under which policy. Whoever kept the entry, in an archive of evidence or as a"
            " hospital, can still prove it: `consortium audit proof LEAF --entry FILE`."
        )


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """A list of leaves; the empty one by default. Without slots, because of what it computes once."""

    bits: bytes = b""

    @classmethod
    def of(cls, leaves: Iterable[int]) -> "Dropped":
        """The list of these leaves."""
        bits = bytearray()
        for leaf in leaves:
            lacking = (leaf // WIDTH + 1) * _BUNDLE_BYTES - len(bits)
            if lacking > 0:
                bits += bytes(lacking)
            bits[leaf // 8] |= 0x80 >> leaf % 8
        return cls(bits=bytes(bits))

    @classmethod
    def parse(cls, data: bytes) -> "Dropped":
        """A list as it came from a file or over the wire.

        Raises:
            VerificationError: It is longer than any, is no whole bundles, ends with one that lost nothing, or names
                leaf 0, which says whose log it is.
        """
        if len(data) > BYTES_MAX or len(data) % _BUNDLE_BYTES:
            raise VerificationError(FILE, f"32 bytes for each bundle, at most {BYTES_MAX}", f"{len(data)} bytes")
        if data and not any(data[-_BUNDLE_BYTES:]):
            raise VerificationError(FILE, "a last bundle that lost an entry", "one that lost none")
        if data and data[0] & 0x80:
            raise VerificationError(FILE, "leaf 0 kept", "leaf 0 dropped")
        return cls(bits=data)

    @property
    def first(self) -> int:
        """The first dropped leaf; of a list that is not empty."""
        return next(self.runs())[0]

    @property
    def last(self) -> int:
        """The last dropped leaf; of a list that is not empty."""
        return max(last for _, last in self.runs())

    @property
    def stop(self) -> int:
        """The first leaf beyond the bundles that this speaks of; 0 when nothing was dropped."""
        return len(self.bits) * 8

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the list, as a `retention.applied` entry names it."""
        return hashlib.sha256(self.bits).hexdigest()

    @cached_property
    def count(self) -> int:
        """How many leaves."""
        return int.from_bytes(self.bits).bit_count()

    def __bool__(self) -> bool:
        """Whether anything was dropped."""
        return bool(self.bits)

    def __contains__(self, leaf: int) -> bool:
        """Whether this leaf was dropped."""
        return 0 <= leaf < self.stop and bool(self.bits[leaf // 8] & 0x80 >> leaf % 8)

    def lost(self, number: int) -> bool:
        """Whether the bundle of this number lost an entry."""
        return any(self.bits[number * _BUNDLE_BYTES : (number + 1) * _BUNDLE_BYTES])

    def bundles(self) -> Iterator[int]:
        """The numbers of the bundles that lost an entry."""
        return (number for number in range(self.stop // WIDTH) if self.lost(number))

    def any_in(self, start: int, stop: int) -> bool:
        """Whether one of the leaves start..stop was dropped."""
        return start < self.stop and any(leaf in self for leaf in range(start, min(stop, self.stop)))

    def runs(self) -> Iterator[tuple[int, int]]:
        """(first, last) of every longest run of dropped leaves, in order."""
        first: int | None = None
        for leaf in range(self.stop + 1):
            if leaf in self:
                first = leaf if first is None else first
            elif first is not None:
                yield first, leaf - 1
                first = None

    def holds(self, other: "Dropped") -> bool:
        """Whether every leaf of the other list is in this one too."""
        mine, others = self.bits.ljust(len(other.bits), b"\0"), other.bits
        return not any(theirs & ~own for own, theirs in zip(mine, others, strict=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The `retention.applied` entry that names a list."""

    leaf: int
    day: str  # when, by the coordinator's clock
    years: int
    older_than: str  # the day; every entry that went is from before it
    document_sha256: str | None  # the written policy

    def said(self, dropped: Dropped) -> str:
        """What people read about it."""
        policy = f"the policy with SHA-256 {self.document_sha256}" if self.document_sha256 else "no named document"
        return (
            f"{dropped.count} of the entries 0 to {dropped.stop - 1} were dropped on {self.day} under {policy}"
            f" (retention.applied, leaf {self.leaf}): all from before {self.older_than}; their hashes are whole"
        )


def applied_by(dropped: Dropped, log_entries: Iterable[tuple[int, bytes]]) -> Applied | None:
    """The last entry of the coordinator's that names this list; None if there is none.

    Args:
        dropped: The list; not an empty one.
        log_entries: (leaf, stored bytes) of entries that are there.
    """
    found: Applied | None = None
    for leaf, data in log_entries:
        if dropped.digest.encode() not in data:
            continue
        try:
            record = json.loads(data)
            body = record["body"]
            if (record["type"], record["actor"]) != (NAMED_BY, "coordinator"):
                continue
            if body["dropped_sha256"] == dropped.digest and leaf >= dropped.stop:
                found = Applied(
                    leaf=leaf,
                    day=str(record["ts"])[:10],
                    years=int(body["years"]),
                    older_than=str(body["older_than"]),
                    document_sha256=body["document_sha256"],
                )
        except (ValueError, KeyError, TypeError, RecursionError):  # no entry of ours, and so not that one
            continue
    return found

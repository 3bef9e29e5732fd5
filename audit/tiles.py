"""Where hashes and entries lie in files (C2SP tlog-tiles v0.1.0): paths, widths, entry bundles. Pure.

Log format section 4. A full tile is 256 hashes. Level 0 holds leaf hashes; entry i of tile n at level l is the root
over the 256^l leaves from (n * 256 + i) * 256^l, that is, over one FULL tile of the level below. Partial tiles are
never hashed upward.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from audit import merkle
from audit.errors import VerificationError

WIDTH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One file of hashes: its level, its number, and how many hashes it holds (256 when full)."""

    level: int
    number: int
    width: int

    def path(self) -> str:
        """Relative path, with forward slashes."""
        return f"tile/{self.level}/{_number_path(self.number)}{_partial(self.width)}"

    def bundle_path(self) -> str:
        """Path of the entry bundle beside a level-0 tile."""
        return f"tile/entries/{_number_path(self.number)}{_partial(self.width)}"

    def kept_path(self) -> str:
        """Path, in evidence, of what is left of a bundle that lost entries: each lost one has the length 0."""
        return f"tile/kept/{_number_path(self.number)}"

    @property
    def start(self) -> int:
        """Index, at this level, of the tile's first hash."""
        return self.number * WIDTH

    def content(self, tree: merkle.Tree) -> bytes:
        """The file's bytes, from a tree that is at least as large."""
        return tree.hashes(8 * self.level, self.start, self.start + self.width)


def _number_path(number: int) -> str:
    groups = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        groups.append(f"x{number % 1000:03d}")
    return "/".join(reversed(groups))


def _partial(width: int) -> str:
    return "" if width == WIDTH else f".p/{width}"


def tiles_of(size: int, *, since: int = 0) -> Iterator[Tile]:
    """Every tile that a log of `size` entries has and one of `since` entries did not have; no empty ones."""
    level = 0
    while (count := size >> (8 * level)) > 0:
        before = since >> (8 * level)
        for number in range(before // WIDTH, -(-count // WIDTH)):
            width = min(WIDTH, count - number * WIDTH)
            if width > before - number * WIDTH:
                yield Tile(level=level, number=number, width=width)
        level += 1


def edge_of(size: int) -> Iterator[Tile]:
    """The partial tiles of a log of `size` entries, lowest level first: they alone determine its root."""
    level = 0
    while size >> (8 * level):
        width = (size >> (8 * level)) % WIDTH
        if width:
            yield Tile(level=level, number=size >> (8 * (level + 1)), width=width)
        level += 1


def root_from_edge(size: int, read: Callable[[Tile], bytes]) -> bytes:
    """Root of a log of `size` entries from its partial tiles as they are on disk.

    Raises:
        VerificationError: a tile has another length than its width says.
    """
    peaks: list[bytes] = []  # complete subtrees, smallest (rightmost) first
    for tile in edge_of(size):
        content = read(tile)
        if len(content) != tile.width * merkle.HASH_BYTES:
            raise VerificationError(tile.path(), f"{tile.width * merkle.HASH_BYTES} bytes", f"{len(content)} bytes")
        part = merkle.Tree(content[at : at + merkle.HASH_BYTES] for at in range(0, len(content), merkle.HASH_BYTES))
        stop = tile.width
        while stop:
            level = (stop & -stop).bit_length() - 1
            stop -= 1 << level
            peaks.append(part.complete(level, stop >> level))
    return merkle.fold(peaks[::-1])


def pack_bundle(entries: Sequence[bytes]) -> bytes:
    """An entry bundle: each entry with its length before it as two big-endian bytes."""
    return b"".join(len(entry).to_bytes(2) + entry for entry in entries)


def pack_kept(known: Sequence[bytes | None]) -> bytes:
    """What is left of a bundle: an entry that was dropped is one of no bytes, which no entry has."""
    return pack_bundle([entry or b"" for entry in known])


def unpack_bundle(data: bytes, what: str) -> list[bytes]:
    """The entries of a bundle; raises VerificationError when its lengths do not add up."""
    entries: list[bytes] = []
    at, stop = 0, len(data)
    while at < stop:
        begin = at + 2
        at = begin + int.from_bytes(data[at:begin])
        if at > stop or begin > stop:
            raise VerificationError(what, f"an entry of {at - begin} bytes", f"{max(stop - begin, 0)} bytes left")
        entries.append(data[begin:at])
    return entries

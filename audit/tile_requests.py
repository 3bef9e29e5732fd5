"""What a reader asks a log for by a path of C2SP tlog-tiles, and the bytes it gets.

Log format section 4. The grammar is all there is: a path that fits it names a tile of hashes or a bundle of entries by
numbers, any other names nothing, and none becomes a name in a file system.

    tile/<level, 0 to 63>/<number>[.p/<width, 1 to 255>]
    tile/entries/<number>[.p/<width>]

A partial tile is given for every width that the log covers by now, not only for those that were once published: it is
the beginning of what is there.
"""

import re
from dataclasses import dataclass

from audit.dropped import EntriesDropped
from audit.log import LogView
from audit.tiles import WIDTH, Tile, pack_bundle

PATH_CHARACTERS_MAX = 64
"""The longest path that fits the grammar has fewer."""
_TILE = re.compile(
    r"tile/(?P<level>entries|[0-9]|[1-5][0-9]|6[0-3])"
    r"/(?P<number>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A tile of hashes, or the bundle of entries beside one of level 0."""

    tile: Tile
    entries: bool


def wanted(path: str) -> Wanted | None:
    """What a path without its first slash names; None if nothing. One thing has one path."""
    match = None if len(path) > PATH_CHARACTERS_MAX else _TILE.fullmatch(path)
    if match is None:
        return None
    entries = match["level"] == "entries"
    number = int(match["number"].replace("x", "").replace("/", ""))
    tile = Tile(level=0 if entries else int(match["level"]), number=number, width=int(match["width"] or WIDTH))
    # Its own path, so that 0 is not also x000/000, nor a full tile .p/256.
    if path != (tile.bundle_path() if entries else tile.path()) or (match["width"] and tile.width >= WIDTH):
        return None
    return Wanted(tile=tile, entries=entries)


def tile_bytes(log: LogView, asked: Wanted) -> bytes | None:
    """A tile or bundle, as far as the log's present checkpoint covers it; None if it does not.

    Raises:
        EntriesDropped: A bundle that lost entries is not given, also what is left of it.
        LogUnwritable, LogCorrupt: The disk does not give the entries.
    """
    tile = asked.tile
    if tile.start + tile.width > log.size >> (8 * tile.level):
        return None
    if asked.entries and log.dropped.lost(tile.number):
        raise EntriesDropped(tile.start, tile.start + tile.width - 1)
    if asked.entries:
        return pack_bundle(tuple(log.entries(tile.start, tile.start + tile.width)))
    return log.tile(tile)

"""Search bytes, files and folders for values that must not be there, in every spelling they are likely to have.

A secret is looked for in pieces of 16 bytes, so that it is also found where a database page or a line ends in the
middle of it: raw, as hexadecimal, as base64 at any alignment, as Python or JSON would escape it, as a list of numbers,
and, the whole of it, as one decimal number. A vector is looked for in windows of 32 bytes, and by its values as text.

    search = Search()
    search.add_secret("hungary's root", root)
    assert search.in_folder(home) == set()
"""

import base64
import io
import json
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE_BYTES = 16
WINDOW_BYTES = 32
WINDOW_VALUES_MIN = 12
"""Windows of fewer different bytes (zeros, small counts) are anywhere and say nothing."""
NUMBER_CHARACTERS_MIN = 9
SMALL = 1e-3
"""A number below has too few digits in eight decimal places to be told from others."""

_KEY_BYTES = 8


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """Something that was looked for, and where it is."""

    what: str
    spelling: str
    where: str


class Search:
    """What is looked for. Mutable: it grows until the search begins."""

    def __init__(self) -> None:
        self._patterns: dict[bytes, tuple[str, str]] = {}
        self._by_key: dict[int, list[bytes]] = {}
        self._keys: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._patterns)

    def add_secret(self, what: str, value: bytes) -> None:
        """A key, a seed, a share: at least 16 bytes."""
        assert len(value) >= PIECE_BYTES, what
        for start in sorted({*range(0, len(value) - PIECE_BYTES, PIECE_BYTES), len(value) - PIECE_BYTES}):
            piece = value[start : start + PIECE_BYTES]
            for spelling, pattern in _spellings(piece):
                self._add(what, spelling, pattern)
        for digits in (value, value[::-1]):
            self._add(what, "a decimal number", str(int.from_bytes(digits, "big")).encode())

    def add_vector(self, what: str, vector: NDArray[Any]) -> None:
        """An update in the clear, encoded or not."""
        data = np.ascontiguousarray(vector).tobytes()
        for start in range(0, len(data) - WINDOW_BYTES + 1, WINDOW_BYTES):
            window = data[start : start + WINDOW_BYTES]
            if len(set(window)) >= WINDOW_VALUES_MIN:
                for spelling, pattern in _spellings(window):
                    self._add(what, spelling, pattern)
        for text in _as_text(vector):
            self._add(what, "text", text.encode())

    def in_bytes(self, data: bytes, where: str) -> set[Found]:
        """Everything looked for that is in `data`; zip archives are looked into."""
        found = {Found(*self._patterns[pattern], where) for pattern in self._hits(data)}
        if data[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for name in archive.namelist():
                    found |= self.in_bytes(archive.read(name), f"{where}!{name}")
        return found

    def in_files(self, paths: Iterable[Path], below: Path) -> set[Found]:
        """The same in files that are named relative to `below`; one that vanished meanwhile holds nothing."""
        found: set[Found] = set()
        for path in paths:
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            found |= self.in_bytes(data, str(path.relative_to(below)))
        return found

    def in_folder(self, folder: Path) -> set[Found]:
        """The same in every file below a folder, hidden ones included."""
        return self.in_files((path for path in sorted(folder.rglob("*")) if path.is_file()), folder)

    def _add(self, what: str, spelling: str, pattern: bytes) -> None:
        if len(pattern) >= _KEY_BYTES:
            self._patterns.setdefault(pattern, (what, spelling))
            self._by_key = {}

    def _hits(self, data: bytes) -> Iterator[bytes]:
        """The patterns in `data`. Every 8-byte window is compared with the first 8 bytes of every pattern at once."""
        if not self._by_key:
            by_key: dict[int, list[bytes]] = defaultdict(list)
            for pattern in self._patterns:
                by_key[int.from_bytes(pattern[:_KEY_BYTES], "little")].append(pattern)
            self._by_key = dict(by_key)
            self._keys = np.sort(np.fromiter(by_key, dtype=np.uint64, count=len(by_key)))
        if not len(self._keys):
            return
        for offset in range(min(_KEY_BYTES, len(data))):
            count = (len(data) - offset) // _KEY_BYTES
            windows = np.frombuffer(data, dtype="<u8", count=count, offset=offset)
            at = np.minimum(np.searchsorted(self._keys, windows), len(self._keys) - 1)
            for place in np.flatnonzero(self._keys[at] == windows):
                start = offset + _KEY_BYTES * int(place)
                for pattern in self._by_key[int(windows[place])]:
                    if data.startswith(pattern, start):
                        yield pattern


def _spellings(piece: bytes) -> Iterator[tuple[str, bytes]]:
    yield "raw", piece
    yield "hexadecimal", piece.hex().encode()
    yield "hexadecimal", piece.hex().upper().encode()
    for shift in range(3):  # how many bytes stand before it in the last group of three
        for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
            text = alphabet(bytes(shift) + piece)
            # What depends on the neighbours is left out: the first characters, and the last group.
            yield "base64", text[(0, 2, 3)[shift] : 4 * ((shift + len(piece)) // 3)]
    # A repr has its quotes escaped if both kinds are in it, and else not.
    bare = repr(b"'\"" + piece)[2:-1].removeprefix("\\'\"")
    for escaped in (bare, bare.replace("\\'", "'")):
        yield "Python", escaped.encode()
        yield "Python in JSON", json.dumps(escaped)[1:-1].encode()
        yield "Python in Python", escaped.replace("\\", "\\\\").encode()
    yield "JSON", json.dumps(piece.decode("latin-1"))[1:-1].encode()
    for separator in (", ", ",", " "):
        yield "numbers", separator.join(map(str, piece)).encode()


def _as_text(vector: NDArray[Any]) -> Iterator[str]:
    """The values of a vector as programs print them; integers two at a time, because one is anywhere."""
    if vector.dtype.kind == "f":
        for value in vector:
            texts = [repr(float(value)), str(value)]
            if abs(value) > SMALL:  # with the eight places of NumPy's arrays
                texts += [f"{value:.8f}", f"{value:.8e}"]
            for text in texts:
                if len(text) >= NUMBER_CHARACTERS_MIN:
                    yield text
    else:
        values = [str(int(value)) for value in vector]
        for one, other in zip(values[::2], values[1::2], strict=False):
            if len(one) + len(other) >= NUMBER_CHARACTERS_MIN:
                yield from (f"{one}, {other}", f"{one},{other}", f"{one} {other}")

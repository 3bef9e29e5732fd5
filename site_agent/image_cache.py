"""Images as the network sees them, kept on the hospital's disk under a quota, so that they are prepared once.

An entry's name is the digest of the source files' bytes and of everything in the study that decides what becomes of
them, so that a changed file or another contract never meets an old entry, and no name says anything about a patient.
Entries hold patients' images: they lie in the agent's home, readable by its user alone, and go when the quota is full,
the least recently used first.

An entry is written under another name, with a digest of its own content, and renamed: one that was half written, cut
off or damaged is a miss, and is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from privacy.lazy_numpy import np

if TYPE_CHECKING:
    import numpy.typing as npt


_MAGIC = b"consortium-image/v1\n"
_NAME = re.compile(r"[0-9a-f]{64}")
_DIGEST_BYTES = 32
_FACTS = struct.Struct("<?B2x3d")  # cut, axes that have a spacing, and the spacing
_FOLDER_MODE, _FILE_MODE = 0o700, 0o600


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PreparedImage:
    """One record as the network sees it."""

    image: npt.NDArray[np.float32]  # [channels, *shape]
    mask: npt.NDArray[np.float32] | None  # [*shape], indices of the label's values; None without a mask
    spacing: tuple[float, ...] | None  # of the file, in mm, rounded to hundredths; None where pixels have no size
    cut: bool  # whether the file had more than the study's shape


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCache:
    """A folder of prepared images."""

    folder: Path
    quota_bytes: int

    def get(self, key: str, shape: tuple[int, ...], label_shape: tuple[int, ...]) -> PreparedImage | None:
        """The entry under `key` (64 hex digits), or None where there is none that is whole.

        Args:
            key: See `key_of`.
            shape: Of the image that is expected.
            label_shape: Of its mask; () where labels are not kept here.
        """
        path = self.folder / key
        count, label_count = math.prod(shape), math.prod(label_shape) if label_shape else 0
        size = len(_MAGIC) + _DIGEST_BYTES + _FACTS.size + 4 * (count + label_count)
        try:
            if path.stat().st_size != size:
                return None
            raw = path.read_bytes()
            os.utime(path)  # what was used last goes last
        except OSError:
            return None
        head, body = raw[: len(_MAGIC) + _DIGEST_BYTES], raw[len(_MAGIC) + _DIGEST_BYTES :]
        if head != _MAGIC + hashlib.sha256(body).digest():
            return None
        cut, axes, *spacing = _FACTS.unpack(body[: _FACTS.size])
        values = np.frombuffer(body, dtype="<f4", offset=_FACTS.size).astype(np.float32, copy=False)
        return PreparedImage(
            image=values[:count].reshape(shape),
            mask=values[count:].reshape(label_shape) if label_shape else None,
            spacing=tuple(spacing[:axes]) if axes else None,
            cut=bool(cut),
        )

    def put(self, key: str, entry: PreparedImage) -> None:
        """Keep an entry if the quota has room for it; a disk that cannot take it costs time later and nothing else."""
        spacing = entry.spacing or ()
        facts = _FACTS.pack(entry.cut, len(spacing), *spacing, *(0.0,) * (3 - len(spacing)))
        parts = [entry.image] if entry.mask is None else [entry.image, entry.mask]
        body = facts + b"".join(np.ascontiguousarray(part, dtype="<f4").tobytes() for part in parts)
        size = len(_MAGIC) + _DIGEST_BYTES + len(body)
        if size > self.quota_bytes:
            return
        partial = self.folder / f"{secrets.token_hex(8)}.partial"
        try:
            self.folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            self._make_room(size)
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(body).digest())
                file.write(body)
            partial.replace(self.folder / key)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def size_bytes(self) -> int:
        """What the folder holds."""
        return sum(size for _, size, _ in self._entries())

    def clear(self) -> None:
        """Remove every entry: none says whose it is, and all of them can be made again."""
        for _, _, path in self._entries():
            path.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        entries = sorted(self._entries())
        held = sum(one for _, one, _ in entries)
        for _, one, path in entries:
            if held + size <= self.quota_bytes:
                return
            path.unlink(missing_ok=True)
            held -= one

    def _entries(self) -> list[tuple[int, int, Path]]:
        """When each was last used (ns), its size, and where it is; only what this class wrote."""
        found = []
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if _NAME.fullmatch(path.name) or path.name.endswith(".partial"):
                with contextlib.suppress(OSError):
                    status = path.stat()
                    found.append((status.st_mtime_ns, status.st_size, path))
        return found

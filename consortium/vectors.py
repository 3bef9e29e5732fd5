"""Large vectors on disk, by digest: masked updates while a round runs, aggregates and global models for good.

A file appears under its name only when it is whole and its SHA-256 is right: half an upload counts as none.
"""

import errno
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from consortium.contract.names import Digest
from consortium.errors import ConsortiumError, HomeUnwritable

CHUNK_BYTES = 2**20


class VectorMissing(ConsortiumError):
    """A vector that is not (or no longer) here."""

    code = "not_found"

    def advice(self) -> str:
        """What to do next."""
        return "The round it belonged to is over; wait for the next instruction."


class VectorStore:
    """A folder of files named by the SHA-256 of their bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in folder.glob(".incoming-*"):
            leftover.unlink()

    def path(self, digest: Digest) -> Path:
        """Where the vector is; raises VectorMissing."""
        path = self._folder / digest
        if not path.is_file():
            raise VectorMissing(f"no vector {digest[:12]} is kept here")
        return path

    async def receive(self, digest: Digest, chunks: AsyncIterator[bytes]) -> Path:
        """Spool chunks to disk and keep them only if they are whole.

        The wire has already bounded their number and checks their SHA-256 when the stream ends; an exception from
        it leaves nothing behind.
        """
        with self._temporary() as (descriptor, temporary):
            async for chunk in chunks:
                os.write(descriptor, chunk)
            return self._keep(descriptor, temporary, digest)

    def put(self, data: bytes, *, name: Digest | None = None) -> Digest:
        """Keep bytes under `name`, by default their SHA-256."""
        digest = name or Digest(hashlib.sha256(data).hexdigest())
        with self._temporary() as (descriptor, temporary):
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            self._keep(descriptor, temporary, digest)
        return digest

    def discard(self, digest: Digest) -> None:
        """Forget a vector that has served its purpose."""
        (self._folder / digest).unlink(missing_ok=True)

    def describe(self, digest: Digest) -> tuple[bytes, int]:
        """SHA-256 and size of a file that is kept."""
        path = self.path(digest)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest(), path.stat().st_size

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        """The vector, CHUNK_BYTES at a time."""
        with self.path(digest).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    @contextmanager
    def _temporary(self) -> Iterator[tuple[int, Path]]:
        descriptor, name = tempfile.mkstemp(prefix=".incoming-", dir=self._folder)
        path = Path(name)
        try:
            yield descriptor, path
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
                raise HomeUnwritable(f"a vector could not be stored: {os.strerror(error.errno)}") from error
            raise
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)

    def _keep(self, descriptor: int, temporary: Path, digest: Digest) -> Path:
        os.fsync(descriptor)
        final = self._folder / digest
        temporary.replace(final)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return final

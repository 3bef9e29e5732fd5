"""Large vectors on disk, by digest: masked updates while a round runs, aggregates and global models for good.

A file appears under its name only when it is whole and its SHA-256 is right: half an upload counts as none.
"""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from consortium.contract.names import Digest, is_digest
from consortium.errors import ConsortiumError, HomeUnwritable

T = TypeVar("T")

CHUNK_BYTES = 2**18


class VectorMissing(ConsortiumError):
    """A vector that is not (or no longer) here."""

    code = "not_found"

    def advice(self) -> str:
        """What to do next."""
        return "The round it belonged to is over; wait for the next instruction."


class VectorStore:
    """A folder of files named by a digest. Its methods may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._described: dict[Digest, tuple[tuple[int, ...], bytes]] = {}  # a file's identity -> its SHA-256
        with _disk("the folder of vectors could not be made"):
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
        """Spool chunks to disk and keep them only if they are whole. They need not outlive a crash of the machine.

        The wire has already bounded their number and checks their SHA-256 when the stream ends; an exception from
        it leaves nothing behind.

        Raises:
            HomeUnwritable: The disk refused; nothing is left behind.
        """
        with self._temporary() as (descriptor, temporary):
            async for chunk in chunks:
                await _in_thread(partial(_write, descriptor, chunk))
            return await _in_thread(partial(self._keep, descriptor, temporary, digest, durably=False))

    def put(self, *parts: bytes | memoryview, name: Digest | None = None) -> Digest:
        """Keep bytes, given in parts, under `name`, by default their SHA-256; raises HomeUnwritable and keeps nothing.

        The parts are written from where they lie; nothing is copied.
        """
        hasher = hashlib.sha256()
        with self._temporary() as (descriptor, temporary):
            for part in parts:
                if name is None:
                    hasher.update(part)
                _write(descriptor, part)
            digest = name or Digest(hasher.hexdigest())
            path = self._keep(descriptor, temporary, digest)
        if name is None:
            self._remember(digest, path.stat(), hasher.digest())
        return digest

    def discard(self, digest: Digest) -> None:
        """Forget a vector that has served its purpose."""
        (self._folder / digest).unlink(missing_ok=True)

    def discard_all_but(self, kept: Collection[Digest]) -> None:
        """Forget every vector whose digest is not in `kept`."""
        for path in self._folder.iterdir():
            if is_digest(path.name) and Digest(path.name) not in kept:
                path.unlink(missing_ok=True)

    def describe(self, digest: Digest) -> tuple[bytes, int]:
        """SHA-256 and size of a file that is kept; raises VectorMissing.

        Every site of a round asks for the same file: it is read once, and again if it is another file by then.
        """
        path = self.path(digest)
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            known = self._described.get(digest)
            if known is None or known[0] != _identity(found):
                known = self._remember(digest, found, hashlib.file_digest(file, "sha256").digest())
        return known[1], found.st_size

    def _remember(self, digest: Digest, found: os.stat_result, sha256: bytes) -> tuple[tuple[int, ...], bytes]:
        known = (_identity(found), sha256)
        self._described = {digest: known, **dict(list(self._described.items())[:_DESCRIBED_MAX])}
        return known

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        """The vector, CHUNK_BYTES at a time; raises VectorMissing."""
        with self.path(digest).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def small(self, digest: Digest, limit_bytes: int) -> bytes:
        """The vector, if it has at most so many bytes; nothing if it has more. Raises VectorMissing."""
        path = self.path(digest)
        return path.read_bytes() if path.stat().st_size <= limit_bytes else b""

    @contextmanager
    def _temporary(self) -> Iterator[tuple[int, Path]]:
        with _disk(_NOT_STORED):
            descriptor, name = tempfile.mkstemp(prefix=".incoming-", dir=self._folder)
        path = Path(name)
        try:
            yield descriptor, path
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)

    def _keep(self, descriptor: int, temporary: Path, digest: Digest, *, durably: bool = True) -> Path:
        final = self._folder / digest
        with _disk(_NOT_STORED):
            if not durably:
                return temporary.replace(final)
            os.fsync(descriptor)
            temporary.replace(final)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return final


_DESCRIBED_MAX = 15
_NOT_STORED = "a vector could not be stored"


def _identity(found: os.stat_result) -> tuple[int, ...]:
    """Differs when another file lies under the name."""
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _write(descriptor: int, data: bytes | memoryview) -> None:
    """All of `data`: a disk that is nearly full takes less than it is given before it takes nothing."""
    view = memoryview(data).cast("B")
    with _disk(_NOT_STORED):
        while view:
            view = view[os.write(descriptor, view) :]


async def _in_thread(work: Callable[[], T]) -> T:
    """Run in a thread, and come back only when it is done: a cancelled upload must not close a file under a writer."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        if not running.cancelled():
            running.exception()  # seen: nobody is left to be told
        raise


@contextmanager
def _disk(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HomeUnwritable(f"{what}: {os.strerror(error.errno or 0)}") from error

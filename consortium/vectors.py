"""Large vectors on disk, by digest: masked updates while a round runs, aggregates and global models for good.

A file appears under its name only when it is whole and its SHA-256 is right: half an upload counts as none. It may be
kept apart for a while, for its rest to come.

What is `put` may lie in an object store as well (`objects.py`), from which another machine takes it when it has none of
that name. The folder then is a copy, of which nothing but uploads under way is missed.
"""

import asyncio
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from consortium.contract.names import Digest, is_digest
from consortium.errors import ConsortiumError, HomeUnwritable
from consortium.objects import ObjectAltered, ObjectMissing, Objects
from consortium.wire.transfer import Begun, BrokenOff

T = TypeVar("T")

CHUNK_BYTES = 2**18


class VectorMissing(ConsortiumError):
    """A vector that is not (or no longer) here."""

    code = "not_found"

    def advice(self) -> str:
        """What to do next."""
        return "The round it belonged to is over; wait for the next instruction."


def sha256_is(digest: Digest, path: Path) -> None:
    """Raises ObjectAltered unless the file's SHA-256 is its name."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise ObjectAltered(f"the object store returned other bytes for {digest[:12]} (SHA-256 {found[:12]})")


class VectorStore:
    """A folder of files named by a digest. Its methods may be called from any thread.

    Args:
        folder: Where they are; it is made.
        shared: The object store that has what is `put`, too; files of other methods never go there.
        check: Called with what came from there before it gets its name here; raises unless it is what the name says.
    """

    def __init__(
        self, folder: Path, shared: Objects | None = None, check: Callable[[Digest, Path], None] = sha256_is
    ) -> None:
        self._folder = folder
        self._shared = shared
        self._check = check
        self._fetching = threading.Lock()  # everybody in a round asks for the same: it is fetched once
        self._described: dict[Digest, tuple[tuple[int, ...], bytes]] = {}  # a file's identity -> its SHA-256
        with _disk("the folder of vectors could not be made"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for leftover in (*folder.glob(".incoming-*"), *folder.glob(".begun-*")):
                leftover.unlink()

    def path(self, digest: Digest) -> Path:
        """Where the vector is, fetched first if only the object store has it.

        Raises:
            VectorMissing: It is not here, nor there.
            ObjectAltered: What is there is something else; nothing of it is kept.
            ObjectsUnreachable, HomeUnwritable: The store, or the disk, refused.
        """
        path = self._folder / digest
        if not path.is_file() and not self._fetched(digest):
            raise VectorMissing(f"no vector {digest[:12]} is kept here")
        return path

    def _fetched(self, digest: Digest) -> bool:
        if self._shared is None or not is_digest(digest):
            return False
        with self._fetching:
            if (self._folder / digest).is_file():  # by another thread, meanwhile
                return True
            with self._temporary() as (descriptor, temporary):
                free_bytes = shutil.disk_usage(self._folder).free
                try:
                    self._shared.fetch(digest, partial(_write, descriptor), free_bytes)
                except ObjectMissing:
                    return False
                self._check(digest, temporary)
                self._keep(descriptor, temporary, digest)
        return True

    def share_all(self) -> None:
        """Put into the object store what is here and not there, from before there was one; raises as `path`."""
        if self._shared is None:
            return
        here = {Digest(path.name) for path in self._folder.iterdir() if is_digest(path.name)}
        for digest in sorted(here - self._shared.digests()) if here else ():
            path = self._folder / digest
            self._check(digest, path)
            self._shared.put(digest, path)

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

    def begun(self, digest: Digest) -> Begun:
        """What `receive_on` kept of a vector that was broken off; nothing of one that was never begun."""
        hasher, size_bytes = hashlib.sha256(), 0
        with suppress(FileNotFoundError), self._begun(digest).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                hasher.update(chunk)
                size_bytes += len(chunk)
        return Begun(size_bytes=size_bytes, sha256=hasher)

    async def receive_on(self, digest: Digest, chunks: AsyncIterator[bytes]) -> Path:
        """`receive`, from where it was broken off; and what comes of it is kept if it is broken off again.

        Raises:
            BrokenOff: From `chunks`. Any other error of theirs throws away what was there before, too.
            VectorMissing: It was forgotten meanwhile.
            HomeUnwritable: The disk refused; nothing is left behind.
        """
        path = self._begun(digest)
        with _disk(_NOT_STORED):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            async for chunk in chunks:
                await _in_thread(partial(_write, descriptor, chunk))
            if not path.exists():
                raise VectorMissing(f"vector {digest[:12]} was forgotten while it came")  # noqa: TRY301 - as if by a chunk
            return await _in_thread(partial(self._keep, descriptor, path, digest, durably=False))
        except (BrokenOff, asyncio.CancelledError):
            raise
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    def forget_begun(self, digest: Digest) -> None:
        """The rest of it is not wanted any more."""
        self._begun(digest).unlink(missing_ok=True)

    def _begun(self, digest: Digest) -> Path:
        return self._folder / f".begun-{digest}"

    def put(self, *parts: bytes | memoryview, name: Digest | None = None) -> Digest:
        """Keep bytes, given in parts, under `name`, by default their SHA-256; raises HomeUnwritable and keeps nothing.

        The parts are written from where they lie; nothing is copied. Where there is an object store, it has them first.
        """
        hasher = hashlib.sha256()
        with self._temporary() as (descriptor, temporary):
            for part in parts:
                if name is None:
                    hasher.update(part)
                _write(descriptor, part)
            digest = name or Digest(hasher.hexdigest())
            if self._shared is not None:
                self._shared.put(digest, temporary)
            path = self._keep(descriptor, temporary, digest)
        if name is None:
            self._remember(digest, path.stat(), hasher.digest())
        return digest

    def discard(self, digest: Digest) -> None:
        """Forget a vector that has served its purpose."""
        (self._folder / digest).unlink(missing_ok=True)

    def discard_shared(self, digest: Digest) -> None:
        """`discard`, and from the object store too, some time later: it may be slow, and nobody waits for it."""
        self.discard(digest)
        if self._shared is not None:
            threading.Thread(target=self._shared.discard, args=(digest,), daemon=True).start()

    def discard_all_but(self, kept: Collection[Digest]) -> None:
        """Forget every vector whose digest is not in `kept`, in the object store too; raises ObjectsUnreachable."""
        for path in self._folder.iterdir():
            if is_digest(path.name) and Digest(path.name) not in kept:
                path.unlink(missing_ok=True)
        if self._shared is not None:
            for digest in self._shared.digests() - set(kept):
                self._shared.discard(digest)

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

"""A place in an object store, or on a shared file system, for what outlives one machine: by name, whole or not at all.

Reached through fsspec; of its file systems only those below are used, with their credentials from the environment or
the machine's own role (ADR 46). Nothing that comes out of it is believed: whoever fetches checks the bytes against a
digest that the store does not know (`vectors.py`; threat A-33).

    file:///ABSOLUTE/FOLDER           a folder of a shared file system
    s3://BUCKET[/PREFIX]              Amazon S3 and what speaks like it
    gs://BUCKET[/PREFIX]              Google Cloud Storage
    abfs://CONTAINER[/PREFIX]         Azure Blob Storage
"""

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from consortium.contract.names import Digest, is_digest
from consortium.errors import ConsortiumError, HomeUnwritable

OBJECT_BYTES_MAX = 2**34
"""Half of what a model can have at most; an object that claims more is not looked at."""
SEEN_PAUSES_S = (0.1, 0.4, 1.5)
"""How long an object that was just written may stay out of sight, in steps."""
_PIECE_BYTES = 2**23
"""Read at a time: one request each."""
_URL = re.compile(
    r"file:///[A-Za-z0-9._/-]{1,400}|(?:s3|gs|abfs)://[a-z0-9][a-z0-9._-]{1,200}(?:/[A-Za-z0-9._-]{1,100}){0,8}/?"
)
_INSTALL = "pip install 'hospital-consortium[objects]'"


class ObjectsUnreachable(HomeUnwritable):
    """The object store did not answer, or refused. Whose fault: the store's, the network's, or of who gave rights."""

    def advice(self) -> str:
        """What to do next."""
        return (
            "Look whether the object store answers from this machine, and whether the account in this process's"
            " environment may read, write, list and delete there; then run the same command again. Nothing half-written"
            " was kept."
        )


class ObjectMissing(ConsortiumError):
    """There is no object of that name, or none yet."""

    code = "not_found"


class ObjectAltered(ConsortiumError):
    """The object store returned other bytes than were put there. Whose fault: who can write to it, or its disks'."""

    code = "try_later"

    def advice(self) -> str:
        """What to do next."""
        return (
            "Nothing of it was used. Find out who can write to the store; put the object back from the store's own"
            " versions, from a backup, or from the other coordinator's home, and resume the study."
        )


class ObjectsNotInstalled(ConsortiumError):
    """The configuration names an object store, and the packages that reach it are not here."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return f"Install them: {_INSTALL}."


class FileSystem(Protocol):
    """What is used of an fsspec file system."""

    def put_file(self, lpath: str, rpath: str) -> None:
        """Copy a file of this machine to `rpath`; it appears there when it is whole."""

    def open(self, path: str, mode: str = "rb") -> Any:
        """An object, to be read in pieces."""

    def info(self, path: str) -> dict[str, Any]:
        """Among others `size`, in bytes."""

    def rm_file(self, path: str) -> None:
        """Remove one object."""

    def ls(self, path: str, detail: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - fsspec's own signature
        """What is there."""

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget what was listed before."""


class Objects:
    """Objects below one prefix, each under a digest. Its methods block, and may be called from any thread."""

    def __init__(self, filesystem: FileSystem, prefix: str) -> None:
        self._filesystem = filesystem
        self._prefix = prefix.rstrip("/")

    def room(self, name: str) -> "Objects":
        """Those of one kind, below it."""
        return Objects(self._filesystem, f"{self._prefix}/{name}")

    def put(self, digest: Digest, path: Path) -> None:
        """Copy a complete file there, over an older one of that name; it is read in pieces.

        Raises:
            ObjectsUnreachable: The store refused, or does not have it whole afterwards.
        """
        target, size_bytes = self._path(digest), path.stat().st_size
        with self._calls("could not be written"):
            self._filesystem.put_file(str(path), target)
        for pause_s in (*SEEN_PAUSES_S, None):
            with self._calls("could not be looked at"), suppress(FileNotFoundError):
                self._filesystem.invalidate_cache()
                if self._filesystem.info(target)["size"] == size_bytes:
                    return
                break
            if pause_s is not None:
                time.sleep(pause_s)
        self.discard(digest)  # neither half of it nor an older one passes for what was to be there
        raise ObjectsUnreachable(f"object {digest[:12]} is not in the object store as it was written")

    def fetch(self, digest: Digest, into: Callable[[memoryview], None], free_bytes: int) -> None:
        """Hand an object over in pieces; what they are is for the caller to check.

        Raises:
            ObjectMissing: There is none.
            ObjectAltered: It claims more than any object has, or has another size than it claims.
            ObjectsUnreachable: The store refused, or there is no room for it here.
        """
        target = self._path(digest)
        try:
            with self._calls("could not be read"):
                self._filesystem.invalidate_cache()
                size_bytes = self._filesystem.info(target)["size"]
                if type(size_bytes) is not int or not 0 <= size_bytes <= OBJECT_BYTES_MAX:
                    raise ObjectAltered(f"object {digest[:12]} claims {size_bytes} bytes; at most {OBJECT_BYTES_MAX}")
                if size_bytes > free_bytes:
                    raise ObjectsUnreachable(f"object {digest[:12]} has {size_bytes} bytes, and {free_bytes} are free")
                with self._filesystem.open(target, "rb") as file:
                    _read(file, size_bytes, digest, into)
        except FileNotFoundError as error:
            raise ObjectMissing(f"the object store has no {digest[:12]}") from error

    def discard(self, digest: Digest) -> None:
        """Remove an object; one that cannot be removed now stays, and is nobody's.

        Its content is never secret: masked sums are worth nothing without the journal.
        """
        with suppress(ObjectsUnreachable, FileNotFoundError), self._calls("could not be removed"):
            self._filesystem.rm_file(self._path(digest))

    def digests(self) -> set[Digest]:
        """The names that are there; a store may show them late. Raises ObjectsUnreachable."""
        with self._calls("could not be listed"), suppress(FileNotFoundError):
            self._filesystem.invalidate_cache()
            names = [str(path).rpartition("/")[2] for path in self._filesystem.ls(self._prefix, detail=False)]
            return {Digest(name) for name in names if is_digest(name)}
        return set()

    def _path(self, digest: Digest) -> str:
        return f"{self._prefix}/{digest}"

    @contextmanager
    def _calls(self, what: str) -> Iterator[None]:
        """Every error of a store but a missing object: by its kind alone, for its words may quote keys and requests."""
        try:
            yield
        except (ConsortiumError, FileNotFoundError):
            raise
        except Exception as error:  # each store has its own
            raise ObjectsUnreachable(f"an object {what} at {self._prefix}: {type(error).__name__}") from error


def _read(file: BinaryIO, size_bytes: int, digest: Digest, into: Callable[[memoryview], None]) -> None:
    """Exactly so many bytes, whatever the store sends."""
    left = size_bytes
    while left:
        piece = memoryview(file.read(min(left, _PIECE_BYTES)))
        if not piece:
            raise ObjectAltered(f"object {digest[:12]} ends {left} bytes before the size it claims")
        if len(piece) > left:
            raise ObjectAltered(f"object {digest[:12]} is longer than it claims")
        into(piece)
        left -= len(piece)


class SharedFolder:
    """A folder of this machine's file tree, in the place of an object store: what `FileSystem` asks, durably.

    fsspec's own local file system writes under the name itself, so that half a file could be seen.
    """

    def put_file(self, lpath: str, rpath: str) -> None:
        """Beside it, synced, then renamed."""
        target = Path(rpath)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
        try:
            with Path(lpath).open("rb") as source, beside.open("xb") as copy:
                while piece := source.read(_PIECE_BYTES):
                    copy.write(piece)
                copy.flush()
                os.fsync(copy.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def open(self, path: str, mode: str = "rb") -> BinaryIO:
        """To be read."""
        assert mode == "rb"
        return Path(path).open("rb")

    def info(self, path: str) -> dict[str, Any]:
        """Its size."""
        return {"size": Path(path).stat().st_size}

    def rm_file(self, path: str) -> None:
        """One file."""
        Path(path).unlink()

    def ls(self, path: str, detail: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - fsspec's own signature
        """Names only."""
        assert not detail
        return [str(one) for one in Path(path).iterdir()]

    def invalidate_cache(self, path: str | None = None) -> None:
        """It has none."""


def is_objects_url(url: str) -> bool:
    """Whether a configuration may name it: a known store, and neither a password nor an option in it."""
    return _URL.fullmatch(url) is not None and "/../" not in f"{url}/"


def open_objects(url: str) -> Objects:
    """The place a URL names; nothing is asked of it yet. Raises ObjectsNotInstalled."""
    assert is_objects_url(url)
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        return Objects(SharedFolder(), rest)
    try:
        import fsspec  # noqa: PLC0415 - installed where it is wanted
        from obstore.fsspec import register  # noqa: PLC0415
    except ImportError as error:
        raise ObjectsNotInstalled(f"objects are kept in {scheme}://, which needs fsspec and obstore") from error
    register(scheme)
    filesystem = fsspec.filesystem(
        scheme,
        retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=30)},
        skip_instance_cache=True,
    )
    return Objects(filesystem, url)

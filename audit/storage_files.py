"""The files of a log's folder: the lock, and under `public/` the checkpoint, tiles and bundles. Durable writes.

Log format section 7. A file is complete and durable before anything that names it.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path, PurePosixPath
from typing import Self

from audit.errors import LogCorrupt, LogLocked, LogUnwritable

SYNCS_AT_ONCE = 4
_FILES_AT_A_TIME = 64


class LogFiles:
    """A folder on a local disk; what has the entries of a log beside it builds on this.

        lock      held with flock while the log may be written
        public/   checkpoint and tile/..., exactly as they may be served

    Raises:
        LogLocked: another process writes this log.
        LogUnwritable: the disk refuses; also from every method that writes.
    """

    def __init__(self, directory: Path, *, writable: bool) -> None:
        self._directory = directory
        self._public = directory / "public"
        self._lock_fd: int | None = None
        self._syncing = ThreadPoolExecutor(SYNCS_AT_ONCE, thread_name_prefix="log-fsync")
        if writable:
            try:
                make_directories(self._public)
                self._lock_fd = _lock(directory)
                self._sweep()
            except OSError as error:
                self.close()
                raise LogUnwritable(directory, error.strerror or str(error)) from error

    def read(self, path: str) -> bytes | None:
        """From `public/`."""
        try:
            return (self._public / PurePosixPath(path)).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LogCorrupt(path, "a readable file", error.strerror or str(error)) from error

    def write(self, path: str, data: bytes) -> None:
        """Only this file."""
        self.write_all([(path, data)])

    def write_all(self, files: Sequence[tuple[str, bytes]]) -> None:
        """Temporary files, fsync of all, rename of all, fsync of their folders."""
        targets = [(self._public / PurePosixPath(path), data) for path, data in files]
        try:
            for folder in dict.fromkeys(target.parent for target, _ in targets):
                make_directories(folder)
            for at in range(0, len(targets), _FILES_AT_A_TIME):
                write_durably(targets[at : at + _FILES_AT_A_TIME], self._sync)
        except OSError as error:
            raise LogUnwritable(self._directory, error.strerror or str(error)) from error

    def remove(self, path: str) -> None:
        """Unlink a file of `public/` and sync its folder."""
        target = self._public / PurePosixPath(path)
        try:
            target.unlink(missing_ok=True)
            if target.parent.is_dir():
                sync_directory(target.parent)
        except OSError as error:
            raise LogUnwritable(self._directory, error.strerror or str(error)) from error

    def prune(self, path: str) -> None:
        """Remove `<path>.p` and what is in it."""
        folder = self._public / PurePosixPath(f"{path}.p")
        with contextlib.suppress(OSError):
            for partial in folder.iterdir():
                partial.unlink()
            folder.rmdir()

    def close(self) -> None:
        """Let go of the lock."""
        self._syncing.shutdown()
        if self._lock_fd is not None:
            with contextlib.suppress(OSError):  # an empty file, and its descriptor is gone whatever is said about it
                os.close(self._lock_fd)
            self._lock_fd = None

    def _sync(self, descriptors: Sequence[int]) -> None:
        """Fsync all of them at once: a journal is then written for several, and the disk waited for once.

        Nobody returns before all have ended: a descriptor must not be closed under an fsync.
        """
        if len(descriptors) == 1 or SYNCS_AT_ONCE == 1:
            for descriptor in descriptors:
                os.fsync(descriptor)
            return
        syncs = [self._syncing.submit(os.fsync, descriptor) for descriptor in descriptors]
        wait(syncs)
        for sync in syncs:
            sync.result()

    def _sweep(self) -> None:
        """Remove what a process that died left half written; nobody else writes while the lock is held."""
        for path in self._public.rglob(".*"):
            if path.is_file():
                path.unlink()


def _lock(directory: Path) -> int:
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise LogLocked(directory) from error
        raise
    return descriptor


def write_durably(files: Sequence[tuple[Path, bytes]], sync: Callable[[Sequence[int]], None]) -> None:
    """Replace each file by a complete, synced one; raises OSError and then leaves no temporary file behind.

    Args:
        files: Few, because each stays open until it is synced.
        sync: Makes what was written to descriptors durable.
    """
    mark = f"{os.getpid()}.{threading.get_ident()}"
    temporary = {target: target.with_name(f".{target.name}.{mark}") for target, _ in files}
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        with _Descriptors() as descriptors:
            for target, data in files:
                left = memoryview(data)
                descriptor = descriptors.open(temporary[target], flags)
                while left:
                    left = left[os.write(descriptor, left) :]
            sync(descriptors.opened)
        for target, path in temporary.items():
            path.replace(target)
    except OSError:
        for path in temporary.values():
            with contextlib.suppress(OSError):
                path.unlink()
        raise
    with _Descriptors() as folders:
        for folder in dict.fromkeys(target.parent for target in temporary):
            folders.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        sync(folders.opened)


class _Descriptors:
    """Open descriptors, all of which are closed in the end. Mutable: it collects them."""

    def __init__(self) -> None:
        self.opened: list[int] = []

    def open(self, path: Path, flags: int) -> int:
        self.opened.append(os.open(path, flags, 0o644))
        return self.opened[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as closing:  # all of them, then the first error if there was one
            for descriptor in self.opened:
                closing.callback(os.close, descriptor)


def make_directories(directory: Path) -> None:
    """Create a folder and its parents, each durable in its own parent."""
    if directory.is_dir():
        return
    make_directories(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Sync a folder, so that the names in it survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

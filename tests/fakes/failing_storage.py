"""A log's storage that breaks at a chosen durable write, in one of two ways."""

from collections.abc import Callable, Sequence

from audit.errors import LogUnwritable
from audit.storage import Storage


class FailingStorage:
    """Passes everything on to a real storage; the `fail_at`-th durable write fails.

    `kept` says how: False, the write is lost; True, it reached the disk but an error was reported. After it, every
    write fails, as on a disk that is full or gone.
    """

    def __init__(self, storage: Storage, *, fail_at: int, kept: bool) -> None:
        self._storage = storage
        self._fail_at = fail_at
        self._kept = kept
        self.writes = 0

    def append(self, first: int, entries: Sequence[bytes]) -> None:
        self._write(lambda: self._storage.append(first, entries))

    def write(self, path: str, data: bytes) -> None:
        self._write(lambda: self._storage.write(path, data))

    def write_all(self, files: Sequence[tuple[str, bytes]]) -> None:
        for path, data in files:
            self.write(path, data)

    def rows(self, start: int, stop: int) -> list[tuple[int, bytes]]:
        return self._storage.rows(start, stop)

    def drop(self, runs: Sequence[tuple[int, int]]) -> None:
        self._write(lambda: self._storage.drop(runs))

    def remove(self, path: str) -> None:
        self._write(lambda: self._storage.remove(path))

    def prune(self, path: str) -> None:
        self._storage.prune(path)

    def count(self, since: int = 0) -> int:
        return self._storage.count(since)

    def entries(self, start: int, stop: int) -> list[bytes]:
        return self._storage.entries(start, stop)

    def read(self, path: str) -> bytes | None:
        return self._storage.read(path)

    def check(self) -> None:
        self._storage.check()

    def close(self) -> None:
        self._storage.close()

    def _write(self, effect: Callable[[], None]) -> None:
        self.writes += 1
        if self.writes < self._fail_at:
            effect()
            return
        if self.writes == self._fail_at and self._kept:
            effect()
        raise LogUnwritable("fake disk", "No space left on device")

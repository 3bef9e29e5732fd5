"""An object store in memory that can go wrong in every way a real one does."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any


class OddObjects:
    """Objects by path. Mutable: a test sets what goes wrong, and looks at `kept`.

    Attributes:
        kept: What is stored.
        fails: Calls by name ("put_file", "info", ...) that raise this error from now on.
        cut: How many bytes of the next object arrive; the store says nothing about it.
        late: How many times `info` does not know an object that is there; listings never show it meanwhile.
        returns: What reading makes of an object's bytes.
        claims: What `info` makes of an object's size.
    """

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.fails: dict[str, Exception] = {}
        self.cut: int | None = None
        self.late = 0
        self.returns: Callable[[bytes], bytes] = bytes
        self.claims: Callable[[int], Any] = int
        self.calls: list[str] = []

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise self.fails[name]

    def put_file(self, lpath: str, rpath: str) -> None:
        data = Path(lpath).read_bytes()
        if self.cut is not None:
            self.kept[rpath], self.cut = data[: self.cut], None
            self._called("put_file")
            return
        self._called("put_file")
        self.kept[rpath] = data

    def open(self, path: str, mode: str = "rb") -> io.BytesIO:
        self._called("open")
        return io.BytesIO(self.returns(self._known(path)))

    def info(self, path: str) -> dict[str, Any]:
        self._called("info")
        if self.late:
            self.late -= 1
            raise FileNotFoundError(path)
        return {"size": self.claims(len(self._known(path)))}

    def rm_file(self, path: str) -> None:
        self._called("rm_file")
        self._known(path)
        del self.kept[path]

    def ls(self, path: str, detail: bool = True) -> list[str]:
        self._called("ls")
        return [] if self.late else [one for one in self.kept if one.startswith(f"{path}/")]

    def invalidate_cache(self, path: str | None = None) -> None:
        self._called("invalidate_cache")

    def _known(self, path: str) -> bytes:
        if path not in self.kept:
            raise FileNotFoundError(path)
        return self.kept[path]

"""Global models on this site's disk, by digest, and large files looked at as if they were in memory."""

import mmap
import os
from pathlib import Path
from typing import IO

from consortium.contract.global_model import GlobalModel, ModelRefused
from consortium.contract.names import Digest


class ModelFolder:
    """A folder of models. Its methods may be called from any thread; the values of what they give stay on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, digest: Digest) -> Path:
        """Where a model is, if it is here."""
        return self._folder / f"{digest}.safetensors"

    def find(self, digest: Digest) -> GlobalModel | None:
        """The model, if it is here and whole."""
        try:
            model = GlobalModel.open(self.path(digest))
        except (FileNotFoundError, ModelRefused):
            return None
        return model if model.digest() == digest else None

    def save(self, model: GlobalModel) -> None:
        """Keep a model, whole or not at all; raises OSError."""
        path = self.path(model.digest())
        path.parent.mkdir(mode=0o700, exist_ok=True)
        scratch = path.with_suffix(".partial")
        with scratch.open("wb") as file:
            file.writelines(model.file_parts())
        scratch.replace(path)

    def exchange(self, model: GlobalModel) -> GlobalModel:
        """Keep a model; the same one as it lies there, without its values in memory."""
        self.save(model)
        return GlobalModel.open(self.path(model.digest()))

    def forget(self, digest: Digest) -> None:
        """Nobody will ask for it any more."""
        self.path(digest).unlink(missing_ok=True)


def mapped(file: Path | IO[bytes]) -> memoryview:
    """The bytes of a file as if they were in memory; raises OSError."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return mapped(opened)
    file.flush()
    if not os.fstat(file.fileno()).st_size:  # nothing cannot be mapped
        return memoryview(b"")
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

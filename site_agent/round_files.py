"""Vectors that a hospital carries from round to round and never sends: one small file a round, on its own disk.

Three things are kept so: the parameters of `training.site_kept`, SCAFFOLD's control variate, and the state of the
optimizer where a study carries it. A file is named for the
round that made it, and a round starts from the newest file of an earlier round. So a round that is trained again after
a crash, or for another attempt, starts from what it started from before; and what an attempt made that came to nothing
is written over by the next.

Files hold parameters that were trained on patients. They lie in the agent's home, are readable by its user alone, and
are named in `docs/reference/files-and-folders.md`.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from consortium.contract.global_model import GlobalModel, ModelRefused, ParameterLayout
from consortium.contract.private_files import write_private

FILES_KEPT = 3
"""The newest files of a folder that stay: of the round under way, and of those it may have to start from."""

_NAME = re.compile(r"round-(\d{6})\.safetensors")


class RoundFiles:
    """A folder of one study's vectors. One thread at a time uses it: training is done one round after another.

    Args:
        folder: Made when first needed.
        layout: Of the vectors; a file of another layout is not read.
    """

    def __init__(self, folder: Path, layout: ParameterLayout) -> None:
        self._folder = folder
        self._layout = layout

    def newest_before(
        self,
        round_number: int,
        counts: Callable[[int], bool] = lambda _: True,
        read: Callable[[int, NDArray[np.float32]], NDArray[np.float32] | None] = lambda _, vector: vector,
    ) -> NDArray[np.float32] | None:
        """The vector of the last round before this one that counts; None if there is none.

        A damaged file is passed over like one that was never written, and so is one of which `read`, given its round
        and its values, makes nothing.
        """
        for number in sorted(self._rounds(), reverse=True):
            if number < round_number and counts(number):
                try:
                    found = GlobalModel.open(self._path(number))
                except (ModelRefused, OSError):
                    continue
                if found.parameters != self._layout:
                    continue
                vector = read(number, np.array(found.vector, dtype=np.float32))
                if vector is not None:
                    return vector
        return None

    def save(self, round_number: int, vector: NDArray[np.float32]) -> None:
        """Write down what a round made, on disk when this returns, whole or not at all; raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        model = GlobalModel(self._layout, vector.astype(np.float32, copy=False))
        write_private(self._path(round_number), model.to_safetensors(), replace=True)
        for number in sorted(self._rounds())[:-FILES_KEPT]:
            self._path(number).unlink(missing_ok=True)

    def _rounds(self) -> list[int]:
        if not self._folder.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in self._folder.iterdir())
        return [int(match[1]) for match in found if match is not None]

    def _path(self, round_number: int) -> Path:
        return self._folder / f"round-{round_number:06d}.safetensors"

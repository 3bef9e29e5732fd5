"""SCAFFOLD at the hospital: its own control variate, read off its own update (Karimireddy et al. 2020, option II).

Every step of a round goes along g + c - c_i, where g is the step's gradient (with differential privacy: clipped and
noised), c the published control variate and c_i the hospital's own. After K steps of rate r from the model x the update
is D = y - x = -r (sum of g) - K r (c - c_i), and option II makes

    c_i' = c_i - c + (x - y) / (K r) = c_i - c - D / (K r)

which is the mean gradient of the round's steps, in one line without looking at a patient again.

Under local DP-SGD D is differentially private before it is masked, and c is a function of sums of such updates. So c_i'
is a function of private values alone: post-processing, which costs nothing, though it never leaves the hospital. What
is corrected with it later is private for the same reason (`corrections.py`). The first variant of the paper, a gradient
over all patients at x, would be a second look at the patients and a second cost; it is not offered.

The sum of the changes of all c_i, which the paper sends beside the updates, is a function of the sum of the updates
(`server_optimizer.Scaffold`). It is not sent: a second encoding of the same numbers would double the upload and tell
nobody anything more. What c_i cannot know is how the sum's encoding clipped and rounded D; a study whose `update_clip`
cuts updates makes c and the mean of the c_i drift apart by what was cut.

A round's c_i' counts from the moment this hospital releases its shares of the round's sum: before that, its update is
not in any sum. If the sum then comes to nothing after all, or the hospital stays out of a later attempt at the round,
c and the mean of the c_i differ by one hospital's change of one round until its next one.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from consortium.contract.global_model import GlobalModel
from consortium.contract.server_optimizer import CONTROL
from site_agent.errors import TrainingFailed
from site_agent.round_files import RoundFiles


class ControlVariates:
    """One study's. Nothing but its files is carried from round to round.

    Args:
        files: Where c_i lies, in the layout of the update.
        travel: K r, local steps times the local learning rate.
        was_released: Whether this hospital released shares of a round's sum.
    """

    def __init__(self, files: RoundFiles, *, travel: float, was_released: Callable[[int], bool]) -> None:
        self._files = files
        self._travel = travel
        self._was_released = was_released

    def shift(self, round_number: int, model: GlobalModel) -> NDArray[np.float32]:
        """The shift c - c_i, float32[d], that corrects every step of the round. Both are zero before the first round.

        Raises:
            TrainingFailed: The model carries the state of another algorithm.
        """
        own = self._own(round_number)
        return self._published(model) - (own if own is not None else np.float32(0))

    def after(self, round_number: int, model: GlobalModel, update: NDArray[np.float32]) -> None:
        """Write c_i' down, before the update is masked; raises OSError."""
        changed = -self.shift(round_number, model) - update / np.float32(self._travel)
        self._files.save(round_number, changed)

    def _own(self, round_number: int) -> NDArray[np.float32] | None:
        return self._files.newest_before(round_number, self._was_released)

    def _published(self, model: GlobalModel) -> NDArray[np.float32]:
        size = model.vector.size
        if not model.state:
            return np.zeros(size, dtype=np.float32)
        at = 0
        for name, shape in model.state:
            length = int(np.prod(shape, dtype=np.int64))
            if name.startswith(f"~{CONTROL}/"):
                found = model.state_vector[at : at + size]
                if len(found) == size:
                    return np.array(found, dtype=np.float32)
            at += length
        raise TrainingFailed("the global model carries no control variate, though the study's algorithm is scaffold")

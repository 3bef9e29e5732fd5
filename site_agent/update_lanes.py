"""One flat update -> the lanes of a round's layout (no torch)."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from consortium.contract.layout import update_lanes
from privacy.encoding import Layout
from privacy.lazy_numpy import np
from site_agent.errors import TrainingFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray


def lanes_of(
    update: NDArray[np.float32] | NDArray[np.float64], layout: Layout
) -> dict[str, NDArray[np.float32] | NDArray[np.float64]]:
    """An update in this layout's lanes, as views: parameters that share a clip share a lane.

    Raises:
        TrainingFailed: The lanes hold another number of values than the update has.
    """
    lanes = update_lanes(layout)
    room = sum(lane.length for lane in lanes)
    if update.shape != (room,):
        raise TrainingFailed(f"the update has {update.size} values; the round plan has room for {room}")
    starts = accumulate((lane.length for lane in lanes), initial=0)
    return {lane.name: update[start : start + lane.length] for lane, start in zip(lanes, starts, strict=False)}

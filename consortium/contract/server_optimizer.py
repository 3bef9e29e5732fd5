"""Aggregate + weights -> next global model: the step that the coordinator and every site repeat (protocol 4.5).

Element by element in float64 and rounded once to float32, so that it gives the same bytes everywhere; a block of
elements at a time, so that it takes no more memory than the next model itself. It lives in the contract, not with the
coordinator, because a site that recomputes it refuses a model of the coordinator's making.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from consortium.contract.errors import ContractError
from consortium.contract.global_model import GlobalModel
from consortium.contract.layout import LaneName, weight_max
from consortium.contract.plan import RoundKind, RoundPlan
from consortium.contract.study import StudyFile
from privacy.encoding import Sums

_BLOCK = 1 << 15  # elements


class AggregateRefused(ContractError):
    """A sum from which no next global model follows."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "The round is not applied. If it repeats, ask the sites whether their cohorts are empty."


def federated_average(
    model: GlobalModel,
    sums: Mapping[str, npt.NDArray[np.float64]],
    *,
    weight_max: float,
    server_learning_rate: float,
    weight_sum: float | None = None,
) -> GlobalModel:
    """FedAvg (McMahan et al. 2017): model + rate * (sum of weighted updates / sum of weights).

    Args:
        model: The global model of this round, float32[d].
        sums: Decoded lanes of the aggregate, in the order of the layout; needs the lanes of the update, together
            float64[d] (`update`, or `update/0`, `update/1` and so on), and `weight`, float64[1].
        weight_max: W_max of the study: updates travel multiplied by weight / W_max (protocol section 5).
        server_learning_rate: Greater than 0; 1 is plain averaging.
        weight_sum: What the weights must sum to, where that is known.

    Raises:
        AggregateRefused: The lanes do not fit the model, the weights sum to nothing or to another number than they
            must, or the result is not finite.
    """
    weight = float(sums[LaneName.WEIGHT][0])
    if weight <= 0:
        raise AggregateRefused(f"the weights sum to {weight}; they must sum to more than 0")
    if weight_sum is not None and weight != weight_sum:
        # One site with another weight than the others, below 0 for instance, could make everybody's mean larger.
        raise AggregateRefused(f"the weights sum to {weight:g}; those of these sites sum to {weight_sum:g}")
    divisor = weight / weight_max
    after = np.empty_like(model.vector)
    done = 0
    for update in _update_blocks(sums):
        stop = done + len(update)
        if stop <= len(after):
            np.divide(update, divisor, out=update)
            np.multiply(update, server_learning_rate, out=update)
            np.add(update, model.vector[done:stop], out=update)
            with np.errstate(over="ignore"):  # what does not fit becomes an infinity, and is refused
                after[done:stop] = update
            if not bool(np.isfinite(after[done:stop]).all()):
                raise AggregateRefused("the next global model would hold a value that is not finite")
        done = stop
    if done != len(after):
        raise AggregateRefused(f"the aggregate has {done} values, the model {model.vector.size}")
    return model.with_vector(after)


def _update_blocks(sums: Mapping[str, npt.NDArray[np.float64]]) -> Iterator[npt.NDArray[np.float64]]:
    """The lanes of the update one after the other, a block at a time; the blocks may be written to."""
    for name in sums:
        if name.partition("/")[0] != LaneName.UPDATE:
            continue
        if isinstance(sums, Sums):  # decoded block by block, and never as a whole
            length = sums.length(name)
            yield from (sums.stretch(name, start, start + _BLOCK) for start in range(0, length, _BLOCK))
        else:
            lane = sums[name]
            yield from (lane[start : start + _BLOCK].copy() for start in range(0, len(lane), _BLOCK))


def next_global_model(
    study: StudyFile,
    plan: RoundPlan,
    model: GlobalModel,
    sums: Mapping[str, npt.NDArray[np.float64]],
    *,
    survivors: int,
) -> GlobalModel:
    """The model after a round, from the decoded lanes of its aggregate; the same one after an evaluation.

    Args:
        study: The study.
        plan: Of the round.
        model: The one the round started from.
        sums: Decoded lanes of the aggregate.
        survivors: How many sites are in the sum.

    Raises:
        AggregateRefused: See `federated_average`. With uniform weighting the weights sum to the number of sites.
    """
    if plan.kind is RoundKind.EVALUATE:
        return model
    rate = study.training.server_learning_rate
    return federated_average(
        model,
        sums,
        weight_max=weight_max(study),
        server_learning_rate=rate,
        weight_sum=survivors if study.training.weighting == "uniform" else None,
    )

"""Aggregate + weights -> next global model: the step that the coordinator and every site repeat (protocol 4.5).

Element by element in float64 and rounded once to float32, so that it gives the same bytes everywhere. It lives in
the contract, not with the coordinator, because a site that recomputes it refuses a model of the coordinator's making.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from consortium.contract.errors import ContractError
from consortium.contract.global_model import GlobalModel
from consortium.contract.layout import weight_max
from consortium.contract.plan import RoundKind, RoundPlan
from consortium.contract.study import StudyFile


class AggregateRefused(ContractError):
    """A sum from which no next global model follows."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "The round is not applied. If it repeats, ask the sites whether their cohorts are empty."


def federated_average(
    model: GlobalModel, sums: Mapping[str, npt.NDArray[np.float64]], *, weight_max: float, server_learning_rate: float
) -> GlobalModel:
    """FedAvg (McMahan et al. 2017): model + rate * (sum of weighted updates / sum of weights).

    Args:
        model: The global model of this round, float32[d].
        sums: Decoded lanes of the aggregate; needs `update`, float64[d], and `weight`, float64[1].
        weight_max: W_max of the study: updates travel multiplied by weight / W_max (protocol section 5).
        server_learning_rate: Greater than 0; 1 is plain averaging.

    Raises:
        AggregateRefused: The lanes do not fit the model, the weights sum to nothing, or the result is not finite.
    """
    update, weight = sums["update"], float(sums["weight"][0])
    if update.shape != model.vector.shape:
        raise AggregateRefused(f"the aggregate has {update.size} values, the model {model.vector.size}")
    if weight <= 0:
        raise AggregateRefused(f"the weights sum to {weight}; they must sum to more than 0")
    moved = model.vector.astype(np.float64) + server_learning_rate * (update / (weight / weight_max))
    with np.errstate(over="ignore"):  # what does not fit becomes an infinity, and is refused
        rounded = moved.astype(np.float32)
    if not bool(np.isfinite(rounded).all()):
        raise AggregateRefused("the next global model would hold a value that is not finite")
    return model.with_vector(rounded)


def next_global_model(
    study: StudyFile, plan: RoundPlan, model: GlobalModel, sums: Mapping[str, npt.NDArray[np.float64]]
) -> GlobalModel:
    """The model after a round, from the decoded lanes of its aggregate; the same one after an evaluation.

    Raises:
        AggregateRefused: See `federated_average`.
    """
    if plan.kind is RoundKind.EVALUATE:
        return model
    rate = study.training.server_learning_rate
    return federated_average(model, sums, weight_max=weight_max(study), server_learning_rate=rate)

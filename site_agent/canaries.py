"""Canaries: made-up patients of whom each is in or out by a coin, and who gives himself away most if privacy fails.

Steinke, Nasr and Jagielski (2023), white box: the auditor knows every canary and sees every update. A canary stands
out in one input of the network, so its gradient points in a direction of its own; its score is how far the updates went
that way. All that is guessed from scores is which canaries were in (`privacy.dp.empirical_audit`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from site_agent.cohort import Records
from site_agent.networks import build_from
from site_agent.training_spec import NetworkSpec
from site_agent.update import load_vector, sent_parameters

HEIGHT = 8.0
"""How far a canary stands out, in clip norms: long enough to be clipped for a while, and not learnt at once."""

CANARIES_MAX = 64  # at a site


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Canaries:
    """The canaries of one site."""

    features: NDArray[np.float32]  # [canaries, *record shape]
    labels: NDArray[np.float32]  # [canaries]
    included: NDArray[np.bool_]  # [canaries], fair coins

    @classmethod
    def drawn(cls, network: NetworkSpec, clip_norm_l2: float, inputs: range, random: np.random.Generator) -> "Canaries":
        """One for each of some inputs of the network.

        Args:
            network: Whose inputs.
            clip_norm_l2: Of the study.
            inputs: Which inputs stand out, one canary each.
            random: Of the simulation: coins and labels. It has nothing to do with the noise.
        """
        features = np.zeros((len(inputs), network.input_size), dtype=np.float32)
        features[np.arange(len(inputs)), list(inputs)] = HEIGHT * max(1.0, clip_norm_l2)
        return cls(
            features=features.reshape(len(inputs), *network.input_shape),
            labels=random.integers(2, size=len(inputs)).astype(np.float32),
            included=random.integers(2, size=len(inputs)).astype(bool),
        )

    def cohort(self) -> Records:
        """Those that are in, one record each; there may be none."""
        count = int(self.included.sum())
        return Records(
            features=self.features[self.included],
            labels=self.labels[self.included],
            patients=np.arange(count, dtype=np.int64),
            patient_count=count,
        )

    def directions(self, network: NetworkSpec, model: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64[canaries, d]: each one's gradient at a model, of length 1; zero for one that has none left."""
        module = build_from(network)
        load_vector(module, model)
        parameters = [parameter for _, parameter in sent_parameters(module)]
        rows = []
        for record, label in zip(self.features, self.labels, strict=True):
            logit = module(torch.from_numpy(record[None])).squeeze()
            loss = nn.functional.binary_cross_entropy_with_logits(logit, torch.tensor(label))
            gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)]).double().numpy()
            length = float(np.linalg.norm(gradient))
            rows.append(gradient / length if np.isfinite(length) and length > 0 else np.zeros_like(gradient))
        return np.stack(rows)


def guessed(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Who was in, from scores alone: the cut into two groups that differ most (Otsu 1979). Everybody is guessed."""
    ordered = np.sort(scores)
    best, cut = -1.0, ordered[-1]
    for size in range(1, len(ordered)):
        low, high = ordered[:size], ordered[size:]
        between = len(low) * len(high) * float(high.mean() - low.mean()) ** 2
        if between > best:
            best, cut = between, (low[-1] + high[0]) / 2
    above: NDArray[np.bool_] = scores > cut
    return above

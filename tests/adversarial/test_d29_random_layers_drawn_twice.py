"""D-29: an engine measures a patient under one draw of dropout and adds the gradient of another, which no norm bounds.

Every patient alone moves at most the clip norm, whatever the random layers draw. An engine that draws twice is found
out before it trains. Tried with a second forward pass in `ghost`, and: rows d29 of `mutations.py`.
"""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from site_agent.errors import EngineUnsuited
from site_agent.gradients.admission import ENGINES
from site_agent.gradients.engine import FLOAT_MARGIN, Engine
from site_agent.gradients.losses import record_loss
from site_agent.gradients.opacus_engines import GhostEngine
from site_agent.gradients.self_test import self_test
from site_agent.gradients.workload import Workload

LOSS = record_loss(nn.BCEWithLogitsLoss())
WORK = Workload(input_shape=(6,), patients=2, records_each=2, memory_bytes=2**30)
DRAWS = 40


def network():
    torch.manual_seed(7)
    # Half of the values dropped: two draws of one patient's gradient are often twice as long, one as the other.
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1)).train()


class TwoForwards(GhostEngine):
    """`ghost` as it was: the weighted losses come from a forward pass of their own."""

    def _add_weighted(self, _losses, weights, total):
        self._hooked.disable_hooks()
        whole = torch.isfinite(self._part.features).all(dim=1)
        features = self._part.features[whole].double().requires_grad_()
        again = self.loss(self._hooked(features), self._part.labels[whole])
        super()._add_weighted(again, weights, total)

    def add(self, part, clip_norm_l2, tally):
        self._part = part
        super().add(part, clip_norm_l2, tally)


def longest(engine: Engine, clip):
    """The most that one patient of one record moved, in clip norms."""
    return max(
        np.linalg.norm(engine.clipped_sum(alone, clip).total) / clip for alone in WORK.batch((1,) * DRAWS).parts(1)
    )


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_nobody_moves_more_than_the_clip_norm_whatever_is_dropped(name):
    torch.manual_seed(11)
    engine = ENGINES[name](network(), LOSS)
    clip = 0.5 * longest(engine, 1e9) * 1e9
    assert 0.9 < longest(engine, clip) <= 1 + FLOAT_MARGIN


def test_the_measurement_finds_an_engine_that_draws_twice():
    torch.manual_seed(11)
    engine = TwoForwards(network(), LOSS)
    assert longest(engine, 0.5 * longest(engine, 1e9) * 1e9) > 1.2


def test_such_an_engine_is_refused_before_it_trains():
    torch.manual_seed(11)
    with pytest.raises(EngineUnsuited, match="with its random layers on, a patient moved"):
        self_test(TwoForwards, network(), LOSS, WORK)


def test_a_broken_patient_costs_the_others_nothing():
    torch.manual_seed(11)
    batch = WORK.batch((1,) * 6)
    batch.features[2].fill_(math.nan)
    quiet = copy.deepcopy(network())
    quiet[2].p = 0.0
    found = GhostEngine(quiet, LOSS).clipped_sum(batch, 0.1)
    expected = ENGINES["loop"](copy.deepcopy(quiet), LOSS).clipped_sum(batch, 0.1)
    assert (found.patients, found.clipped, found.broken) == (expected.patients, expected.clipped, expected.broken)
    assert found.broken == 1
    np.testing.assert_allclose(found.total, expected.total, rtol=0, atol=1e-5)

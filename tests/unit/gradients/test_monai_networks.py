"""MONAI's networks: which engine can train which, and that every one that can gives what `loop` gives."""

import pytest
import torch
from torch import nn

from site_agent.errors import EngineUnsuited
from site_agent.gradients import admission
from site_agent.gradients.admission import ENGINES
from site_agent.gradients.losses import record_loss
from site_agent.gradients.refusals import require_private
from site_agent.gradients.self_test import self_test
from site_agent.gradients.workload import Workload
from tests.fakes.monai_networks import EXAMPLES

LOSS = record_loss(nn.BCEWithLogitsLoss())


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def workload(example, **changes):
    fields = {"patients": 2, "records_each": 2, "memory_bytes": 2**32} | changes
    return Workload(input_shape=example.shape, label_shape=example.label_shape, **fields)


@pytest.mark.parametrize("network", list(EXAMPLES))
def test_every_engine_equals_the_loop_or_says_why_not(network):
    example = EXAMPLES[network]
    module = example.build()
    require_private(module)
    refused = {}
    for name in set(ENGINES) - {"loop"}:
        try:
            self_test(ENGINES[name], module, LOSS, workload(example))
        except (EngineUnsuited, RuntimeError, AttributeError, TypeError) as error:
            refused[name] = str(error)
    assert set(refused) == set(example.unsuited), refused
    for name, why in example.unsuited.items():
        assert why in refused[name]
    assert "vmap" not in refused


@pytest.mark.parametrize("network", [name for name, example in EXAMPLES.items() if example.unsuited])
def test_the_choice_finds_one_that_can(network, monkeypatch):
    monkeypatch.setattr(admission, "TURNS_MAX", 1)
    monkeypatch.setattr(admission, "self_test", lambda *_: None)  # the test above is about that
    example = EXAMPLES[network]
    trial = admission.choose(example.build(), LOSS, workload(example, patients=1, records_each=1))
    assert trial.choice.name not in example.unsuited
    told = {candidate.engine: candidate.unsuited for candidate in trial.candidates}
    assert {name for name, why in told.items() if why} == set(example.unsuited)

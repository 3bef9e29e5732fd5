"""What the log says of a privacy event is what the ledger says, number for number."""

from dataclasses import asdict

import pytest

from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledDiscreteGaussian, PoissonSampledGaussian
from site_agent.logged_event import logged_event

NUMBERS = {"noise_multiplier": 3.4484, "sampling_rate": 0.2, "steps": 2, "clip_norm_l2": 0.5}
OWN = DpEvent(mechanism=PoissonSampledGaussian(**NUMBERS))
SHARED = DpEvent(
    mechanism=PoissonSampledDiscreteGaussian(**NUMBERS, shares=3, grid_spacing=2.0**-22, dimension=21),
)


@pytest.mark.parametrize(("event", "elsewhere"), [(OWN, {"clip_norm_l2"}), (SHARED, set())], ids=["own", "shared"])
def test_kind_and_numbers_are_the_ledgers(event, elsewhere):
    logged = logged_event(event)
    record = event.to_dict()
    assert record.pop("mechanism") == logged.KIND
    assert asdict(logged) == {
        name: value for name, value in record.items() if name not in {"unit", "relation", *elsewhere}
    }

"""How many copies of a large update a real coordinator and real agents ever hold, in a study of ten million parameters.

Measured by the operating system, above what each process had before the study began. Files that are only mapped (the
global model, the aggregate) are counted apart: the system may drop them at any moment, and they are limited all the
same. A smaller study runs first, so that what is loaded once (torch, pandas) is there before anything is counted.
"""

from pathlib import Path

import pytest

from tests.benchmarks.hundred_million import SITES, measure

COORDINATOR_COPIES_MAX = 4.5  # the running sum and the next model; the model they follow from, mapped
AGENT_COPIES_MAX = 7.0  # the network, the update, the masked update; model and aggregate, mapped
AGENT_COPIES_NOT_MAPPED_MAX = 5.0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from Linux' /proc")
async def test_nobody_holds_more_than_a_few_copies_of_the_update() -> None:
    _, large = await measure(1_000_000, 10_000_000)
    copy_bytes = 4 * large.parameters
    assert large.peaks.keys() == {"coordinator", *SITES}
    assert large.peaks["coordinator"].all_bytes < COORDINATOR_COPIES_MAX * copy_bytes
    for site in SITES:
        assert large.peaks[site].all_bytes < AGENT_COPIES_MAX * copy_bytes
        assert large.peaks[site].anonymous_bytes < AGENT_COPIES_NOT_MAPPED_MAX * copy_bytes

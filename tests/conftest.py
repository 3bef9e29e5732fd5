"""How the whole suite runs: `make test` gives one file at a time to each of three workers.

One more than a small machine has cores: where real processes die, wait out a deadline and come back, a core is idle for
as long. No test may depend on a machine that is quick.

Long files first. A worker that begins a file of a minute when the others have nothing left is a minute in which most of
the machine waits, and xdist's own order, by the number of tests, puts just those files last.

One thread for each process. Whatever is tested here is small, and several processes share the cores: threads of torch
that wait for each other while others compute make a step of a small network twenty times as expensive.

Compiled once, also where the environment says that Python is to keep no bytecode: a test that starts a program, or a
mutation that runs a test, would compile all of it again, half a second of work each time.
"""

import os
import sys
import zlib
from pathlib import Path

import pytest
import structlog

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is loaded, here and in every process a test starts
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

LONGEST = (
    "adversarial/test_mutations.py",
    "e2e/test_shipped_imaging_studies.py",
    "e2e/test_dropouts_in_every_phase.py",
    "e2e/test_hospitals_come_and_go.py",
    "e2e/test_behind_firewalls.py",
    "e2e/test_when_something_fails.py",
    "e2e/test_distributed_study.py",
    "e2e/test_coordinator_dies_in_every_phase.py",
    "e2e/test_nothing_secret_is_left_behind.py",
    "adversarial/test_a21_log_dies_at_any_call.py",
    "integration/test_lying_coordinator.py",
    "e2e/test_memory_of_a_large_round.py",
    "property/test_six_hundred_sites.py",
    "unit/gradients/test_monai_networks.py",
)
"""The files that take half a minute or more, as measured; the first two take minutes."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker of xdist: the longest, then files with a test marked as slow, then all others as they are."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        place = {Path(__file__).parent / name: at for at, name in enumerate(LONGEST)}
        items.sort(key=lambda item: (place.get(item.path, len(LONGEST)), item.path not in slow))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a test draws from torch's global generator is the same every time: it fails always or never.

    Nor does it depend on how an earlier test of this process had facts logged.
    """
    structlog.reset_defaults()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(zlib.crc32(item.nodeid.encode()))

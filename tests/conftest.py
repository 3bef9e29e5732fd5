"""How the whole suite runs: `make test` gives one file at a time to each of two workers.

Slow files first. A worker that begins a file of a minute when the other has nothing left is a minute in which half of
the machine waits, and xdist's own order, by the number of tests, puts just those files last.

One thread for each process. Whatever is tested here is small, and several processes share the cores: threads of torch
that wait for each other while others compute make a step of a small network twenty times as expensive.

Compiled once, also where the environment says that Python is to keep no bytecode: a test that starts a program, or a
mutation that runs a test, would compile all of it again, half a second of work each time.
"""

import os
import sys
import zlib

import pytest
import structlog

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is loaded, here and in every process a test starts
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker of xdist: files with a test marked as slow before all others, which stay in the order they are in."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a test draws from torch's global generator is the same every time: it fails always or never.

    Nor does it depend on how an earlier test of this process had facts logged.
    """
    structlog.reset_defaults()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(zlib.crc32(item.nodeid.encode()))

"""What the files here share: a process that has loaded everything, which takes seconds."""

from collections.abc import Iterator

import pytest

from tests.e2e.faulty_world import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where the processes of all tests come from."""
    nursery = Nursery()
    yield nursery
    nursery.close()

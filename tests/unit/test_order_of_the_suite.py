"""The files that `make test` begins with are there: one that was renamed would lose its place without a word."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def test_the_longest_files_are_there(request: pytest.FixtureRequest) -> None:
    (conftest,) = [
        plugin
        for plugin in request.config.pluginmanager.get_plugins()
        if getattr(plugin, "__file__", None) == str(TESTS / "conftest.py")
    ]
    assert [name for name in conftest.LONGEST if not (TESTS / name).is_file()] == []

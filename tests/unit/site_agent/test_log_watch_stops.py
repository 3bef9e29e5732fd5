"""Whoever watches the log stops when it is told to, whatever it hears at that moment."""

import asyncio
from typing import Any

import pytest

from site_agent.log_watch import LogWatch


@pytest.mark.parametrize("steps", range(6))
async def test_it_stops_if_a_checkpoint_is_announced_as_the_connection_ends(
    monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """The agent waits for it to stop before it dials again, and would wait for ever."""

    async def nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(LogWatch, "_enrol_key", nothing)
    monkeypatch.setattr(LogWatch, "_follow", nothing)
    nobody: Any = None
    watch = LogWatch(nobody, nobody, nobody)
    monkeypatch.setattr(watch, "_mirror", object())
    watching = asyncio.create_task(watch.run(nobody))
    for _ in range(3):
        await asyncio.sleep(0)
    watch.wake()
    for _ in range(steps):
        await asyncio.sleep(0)
    watching.cancel()
    await asyncio.wait({watching}, timeout=20)
    assert watching.cancelled()

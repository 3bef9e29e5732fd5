"""How the command line reaches a coordinator: over the wire if it is running, by opening its home if it is not."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from audit.errors import LogLocked
from consortium.app import opened
from consortium.commands import execute
from consortium.contract.digest import canonical_bytes
from consortium.home import CoordinatorHome, open_home
from consortium.wire.client import CoordinatorClient


async def run_command(folder: Path, command: str, arguments: Mapping[str, object]) -> dict[str, Any]:
    """Carry out one command; the log's lock tells whether a coordinator is running."""
    raw = canonical_bytes(dict(arguments))  # type: ignore[arg-type] # refused there if it is not JSON
    try:
        with opened(folder) as coordinator:
            answer = await execute(coordinator, command, raw)
    except LogLocked:
        async with await _client(open_home(folder)) as client:
            answer = await client.execute(command, raw)
    found = json.loads(answer)
    assert isinstance(found, dict)  # every command answers an object
    return found


async def watch_status(folder: Path) -> AsyncIterator[dict[str, Any]]:
    """The running coordinator's status, now and after every change."""
    async with await _client(open_home(folder)) as client:
        async for raw in client.watch():
            yield json.loads(raw)


async def _client(home: CoordinatorHome) -> CoordinatorClient:
    key_pem, certificate_pem = home.operator_pem
    return await CoordinatorClient.connect(home.config.address, home.ca_pem, certificate_pem, key_pem)

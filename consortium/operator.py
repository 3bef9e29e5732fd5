"""How the command line reaches a coordinator: over the wire if it is running, by opening its home if it is not.

With the folder of a person's account in place of the home, always over the wire, from wherever that person is.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from audit.errors import LogLocked
from consortium.account_folder import AccountFolder, is_account, open_account
from consortium.app import opened
from consortium.commands import execute
from consortium.contract.digest import canonical_bytes
from consortium.contract.global_model import GlobalModel
from consortium.contract.kit import split_address
from consortium.errors import ConsortiumError, DatabaseLed
from consortium.home import CoordinatorHome, open_home
from consortium.wire.client import CoordinatorClient


class FetchFailed(ConsortiumError):
    """A file that did not come whole. Whose fault: the line's, or of whoever changed it meanwhile."""

    code = "try_later"

    def advice(self) -> str:
        """What to do next."""
        return "Nothing was kept; run the command again."


async def run_command(folder: Path, command: str, arguments: Mapping[str, object]) -> dict[str, Any]:
    """Carry out one command with a home or an account; the log's lock tells whether the home's coordinator runs."""
    if is_account(folder):
        return await _run_as(open_account(folder), command, arguments)
    raw = canonical_bytes(dict(arguments))  # type: ignore[arg-type] # refused there if it is not JSON
    try:
        with opened(folder) as coordinator:
            answer = await execute(coordinator, command, raw)
    except (LogLocked, DatabaseLed):
        async with await _client(open_home(folder)) as client:
            answer = await client.execute(command, raw)
    return _object(answer)


async def _run_as(account: AccountFolder, command: str, arguments: Mapping[str, object]) -> dict[str, Any]:
    """One command of a person's, whose certificate is renewed on the way when it is time."""
    now = datetime.now(UTC)
    given = dict(arguments)
    if command == "study.submit":
        given |= account.signed(str(given["document"]), now)
    async with await _client_of(account) as client:
        request = None if account.account is None else account.renewal(now)
        if request is not None:
            renewed = _object(await client.execute("account.renew", canonical_bytes({"request": request.hex()})))
            account.renewed(str(renewed["certificate"]).encode(), now)
        return _object(await client.execute(command, canonical_bytes(given)))  # type: ignore[arg-type] # as above


async def fetch(folder: Path, command: str, arguments: Mapping[str, object], out: Path) -> None:
    """Write a file that the coordinator has, part by part; `out` is there only if it came whole.

    Raises:
        FetchFailed: It grew or shrank meanwhile.
    """
    incoming = out.with_name(f".{out.name}.incoming")
    try:
        async with await _client_of(open_account(folder)) as client:
            with incoming.open("wb") as file:
                size_bytes = None
                while size_bytes is None or file.tell() < size_bytes:
                    asked = canonical_bytes({**arguments, "offset": file.tell()})  # type: ignore[dict-item] # JSON
                    part = _object(await client.execute(command, asked))
                    data = base64.b64decode(part["data"])
                    if size_bytes not in (None, part["size_bytes"]) or (not data and part["size_bytes"]):
                        raise FetchFailed(f"{out.name} did not come whole")
                    size_bytes = int(part["size_bytes"])
                    file.write(data)
        incoming.replace(out)
    finally:
        incoming.unlink(missing_ok=True)


async def fetch_model(folder: Path, study: str, model_digest: str, out: Path) -> None:
    """Write a model that was just released; raises FetchFailed for one that is not what was released."""
    arriving = out.with_name(f".{out.name}.unchecked")
    try:
        await fetch(folder, "study.model", {"study": study}, arriving)
        found = await asyncio.to_thread(lambda: GlobalModel.open(arriving).digest())
        if found != model_digest:
            raise FetchFailed(f"a model {found[:12]} came instead of {model_digest[:12]}")
        arriving.replace(out)
    finally:
        arriving.unlink(missing_ok=True)


async def watch_status(folder: Path) -> AsyncIterator[dict[str, Any]]:
    """The running coordinator's status, now and after every change."""
    line = _client_of(open_account(folder)) if is_account(folder) else _client(open_home(folder))
    async with await line as client:
        async for raw in client.watch():
            yield json.loads(raw)


async def _client(home: CoordinatorHome) -> CoordinatorClient:
    key_pem, certificate_pem = home.operator_pem
    config = home.config
    # Its certificate is for the host that hospitals dial.
    named = None if config.listen is None else split_address(config.address)[0]
    return await CoordinatorClient.connect(
        config.own_address, home.ca_pem, certificate_pem, key_pem, server_name_override=named
    )


async def _client_of(account: AccountFolder) -> CoordinatorClient:
    if account.account is None:
        return await CoordinatorClient.connect_with_token(account.address, account.ca_pem, account.token)
    key_pem, certificate_pem = account.credentials
    return await CoordinatorClient.connect(account.address, account.ca_pem, certificate_pem, key_pem)


def _object(answer: bytes) -> dict[str, Any]:
    found = json.loads(answer)
    assert isinstance(found, dict)  # every command answers an object
    return found

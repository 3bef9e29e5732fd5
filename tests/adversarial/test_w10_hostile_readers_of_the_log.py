"""W-10: a stranger at the log's HTTPS port asks for what is not the log, wears the coordinator out, or is no member.

Held by: the grammar of `audit/tile_requests.py`, and the bounds and the look at certificates of
`consortium/log_server.py`. Tried: rows w10 of `mutations.py`; and by hand, one at a time, the look at what the
checkpoint covers, the method, `max_incomplete_event_size`, the time for a request and the places for connections.
"""

import asyncio
import socket
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from audit.tile_requests import wanted
from consortium import log_server
from tests.fakes.https_reader import SIZE, served, stranger
from tests.fakes.wire_world import SITE, new_pki, pki

NO_PATHS = (
    "/",
    "/../checkpoint",
    "/checkpoint/",
    "//checkpoint",
    "/checkpoint?x=1",
    "/%63heckpoint",
    "/tile/0/000/../000.p/70",
    "/tile/00/000.p/70",
    "/tile/64/000.p/1",
    "/tile/-1/000.p/1",
    "/tile/0/0.p/70",
    "/tile/0/x000/000.p/70",
    "/tile/0/000.p/070",
    "/tile/0/000.p/0",
    "/tile/0/000.p/256",
    "/tile/0/000.p/999",
    "/tile/0/000.p/71",
    "/tile/0/000",
    "/tile/1/000.p/1",
    "/tile/0/x999/x999/x999/x999/x999/999",
    "/tile/0/\u0660\u0660\u0660.p/70",
    "/tile/entries/001.p/1",
    "/tile/entries/000.p/70/../../../../entries.sqlite3",
    "/entries.sqlite3",
    "/lock",
)


async def test_a_path_that_is_none_gives_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, server), stranger(server, tmp_path) as reader:
        for path in NO_PATHS:
            found = await reader.ask(f"GET {path} HTTP/1.1\r\nHost: hub\r\n\r\n".encode("utf-8", "replace"))
            assert found.status in (400, 404), path
            if found.status == 400:  # h11 wants ASCII, and closes after what is not
                break
            assert found.headers["cache-control"] == "no-store"
        else:
            raise AssertionError("every path was ASCII")
    async with served(tmp_path / "again") as (_, server), stranger(server, tmp_path) as reader:
        for path in NO_PATHS[NO_PATHS.index("/tile/0/\u0660\u0660\u0660.p/70") + 1 :]:
            assert (await reader.get(path)).status == 404, path
        assert (await reader.get(f"/tile/0/000.p/{SIZE}")).status == 200
    assert wanted("tile/0/\u0660\u0660\u0660.p/70") is None


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"POST /checkpoint HTTP/1.1\r\nHost: hub\r\n\r\n", 405),
        (b"DELETE /tile/0/000.p/70 HTTP/1.1\r\nHost: hub\r\n\r\n", 405),
        (b"GET /checkpoint HTTP/1.1\r\nHost: hub\r\nContent-Length: 5\r\n\r\nhello", 413),
        (b"GET /checkpoint HTTP/1.1\r\nHost: hub\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: hub\r\n\r\n", 431),
        (b"GET /checkpoint\r\n\r\n", 400),
        (b"GET /checkpoint HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01 what is this\r\n\r\n", 400),
    ],
)
async def test_what_is_no_request_of_a_reader(tmp_path: Path, raw: bytes, status: int) -> None:
    async with served(tmp_path) as (_, server), stranger(server, tmp_path) as reader:
        found = await reader.ask(raw)
        assert found.status == status
        assert status == 405 or await reader.at_end()


async def test_who_is_no_member_reads_nothing(tmp_path: Path) -> None:
    async with served(tmp_path, members=True, denied={"south-clinic"}) as (_, server):
        for own in (None, new_pki().site(SITE)):
            with pytest.raises((OSError, EOFError)):
                async with stranger(server, tmp_path, own=own) as reader:
                    await reader.get("/checkpoint")
        async with stranger(server, tmp_path, own=pki().site("south-clinic")) as reader:
            found = await reader.get("/checkpoint")
            assert (found.status, b"was revoked" in found.body, b"\n1\n" in found.body) == (403, True, False)


async def test_places_are_counted_before_the_handshake_and_given_back(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(log_server, "CONNECTIONS_PER_HOST_MAX", 3)
    async with served(tmp_path) as (_, server), AsyncExitStack() as stack:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        # Connections are taken in the order in which they come, so this is the fourth.
        with pytest.raises((OSError, EOFError)):
            await stack.enter_async_context(stranger(server, tmp_path))
        for one in silent:
            one.close()
        reader = None
        async with asyncio.timeout(60):
            while reader is None:  # until it has seen that they are gone
                with suppress(OSError, EOFError):
                    reader = await stack.enter_async_context(stranger(server, tmp_path))
        assert (await reader.get("/checkpoint")).status == 200


async def test_who_says_nothing_is_let_go(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(log_server, "HEAD_S", 0.2)
    async with served(tmp_path) as (_, server), stranger(server, tmp_path) as reader:
        assert (await reader.get("/checkpoint")).status == 200
        assert await reader.at_end()

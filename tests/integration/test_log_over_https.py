"""Strangers and members read a log over real HTTPS, and rebuild it from what they got."""

import asyncio
import os
import re
import signal
import socket
import ssl
import urllib.request
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from audit import merkle, tiles
from audit.checkpoint import verify_checkpoint
from audit.dropped import Dropped
from consortium import app
from consortium.home import open_home
from consortium.log_server import LogNotServed, Readers, serve_log
from consortium.wire.errors import PortInUse
from tests.e2e.world import free_port
from tests.fakes.coordinator_home import new_home
from tests.fakes.https_reader import Reader, served, stranger
from tests.fakes.old_log import OldConsortium, applied
from tests.fakes.wire_world import SITE, pki
from tests.interop.grown_logs import LOG, entry


async def rebuilt(reader: Reader) -> int:
    """Read everything, check every byte against the signed root, and say how many entries there are."""
    found = await reader.get("/checkpoint")
    assert (found.headers["content-type"], found.headers["cache-control"]) == ("text/plain; charset=utf-8", "no-cache")
    checkpoint = verify_checkpoint(found.body, LOG.verifier).checkpoint
    leaves: list[bytes] = []
    files: dict[tiles.Tile, bytes] = {}
    for tile in tiles.tiles_of(checkpoint.size):
        got = await reader.get(f"/{tile.path()}")
        assert got.headers["content-type"] == "application/octet-stream"
        assert "immutable" in got.headers["cache-control"]
        files[tile] = got.body
        if tile.level == 0:
            bundle = (await reader.get(f"/{tile.bundle_path()}")).body
            leaves += tiles.unpack_bundle(bundle, "bundle")
    assert merkle.Tree(merkle.leaf_hash(leaf) for leaf in leaves).root() == checkpoint.root
    assert tiles.root_from_edge(checkpoint.size, files.__getitem__) == checkpoint.root
    assert leaves[-1] == entry(checkpoint.size - 1)
    return checkpoint.size


async def test_anybody_rebuilds_the_log_and_sees_it_grow(tmp_path: Path) -> None:
    async with served(tmp_path, size=300) as (log, server), stranger(server, tmp_path) as reader:
        assert await rebuilt(reader) == 300
        log.append([entry(at) for at in range(300, 600)])
        assert await rebuilt(reader) == 600  # on the same connection
        full = await reader.get("/tile/0/001")
        assert full.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert (await reader.get("/tile/0/001.p/44")).body == full.body[: 44 * 32]  # also once the full one is there
        head = await reader.get("/tile/0/001", method="HEAD")
        assert (head.status, head.headers["content-length"]) == (200, "8192")
        assert (await reader.get("/tile/0/002.p/89")).status == 404  # not covered yet


async def test_a_bundle_that_lost_entries_is_gone_and_its_hashes_are_not(tmp_path: Path) -> None:
    async with served(tmp_path, size=300) as (log, server), stranger(server, tmp_path) as reader:
        hashes = (await reader.get("/tile/0/000")).body
        leaves = Dropped.of(range(5, 9))
        log.append([applied(OldConsortium(), leaves)])
        log.drop(leaves)
        gone = await reader.get("/tile/entries/000")
        assert (gone.status, b"only the hashes are kept" in gone.body) == (410, True)
        assert (await reader.get("/tile/entries/000.p/4")).status == 410
        assert (await reader.get("/tile/entries/001.p/44")).status == 200
        assert (await reader.get("/tile/0/000")).body == hashes


async def test_members_show_their_certificate(tmp_path: Path) -> None:
    async with served(tmp_path, members=True) as (_, server):
        for own in (pki().site(SITE), pki().operator()):
            async with stranger(server, tmp_path, own=own) as reader:
                found = await reader.get("/tile/0/000.p/70")
                assert found.headers["cache-control"].startswith("private")
                assert len(found.body) == 70 * 32


async def test_the_ports_of_others_and_missing_files_are_said_so(tmp_path: Path) -> None:
    async with served(tmp_path) as (log, server):
        given = {
            "checkpoint": bytes,
            "address": f"127.0.0.1:{server.port}",
            "certificate": tmp_path / "server.pem",
            "key": tmp_path / "server.key",
            "readers": Readers(ca_pem=pki().authority.certificate_pem, authenticate=None),
        }
        with pytest.raises(PortInUse, match="another program"):
            await serve_log(log, **given)
        with pytest.raises(LogNotServed, match="cannot be read"):
            await serve_log(log, **{**given, "certificate": tmp_path / "none.pem"})
        (tmp_path / "other.key").write_bytes(pki().server("127.0.0.1").key_pem)
        with pytest.raises(LogNotServed, match="do not fit"):
            await serve_log(log, **{**given, "key": tmp_path / "other.key"})


async def test_stopping_ends_connections_that_wait(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, server), stranger(server, tmp_path) as reader:
        await reader.get("/checkpoint")
        await asyncio.wait_for(server.stop(), 3)
        with pytest.raises((ssl.SSLError, OSError, EOFError)):
            await reader.get("/checkpoint")


# --- a coordinator that serves ---------------------------------------------------------------------------------------


def home_with(folder: Path, **settings: object) -> Path:
    """A coordinator's home on free ports, with some settings changed."""
    home, ports = new_home(folder), iter((free_port(), free_port()))
    text = (home / "coordinator.yaml").read_text()
    first = next(ports)
    wanted: dict[str, object] = {"address": f"127.0.0.1:{first}"}
    for name, value in {**wanted, "log_address": f"127.0.0.1:{next(ports)}", **settings}.items():
        text, found = re.subn(rf"(?m)^{name}: .*$", f"{name}: {value}", text)
        assert found == 1
    (home / "coordinator.yaml").write_text(text)
    return home


async def test_a_coordinator_serves_its_log_as_its_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "log_as_facts", lambda: None)  # for a process of its own
    home = open_home(home_with(tmp_path))
    said: asyncio.Queue[str] = asyncio.Queue()
    serving = asyncio.create_task(app.serve_until_stopped(home.folder, ready=said.put_nowait))
    line = await asyncio.wait_for(said.get(), 60)
    assert line.endswith(f"; log on {home.config.log_address}")
    context = ssl.create_default_context(cadata=home.ca_pem.decode())
    context.load_cert_chain(home.folder / "certificates/operator.pem", home.folder / "keys/operator.pem")
    host, port = str(home.config.log_address).split(":")
    found = await asyncio.to_thread(fetched, f"https://{host}:{port}/checkpoint", context)
    assert verify_checkpoint(found, home.log_signer.verifier).checkpoint.size >= 1
    context = ssl.create_default_context(cadata=home.ca_pem.decode())
    with pytest.raises(OSError, match=r"(?i)certificate required|reset|closed"):
        await asyncio.to_thread(fetched, f"https://{host}:{port}/checkpoint", context)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 60)


async def test_a_coordinator_of_an_earlier_release_starts_with_its_file_and_says_what_to_take_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "log_as_facts", lambda: None)  # for a process of its own
    home = home_with(tmp_path)
    with (home / "coordinator.yaml").open("a") as file:
        file.write('enrolment_address: "127.0.0.1:8444"\n')
    said: asyncio.Queue[str] = asyncio.Queue()
    with capture_logs() as logged:
        serving = asyncio.create_task(app.serve_until_stopped(home, ready=said.put_nowait))
        assert "8444" not in await asyncio.wait_for(said.get(), 60)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 60)
    (warned,) = [one for one in logged if one["event"] == "config.former_option"]
    assert warned["where"] == "coordinator.yaml: enrolment_address"
    assert "Take the line out" in warned["advice"]


def fetched(url: str, context: ssl.SSLContext) -> bytes:
    """By the standard library's client, which nobody here wrote."""
    with urllib.request.urlopen(url, context=context, timeout=60) as answer:
        return bytes(answer.read())


async def test_a_port_that_is_taken_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "log_as_facts", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        folder = home_with(tmp_path, log_address=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(PortInUse, match="another program"):
            await app.serve_until_stopped(folder, ready=lambda _: None)
    with app.opened(folder):  # the log's lock is free again
        pass

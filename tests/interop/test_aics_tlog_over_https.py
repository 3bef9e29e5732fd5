"""`aics-tlog`, which nobody here wrote, reads and audits a log from the coordinator's HTTPS port."""

import asyncio
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.fakes.https_reader import served
from tests.fakes.wire_world import pki
from tests.interop.grown_logs import LOG, entry

tlog = pytest.importorskip("aics_tlog", reason="aics-tlog is not installed")
SIZE = 600


def audited(url: str) -> int:
    """How many entries it has found and verified."""
    with urlopen(f"{url}/checkpoint", timeout=10) as answer:
        note = tlog.parse_note(answer.read())
    head = tlog.verify_checkpoint(note, tlog.parse_vkey(LOG.verifier.vkey()))
    assert head.ok, head.error
    reader = tlog.HttpTileReader(url, proxies={})
    assert tlog.read_entry(reader, SIZE - 1, SIZE) == entry(SIZE - 1)
    return int(tlog.audit_tiles(reader, SIZE, head.root).size)


async def test_the_whole_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.pem").write_bytes(pki().authority.certificate_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with served(tmp_path, size=SIZE) as (_, server):
        assert await asyncio.to_thread(audited, f"https://127.0.0.1:{server.port}") == SIZE

"""W-03: a site is not an operator, an operator is not a site, and neither is the coordinator.

Tried: row w03 of `mutations.py`.
"""

from pathlib import Path

import pytest

from consortium.contract.certificates import Issued
from consortium.wire.errors import CallRefused, RefusalCode, TlsProblem, TlsRefused
from tests.fakes.raw_tls import first_bytes
from tests.fakes.wire_world import HELLO, SITE, coordinator, pki, server_credentials, vector_header


async def test_a_site_gives_no_commands() -> None:
    async with coordinator() as world, world.connect() as client:
        with pytest.raises(CallRefused, match="wrong role") as caught:
            await client.execute("study.abort", b"{}")
        with pytest.raises(CallRefused, match="wrong role"):
            await anext(client.watch())
    assert caught.value.code is RefusalCode.REFUSED
    assert world.service.peers == []


async def test_an_operator_takes_no_part_in_rounds() -> None:
    async with coordinator() as world, world.connect_operator() as client:

        async def session() -> None:
            async with client.session(HELLO) as opened:
                await anext(opened)

        for call in (
            session,
            client.list_studies,
            lambda: client.submit_events((b"one",)),
            lambda: client.upload_vector(vector_header(b"x"), [b"x"]),
        ):
            with pytest.raises(CallRefused, match="wrong role"):
                await call()
    assert world.service.peers == []


async def test_the_coordinators_own_certificate_is_no_callers(tmp_path: Path) -> None:
    async with coordinator() as world:
        try:
            heard = await first_bytes(world.server.port, tmp_path, own=pki().server())
        except OSError:
            heard = b""
    assert heard == b""


@pytest.mark.parametrize("name", ["localhost", "north-clinic"])
async def test_a_site_cannot_pose_as_the_coordinator(name: str) -> None:
    """Even one whose name is that of the host: its certificate is for callers only."""
    impostor = pki().site(name)
    async with coordinator(credentials=server_credentials(impostor)) as world:
        with pytest.raises(TlsRefused) as caught:
            async with world.connect(SITE, address=f"localhost:{world.server.port}", timeout_s=5):
                pass
    assert caught.value.problem in (TlsProblem.OTHER, TlsProblem.WRONG_HOST)


async def test_a_site_cannot_pose_as_another_for_lack_of_its_key() -> None:
    mixed = Issued(certificate_pem=pki().site("south-clinic").certificate_pem, key_pem=pki().site(SITE).key_pem)
    async with coordinator() as world:
        with pytest.raises(TlsRefused):
            async with world.connect(SITE, credentials=mixed, timeout_s=5):
                pass
    assert world.service.peers == []

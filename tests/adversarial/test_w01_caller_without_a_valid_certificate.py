"""W-01: nobody gets as far as HTTP without a certificate that this consortium's authority issued and that is valid now.

It is gRPC that asks for one, by an option of `wire/server.py`; what a certificate has to say is in W-03, W-07 and T-11.
Tried: row w01 of `mutations.py`.
"""

from datetime import timedelta
from pathlib import Path

import pytest

from consortium.contract.certificates import Issued
from tests.fakes.raw_tls import first_bytes
from tests.fakes.wire_world import SITE, clock, coordinator, new_pki, pki


async def test_a_site_and_an_operator_are_accepted(tmp_path: Path) -> None:
    async with coordinator() as world:
        assert await first_bytes(world.server.port, tmp_path, own=pki().site(SITE))
        assert await first_bytes(world.server.port, tmp_path, own=pki().operator())


@pytest.mark.parametrize("case", ["none", "foreign", "expired", "not yet"])
async def test_everybody_else_is_not(case: str, tmp_path: Path) -> None:
    minutes = timedelta(minutes=1)
    callers: dict[str, Issued | None] = {
        "none": None,
        "foreign": new_pki().site(SITE),
        "expired": pki().site(SITE, now=clock() - 4 * minutes, valid_for=minutes),
        "not yet": pki().site(SITE, now=clock() + timedelta(days=1)),
    }
    async with coordinator() as world:
        try:
            heard = await first_bytes(world.server.port, tmp_path, own=callers[case])
        except OSError:
            heard = b""
    assert heard == b""
    assert world.service.peers == []

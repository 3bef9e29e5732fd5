"""W-07: a connection outlives its certificate in TLS; it does not in our calls.

Tried: row w07 of `mutations.py`.
"""

from datetime import timedelta

import pytest

from consortium.wire.errors import CallRefused
from tests.fakes.wire_world import HELLO, SITE, clock, coordinator, pki


async def test_the_next_call_after_the_end_is_refused() -> None:
    ahead = timedelta()
    own = pki().site(SITE, valid_for=timedelta(hours=1))
    async with coordinator(clock=lambda: clock() + ahead) as world, world.connect(credentials=own) as client:
        await client.list_studies()
        ahead = timedelta(hours=2)
        with pytest.raises(CallRefused, match="expired"):
            await client.list_studies()
        with pytest.raises(CallRefused, match="expired"):
            async with client.session(HELLO) as session:
                await anext(session)
    assert world.service.sessions == []

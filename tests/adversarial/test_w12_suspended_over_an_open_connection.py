"""W-12: a hospital that is suspended or revoked goes on over the connection it has.

Held by: every call asks for the site's standing anew (`Sites.authenticate`), a session and an upload under way are
ended with the decision (`Coordinator.shut_out`), and what the site signed is asked for its standing once more where it
is written down (`Sites.submit_events`).

Tried: rows w12 of `mutations.py`: each test failed with its check taken out.
"""

import asyncio

import pytest

from consortium.contract.messages import Welcome
from consortium.errors import AccessDenied, SiteSuspended
from consortium.wire.errors import CallRefused, RefusalCode
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.scripted_site import HELLO, serving
from tests.fakes.small_study import SITES, small_study

BIRCH = SITES[1]


async def refused(client):
    with pytest.raises(CallRefused) as caught:
        await client.list_studies()
    return caught.value


async def to_its_end(session):
    while True:  # past what was on its way before
        await anext(session)


@pytest.mark.parametrize(
    ("command", "code"), [("site.suspend", RefusalCode.SUSPENDED), ("site.revoke", RefusalCode.REFUSED)]
)
async def test_its_session_ends_and_its_next_call_is_refused(tmp_path, command, code):
    async with serving(tmp_path) as world:
        hospital = world.home.enrol(BIRCH)
        async with world.connect(hospital) as client, client.session(HELLO) as session:
            assert isinstance(await anext(session), Welcome)
            await world.command(command, site=BIRCH, reason="its steward asked for it")
            with pytest.raises(CallRefused) as caught:
                await asyncio.wait_for(to_its_end(session), 20)
            assert caught.value.code is code
            assert (await refused(client)).code is code
            if command == "site.suspend":
                assert "suspended: its steward asked for it" in str(caught.value)
                await world.command("site.reinstate", site=BIRCH)
                await client.list_studies()  # the same connection is as good as ever


async def test_its_upload_is_cut_off_and_the_round_goes_on_without_it(tmp_path):
    study = small_study(rounds=1)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        held = asyncio.Event()

        async def hold(*_args: object, **_fields: object) -> None:
            held.set()
            await asyncio.Event().wait()

        sites[BIRCH].upload_update = hold
        await world.command("study.start", study=study.id)
        await asyncio.wait_for(held.wait(), 60)
        sites[BIRCH].stays_away = True
        await world.command("site.suspend", site=BIRCH, reason="why")
        await world.until(lambda: world.state(study) == "completed")
        assert (1, 1, BIRCH, "collecting") in world.dropouts()
        assert world.home.types().count("round.aborted") == 0


@pytest.mark.parametrize("away", ["suspended", "revoked"])
def test_what_it_signed_does_not_count_even_if_the_call_began_before(tmp_path, away):
    """Between the question who calls and the transaction the operator may have decided."""
    with coordinator_in(tmp_path) as home:
        study = small_study()
        home.submit(study)
        hospital = home.enrol(BIRCH)
        home.sites.authenticate(hospital.identity)
        if away == "suspended":
            home.sites.suspend(BIRCH, "why")
        else:
            home.sites.revoke(BIRCH)
        with pytest.raises(SiteSuspended if away == "suspended" else AccessDenied):
            home.sites.submit_events(hospital.site, [hospital.approves(study)])
        assert "study.approved" not in home.types()

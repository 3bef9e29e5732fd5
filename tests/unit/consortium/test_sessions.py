"""Who is connected: the newest session wins, a site that does not read is cut off, waiting misses nothing."""

import asyncio

import pytest

from consortium.contract.messages import PrepareStudy
from consortium.contract.names import Digest, SiteId
from consortium.sessions import OUTGOING_MAX, SessionReplaced, Sessions

SITE, OTHER = SiteId("amber-clinic"), SiteId("birch-hospital")
MESSAGE = PrepareStudy(study_digest=Digest("5d" * 32))


async def test_a_session_is_there_while_it_is_open() -> None:
    sessions = Sessions()
    with sessions.opened(SITE) as session:
        assert sessions.get(SITE) is session
        assert sessions.current(session)
        assert sessions.connected() == {SITE}
        assert sessions.get(OTHER) is None
    assert sessions.get(SITE) is None
    assert not sessions.current(session)
    assert sessions.connected() == frozenset()


async def test_the_newest_session_wins_and_the_other_is_told() -> None:
    sessions = Sessions()
    with sessions.opened(SITE) as first:
        with sessions.opened(SITE) as second:
            assert sessions.get(SITE) is second
            assert first.replaced
            assert first.ended.is_set()
            assert not sessions.current(first)
            assert not second.replaced
        assert sessions.get(SITE) is None
    error = SessionReplaced(SITE)
    assert error.code == "conflict"
    assert "revoke" in error.advice()


async def test_the_first_sessions_end_does_not_end_the_second() -> None:
    sessions = Sessions()
    first = sessions.opened(SITE)
    first.__enter__()
    with sessions.opened(SITE) as second:
        first.__exit__(None, None, None)
        assert sessions.get(SITE) is second


async def test_a_site_that_does_not_read_is_cut_off() -> None:
    sessions = Sessions()
    with sessions.opened(SITE) as session:
        for _ in range(OUTGOING_MAX):
            session.send(MESSAGE)
        assert not session.ended.is_set()
        session.send(MESSAGE)
        assert session.ended.is_set()
        assert not sessions.current(session)  # and it is not heard any more either
        assert session.outgoing.qsize() == OUTGOING_MAX


async def test_waiting_ends_with_a_change() -> None:
    sessions = Sessions()
    waiting = asyncio.create_task(sessions.changed())
    await asyncio.sleep(0)
    assert not waiting.done()
    sessions.notify()
    await asyncio.wait_for(waiting, 60)


async def test_opening_and_closing_are_changes() -> None:
    sessions = Sessions()
    change = sessions.next_change()
    with sessions.opened(SITE):
        assert change.is_set()
        change = sessions.next_change()
        assert not change.is_set()
    assert change.is_set()


async def test_a_change_between_taking_the_event_and_waiting_is_not_missed() -> None:
    sessions = Sessions()
    change = sessions.next_change()
    sessions.notify()
    await asyncio.wait_for(change.wait(), 60)


async def test_waiting_ends_with_its_time() -> None:
    sessions = Sessions()
    await asyncio.wait_for(sessions.changed(0.01), 60)


@pytest.mark.parametrize("steps", range(5))
async def test_who_is_cancelled_as_the_change_comes_is_cancelled(steps: int) -> None:
    sessions = Sessions()

    async def follow() -> None:
        while True:
            await sessions.changed(60)

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    sessions.notify()
    for _ in range(steps):
        await asyncio.sleep(0)
    following.cancel()
    await asyncio.wait({following}, timeout=20)
    assert following.cancelled()


async def test_an_error_in_a_session_removes_it() -> None:
    sessions = Sessions()
    with pytest.raises(RuntimeError), sessions.opened(SITE):
        raise RuntimeError
    assert sessions.connected() == frozenset()

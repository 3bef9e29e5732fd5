"""A few vectors move at a time; one that does not move keeps nobody waiting."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from consortium.wire import limits
from consortium.wire.places import Place, Places

SOON_S = 0.05
WAIT_S = 60.0


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PLACE_LOOK_S", SOON_S)


async def keep_moving(place: Place) -> None:
    while True:
        place.moved(limits.PLACE_BYTES)
        await asyncio.sleep(SOON_S / 10)


async def test_whoever_moves_keeps_its_place() -> None:
    places = Places(1)
    async with places.taken("alder") as place:
        moving = asyncio.create_task(keep_moving(place))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10 * SOON_S), places.taken("birch"):
                pass
        moving.cancel()
    async with asyncio.timeout(WAIT_S), places.taken("birch"):
        pass


@pytest.mark.parametrize("size_bytes", [0, 1000])
async def test_whoever_does_not_move_enough_gives_its_place_up(size_bytes: int) -> None:
    places = Places(1)
    async with places.taken("alder") as place:
        place.moved(size_bytes)
        async with asyncio.timeout(WAIT_S), places.taken("birch"):
            pass
        place.moved(10**9)  # going on is allowed, and does not bring the place back


async def test_places_come_back_however_often_they_are_given_up() -> None:
    places = Places(2)
    for _ in range(5):
        async with places.taken("alder") as place:
            place.give_up()
            place.give_up()
    async with AsyncExitStack() as stack:
        for name in ("alder", "birch"):
            await stack.enter_async_context(places.taken(name))
        with pytest.raises(TimeoutError):  # there are two, not more
            async with asyncio.timeout(SOON_S / 2), places.taken("cedar"):
                pass


async def test_one_holder_has_one_place() -> None:
    """However many calls a site opens, the other places are the others'."""
    places = Places(4)
    async with places.taken("alder") as place:
        moving = asyncio.create_task(keep_moving(place))
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SOON_S), places.taken("alder"):
                    pass
        async with asyncio.timeout(WAIT_S), places.taken("birch"), places.taken("cedar"), places.taken("dogwood"):
            pass
        moving.cancel()


async def test_giving_up_waiting_loses_nothing() -> None:
    places = Places(1)
    async with places.taken("alder"):
        waiting = asyncio.create_task(places.taken("birch").__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(WAIT_S), places.taken("birch"):
        pass


async def test_those_who_wait_are_served_in_their_order() -> None:
    places, served = Places(1), []

    async def take(name: str) -> None:
        async with places.taken(name):
            served.append(name)

    async with places.taken("alder"):
        waiting = [asyncio.create_task(take(name)) for name in ("birch", "cedar", "dogwood")]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert served == ["birch", "cedar", "dogwood"]

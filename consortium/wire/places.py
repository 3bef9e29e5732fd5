"""How many vectors move at a time, so that memory does not grow with the number of sites.

What a vector on its way takes up is buffers: of the network, of gRPC, of the disk. A few fast ones fill any line, so
uploads and downloads wait for one of a few places. A place is for a vector that moves. One that does not, because its
site is slow, stuck or malicious, has little in the buffers, and goes on without: its place is the next one's. So nobody
can keep the others waiting, and sites on slow lines still upload side by side.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from consortium.wire import limits


class Places:
    """A fixed number of places, and at most one for each holder. Mutable, for one event loop."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._turns: dict[str, asyncio.Lock] = {}  # by holder: of one site's vectors, one waits here at a time

    @asynccontextmanager
    async def taken(self, holder: str) -> AsyncIterator["Place"]:
        """Wait for a place, and have it until the block is left or the vector does not move."""
        turn = self._turns.setdefault(holder, asyncio.Lock())
        await turn.acquire()
        try:
            await self._free.acquire()
        except asyncio.CancelledError:
            turn.release()
            raise

        def leave() -> None:
            self._free.release()
            turn.release()

        place = Place(leave)
        try:
            yield place
        finally:
            place.give_up()


class Place:
    """A right to move, until it is given up. Mutable: it is told what has moved, and looks at that now and then."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave: Callable[[], None] | None = leave
        self._moved_bytes = 0  # since it looked last
        self._look_later()

    def moved(self, size_bytes: int) -> None:
        """So much of the vector has passed."""
        self._moved_bytes += size_bytes

    def give_up(self) -> None:
        """Leave it to the next; what is under way goes on."""
        leave, self._leave = self._leave, None
        self._timer.cancel()
        if leave is not None:
            leave()

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(limits.PLACE_LOOK_S, self._look)

    def _look(self) -> None:
        if self._moved_bytes < limits.PLACE_BYTES:
            self.give_up()
        else:
            self._moved_bytes = 0
            self._look_later()

"""Break a process at a named moment of a round, once. Everything else in it is the real code.

Armed in a child of the nursery before it begins (`arm`), with a list of breaks: in which round and attempt, at which
moment, how. An agent knows the moments of `AT_THE_AGENT`. A coordinator knows those of `AT_THE_COORDINATOR` and the
events of an attempt: "KeyBundle:2" is when the second key bundle has just been taken, and neither written down nor
answered; "UnmaskShares:1 written" is when the first shares are in the journal.

`kill` and `freeze` are signals that the process sends itself. `cut` breaks every connection it has, on the spot and
without goodbye. `hold` waits for a file called `go-<round>`, so that a test can do things meanwhile. Before it breaks,
a process leaves a file that says so: `<name>-<round>-<attempt>-<moment>`.
"""

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from consortium import attempt
from consortium.contract.messages import Invitation
from consortium.contract.names import Digest
from consortium.contract.plan import RoundPlan
from consortium.database import StudyRow
from consortium.journal import Journal
from consortium.studies import RoundClosedFacts, Studies
from consortium.training_round import Effects, Event, State, step
from consortium.vectors import VectorStore
from consortium.wire import limits
from consortium.wire.client import CoordinatorClient, Session
from site_agent import agent
from site_agent.store import Store

AT_THE_AGENT = (
    "before-bundle",  # 4.0: invited, its keys made, its key bundle not sent
    "before-shares",  # 4.1: its sealed shares made and not sent
    "before-upload",  # 4.2: masked, not announced
    "half-upload",  # 4.2: half the bytes are with the coordinator
    "after-upload",  # 4.2: the coordinator has said that it has all of it
    "before-confirmation",  # 4.3: the survivor set is checked and signed, the signature not sent
    "released",  # 4.4: the release is on disk, no share has left
    "after-unmask-shares",  # 4.4: the shares are sent
)
AT_THE_COORDINATOR = (
    "opened",  # the attempt is in the state and in the log, and nobody is invited
    "half-upload",  # the first part of an upload is on disk
    "written",  # the confirmed sum is in the journal, and nobody is asked for shares
    "before-closing",  # the masks are off
    "after-closing",  # the round is closed, and no hospital knows
)
_SENDING = {
    "KeyBundle": ("before-bundle", None),
    "SealedShares": ("before-shares", None),
    "MaskedUpdate": ("before-upload", None),  # a small one; larger ones are uploaded by themselves
    "Confirmation": ("before-confirmation", None),
    "UnmaskShares": (None, "after-unmask-shares"),
}
_LEAVES_S = 0.2  # what was written reaches the other side
RETURN_S = 3.0  # what an agent that was cut off in an upload has for coming back: it dials again after a second
_PIECES = 8  # an upload is sent in at least so many


def arm(order: dict[str, Any]) -> None:
    """Wrap what the breaks of an order need: {"name": ..., "marks": folder, "breaks": [...], "redial_s": seconds}."""
    breaks = Breaks(order["name"], Path(order["marks"]), order["breaks"])
    if order["name"] == "coordinator":
        _arm_coordinator(breaks)
    else:
        _arm_agent(breaks)
        if "redial_s" in order:
            _redial(order["redial_s"])


class Breaks:
    """The breaks that are still to come in this process, and where it is."""

    def __init__(self, name: str, marks: Path, breaks: list[dict[str, Any]]) -> None:
        self._name = name
        self._marks = marks
        self._breaks = breaks
        self.round, self.attempt = 0, 0

    def reached(self, moment: str, about: tuple[int, int] | None = None) -> None:
        """Break, if this is the place; `about` is the round and attempt, if not the present ones. In any thread."""
        number, attempt = about or (self.round, self.attempt)
        mark = self._marks / f"{self._name}-{number}-{attempt}-{moment}"
        for wanted in self._breaks:
            here = (wanted["round"], wanted["attempt"], wanted["moment"]) == (number, attempt, moment)
            if here and not mark.exists():  # else it was the process before this one
                mark.touch()
                self._HOW[wanted["how"]](self)

    async def reached_in_loop(self, moment: str, about: tuple[int, int] | None = None) -> None:
        """The same from a coroutine, without holding up its loop."""
        await asyncio.to_thread(self.reached, moment, about)

    def _kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # it does not come back; nothing after it may happen meanwhile

    def _freeze(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def _cut(self) -> None:
        for entry in Path("/proc/self/fd").iterdir():
            with suppress(OSError, ValueError), socket.socket(fileno=os.dup(int(entry.name))) as line:
                if line.family in (socket.AF_INET, socket.AF_INET6):
                    line.shutdown(socket.SHUT_RDWR)

    def _hold(self) -> None:
        while not (self._marks / f"go-{self.round}").exists():
            time.sleep(0.02)

    _HOW: dict[str, Callable[["Breaks"], None]] = {"kill": _kill, "freeze": _freeze, "cut": _cut, "hold": _hold}  # noqa: RUF012


# --- at the agent --------------------------------------------------------------------------------------------------


def _arm_agent(breaks: Breaks) -> None:
    hear, send, upload, record = Session.__anext__, Session.send, CoordinatorClient.upload_vector, Store.record_release

    async def hear_and_note(self: Session) -> Any:
        message = await hear(self)
        if isinstance(message, Invitation):
            plan = RoundPlan.from_bytes(message.plan)
            breaks.round, breaks.attempt = plan.round, plan.attempt
        return message

    async def send_or_break(self: Session, message: Any, **options: Any) -> None:
        before, after = _SENDING.get(type(message).__name__, (None, None))
        about = breaks.round, breaks.attempt  # the next round may have begun by the time it has left
        if before is not None:
            await breaks.reached_in_loop(before)
        await send(self, message, **options)
        if after is not None:
            await asyncio.sleep(_LEAVES_S)
            await breaks.reached_in_loop(after, about)

    async def upload_or_break(self: CoordinatorClient, header: Any, chunks: Any, **options: Any) -> None:
        if header.upload is None:  # not of a round
            await upload(self, header, chunks, **options)
            return
        await breaks.reached_in_loop("before-upload")
        await upload(self, header, _halved(chunks, header.size_bytes, breaks), **options)
        await breaks.reached_in_loop("after-upload")

    def record_and_break(self: Store, *arguments: Any, **options: Any) -> Any:
        recorded = record(self, *arguments, **options)
        breaks.reached("released")
        return recorded

    Session.__anext__ = hear_and_note  # type: ignore[method-assign]
    Session.send = send_or_break  # type: ignore[method-assign]
    CoordinatorClient.upload_vector = upload_or_break  # type: ignore[method-assign]
    Store.record_release = record_and_break  # type: ignore[method-assign]


async def _halved(chunks: Any, size_bytes: int, breaks: Breaks) -> AsyncIterator[bytes]:
    """The same bytes in smaller pieces, with a break when half of them are sent."""
    sent, step = 0, max(1, size_bytes // _PIECES)
    async for chunk in _as_async(chunks):
        data = bytes(chunk)
        for start in range(0, len(data), step):
            yield data[start : start + step]
            before, sent = sent, sent + len(data[start : start + step])
            if 2 * before < size_bytes <= 2 * sent:
                await asyncio.sleep(_LEAVES_S)
                await breaks.reached_in_loop("half-upload")


async def _as_async(chunks: Any) -> AsyncIterator[Any]:
    if isinstance(chunks, bytes | memoryview):
        yield chunks
    elif hasattr(chunks, "__aiter__"):
        async for chunk in chunks:
            yield chunk
    else:
        for chunk in chunks:
            yield chunk


def _redial(pause_s: float) -> None:
    """Dial again after so long, however often: the growing pauses have tests of their own."""
    agent.PAUSE_FIRST_S = agent.PAUSE_LONGEST_S = pause_s


# --- at the coordinator --------------------------------------------------------------------------------------------


def _arm_coordinator(breaks: Breaks) -> None:
    append, open_round, close_round = Journal.append, Studies.open_round, Studies.close_round
    receive = VectorStore.receive_on
    limits.RETURN_S = RETURN_S
    counted: Counter[tuple[int, int, str]] = Counter()

    def take_and_break(state: State, event: Event) -> tuple[State, Effects]:
        after, effects = step(state, event)
        if after is not state:
            kind = type(getattr(event, "message", event)).__name__
            counted[state.plan.round, state.plan.attempt, kind] += 1
            breaks.reached(f"{kind}:{counted[state.plan.round, state.plan.attempt, kind]}")
        return after, effects

    def append_and_break(self: Journal, plan: RoundPlan, *events: Event, **options: Any) -> None:
        append(self, plan, *events, **options)
        breaks.reached("written")
        for number in range(1, 1 + counted[plan.round, plan.attempt, "UnmaskShares"]):  # several may come together
            breaks.reached(f"UnmaskShares:{number} written")

    def open_and_break(self: Studies, row: StudyRow, plan: RoundPlan) -> bool:
        opened = open_round(self, row, plan)
        breaks.round, breaks.attempt = plan.round, plan.attempt
        breaks.reached("opened")
        return opened

    def close_and_break(self: Studies, row: StudyRow, plan: RoundPlan, facts: RoundClosedFacts, **options: Any) -> None:
        breaks.reached("before-closing")
        close_round(self, row, plan, facts, **options)
        breaks.reached("after-closing")

    async def receive_and_break(self: VectorStore, digest: Digest, chunks: AsyncIterator[bytes]) -> Path:
        return await receive(self, digest, _half_received(chunks, breaks))

    vars(attempt)["step"] = take_and_break
    Journal.append = append_and_break  # type: ignore[method-assign]
    Studies.open_round = open_and_break  # type: ignore[method-assign]
    Studies.close_round = close_and_break  # type: ignore[method-assign]
    VectorStore.receive_on = receive_and_break  # type: ignore[method-assign]


async def _half_received(chunks: AsyncIterator[bytes], breaks: Breaks) -> AsyncIterator[bytes]:
    """A break when the first chunk of an upload is written down and the second is here."""
    number = 0
    async for chunk in chunks:
        number += 1
        if number == 2:
            breaks.reached("half-upload")
        yield chunk

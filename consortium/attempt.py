"""The shell around one attempt at one round: take an event, step, journal it, perform the effects; owns the clock.

All decisions are in `training_round.py`. After a crash `replay` feeds the journal through the same machine: if the
survivors' shares had arrived, the round is finished from there; otherwise the attempt is over and nothing was revealed.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from audit import entries
from consortium.contract.names import Digest, SiteId
from consortium.contract.plan import RoundPlan
from consortium.record import now_stamp, one_line
from consortium.rooms import Rooms
from consortium.studies import RoundName
from consortium.training_round import (
    AddToSum,
    DeadlinePassed,
    Effects,
    Event,
    NoteDropout,
    NoteRefusal,
    NoteViolation,
    Running,
    StartDeadline,
    State,
    Tell,
    UploadStored,
    begin,
    step,
)
from privacy.secagg.masks import RunningSum

log = structlog.get_logger(__name__)

_WORKING = {
    "inviting": "exchanging keys",
    "keying": "sharing secrets",
    "collecting": "training",
    "confirming": "confirming",
    "unmasking": "unmasking",
}


@dataclass(slots=True)
class Progress:
    """What `consortium status` shows of a study at work."""

    phase: str = "waiting"
    attempt: int = 1
    sites: dict[SiteId, str] = field(default_factory=dict)


class Attempt:
    """One attempt, from invitations to a sum or an end without one. Mutable; it owns its running sum and its inbox."""

    def __init__(self, rooms: Rooms, plan: RoundPlan, measured_before: frozenset[SiteId] | None) -> None:
        self._rooms = rooms
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self.plan = plan
        self.total = RunningSum(plan.layout)
        self.refused: set[SiteId] = set()
        self.lost: set[SiteId] = set()
        self.state: State
        self.state, self._first = begin(plan, measured_before)
        self._stored: set[Digest] = set()  # uploads that lie on disk for this attempt, in the sum or not
        self._timer: asyncio.TimerHandle | None = None
        self._progress = Progress()
        self._log = log.bind(study=plan.study, round=plan.round, attempt=plan.attempt)

    def deliver(self, event: Event) -> None:
        """Queue an event."""
        if isinstance(event, UploadStored):
            self._stored.add(Digest(event.header.masked_update_hash.hex()))
        self._inbox.put_nowait(event)

    @property
    def waiting(self) -> int:
        """Events that are queued and not handled yet."""
        return self._inbox.qsize()

    async def run(self, progress: Progress) -> State:
        """Drive the machine with live events until the attempt is over."""
        self._progress = progress
        progress.attempt = self.plan.attempt
        progress.sites.update({p.site: "invited" for p in self.plan.participants})
        try:
            await self._perform(self._first)
            while isinstance(self.state, Running):
                progress.phase = self.state.phase.value
                self._rooms.sessions.notify()
                event = await self._inbox.get()
                before = self.state
                # Stepped before it is journalled, so that an event the machine cannot take is never replayed;
                # journalled before its effects, so that a share that was received is never asked for again.
                self.state, effects = step(before, event)
                if self.state is before:
                    continue  # it changed nothing: a site that repeats itself must not fill the journal
                self._rooms.journal.append(self.plan, event)
                await self._perform(effects)
        finally:
            if self._timer is not None:
                self._timer.cancel()
        return self.state

    async def replay(self, events: Iterable[Event]) -> State:
        """Feed journalled events through the machine; only uploads are added again, nothing is sent."""
        for event in events:
            if isinstance(event, UploadStored):
                self._stored.add(Digest(event.header.masked_update_hash.hex()))
            self.state, effects = step(self.state, event)
            for effect in effects:
                if isinstance(effect, AddToSum):
                    await self._add(effect)
        return self.state

    def forget(self) -> None:
        """How it ended is recorded: its journal and its uploads have served their purpose."""
        self._rooms.journal.forget(self.plan)
        for digest in self._stored:
            self._rooms.uploads.discard(digest)

    async def _perform(self, effects: Effects) -> None:
        for effect in effects:
            match effect:
                case Tell(site=site, message=message):
                    session = self._rooms.sessions.get(site)
                    if session is not None:
                        session.send(message)
                case StartDeadline(phase=phase, seconds=seconds):
                    if self._timer is not None:
                        self._timer.cancel()
                    self._timer = asyncio.get_running_loop().call_later(
                        seconds, self._inbox.put_nowait, DeadlinePassed(phase=phase)
                    )
                    self._show_working()
                case AddToSum():
                    await self._add(effect)
                    self._progress.sites[effect.site] = "uploaded"
                case NoteDropout() | NoteRefusal() | NoteViolation():
                    self._note(effect)

    async def _add(self, effect: AddToSum) -> None:
        digest = Digest(effect.masked_update_hash.hex())
        await asyncio.to_thread(self.total.add, self._rooms.uploads.chunks(digest))

    def _show_working(self) -> None:
        if not isinstance(self.state, Running):
            return
        word = _WORKING[self.state.phase.value]
        for site in self.state.plan.participants:
            shown = self._progress.sites.get(site.site, "")
            if not shown.startswith(("dropped", "refused")):
                self._progress.sites[site.site] = word

    def _note(self, effect: NoteDropout | NoteRefusal | NoteViolation) -> None:
        """What auditors ask about goes to the log at once, so that it is there even if this process dies now."""
        about = RoundName(study=self.plan.study, round=self.plan.round, attempt=self.plan.attempt)
        entry: entries.Entry
        match effect:
            case NoteDropout(site=site, phase=phase, reason=reason):
                self.lost.add(site)
                self._progress.sites[site] = f"dropped out while {_WORKING[phase.value]}"
                self._log.warning("round.dropout", site=site, phase=phase.value, reason=reason)
                entry = entries.SecaggDropout(
                    **now_stamp(), **about, site=site, phase=phase.value, reason=one_line(reason)
                )
            case NoteRefusal(site=site, rule=rule):
                self.refused.add(site)
                self._progress.sites[site] = f"refused: {one_line(rule)}"
                self._log.warning("round.refused", site=site, rule=rule)
                entry = entries.RoundRefused(**now_stamp(), **about, site=site, rule=one_line(rule))
            case NoteViolation(violation=violation):
                self._log.error("round.violation", site=violation.site, rule=violation.rule)
                text = one_line(f"{violation.rule}: {violation.evidence}")
                entry = entries.SecaggFailed(**now_stamp(), **about, blamed=violation.site, rule=text)
        self._rooms.recorder.record(entries.entry_bytes(entry))

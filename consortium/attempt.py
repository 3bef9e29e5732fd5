"""The shell around one attempt at one round: take an event, step, journal it, perform the effects; owns the clock.

All decisions are in `training_round.py`. After a crash `replay` feeds the journal through the same machine. If the
survivors had been asked for their shares, the attempt goes on from there with whoever comes back, because some may have
released them; otherwise it is over and nothing was revealed.
"""

import asyncio
import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from audit import entries
from audit.fields import one_line
from consortium.contract.messages import Refusal, SiteMessage
from consortium.contract.names import Digest, SiteId
from consortium.contract.plan import RoundPlan
from consortium.objects import ObjectAltered
from consortium.record import now_stamp
from consortium.rooms import Rooms
from consortium.round_events import DeadlinePassed, Event, SiteReturned, UploadStored
from consortium.studies import RoundName
from consortium.training_round import (
    Aborted,
    AddToSum,
    Effects,
    NoteDropout,
    NoteRefusal,
    NoteViolation,
    Running,
    StartDeadline,
    State,
    Tell,
    begin,
    deadline_of,
    enough_shares,
    may_have_opened,
    step,
)
from consortium.upload_names import masked_sum_name, upload_name
from consortium.wire import codec
from privacy.secagg.masks import RunningSum
from privacy.secagg.messages import UploadHeader

log = structlog.get_logger(__name__)

_WORKING = {
    "committing": "drawing groups",
    "revealing": "drawing groups",
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
    since: float = field(default_factory=time.time)  # when the phase began, in seconds of Unix time
    refusals: dict[SiteId, dict[str, str | int]] = field(default_factory=dict)  # what each said no to last, and why

    def refused(self, site: SiteId, refusal: Refusal) -> bool:
        """Remember a hospital's last refusal, for the study's owner; whether it says anything that was not known."""
        said: dict[str, str | int] = {
            "rule": one_line(refusal.rule),
            "explanation": one_line(refusal.explanation),
            "round": int(refusal.round),
        }
        is_news, self.refusals[site] = self.refusals.get(site) != said, said
        return is_news

    def enters(self, phase: str) -> None:
        """Another phase begins, if it is another."""
        if phase != self.phase:
            self.phase, self.since = phase, time.time()


class Attempt:
    """One attempt, from invitations to a sum or an end without one. Mutable; it owns its running sum and its inbox."""

    def __init__(
        self, rooms: Rooms, plan: RoundPlan, measured_before: frozenset[SiteId] | None, *, is_exact: bool = False
    ) -> None:
        self._rooms = rooms
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self.plan = plan
        self.total = RunningSum(plan.layout)
        self.refused: set[SiteId] = set()
        self.lost: set[SiteId] = set()
        self.state: State
        self.state, self._first = begin(plan, measured_before, is_exact=is_exact)
        self._stored: set[Digest] = set()  # uploads that were put on disk for this attempt
        self._small: dict[SiteId, tuple[Digest, bytes]] = {}  # uploads that came in one message, by their names
        self._begun: dict[SiteId, Digest] = {}  # uploads that are not whole, one of each site
        self._unwritten: list[Event] = []  # taken and not in the journal yet
        self._sum_is_kept = False
        self._timer: asyncio.TimerHandle | None = None
        self._progress = Progress()
        self._log = log.bind(study=plan.study, round=plan.round, attempt=plan.attempt)

    def deliver(self, event: Event) -> None:
        """Queue an event."""
        if isinstance(event, UploadStored):
            self._stored.add(upload_name(event.site, event.header.masked_update_hash))
            self._begun.pop(event.site, None)
        self._inbox.put_nowait(event)

    def upload_begins(self, site: SiteId, name: Digest) -> None:
        """Part of an upload is about to be here. Of each site one is kept; with another its rest is not wanted."""
        before = self._begun.get(site, name)
        if before != name:
            self._rooms.uploads.forget_begun(before)
        self._begun[site] = name

    def is_half_uploaded(self, site: SiteId) -> bool:
        """Whether an upload of this site has begun and is not whole."""
        return site in self._begun and isinstance(self.state, Running)

    def deliver_small(self, event: UploadStored, values: bytes) -> None:
        """Queue an upload that came whole, in one message; it stays in memory. The first of each site counts."""
        if event.site not in self._small:
            self._small[event.site] = upload_name(event.site, event.header.masked_update_hash), values
            self._inbox.put_nowait(event)

    @property
    def waiting(self) -> int:
        """Events that are queued and not handled yet."""
        return self._inbox.qsize()

    async def run(self, progress: Progress) -> State:
        """Drive the machine with live events until the attempt is over."""
        progress.sites.update({p.site: "invited" for p in self.plan.participants})
        return await self._drive(progress, self._first)

    async def finish(self, progress: Progress) -> State:
        """After `replay`, with the survivors asked for their shares: ask whoever is still needed once more.

        With enough shares in the journal nobody is asked. The deadline of the phase begins again.
        """
        assert isinstance(self.state, Running)
        if enough_shares(self.state):
            self.deliver(DeadlinePassed(phase=self.state.phase))
        for participant in self.plan.participants:
            if self._rooms.sessions.get(participant.site) is not None:
                self.deliver(SiteReturned(site=participant.site))
        return await self._drive(progress, (deadline_of(self.state),))

    async def _drive(self, progress: Progress, effects: Effects) -> State:
        self._progress = progress
        progress.attempt = self.plan.attempt
        try:
            await self._perform(effects)
            while isinstance(self.state, Running):
                progress.enters(self.state.phase.value)
                self._rooms.sessions.notify()
                await self._take(await self._inbox.get())
        finally:
            if self._timer is not None:
                self._timer.cancel()
        return self.state

    async def _take(self, event: Event) -> None:
        """One event, and once shares are asked for all that wait with it: they are written down together."""
        opened = may_have_opened(self.state)
        effects = self._stepped(event)
        while opened and isinstance(self.state, Running) and not self._inbox.empty():
            effects += self._stepped(self._inbox.get_nowait())
        if self._unwritten and (opened or may_have_opened(self.state)):
            await self._write_down(first=not opened)
        await self._perform(effects)

    def _stepped(self, event: Event) -> Effects:
        # Stepped before it is journalled, so that an event the machine cannot take is never replayed.
        before = self.state
        self.state, effects = step(before, event)
        if self.state is not before:  # or a site that repeats itself would fill the journal
            self._unwritten.append(event)
        return effects

    async def _write_down(self, *, first: bool) -> None:
        """Before a share is asked for, and for every share that came: durable, so that it is never asked for in vain.

        Until then nothing has been released, and a crash costs an attempt and no privacy. From then on the masked sum
        and everything that led to it must be there again after a crash; single uploads need not.
        """
        sum_sha256 = None
        if first:
            masked = self.total.result.view("u1").data
            await asyncio.to_thread(self._rooms.uploads.put, masked, name=masked_sum_name(self.plan))
            self._sum_is_kept = True
            sum_sha256 = await asyncio.to_thread(lambda: hashlib.sha256(masked).digest())
        events, self._unwritten = tuple(self._unwritten), []
        await asyncio.to_thread(self._rooms.journal.append, self.plan, *events, sum_sha256=sum_sha256)

    async def replay(self, events: Iterable[Event]) -> State:
        """Feed journalled events through the machine; nothing is sent. The masked sum is taken from the disk.

        Raises:
            VectorMissing: The journal is there, and its sum is not.
            ObjectAltered: The journal is there, and what is called its sum is another.
        """
        for event in events:
            self.state, _ = step(self.state, event)
        if may_have_opened(self.state) and not isinstance(self.state, Aborted):
            await asyncio.to_thread(self._require_kept_sum)
            self._sum_is_kept = True
            await asyncio.to_thread(self.total.add, self._rooms.uploads.chunks(masked_sum_name(self.plan)))
        return self.state

    def _require_kept_sum(self) -> None:
        """Raises ObjectAltered unless the masked sum is the one that the journal speaks of; and keeps no other here."""
        name, wanted = masked_sum_name(self.plan), self._rooms.journal.sum_sha256(self.plan)
        with self._rooms.uploads.path(name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").digest()
        if wanted not in (None, found):
            self._rooms.uploads.discard(name)
            raise ObjectAltered(f"what came back as the masked sum of round {self.plan.round} is another")

    def forget(self) -> None:
        """How it ended is recorded: its journal, its sum and its uploads have served their purpose."""
        self._rooms.journal.scrub_now_and_then()
        for digest in self._stored:
            self._rooms.uploads.discard(digest)
        if self._sum_is_kept:
            self._rooms.uploads.discard_shared(masked_sum_name(self.plan))
        for digest in self._begun.values():
            self._rooms.uploads.forget_begun(digest)

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
        digest = upload_name(effect.site, effect.masked_update_hash)
        name, values = self._small.get(effect.site, ("", b""))
        if name == digest:
            self.total.add((values,))
            return
        await asyncio.to_thread(self.total.add, self._rooms.uploads.chunks(digest))
        self._rooms.uploads.discard(digest)  # the sum has it; what the sites sent is not kept

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
            case NoteViolation(violation=violation, evidence=message):
                self._log.error("round.violation", site=violation.site, rule=violation.rule)
                entry = entries.SecaggFailed(
                    **now_stamp(),
                    **about,
                    blamed=violation.site,
                    phase=self._progress.phase,
                    rule=one_line(f"{violation.rule}: {violation.evidence}"),
                    evidence_sha256=self._rooms.evidence.put(_evidence(message)) if message else None,
                )
        self._rooms.recorder.record(entries.entry_bytes(entry))


def _evidence(message: SiteMessage | UploadHeader) -> bytes:
    """A message in its wire encoding, signature included: what the digest in the log is of."""
    return codec.encode_upload(message) if isinstance(message, UploadHeader) else codec.encode_site_message(message)

"""Who has witnessed the log: hospitals' witness keys, one checkpoint at a time held out to them, their cosignatures.

Log format section 9. The log grows all the time, and cosignatures are worth most on one checkpoint: so a candidate is
held until everybody who is here has cosigned it, or for `HOLD_S`, and only then a newer one. What has come is durable
before it counts. A witness that shows a checkpoint which this log signed and does not have any more proves that the
log was set back: from then on nothing is signed (`LogSetBack`).
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import sqlalchemy as sa
import structlog

from audit.checkpoint import SignedCheckpoint, parse_checkpoint, verify_checkpoint
from audit.cosignature import WitnessKey
from audit.dropped import Dropped, EntriesDropped
from audit.errors import LogSetBack, VerificationError
from audit.log import Log
from audit.note import SIGNATURES_MAX, Note, NoteSignature
from consortium.contract.messages import DroppedLeaves, LogGrowth, LogPosition
from consortium.contract.names import SiteId
from consortium.database import Database, cosigned, objections, witnesses
from consortium.errors import CosignatureRefused
from consortium.record import Recorder

log = structlog.get_logger(__name__)

HOLD_S = 3.0
"""A candidate that not everybody cosigns gives way to a newer checkpoint after so long."""
EVERY_S = 1.0
"""There is no new candidate sooner than this after the last (ADR 13)."""
PART_BYTES, PART_ENTRIES = 1 << 20, 1024
"""How much of the log one message of FollowLog's answer holds."""
_OWN = "the coordinator's own database"
_RECENT = 8
"""Candidates that may still get cosignatures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A checkpoint held out for cosignatures, and the lines that have come for it."""

    signed: SignedCheckpoint
    since_s: float  # by the monotonic clock
    lines: Mapping[str, NoteSignature]  # by the name of the witness: a site, or an outside witness's key name

    @property
    def size(self) -> int:
        """Entries it covers."""
        return self.signed.checkpoint.size

    def note(self) -> Note:
        """The checkpoint with its cosignatures, as many as a note takes."""
        own = self.signed.note.signatures
        lines = [self.lines[name] for name in sorted(self.lines)][: SIGNATURES_MAX - len(own)]
        return Note(text=self.signed.note.text, signatures=(*own, *lines))


class Witnesses:
    """The register of witnesses and of what they cosigned. May be used from any thread."""

    def __init__(self, database: Database, recorder: Recorder) -> None:
        self._database = database
        self._recorder = recorder
        self._lock = Lock()
        self._keeping = Lock()
        self._keys: dict[SiteId, WitnessKey] | None = None
        self._latest: dict[str, bytes] = {}  # witness -> the note it cosigned last
        self._covered: dict[str, int] = {}  # witness -> the largest tree it cosigned
        self._recent: list[Candidate] = []
        self._marks: list[tuple[float, int]] = []  # when the log was known to have how many entries
        self.heard: set[SiteId] = set()  # hospitals whose memory was held against the log since this process began
        self._objecting: set[str] = set()  # those with a row in `objections`
        self.stones: tuple[SignedCheckpoint, ...] = ()  # one for each finished change of the log's key (`log_keys.py`)
        self._read()

    def _read(self) -> None:
        """What had come before this process began."""
        with self._database.reading() as connection:
            notes = [row.note for row in connection.execute(sa.select(cosigned).order_by(cosigned.c.size))]
            self._objecting = {row.witness for row in connection.execute(sa.select(objections.c.witness))}
        names = {key: site for site, key in self.keys().items()}
        for note in notes:
            signed = parse_checkpoint(note)
            for line in signed.note.signatures:
                site = next((site for key, site in names.items() if key.is_of(line)), None)
                if site is not None:
                    self._covered[site] = signed.checkpoint.size
                    self._latest[site] = _with_lines(signed, [line]).to_bytes()

    # --- keys ------------------------------------------------------------------------------------------------------

    def enrol(self, connection: sa.Connection, site: SiteId, vkey: str) -> None:
        """Remember a site's newest witness key, in the transaction that takes in its entry."""
        self.leave(connection, site)
        connection.execute(sa.insert(witnesses).values(site=site, vkey=vkey))

    def leave(self, connection: sa.Connection, site: SiteId) -> None:
        """Forget a site's witness key, in the transaction in which the site gets new keys."""
        connection.execute(sa.delete(witnesses).where(witnesses.c.site == site))

    def forget_keys(self) -> None:
        """A key was enrolled, and that is committed: they are read again."""
        with self._lock:
            self._keys = None

    def keys(self) -> Mapping[SiteId, WitnessKey]:
        """Every hospital's witness key."""
        with self._lock:
            if self._keys is None:
                with self._database.reading() as connection:
                    rows = connection.execute(sa.select(witnesses))
                    self._keys = {SiteId(row.site): WitnessKey.from_vkey(row.vkey) for row in rows}
            return self._keys

    # --- the checkpoint to cosign ----------------------------------------------------------------------------------

    def candidate(self, here: Iterable[str] = ()) -> Candidate | None:
        """The checkpoint that is held out now; None while the log is empty.

        Args:
            here: The witnesses that could cosign it.
        """
        now = time.monotonic()
        with self._lock:
            newest = self._recorder.latest()
            if not self._marks or self._marks[-1][1] != newest.checkpoint.size:
                self._marks.append((now, newest.checkpoint.size))
            if self._is_due(newest.checkpoint.size, frozenset(here), now):
                self._recent = [*self._recent[1 - _RECENT :], Candidate(signed=newest, since_s=now, lines={})]
            return self._recent[-1] if self._recent else None

    def held(self) -> Candidate | None:
        """The checkpoint that was held out last."""
        with self._lock:
            return self._recent[-1] if self._recent else None

    def _is_due(self, size: int, here: frozenset[str], now: float) -> bool:
        if size == 0 or not self._recent:
            return size > 0
        held = self._recent[-1]
        age_s = now - held.since_s
        if size == held.size or age_s < EVERY_S:
            return False
        return age_s >= HOLD_S or here <= held.lines.keys()

    def follow(
        self, site: SiteId, position: LogPosition
    ) -> tuple[LogGrowth, Iterator[tuple[bytes, ...] | DroppedLeaves]]:
        """What a site's copy lacks of the candidate, or of the newest checkpoint if its copy is beyond that.

        A copy from before the log changed its key gets the checkpoint that both keys signed first; not one that lacks
        entries which were dropped later, because only a later checkpoint says so.

        Raises:
            LogSetBack: The site shows a checkpoint of this log that has more entries than the log, or another root.
        """
        self.require_not_set_back(site, position)
        self.heard.add(site)
        candidate = self.candidate()
        stone = next((one for one in self.stones if one.checkpoint.size > position.size), None)
        if stone is not None and position.size >= self._recorder.written.dropped.stop:
            note, size = stone.to_bytes(), stone.checkpoint.size
        elif candidate is None or candidate.size < position.size:
            note, size = self._recorder.latest().to_bytes(), self._recorder.latest().checkpoint.size
        else:
            note, size = candidate.note().to_bytes(), candidate.size
        with self._lock:
            others = tuple(note for name, note in sorted(self._latest.items()) if name != site)
        proof = self._recorder.written.consistency_proof(position.size, size)
        gone = self._recorder.written.dropped  # before the entries are read: what is dropped meanwhile stands aside
        listed = gone.bits if position.size < gone.stop else b""
        growth = LogGrowth(note=note, proof=proof, cosigned=others, dropped=listed)
        return growth, self._parts(position.size, size, gone)

    def _parts(self, start: int, stop: int, gone: Dropped) -> Iterator[tuple[bytes, ...] | DroppedLeaves]:
        """Entries, and the hashes of those that are gone, in the order of their leaves."""
        written = self._recorder.written
        part: list[bytes] = []
        hashes: list[bytes] = []
        size_bytes = 0
        for leaf, entry in enumerate(written.known(start, stop), start):
            if entry is None and leaf not in gone:
                raise EntriesDropped(leaf, leaf)  # a moment ago; who follows asks again
            full = size_bytes + len(entry or b"") > PART_BYTES or len(part) == PART_ENTRIES
            if part and (full or entry is None):
                yield tuple(part)
                part, size_bytes = [], 0
            if hashes and (len(hashes) == PART_ENTRIES or entry is not None):
                yield DroppedLeaves(hashes=tuple(hashes))
                hashes = []
            if entry is None:
                hashes.append(written.leaf_hash(leaf))
            else:
                part.append(entry)
                size_bytes += len(entry)
        if part:
            yield tuple(part)
        if hashes:
            yield DroppedLeaves(hashes=tuple(hashes))

    def require_not_set_back(self, witness: str, position: LogPosition) -> None:
        """Compare with what a witness remembers. Raises LogSetBack, and the log signs nothing more."""
        written = self._recorder.written
        if position.size == 0:
            return
        try:
            shown = verify_checkpoint(position.note, *written.verifiers).checkpoint
        except VerificationError as error:
            raise CosignatureRefused(f"{witness} shows a checkpoint that is not this log's: {error}") from error
        if shown.size != position.size:
            raise CosignatureRefused(f"{witness} names {position.size} entries and shows a checkpoint of {shown.size}")
        if shown.size > written.size:
            found = f"a checkpoint of {shown.size} entries that this log signed, and it has {written.size}"
        elif written.root_at(shown.size) != shown.root:
            found = f"another root of the first {shown.size} entries, signed by this log"
        else:
            return
        set_back = LogSetBack(witness, found)
        written.stop(set_back)
        log.error("log.set_back", witness=witness, reason=str(set_back))
        raise set_back

    # --- objections ------------------------------------------------------------------------------------------------

    def object(self, connection: sa.Connection, witness: str, status: int, said: str) -> bool:
        """Remember that a witness does not cosign, in the caller's transaction; whether it had not said so before."""
        known = connection.execute(sa.select(objections.c.status).where(objections.c.witness == witness)).first()
        connection.execute(sa.delete(objections).where(objections.c.witness == witness))
        row = {"witness": witness, "status": status, "said": said, "at": time.time()}
        connection.execute(sa.insert(objections).values(**row))
        with self._lock:
            self._objecting.add(witness)
        return known is None or known.status != status

    def refused(self, witness: str, status: int, said: str, entry: bytes) -> None:
        """An outside witness does not cosign: an entry, once for each status until it cosigns again."""
        with self._database.transaction() as connection:
            if self.object(connection, witness, status, said):
                self._recorder.add(connection, [entry])
        self._recorder.flush_soon()

    def objections(self) -> tuple[tuple[str, str], ...]:
        """Who does not cosign at present, and what was said."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(objections).order_by(objections.c.witness))
            return tuple((row.witness, row.said) for row in rows)

    # --- cosignatures ----------------------------------------------------------------------------------------------

    def admit(self, site: SiteId, note: bytes) -> None:
        """Take a hospital's cosignature of a recent candidate; durable when this returns. Raises CosignatureRefused."""
        key = self.keys().get(site)
        if key is None:
            raise CosignatureRefused(f"{site} has not said which key it cosigns with (witness.enrolled)")
        self.admit_line(site, key, note)

    def admit_line(self, name: str, key: WitnessKey, note: bytes) -> None:
        """The same, of any witness by its key."""
        try:
            signed = parse_checkpoint(note)
            line = next((one for one in signed.note.signatures if key.is_of(one)), None)
            if line is None:
                raise CosignatureRefused(f"no line of the key {key.vkey()}")
            key.verify(signed.note.text, line)
        except VerificationError as error:
            raise CosignatureRefused(f"{name}: {error}") from error
        with self._keeping:  # one at a time: of two notes of one checkpoint, the one with fewer lines must not be last
            with self._lock:
                at = next((i for i, one in enumerate(self._recent) if one.signed.note.text == signed.note.text), None)
                if at is None:
                    return  # of a candidate that has given way: it was in time for nothing, and is no fault
                candidate = self._recent[at]
            candidate = replace(candidate, lines={**candidate.lines, name: line})
            self._keep(candidate)
            if name in self._objecting:  # it cosigns again
                with self._database.transaction() as connection:
                    connection.execute(sa.delete(objections).where(objections.c.witness == name))
                self._objecting.discard(name)
            self._count(name, candidate, line)

    def _count(self, name: str, candidate: Candidate, line: NoteSignature) -> None:
        """What is durable counts."""
        with self._lock:
            self._recent = [candidate if one.signed is candidate.signed else one for one in self._recent]
            if candidate.size >= self._covered.get(name, 0):
                self._covered[name] = candidate.size
                self._latest[name] = _with_lines(candidate.signed, [line]).to_bytes()

    def _keep(self, candidate: Candidate) -> None:
        """Write a candidate down. Older ones whose witnesses have all cosigned this one are of no use any more."""
        note = candidate.note()
        signers = {(line.name, line.key_id) for line in note.signatures}
        with self._database.transaction() as connection:
            rows = connection.execute(sa.select(cosigned).where(cosigned.c.size <= candidate.size)).all()
            for row in rows:
                lines = parse_checkpoint(row.note).note.signatures
                if row.size == candidate.size or {(line.name, line.key_id) for line in lines} <= signers:
                    connection.execute(sa.delete(cosigned).where(cosigned.c.size == row.size))
            connection.execute(sa.insert(cosigned).values(size=candidate.size, note=note.to_bytes()))

    # --- quorums ---------------------------------------------------------------------------------------------------

    def quorum_checkpoint(
        self, roster: Iterable[SiteId], needed: int, outside: Sequence[WitnessKey] = ()
    ) -> SignedCheckpoint | None:
        """The largest checkpoint cosigned by so many of these hospitals and all of the others; None without one."""
        keys = [self.keys()[site] for site in roster if site in self.keys()]
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(cosigned.c.note).order_by(cosigned.c.size.desc()))
            for row in rows:
                signed = parse_checkpoint(row.note)
                if _cosigners(signed, keys) >= needed and _cosigners(signed, outside) == len(outside):
                    return signed
        return None

    def covered_by(self, witness: str) -> int:
        """Entries that a witness, a site or an outside one by its key's name, cosigned last; 0 for none."""
        return self._covered.get(witness, 0)

    def covered(self, roster: Iterable[SiteId], needed: int) -> int:
        """Entries of the log that so many of these hospitals have witnessed, be it on different checkpoints."""
        sizes = sorted((self._covered.get(site, 0) for site in roster), reverse=True)
        return sizes[needed - 1] if 0 < needed <= len(sizes) else 0

    def size_before(self, age_s: float) -> int:
        """Entries that the log is known to have had so long ago."""
        before = time.monotonic() - age_s
        with self._lock:
            while len(self._marks) > 1 and self._marks[1][0] <= before:
                del self._marks[0]
            return self._marks[0][1] if self._marks and self._marks[0][0] <= before else 0


def _cosigners(signed: SignedCheckpoint, keys: Iterable[WitnessKey]) -> int:
    """How many of these keys have a line there; what was kept was verified when it came."""
    return sum(any(key.is_of(line) for line in signed.note.signatures) for key in keys)


def _with_lines(signed: SignedCheckpoint, lines: Iterable[NoteSignature]) -> Note:
    """The checkpoint with the log's own signature and these."""
    own = [line for line in signed.note.signatures if line.name == signed.checkpoint.origin]
    return Note(text=signed.note.text, signatures=(*own, *lines))


def require_remembered(database: Database, written: Log) -> None:
    """Compare a log with the checkpoints of it that this coordinator's own database remembers; raises LogSetBack.

    Call it before anything is signed: the log's folder may have been restored from a backup without the database.
    """
    with database.reading() as connection:
        row = connection.execute(sa.select(cosigned).order_by(cosigned.c.size.desc()).limit(1)).first()
    if row is None:
        return
    shown = parse_checkpoint(row.note).checkpoint
    if shown.size > written.size:
        raise LogSetBack(_OWN, f"a cosigned checkpoint of {shown.size} entries, and the log has {written.size}")
    if written.root_at(shown.size) != shown.root:
        raise LogSetBack(_OWN, f"another root of the first {shown.size} entries, cosigned")

"""The log as this hospital reads it, entry by entry, and what others have witnessed of it (pure).

Log format section 9. A hospital holds three things against the log it is shown: that its own entries stand in it, each
once and as it signed them; that none it handed over is missing; and that enough hospitals have cosigned what it sees,
so that nobody is shown another history. What it finds broken is raised, with what to keep.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

from audit import entries, merkle
from audit.checkpoint import SignedCheckpoint, verify_checkpoint
from audit.cosignature import WitnessKey
from audit.errors import AuditError, EntryRefused, VerificationError
from audit.key_rotation import LogKeys
from audit.note import Note, NoteVerifier
from audit.retention import cutoff
from audit.site_keys import READ, KeysChanged, SiteKeys
from audit.witness import INCONSISTENT, NOT_SIGNED, CheckpointRefused
from consortium.contract.names import SiteId
from site_agent.errors import SiteError

FORKED, OMITTED, FORGED, MALFORMED = "forked", "entry missing", "entry not ours", "not a log"
UNKNOWN_KEY = "not signed by a key of the log that this hospital knows"
DROPPED = "dropped too early"


class LogBroken(SiteError):
    """The log contradicts what this hospital knows. Whose fault: the coordinator, or whoever has its keys.

    `notes` are the signed checkpoints that show it, for anybody who knows the log's key.
    """

    def __init__(self, kind: str, what: str, *notes: bytes) -> None:
        super().__init__(f"the consortium's log cannot be trusted ({kind}): {what}")
        self.kind, self.what, self.notes = kind, what, notes
        self.status = INCONSISTENT  # what a witness calls its refusal (log format section 9)

    def advice(self) -> str:
        """What to do next."""
        if self.kind == UNKNOWN_KEY:
            return (
                "The agent has stopped taking part, and cosigns nothing. If the consortium changed the log's key while "
                "it was off, compare the new key with the lead or another hospital by telephone, then: "
                "site-agent log-key --home HOME --accept VKEY, and start the agent."
            )
        return (
            "The agent has stopped taking part. What the coordinator signed is kept in the folder evidence/ of the "
            "agent's home: compare it with the other hospitals before anybody goes on."
        )


class Tree(Protocol):
    """The copy of the log that the entries come from."""

    @property
    def size(self) -> int:
        """Entries in the copy."""

    def root_at(self, size: int) -> bytes:
        """Root of the first `size` of them."""

    def known(self, start: int = 0) -> Iterator[bytes | None]:
        """Entries from leaf `start` on, None in place of each that was dropped."""

    def leaf_hash(self, index: int) -> bytes:
        """The hash of a leaf, whether its entry is there or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnChain:
    """What this hospital knows of its own entries."""

    site: SiteId
    signed: Callable[[int], bytes | None]  # the entry with this counter, as this site signed it


class FollowedLog:
    """What has been read so far. Mutable: it takes one entry after the other, in order.

    Args:
        own: What this hospital knows of its own entries.
        verifiers: The log's keys that are believed, the newest last.
    """

    def __init__(self, own: OwnChain, *verifiers: NoteVerifier) -> None:
        self._own = own
        self._actor = f"site:{own.site}"
        self.keys = LogKeys(accepted=verifiers)
        self._covering = Note(text="", signatures=())  # the checkpoint over the entries that are read next
        self.changing: tuple[int, NoteVerifier] | None = None  # leaf of a key.rotated that is not over, and the old key
        self._site_keys = SiteKeys(verifiers[0].name)  # of every hospital, as the log says
        self.key_changes: list[KeysChanged] = []  # hospitals that changed their keys, since somebody cleared it
        self._endorsed: dict[SiteId, dict[str, str]] = {}  # site -> study -> SHA-256 of its last model.verified
        self.endorsed_before: dict[str, str] = {}  # of those from before a change of keys -> the key that signed it
        self._ahead: dict[SiteId, bytes] = {}  # cosigned notes of more entries than the copy has yet
        self.witnesses: dict[SiteId, WitnessKey] = {}
        self._former: dict[SiteId, list[tuple[WitnessKey, int]]] = {}  # older keys, and the entry that replaced each
        self.cosigned: dict[
            SiteId, SignedCheckpoint
        ] = {}  # the last checkpoint each hospital is known to have cosigned
        self._latest: list[tuple[int, str]] = []  # leaf and day of each entry that is later than all before it
        self.coordinator_ts = ""  # of the coordinator's last entry in it, not looked at
        self.own_entries = 0  # the counter of this hospital's last entry in it
        self.enrolled_key = ""  # the vkey of this hospital's last witness.enrolled in it

    def follow(self, copy: Tree, first: int = 0) -> None:
        """Read everything in a copy from a leaf on; raises LogBroken."""
        for leaf, data in enumerate(copy.known(first), first):
            if data is None:
                self.take_dropped(copy.leaf_hash(leaf))
            else:
                self.take(leaf, data)

    def take_dropped(self, leaf_hash: bytes) -> None:
        """Read the next leaf, whose entry the log has dropped. This hospital's own are known by their hashes."""
        own = self._own.signed(self.own_entries + 1)
        if own is not None and merkle.leaf_hash(own) == leaf_hash:
            self.own_entries += 1

    def under(self, covering: Note) -> None:
        """The entries that are read from now on are covered by this checkpoint, which a believed key signed."""
        self._covering = covering

    def take(self, leaf: int, data: bytes) -> None:
        """Read the next entry; raises LogBroken for one that this hospital is said to have signed and did not."""
        try:
            record = json.loads(data)
            actor, kind, _ = record["actor"], record["type"], record["body"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise LogBroken(MALFORMED, f"entry {leaf} is not one") from error
        if actor == self._actor:
            self._take_own(leaf, data)
        if kind in READ:
            self._take_about_keys(leaf, record, data)
        elif kind == entries.WitnessEnrolled.TYPE:
            self._take_witness(leaf, record, data)
        elif kind in (entries.KeyRotated.TYPE, entries.KeyRetired.TYPE):
            self._take_key(leaf, record)
        elif kind == entries.RetentionApplied.TYPE and actor == entries.COORDINATOR:
            self._take_retention(leaf, data)
        elif kind == entries.ModelVerified.TYPE and actor.startswith("site:"):
            sha256 = hashlib.sha256(data).hexdigest()
            self._endorsed.setdefault(SiteId(actor.removeprefix("site:")), {})[str(record.get("study"))] = sha256
        if actor == entries.COORDINATOR:
            self.coordinator_ts = str(record.get("ts"))
        day = str(record.get("ts"))[:10]
        if not self._latest or day > self._latest[-1][1]:
            self._latest.append((leaf, day))

    def _take_retention(self, leaf: int, data: bytes) -> None:
        """A-30: what is to be dropped is as old as the policy says. Who has the entries can tell; others rely on it."""
        try:
            entry = entries.parse_entry(data)
        except AuditError as error:
            raise LogBroken(MALFORMED, f"entry {leaf} is not one") from error
        assert isinstance(entry, entries.RetentionApplied)
        if entry.last_leaf is None:
            return
        latest = max((day for at, day in self._latest if at <= entry.last_leaf), default="")
        allowed = cutoff(date.fromisoformat(entry.ts[:10]), entry.years).isoformat()
        if entry.last_leaf >= leaf or latest >= entry.older_than or entry.older_than > allowed:
            raise LogBroken(
                DROPPED,
                f"entry {leaf} announces that entries up to {entry.last_leaf} are dropped after {entry.years} years,"
                f" all from before {entry.older_than}; {allowed} is so many years ago, and one is from {latest}",
            )

    def _take_own(self, leaf: int, data: bytes) -> None:
        sequence = self.own_entries + 1
        signed = self._own.signed(sequence)
        if signed is None:
            raise LogBroken(
                FORGED,
                f"entry {leaf} stands there as this hospital's number {sequence}, which this agent never signed",
            )
        if signed != data:
            raise LogBroken(
                FORGED, f"entry {leaf} stands where this hospital's number {sequence} belongs, and is another"
            )
        self.own_entries = sequence

    def _take_key(self, leaf: int, record: Mapping[str, Any]) -> None:
        kind, body = record["type"], record["body"]
        if record["actor"] != entries.COORDINATOR:
            raise LogBroken(FORGED, f"entry {leaf} changes the log's key, and is not the coordinator's")
        try:
            self.keys = self.keys.after(kind, body, self._covering)
            rotated = kind == entries.KeyRotated.TYPE
            self.changing = (leaf, NoteVerifier.from_vkey(str(body["old_vkey"]))) if rotated else None
        except (VerificationError, KeyError, AttributeError, TypeError) as error:
            raise LogBroken(FORGED, f"entry {leaf} changes the log's key, and may not: {error}") from error

    def _take_about_keys(self, leaf: int, record: Mapping[str, Any], data: bytes) -> None:
        """G-13: whose key is whose, and whether whoever had to sign for a change of it did."""
        enrols = record["type"] == entries.SiteEnrolled.TYPE
        site = SiteId(str(record["body"].get("site"))) if enrols else None
        before = self._site_keys.key_of(site) if site is not None else None
        try:
            changed = self._site_keys.take(data)
        except EntryRefused as error:
            raise LogBroken(MALFORMED, f"entry {leaf} is not one: {error}") from error
        except VerificationError as error:
            raise LogBroken(FORGED, f"entry {leaf} is about keys, and does not hold: {error}") from error
        if site is not None and self._site_keys.key_of(site) != before:
            # Whoever enrols again has new keys, and names a new witness key.
            self.witnesses.pop(site, None)
            self.cosigned.pop(site, None)
            self._former.pop(site, None)
        if changed is not None:
            self.key_changes.append(changed)
            endorsed = self._endorsed.pop(SiteId(changed.site), {})
            self.endorsed_before |= dict.fromkeys(endorsed.values(), changed.old.signing)

    def _take_witness(self, leaf: int, record: Mapping[str, Any], data: bytes) -> None:
        site = SiteId(str(record["actor"]).removeprefix("site:"))
        try:
            entry = entries.verify_site_entry(data, bytes.fromhex(self._site_keys.key_of(site) or ""))
            key = WitnessKey.from_vkey(str(record["body"]["vkey"]))
        except (AuditError, ValueError, KeyError) as error:
            raise LogBroken(FORGED, f"entry {leaf} names a witness key that {site[:40]} did not sign") from error
        assert isinstance(entry, entries.WitnessEnrolled)
        if site in self.witnesses:  # what it cosigned with its older key before this entry, it has cosigned
            self._former.setdefault(site, []).append((self.witnesses[site], leaf))
        self.witnesses[site] = key
        if site == self._own.site:
            self.enrolled_key = entry.vkey

    def require_own(self, handed_over: int) -> None:
        """Every entry up to this counter must have been read by now; raises LogBroken."""
        if self.own_entries < handed_over:
            raise LogBroken(
                OMITTED,
                f"this hospital's entry number {self.own_entries + 1} was taken in by the coordinator and is not there",
            )

    # --- what others witnessed -------------------------------------------------------------------------------------

    def hear(self, notes: Iterable[bytes], copy: Tree, own_note: bytes) -> None:
        """Other hospitals' cosigned checkpoints, held against this copy; raises LogBroken for a fork.

        A note by nobody known, or that does not verify, counts for nothing and is no evidence of anything.

        Args:
            notes: As they came.
            copy: This hospital's copy.
            own_note: The checkpoint it stands under.
        """
        for note in [*self._ahead.values(), *notes]:
            try:
                signed = verify_checkpoint(note, *self.keys.accepted)
                signers = list(self._signers(signed))
            except VerificationError:
                continue
            size = signed.checkpoint.size
            for site in signers:
                if size > copy.size:
                    self._ahead[site] = note
                    continue
                if copy.root_at(size) != signed.checkpoint.root:
                    raise LogBroken(
                        FORKED,
                        f"of the first {size} entries {site} cosigned another root than they have here",
                        note,
                        own_note,
                    )
                self._ahead.pop(site, None)
                before = self.cosigned.get(site)
                if before is None or before.checkpoint.size <= size:
                    self.cosigned[site] = signed

    def _signers(self, signed: SignedCheckpoint) -> Iterable[SiteId]:
        for site in self.witnesses:
            for key in self.keys_of(site, signed.checkpoint.size):
                for line in signed.note.signatures:
                    if key.is_of(line):
                        key.verify(signed.note.text, line)
                        yield site

    def keys_of(self, site: SiteId, size: int) -> tuple[WitnessKey, ...]:
        """A hospital's witness keys that count for a checkpoint of so many entries: the newest, and those before it."""
        former = [key for key, until in self._former.get(site, []) if size <= until]
        return (self.witnesses[site], *former)

    def covered(self, roster: Iterable[SiteId], needed: int) -> int:
        """Entries of this copy that so many of these hospitals are known to have cosigned."""
        sizes = [self.cosigned[site].checkpoint.size if site in self.cosigned else 0 for site in roster]
        sizes.sort(reverse=True)
        return sizes[needed - 1] if 0 < needed <= len(sizes) else 0


def broken_by(refused: CheckpointRefused, own_note: bytes, shown: bytes) -> LogBroken:
    """A checkpoint that this hospital does not cosign, with what is to be kept of it."""
    if refused.status == NOT_SIGNED:
        broken = LogBroken(UNKNOWN_KEY, str(refused), shown)
    else:
        earlier = refused.earlier or own_note
        broken = LogBroken(FORKED, str(refused), *(note for note in (earlier, shown) if note))
    broken.status = refused.status
    return broken

"""A witness's own copy of a log: every entry, under the last checkpoint that it judged.

Log format section 9. A copy grows in this order:
    1 the log's checkpoint is judged against the one this copy stands under (`audit.witness`)
    2 the entries that came with it are hashed, and kept aside; their root must be the checkpoint's
    3 the checkpoint is put beside the copy, durably, then the entries into it
    4 the checkpoint is put over the copy, durably; only then may it be cosigned
Of entries that the log has dropped (`audit.dropped`) the hashes come, and stand in tiles of level 0 as they do there;
the list of them counts once it lies under the checkpoint whose entries name it. Entries that are here stay here.
A crash after step 3 leaves entries that a signed checkpoint covers, and that checkpoint: when the copy grows again they
must be the same. What a copy has cosigned it therefore still has, and can show beside whatever contradicts it.

Holds against: a log that shows this witness two histories, takes entries back, or sends other entries than it signed.
Does not hold against: a copy that is itself set back to an older state. The agent's own chain of entries tells (D-20).
"""

import itertools
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from audit import merkle, tiles
from audit.checkpoint import Checkpoint, SignedCheckpoint, parse_checkpoint
from audit.dropped import ARRIVING as DROPPED_ARRIVING
from audit.dropped import FILE, Dropped, applied_by
from audit.entries import ENTRY_BYTES_MAX
from audit.errors import AuditError, LogCorrupt, VerificationError
from audit.log import LogView
from audit.note import Note, NoteVerifier
from audit.storage import CHECKPOINT, DirectoryStorage, Storage
from audit.witness import INCONSISTENT, CheckpointRefused, Remembered, Request, judge

ARRIVING = "checkpoint.arriving"
"""The checkpoint of entries that are, or may be, in the copy and not yet under its own."""

_IN_MEMORY_BYTES = 1 << 20
"""Of a growth; a longer one waits on the disk."""
_AT_ONCE = 4096
_LENGTH = struct.Struct(">H")


class Mirror(LogView):
    """A copy that one process may let grow. An empty one stands under no signed checkpoint."""

    def __init__(self, storage: Storage, verifier: NoteVerifier, also: Sequence[NoteVerifier] = ()) -> None:
        super().__init__(storage, verifier, also)

    @classmethod
    def open(cls, directory: Path, verifier: NoteVerifier, *others: NoteVerifier) -> "Mirror":
        """Open or begin a copy; what is there is read back and its root computed again.

        `verifier` is the log's key; `others` are believed too, while it changes its key.

        Raises:
            LogLocked, LogUnwritable, LogCorrupt, LogFork: see `audit.errors`.
        """
        storage = DirectoryStorage(directory, writable=True)
        try:
            return cls(storage, verifier, others)
        except AuditError:
            storage.close()
            raise

    def remembered(self) -> Remembered:
        """What this witness has judged: the largest tree, and the note that says so."""
        signed = self.checkpoint()
        if not signed.note.signatures:
            return Remembered()
        return Remembered(size=signed.checkpoint.size, root=signed.checkpoint.root, note=signed.to_bytes())

    def growth(self, note: bytes, proof: Sequence[bytes], dropped: bytes = b"") -> "Growth":
        """Step 1: judge a checkpoint; the entries it adds are handed to what this returns.

        Args:
            note: The checkpoint.
            proof: That it grew from this copy's.
            dropped: The log's list of entries that it has dropped; none for a log that never did.

        Raises:
            VerificationError: There is no such list.
            CheckpointRefused: It does not grow from this copy. With `keep_both`, this copy's note and the new one
                contradict each other.
        """
        remembered = self.remembered()
        request = Request(old_size=remembered.size, proof=tuple(proof), note=note)
        _, signed = judge(remembered, request, *self.verifiers)
        return Growth(self, signed, Dropped.parse(dropped))

    def believe(self, verifier: NoteVerifier, *others: NoteVerifier) -> None:
        """From now on these are the log's keys; its present checkpoint was judged under those before."""
        with self._lock:
            self._verifier, self._also = verifier, others

    def keep_cosignatures(self, note: Note) -> None:
        """Keep the same checkpoint with more lines on it; another one is left alone."""
        with self._lock:
            if note.text == self._signed.note.text and len(note.signatures) > len(self._signed.note.signatures):
                self._signed = SignedCheckpoint(checkpoint=self._signed.checkpoint, note=note)
                self._storage.write(CHECKPOINT, note.to_bytes())

    def _load_checkpoint(self) -> SignedCheckpoint:
        if self._storage.read(CHECKPOINT) is None:
            empty = Checkpoint(origin=self._verifier.name, size=0, root=merkle.EMPTY_ROOT)
            return SignedCheckpoint(checkpoint=empty, note=Note(text=empty.text(), signatures=()))
        return super()._load_checkpoint()

    def grow(
        self,
        signed: SignedCheckpoint,
        leaves: Sequence[bytes],
        entries: Iterator[list[bytes | None]],
        dropped: Dropped,
    ) -> None:
        """Steps 2 to 4, for a `Growth` that is complete."""
        with self._lock:
            old, new = self._signed.checkpoint, signed.checkpoint
            self._tree.extend(leaves)
            try:
                self._require_root(new, len(leaves))
                if dropped:
                    self._keep_hashes(dropped, old.size)
                self._keep(old.size, signed, leaves, entries)
            except BaseException:
                self._tree.truncate(old.size)
                raise
            self._signed = signed
            if dropped:
                self._storage.write(FILE, dropped.bits)
                self._dropped = dropped
                self.applied = self._find_applied()

    def _keep_hashes(self, dropped: Dropped, first: int) -> None:
        """The tiles of level 0 in which the hashes of what did not come are, then the list of it."""
        for number in dropped.bundles():
            tile = tiles.Tile(level=0, number=number, width=tiles.WIDTH)
            if tile.start + tile.width > first:
                self._storage.write(tile.path(), tile.content(self._tree))
        self._storage.write(DROPPED_ARRIVING, dropped.bits)

    def _require_root(self, new: Checkpoint, came: int) -> None:
        found = self._tree.root()
        if found != new.root:
            why = f"the {came} entries that came hash to the root {found.hex()}, and it names {new.root.hex()}"
            raise CheckpointRefused(INCONSISTENT, why)

    def _keep(
        self,
        first: int,
        signed: SignedCheckpoint,
        leaves: Sequence[bytes],
        entries: Iterator[list[bytes | None]],
    ) -> None:
        arriving = self._storage.read(ARRIVING)
        until = parse_checkpoint(arriving).checkpoint.size if arriving is not None else first
        until = max(until, signed.checkpoint.size)
        if not any(self._storage.rows(at, min(at + _AT_ONCE, until)) for at in range(first, until, _AT_ONCE)):
            self._storage.write(ARRIVING, signed.to_bytes())
        at = first
        for part in entries:
            known = dict(self._storage.rows(at, at + len(part)))
            if any(merkle.leaf_hash(data) != leaves[leaf - first] for leaf, data in known.items()):
                raise _contradicted(signed, arriving)
            for start, new in _runs(at, [None if at + i in known else one for i, one in enumerate(part)]):
                self._storage.append(start, new)
            at += len(part)
        self._storage.write(CHECKPOINT, signed.to_bytes())


def _runs(first: int, part: Sequence[bytes | None]) -> Iterator[tuple[int, list[bytes]]]:
    """Where each longest run of entries begins, and its entries."""
    run: list[bytes] = []
    for at, entry in enumerate([*part, None], first):
        if entry is not None:
            run.append(entry)
        elif run:
            yield at - len(run), run
            run = []


def _contradicted(signed: SignedCheckpoint, arriving: bytes | None) -> CheckpointRefused:
    """Entries that an earlier checkpoint covered are other ones under this one."""
    if arriving is None:  # nobody but this copy puts entries there, and never without the note
        raise LogCorrupt(ARRIVING, "the checkpoint of the entries beyond the copy's own", "none")
    earlier = parse_checkpoint(arriving).checkpoint
    return CheckpointRefused(
        INCONSISTENT,
        f"of {earlier.size} entries the log signed the root {earlier.root.hex()}, and the {signed.checkpoint.size}"
        " it shows now do not begin with them",
        keep_both=True,
        earlier=arriving,
    )


class Growth:
    """Entries on their way into a copy. Mutable; use with `with`, from one thread at a time.

    They wait in a file without a name until all are there: what was sent and never signed leaves nothing behind.
    """

    _kept: IO[bytes]  # while it is open

    def __init__(self, mirror: Mirror, signed: SignedCheckpoint, dropped: Dropped) -> None:
        self._mirror = mirror
        self._signed = signed
        self._dropped = dropped
        self._lacking = False
        self._first = mirror.size
        self._leaves: list[bytes] = []

    @property
    def signed(self) -> SignedCheckpoint:
        """The checkpoint that the copy will stand under."""
        return self._signed

    @property
    def missing(self) -> int:
        """How many entries are still to come."""
        return self._signed.checkpoint.size - self._first - len(self._leaves)

    def add(self, entries: Sequence[bytes]) -> None:
        """The next entries, in order; raises CheckpointRefused if there are more than the checkpoint covers."""
        if len(entries) > self.missing:
            raise CheckpointRefused(
                INCONSISTENT, f"it covers {self._signed.checkpoint.size} entries, and more were sent with it"
            )
        for entry in entries:
            if not 1 <= len(entry) <= ENTRY_BYTES_MAX:
                raise VerificationError("entry", f"1 to {ENTRY_BYTES_MAX} bytes", str(len(entry)))
            self._kept.write(_LENGTH.pack(len(entry)) + entry)
            self._leaves.append(merkle.leaf_hash(entry))

    def add_hashes(self, hashes: Sequence[bytes]) -> None:
        """The hashes of the next leaves, whose entries the log has dropped.

        Raises:
            CheckpointRefused: There are more than the checkpoint covers, or the list that came has other leaves.
        """
        if len(hashes) > self.missing:
            raise CheckpointRefused(
                INCONSISTENT, f"it covers {self._signed.checkpoint.size} entries, and more were sent with it"
            )
        at = self._first + len(self._leaves)
        for leaf, one in enumerate(hashes, at):
            if leaf not in self._dropped:  # nothing is called dropped that no list has
                raise CheckpointRefused(INCONSISTENT, f"of entry {leaf} only a hash came, and it was not dropped")
            self._kept.write(_LENGTH.pack(0))
            self._leaves.append(one)
            self._lacking = True

    def _require_named(self) -> None:
        """A-30: the list of what did not come is one that an entry behind it names, and so one that did come."""
        parts = enumerate(itertools.chain.from_iterable(self._parts()), self._first)
        came = ((leaf, data) for leaf, data in parts if data is not None)
        if not self._dropped.holds(self._mirror.dropped) or applied_by(self._dropped, came) is None:
            raise CheckpointRefused(
                INCONSISTENT,
                f"{self._dropped.count} entries are called dropped, and no retention.applied entry of it says so",
            )

    def complete(self) -> SignedCheckpoint:
        """All entries are there: put them and their checkpoint into the copy, durably.

        Raises:
            CheckpointRefused: Their root is not the checkpoint's, or they are too few; the copy is as it was.
            LogUnwritable: The disk refuses.
        """
        if self.missing:
            raise CheckpointRefused(INCONSISTENT, f"{self.missing} of the entries it covers did not come")
        if self._leaves or not self._mirror.remembered().note:
            if self._lacking:
                self._require_named()
            self._mirror.grow(self._signed, self._leaves, self._parts(), self._dropped if self._lacking else Dropped())
        return self._signed

    def _parts(self) -> Iterator[list[bytes | None]]:
        self._kept.seek(0)
        for at in range(0, len(self._leaves), _AT_ONCE):
            lengths = range(min(_AT_ONCE, len(self._leaves) - at))
            yield [self._next() for _ in lengths]

    def _next(self) -> bytes | None:
        (length,) = _LENGTH.unpack(self._kept.read(_LENGTH.size))
        return self._kept.read(length) if length else None

    def __enter__(self) -> Self:
        # Not before: whoever is cancelled while a thread makes this never gets it, and could not close the file.
        self._kept = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what waits; nothing of it is kept."""
        self._kept.close()

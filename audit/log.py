"""The log: append, integrate, sign, publish, in an order that never signs what is not on the disk.

Log format section 7. One append is
    1 entries durable (one transaction for everybody who is waiting)
    2 entry bundles, then tiles durable
    3 entries, tiles and last checkpoint read back from the disk; the root recomputed from them
    4 signed, and the checkpoint durable
and only then is anybody answered. Any failure stops the log for good in this process (a second fsync may report
success over lost pages); opening it again completes what step 1 had made durable.

Holds against: a disk that loses unsynced writes, a bit that flips between memory and disk before signing, a folder
restored to an older state while its checkpoint is not, two processes at once (threats A-01, A-09).
Does not hold against: a whole folder restored to an older state. Witnesses notice that.
"""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from audit import dropped, merkle, tiles
from audit.checkpoint import Checkpoint, Receipt, SignedCheckpoint, sign_checkpoint, verify_checkpoint
from audit.dropped import Applied, Dropped, EntriesDropped, applied_by
from audit.entries import ENTRY_BYTES_MAX
from audit.errors import AuditError, EntryRefused, LogCorrupt, LogExists, LogFork, LogUnwritable, VerificationError
from audit.key_rotation import stone_path
from audit.note import Note, NoteSigner, NoteVerifier
from audit.storage import CHECKPOINT, Storage, open_storage

_READ = 4096
"""Entries read at a time when the whole log is read."""
_INTENDED = "dropped.intended"
"""The list of a drop, from before the log says that there is to be one."""
_TILES = 64
"""Tiles written at a time, with the bundles beside them: those of an ordinary append all together."""


class LogView:
    """A log as of one checkpoint, to read. `Log` is the one that can also be written."""

    def __init__(self, storage: Storage, verifier: NoteVerifier, also: Sequence[NoteVerifier] = ()) -> None:
        self._storage = storage
        self._verifier = verifier
        self._also = tuple(also)
        self._lock = threading.RLock()
        self._signed = self._load_checkpoint()
        self._tree = merkle.Tree()
        self._dropped = Dropped()
        self._load_dropped(self._signed.checkpoint)
        self._load_tree(self._signed.checkpoint)
        self.applied = self._find_applied()

    @classmethod
    def read(
        cls,
        directory: Path,
        verifier: NoteVerifier,
        entries_url: str | None = None,
        *,
        also: Sequence[NoteVerifier] = (),
    ) -> "LogView":
        """Open a log that another process may be writing; sees it as of its present checkpoint.

        `also`: other keys of the log that are believed, while it changes its key.

        Raises:
            LogCorrupt, LogFork: it is not what its checkpoint says.
        """
        storage = open_storage(directory, entries_url, writable=False)
        try:
            return LogView(storage, verifier, also)
        except AuditError:
            storage.close()
            raise

    @property
    def origin(self) -> str:
        """The log's name for life, which is also its key's name."""
        return self._verifier.name

    @property
    def verifier(self) -> NoteVerifier:
        """The log's public key, the newest one."""
        return self._verifier

    @property
    def verifiers(self) -> tuple[NoteVerifier, ...]:
        """Every key of the log that is believed here, that one first."""
        return (self._verifier, *self._also)

    def stepping_stone(self, leaf: int) -> bytes | None:
        """The checkpoint that was kept of the change of key at a leaf: both keys signed it (`audit.key_rotation`)."""
        return self._storage.read(stone_path(leaf))

    def keep_stepping_stone(self, leaf: int, note: bytes) -> None:
        """Keep one, durably, in the place of an older one."""
        self._storage.write(stone_path(leaf), note)

    @property
    def size(self) -> int:
        """How many entries the present checkpoint covers."""
        return self.checkpoint().checkpoint.size

    def checkpoint(self) -> SignedCheckpoint:
        """The latest signed tree head, durable."""
        with self._lock:
            return self._signed

    @property
    def dropped(self) -> Dropped:
        """The leaves whose entries a retention policy let go; a copy may still have some of them (`known`)."""
        return self._dropped

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Stored bytes of leaves start..stop, of those that the present checkpoint covers.

        Raises:
            EntriesDropped: One of them was dropped; `known` reads the others.
        """
        for leaf, data in enumerate(self.known(start, stop), start):
            if data is None:
                raise EntriesDropped(leaf, leaf)
            yield data

    def leaf_hash(self, index: int) -> bytes:
        """Hash of leaf `index`, whether its entry is there or was dropped."""
        with self._lock:
            return self._tree.leaf(index)

    def known(self, start: int = 0, stop: int | None = None) -> Iterator[bytes | None]:
        """`entries`, with None in place of each that was dropped and is not here any more."""
        size = self.size
        stop = size if stop is None else stop
        if not 0 <= start <= stop <= size:
            raise ValueError(f"the log has entries 0 to {size - 1}, not {start} to {stop - 1}")
        for at in range(start, stop, _READ):
            yield from self._known(at, min(at + _READ, stop))

    def _known(self, start: int, stop: int) -> list[bytes | None]:
        if start >= self._dropped.stop:
            try:
                return [*self._storage.entries(start, stop)]
            except LogCorrupt:
                if start >= self._dropped.stop:  # still: no other thread dropped them meanwhile
                    raise
        rows = dict(self._storage.rows(start, stop))
        gone = self._dropped  # read after the rows: whoever drops says so first
        for leaf in range(start, stop):
            if leaf not in rows and leaf not in gone:
                raise LogCorrupt("entries", f"entry {leaf}", "none")
        return [rows.get(leaf) for leaf in range(start, stop)]

    def inclusion_proof(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """That leaf `index` is under the root of `size` entries (those of the present checkpoint by default)."""
        with self._lock:
            return self._tree.inclusion_proof(index, self._covered(size))

    def consistency_proof(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """That the first `old` entries are a prefix of the first `new` ones."""
        with self._lock:
            return self._tree.consistency_proof(old, self._covered(new))

    def root_at(self, size: int) -> bytes:
        """Root of the first `size` entries."""
        with self._lock:
            return self._tree.root(self._covered(size))

    def receipt(self, index: int) -> Receipt:
        """Proof and checkpoint in one; `.to_bytes()` is the `.tlog-proof` file."""
        with self._lock:
            return Receipt(index=index, proof=self.inclusion_proof(index), signed_checkpoint=self._signed)

    def tile(self, tile: tiles.Tile) -> bytes:
        """A tile of hashes, as published."""
        with self._lock:
            return tile.content(self._tree)

    def fsck(self) -> int:
        """Read everything back and compare with the signed root; returns how many entries were checked.

        Raises:
            LogCorrupt: naming the first file that is missing or differs.
        """
        with self._lock:
            self._storage.check()
            size, root = self._signed.checkpoint.size, self._signed.checkpoint.root
            tree = merkle.Tree()
            for at in range(0, size, _READ):
                tree.extend(self._leaf_hashes(at, min(at + _READ, size)))
            if tree.root() != root:
                raise LogCorrupt("entries", f"root {root.hex()}", tree.root().hex())
            for tile in tiles.tiles_of(size):
                if tile.level == 0 and not self._dropped.lost(tile.number):
                    self._compare(tile.bundle_path(), tiles.pack_bundle(self._stored(tile)))
                self._compare(tile.path(), tile.content(tree))
            return size

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            self._storage.close()

    def _stored(self, tile: tiles.Tile) -> list[bytes]:
        return self._storage.entries(tile.start, tile.start + tile.width)

    def _compare(self, path: str, expected: bytes) -> None:
        found = self._storage.read(path)
        if found is None:
            raise LogCorrupt(path, "a file", "none")
        if found != expected:
            raise LogCorrupt(path, f"SHA-256 {_sha(expected)}", _sha(found))

    def _covered(self, size: int | None) -> int:
        covered = self._signed.checkpoint.size
        if size is None:
            return covered
        if not 0 <= size <= covered:
            raise ValueError(f"the log has {covered} entries, not {size}")
        return size

    def _load_checkpoint(self) -> SignedCheckpoint:
        data = self._storage.read(CHECKPOINT)
        if data is None:
            raise LogCorrupt(CHECKPOINT, "a signed checkpoint", "no file")
        try:
            return verify_checkpoint(data, *self.verifiers)
        except VerificationError as error:
            raise LogCorrupt(CHECKPOINT, error.expected, error.found) from error

    def _load_tree(self, checkpoint: Checkpoint) -> None:
        """Recompute the covered part from the stored entries: start only if it is what was signed.

        Of what was dropped there are the hashes, in the tiles of level 0; a wrong one shows in the root like an entry.
        """
        last = checkpoint.size - 1
        if last >= self._dropped.stop and not self._storage.rows(last, last + 1):
            stored = self._storage.count(self._dropped.stop)
            raise LogFork("entries", f"at least {checkpoint.size} entries", f"{stored}")
        for at in range(0, checkpoint.size, _READ):
            self._tree.extend(self._leaf_hashes(at, min(at + _READ, checkpoint.size)))
        if self._tree.root() != checkpoint.root:
            raise LogFork("entries", f"root {checkpoint.root.hex()}", self._tree.root().hex())

    def _leaf_hashes(self, start: int, stop: int) -> list[bytes]:
        """Of the entries that are there, and from the tiles for those that were dropped; `start` begins a bundle."""
        if start >= self._dropped.stop:
            return merkle.leaf_hashes(self._storage.entries(start, stop))
        hashes: list[bytes] = []
        for at in range(start, stop, tiles.WIDTH):
            known = self._known(at, min(at + tiles.WIDTH, stop))
            of_tile: list[bytes] = []
            if None in known:
                path = tiles.Tile(level=0, number=at // tiles.WIDTH, width=tiles.WIDTH).path()
                data = self._storage.read(path) or b""
                if len(data) != tiles.WIDTH * merkle.HASH_BYTES:
                    raise LogCorrupt(path, "256 hashes, of entries that were dropped", f"{len(data)} bytes")
                of_tile = [data[i : i + merkle.HASH_BYTES] for i in range(0, len(data), merkle.HASH_BYTES)]
            hashes += [of_tile[i] if one is None else merkle.leaf_hash(one) for i, one in enumerate(known)]
        return hashes

    def _load_dropped(self, checkpoint: Checkpoint) -> None:
        """The list of what was dropped, if there is one; in a copy the last that came, if it grew with it."""
        try:
            self._dropped = Dropped.parse(self._storage.read(dropped.FILE) or b"")
            arriving = Dropped.parse(self._storage.read(dropped.ARRIVING) or b"")
        except VerificationError as error:
            raise LogCorrupt(dropped.FILE, error.expected, error.found) from error
        new = arriving != self._dropped and 0 < arriving.stop < checkpoint.size
        if new and applied_by(arriving, self._storage.rows(arriving.stop, checkpoint.size)) is not None:
            self._dropped = arriving
        if self._dropped.stop > checkpoint.size:
            raise LogCorrupt(dropped.FILE, f"leaves below {checkpoint.size}", f"leaf {self._dropped.stop - 1}")

    def _find_applied(self) -> Applied | None:
        """The entry under which entries were dropped: without it, they are missing."""
        if not self._dropped:
            return None
        after = self._dropped.stop
        found = applied_by(self._dropped, enumerate(self.entries(after), after))
        if found is None:
            raise LogCorrupt(dropped.FILE, "a retention.applied entry that names it", self._dropped.digest)
        return found


class _Waiting:
    """Entries of one caller that wait for the next commit."""

    __slots__ = ("entries", "error", "indices")

    def __init__(self, entries: tuple[bytes, ...]) -> None:
        self.entries = entries
        self.indices: tuple[int, ...] | None = None
        self.error: AuditError | None = None


class Log(LogView):
    """A log that this process, and no other, may append to. Its methods may be called from any thread."""

    def __init__(self, storage: Storage, signer: NoteSigner) -> None:
        self._signers: tuple[NoteSigner, ...] = (signer,)  # two while the log changes its key
        self._queue: list[_Waiting] = []
        self._queue_lock = threading.Lock()
        self._stopped: AuditError | None = None
        super().__init__(storage, signer.verifier)
        self._complete_tail()

    @classmethod
    def create(cls, directory: Path, signer: NoteSigner, entries_url: str | None = None) -> "Log":
        """Make an empty log whose origin is the signer's name; finishes a creation that was interrupted.

        `entries_url` is of a PostgreSQL database for the entries; without it they are in the folder too.

        Raises:
            LogExists: there is a log already.
            LogLocked, LogUnwritable: see `audit.errors`.
        """
        storage = open_storage(directory, entries_url, writable=True)
        try:
            return cls.create_on(storage, signer)
        except AuditError:
            storage.close()
            raise

    @classmethod
    def create_on(cls, storage: Storage, signer: NoteSigner) -> "Log":
        """`create` on a storage of the caller's."""
        if storage.read(CHECKPOINT) is not None or storage.count():
            raise LogExists(signer.name)
        empty = Checkpoint(origin=signer.name, size=0, root=merkle.EMPTY_ROOT)
        storage.write(CHECKPOINT, sign_checkpoint(empty, signer).to_bytes())
        return cls(storage, signer)

    @classmethod
    def open(cls, directory: Path, signer: NoteSigner, entries_url: str | None = None) -> "Log":
        """Open for writing: check every entry that was signed, complete the tail that was not.

        Raises:
            LogFork: an entry under the checkpoint is missing or differs.
            LogCorrupt, LogLocked, LogUnwritable: see `audit.errors`.
        """
        try:
            there = (directory / "public" / CHECKPOINT).is_file()
        except OSError as error:
            raise LogUnwritable(directory, error.strerror or str(error)) from error
        if not there and entries_url is None:  # a database has it, too: for a machine that has no such folder yet
            raise LogCorrupt(str(directory), "a log with a checkpoint", "none")
        storage = open_storage(directory, entries_url, writable=True)
        try:
            return cls(storage, signer)
        except AuditError:
            storage.close()
            raise

    def append(self, entries: Sequence[bytes]) -> tuple[int, ...]:
        """Append stored bytes in order; returns their leaf indices once a durable checkpoint covers them.

        Callers that wait at the same time share one commit and one signature.

        Raises:
            EntryRefused: an entry is empty or longer than 65,535 bytes; nothing was written.
            LogUnwritable, LogFork, LogCorrupt: the log stops; nothing was acknowledged.
        """
        for entry in entries:
            if not 1 <= len(entry) <= ENTRY_BYTES_MAX:
                raise EntryRefused("entry", f"{len(entry)} bytes", f"1 to {ENTRY_BYTES_MAX} bytes")
        if not entries:
            return ()
        mine = _Waiting(tuple(entries))
        with self._queue_lock:
            self._queue.append(mine)
        with self._lock:
            if mine.indices is None and mine.error is None:
                self._commit_waiting()
        if mine.error is not None:
            raise mine.error
        assert mine.indices is not None
        return mine.indices

    def sign_with(self, signers: Sequence[NoteSigner], known: Sequence[NoteVerifier] = ()) -> None:
        """Sign with these keys from now on, the newest last; the present checkpoint gets their lines at once.

        Args:
            signers: One key, or two while the log changes its key, all of the log's name.
            known: Other keys it had, which are believed on checkpoints that somebody shows.

        Raises:
            LogUnwritable: The disk refuses; what signed before goes on signing.
        """
        with self._lock:
            lines = {(line.name, line.key_id): line for line in self._signed.note.signatures}
            for signer in signers:
                line = signer.sign(self._signed.note.text)
                lines[(line.name, line.key_id)] = line
            note = Note(text=self._signed.note.text, signatures=tuple(lines.values()))
            if note != self._signed.note:
                self._storage.write(CHECKPOINT, note.to_bytes())
                self._signed = SignedCheckpoint(checkpoint=self._signed.checkpoint, note=note)
            self._signers = tuple(signers)
            self._verifier = signers[-1].verifier
            others = [*(signer.verifier for signer in signers), *known]
            self._also = tuple(dict.fromkeys(one for one in others if one != self._verifier))

    def prepare_drop(self, intended: Dropped) -> None:
        """Keep the list of what is to be dropped, durably, before the log says so.

        A crash between the entry and the drop leaves the list here (`intended`), so that the same drop can be finished.
        """
        with self._lock:
            self._storage.write(_INTENDED, intended.bits)

    def intended(self) -> tuple[Dropped, Applied] | None:
        """A drop that the log has announced, under its present checkpoint, and that has not begun."""
        with self._lock:
            kept = Dropped.parse(self._storage.read(_INTENDED) or b"")
            if not kept or self._dropped.holds(kept) or not kept.holds(self._dropped) or kept.stop > self.size:
                return None
            applied = applied_by(kept, enumerate(self.entries(kept.stop), kept.stop))
            return None if applied is None else (kept, applied)

    def drop(self, leaves: Dropped) -> None:
        """Let go of entries whose list the log names; to be called once witnesses have cosigned that (`audit.dropped`).

        Their hashes are read back from the tiles before anything is removed. Then the list is put in place, durably,
        and from then on the log opens without them: a crash leaves a removal that is finished at the next start.

        Raises:
            EntryRefused: No entry of the log names this list, or it takes back what an earlier one dropped.
            LogCorrupt, LogUnwritable: The disk; the log stops.
        """
        with self._lock:
            if self._stopped is not None:
                raise self._stopped
            size = self.size
            fits = leaves.holds(self._dropped) and 0 < leaves.stop <= size and 0 not in leaves
            applied = applied_by(leaves, enumerate(self.entries(leaves.stop), leaves.stop)) if fits else None
            if applied is None:
                raise EntryRefused(
                    dropped.FILE, leaves.digest, "a list that a retention.applied entry of this log names"
                )
            try:
                self._require_hashes(leaves)
                self._storage.write(dropped.FILE, leaves.bits)
                self._dropped, self.applied = leaves, applied
                self._remove_dropped()
            except AuditError as error:
                self._stopped = error
                raise

    def _require_hashes(self, leaves: Dropped) -> None:
        """What is about to be known by its hash only has that hash on the disk."""
        for number in leaves.bundles():
            tile = tiles.Tile(level=0, number=number, width=tiles.WIDTH)
            self._compare(tile.path(), tile.content(self._tree))

    def _remove_dropped(self) -> None:
        """Remove the entries and the bundles they were in; what was removed before is passed over."""
        runs = list(self._dropped.runs())
        if any(leaf in self._dropped for leaf, _ in self._storage.rows(0, self._dropped.stop)):
            self._storage.drop(runs)
        for number in self._dropped.bundles():
            path = tiles.Tile(level=0, number=number, width=tiles.WIDTH).bundle_path()
            if self._storage.read(path) is not None:
                self._storage.remove(path)

    def stop(self, error: AuditError) -> None:
        """Sign nothing from now on: whoever would append is told this."""
        with self._lock:
            self._stopped = error

    @property
    def stopped(self) -> AuditError | None:
        """Why nothing is signed any more; None while it is."""
        return self._stopped

    def _commit_waiting(self) -> None:
        with self._queue_lock:
            batch, self._queue = self._queue, []
        try:
            first = self._commit([entry for waiting in batch for entry in waiting.entries])
        except BaseException as error:
            stopped = error if isinstance(error, AuditError) else LogUnwritable(self.origin, repr(error))
            self._stopped = stopped  # fatal: what reached the disk is not known until the log is opened again
            for waiting in batch:
                waiting.error = stopped
            if stopped is not error:
                raise
            return
        for waiting in batch:
            waiting.indices = tuple(range(first, first + len(waiting.entries)))
            first += len(waiting.entries)

    def _commit(self, entries: Sequence[bytes]) -> int:
        """All four steps; returns the first entry's leaf index."""
        if self._stopped is not None:
            raise self._stopped
        first = self._signed.checkpoint.size
        self._storage.append(first, entries)
        self._integrate()
        return first

    def _complete_tail(self) -> None:
        """Entries that were durable when the process died but not yet signed: integrate them now.

        Also writes files under the checkpoint that are missing, since they can be derived.
        """
        size = self._signed.checkpoint.size
        for tile in tiles.tiles_of(size):
            if self._storage.read(tile.path()) is None:
                self._storage.write(tile.path(), tile.content(self._tree))
            gone = tile.level == 0 and self._dropped.lost(tile.number)
            if tile.level == 0 and not gone and self._storage.read(tile.bundle_path()) is None:
                self._storage.write(tile.bundle_path(), tiles.pack_bundle(self._stored(tile)))
        self._remove_dropped()
        if self._storage.count(size) > size:
            self._integrate()

    def _integrate(self) -> None:
        """Steps 2 to 4 for every stored entry that the checkpoint does not cover."""
        old = self._signed.checkpoint
        size = self._storage.count(since=old.size)
        recent: list[bytes] = []
        for at in range(old.size, size, _READ):
            part = self._storage.entries(at, min(at + _READ, size))
            self._tree.extend(merkle.leaf_hashes(part))
            recent = recent or part
        new_tiles = list(tiles.tiles_of(size, since=old.size))
        for at in range(0, len(new_tiles), _TILES):
            self._storage.write_all(list(self._derived(new_tiles[at : at + _TILES], old.size, recent)))
        checkpoint = Checkpoint(origin=self.origin, size=size, root=self._tree.root(size))
        self._check_disk(old, checkpoint, new_tiles)
        signed = sign_checkpoint(checkpoint, *self._signers)
        self._storage.write(CHECKPOINT, signed.to_bytes())
        self._signed = signed
        for tile in new_tiles:
            if tile.width == tiles.WIDTH:
                self._storage.prune(tile.path())
                self._storage.prune(tile.bundle_path())

    def _derived(
        self, some_tiles: Sequence[tiles.Tile], first: int, recent: Sequence[bytes]
    ) -> Iterator[tuple[str, bytes]]:
        """Path and content of tiles and of the bundles beside them; `recent` are leaves from `first` on, as stored."""
        for tile in some_tiles:
            if tile.level == 0:
                stop = tile.start + tile.width
                if stop <= first + len(recent):  # as always but for a long tail
                    older = self._storage.entries(tile.start, first) if tile.start < first else []
                    bundle = [*older, *recent[max(tile.start - first, 0) : stop - first]]
                else:
                    bundle = self._stored(tile)
                yield tile.bundle_path(), tiles.pack_bundle(bundle)
            yield tile.path(), tile.content(self._tree)

    def _check_disk(self, old: Checkpoint, new: Checkpoint, new_tiles: Sequence[tiles.Tile]) -> None:
        """Step 3: what will be signed is what the disk holds, and extends what was signed before."""
        found = self._load_checkpoint().checkpoint
        if found != old:
            raise LogFork(CHECKPOINT, f"size {old.size}, root {old.root.hex()}", f"{found.size}, {found.root.hex()}")
        for tile in new_tiles:
            if tile.level == 0:
                bundle = tiles.unpack_bundle(self._must_read(tile.bundle_path()), tile.bundle_path())
                leaves = b"".join(merkle.leaf_hashes(bundle))
                self._compare(tile.path(), leaves)
        try:
            root = tiles.root_from_edge(new.size, lambda tile: self._must_read(tile.path()))
            if root != new.root:
                raise LogFork("tiles", f"root {new.root.hex()}", root.hex())
            if old.size:
                proof = self._tree.consistency_proof(old.size, new.size)
                merkle.verify_consistency(old=old.size, new=new.size, old_root=old.root, new_root=new.root, proof=proof)
        except VerificationError as error:
            raise LogFork(error.step, error.expected, error.found) from error

    def _must_read(self, path: str) -> bytes:
        data = self._storage.read(path)
        if data is None:
            raise LogUnwritable(path, "a file that was just written is gone")
        return data


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

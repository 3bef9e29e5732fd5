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

from audit import merkle, tiles
from audit.checkpoint import Checkpoint, Receipt, SignedCheckpoint, sign_checkpoint, verify_checkpoint
from audit.entries import ENTRY_BYTES_MAX
from audit.errors import AuditError, EntryRefused, LogCorrupt, LogExists, LogFork, LogUnwritable, VerificationError
from audit.note import NoteSigner, NoteVerifier
from audit.storage import CHECKPOINT, DirectoryStorage, Storage

_READ = 4096
"""Entries read at a time when the whole log is read."""


class LogView:
    """A log as of one checkpoint, to read. `Log` is the one that can also be written."""

    def __init__(self, storage: Storage, verifier: NoteVerifier) -> None:
        self._storage = storage
        self._verifier = verifier
        self._lock = threading.RLock()
        self._signed = self._load_checkpoint()
        self._tree = merkle.Tree()
        self._load_tree(self._signed.checkpoint)

    @classmethod
    def read(cls, directory: Path, verifier: NoteVerifier) -> "LogView":
        """Open a log that another process may be writing; sees it as of its present checkpoint.

        Raises:
            LogCorrupt, LogFork: it is not what its checkpoint says.
        """
        storage = DirectoryStorage(directory, writable=False)
        try:
            return LogView(storage, verifier)
        except AuditError:
            storage.close()
            raise

    @property
    def origin(self) -> str:
        """The log's name for life, which is also its key's name."""
        return self._verifier.name

    @property
    def verifier(self) -> NoteVerifier:
        """The log's public key."""
        return self._verifier

    @property
    def size(self) -> int:
        """How many entries the present checkpoint covers."""
        return self.checkpoint().checkpoint.size

    def checkpoint(self) -> SignedCheckpoint:
        """The latest signed tree head, durable."""
        with self._lock:
            return self._signed

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Stored bytes of leaves start..stop, of those that the present checkpoint covers."""
        size = self.size
        stop = size if stop is None else stop
        if not 0 <= start <= stop <= size:
            raise ValueError(f"the log has entries 0 to {size - 1}, not {start} to {stop - 1}")
        for at in range(start, stop, _READ):
            yield from self._storage.entries(at, min(at + _READ, stop))

    def inclusion_proof(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """That leaf `index` is under the root of `size` entries (those of the present checkpoint by default)."""
        with self._lock:
            return self._tree.inclusion_proof(index, self._covered(size))

    def consistency_proof(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """That the first `old` entries are a prefix of the first `new` ones."""
        with self._lock:
            return self._tree.consistency_proof(old, self._covered(new))

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
            tree = merkle.Tree(merkle.leaf_hash(entry) for entry in self.entries())
            size, root = self._signed.checkpoint.size, self._signed.checkpoint.root
            if tree.root() != root:
                raise LogCorrupt("entries.sqlite3", f"root {root.hex()}", tree.root().hex())
            for tile in tiles.tiles_of(size):
                if tile.level == 0:
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
            return verify_checkpoint(data, self._verifier)
        except VerificationError as error:
            raise LogCorrupt(CHECKPOINT, error.expected, error.found) from error

    def _load_tree(self, checkpoint: Checkpoint) -> None:
        """Recompute the covered part from the stored entries: start only if it is what was signed."""
        stored = self._storage.count()
        if stored < checkpoint.size:
            raise LogFork("entries.sqlite3", f"at least {checkpoint.size} entries", f"{stored}")
        for at in range(0, checkpoint.size, _READ):
            part = self._storage.entries(at, min(at + _READ, checkpoint.size))
            self._tree.extend(merkle.leaf_hash(entry) for entry in part)
        if self._tree.root() != checkpoint.root:
            raise LogFork("entries.sqlite3", f"root {checkpoint.root.hex()}", self._tree.root().hex())


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
        self._signer = signer
        self._queue: list[_Waiting] = []
        self._queue_lock = threading.Lock()
        self._stopped: AuditError | None = None
        super().__init__(storage, signer.verifier)
        self._complete_tail()

    @classmethod
    def create(cls, directory: Path, signer: NoteSigner) -> "Log":
        """Make an empty log whose origin is the signer's name; finishes a creation that was interrupted.

        Raises:
            LogExists: there is a log already.
            LogLocked, LogUnwritable: see `audit.errors`.
        """
        storage = DirectoryStorage(directory, writable=True)
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
    def open(cls, directory: Path, signer: NoteSigner) -> "Log":
        """Open for writing: check every entry that was signed, complete the tail that was not.

        Raises:
            LogFork: an entry under the checkpoint is missing or differs.
            LogCorrupt, LogLocked, LogUnwritable: see `audit.errors`.
        """
        if not (directory / "public" / CHECKPOINT).is_file():
            raise LogCorrupt(str(directory), "a log with a checkpoint", "none")
        storage = DirectoryStorage(directory, writable=True)
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
            if tile.level == 0 and self._storage.read(tile.bundle_path()) is None:
                self._storage.write(tile.bundle_path(), tiles.pack_bundle(self._stored(tile)))
        if self._storage.count() > size:
            self._integrate()

    def _integrate(self) -> None:
        """Steps 2 to 4 for every stored entry that the checkpoint does not cover."""
        old = self._signed.checkpoint
        size = self._storage.count(since=old.size)
        for at in range(old.size, size, _READ):
            part = self._storage.entries(at, min(at + _READ, size))
            self._tree.extend(merkle.leaf_hash(entry) for entry in part)
        new_tiles = list(tiles.tiles_of(size, since=old.size))
        for tile in new_tiles:
            if tile.level == 0:
                self._storage.write(tile.bundle_path(), tiles.pack_bundle(self._stored(tile)))
            self._storage.write(tile.path(), tile.content(self._tree))
        checkpoint = Checkpoint(origin=self.origin, size=size, root=self._tree.root(size))
        self._check_disk(old, checkpoint, new_tiles)
        signed = sign_checkpoint(checkpoint, self._signer)
        self._storage.write(CHECKPOINT, signed.to_bytes())
        self._signed = signed
        for tile in new_tiles:
            if tile.width == tiles.WIDTH:
                self._storage.prune(tile.path())
                self._storage.prune(tile.bundle_path())

    def _check_disk(self, old: Checkpoint, new: Checkpoint, new_tiles: Sequence[tiles.Tile]) -> None:
        """Step 3: what will be signed is what the disk holds, and extends what was signed before."""
        found = self._load_checkpoint().checkpoint
        if found != old:
            raise LogFork(CHECKPOINT, f"size {old.size}, root {old.root.hex()}", f"{found.size}, {found.root.hex()}")
        for tile in new_tiles:
            if tile.level == 0:
                bundle = tiles.unpack_bundle(self._must_read(tile.bundle_path()), tile.bundle_path())
                leaves = b"".join(merkle.leaf_hash(entry) for entry in bundle)
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

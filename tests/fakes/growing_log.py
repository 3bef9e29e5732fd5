"""A log in memory that grows, and can be made to lie: what a coordinator would answer to FollowLog.

log = GrowingLog()
log.add(b'{...}')
growth, parts = log.since(0)
log.forked(at=3)             # another log, with the same key, that differs from entry 3 on
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import merkle
from audit.checkpoint import Checkpoint, sign_checkpoint
from audit.cosignature import WitnessSigner
from audit.dropped import Dropped
from audit.note import Note, NoteSigner
from consortium.contract.messages import DroppedLeaves, LogGrowth

ORIGIN = "fl.example.org/log"
SIGNER = NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32))
NOW = 1_780_000_000


@dataclass
class GrowingLog:
    """Entries under the true log's key. Mutable: tests add to it."""

    entries: list[bytes] = field(default_factory=list)
    signers: tuple[NoteSigner, ...] = (SIGNER,)
    dropped: Dropped = field(default_factory=Dropped)  # of these it gives a hash in place of the entry

    def add(self, *entries: bytes) -> None:
        self.entries += entries

    def forked(self, *, at: int, entry: bytes = b'{"actor":"coordinator","type":"another","body":{}}') -> "GrowingLog":
        """The same history before `at`, and another one from there."""
        return replace(self, entries=[*self.entries[:at], entry, *self.entries[at + 1 :]])

    def tree(self) -> merkle.Tree:
        return merkle.Tree(merkle.leaf_hash(entry) for entry in self.entries)

    def note(self, size: int | None = None) -> bytes:
        """The checkpoint of the first `size` entries, signed."""
        size = len(self.entries) if size is None else size
        checkpoint = Checkpoint(origin=ORIGIN, size=size, root=self.tree().root(size))
        return sign_checkpoint(checkpoint, *self.signers).to_bytes()

    def proof(self, old: int) -> tuple[bytes, ...]:
        return self.tree().consistency_proof(old, len(self.entries))

    def since(self, old: int, *cosigned: bytes) -> tuple[LogGrowth, Sequence[bytes]]:
        """What FollowLog answers to a copy of `old` entries."""
        proof = self.proof(old) if old <= len(self.entries) else ()
        listed = self.dropped.bits if old < self.dropped.stop else b""
        return LogGrowth(note=self.note(), proof=proof, cosigned=cosigned, dropped=listed), self.entries[old:]

    def parts(self, old: int, missing: Sequence[bytes]) -> Iterator[tuple[bytes, ...] | DroppedLeaves]:
        """The messages that follow `since`: of entries, or of the hashes of dropped ones."""
        leaves = enumerate(missing, old)
        for gone, run in groupby(leaves, lambda one: one[0] in self.dropped):
            entries = tuple(entry for _, entry in run)
            yield DroppedLeaves(hashes=tuple(map(merkle.leaf_hash, entries))) if gone else entries

    def cosigned_by(self, *witnesses: WitnessSigner, size: int | None = None) -> bytes:
        """Its checkpoint with lines of witnesses."""
        signed = sign_checkpoint(
            Checkpoint(
                origin=ORIGIN,
                size=len(self.entries) if size is None else size,
                root=self.tree().root(size),
            ),
            *self.signers,
        )
        lines = tuple(one.cosign(signed.note.text, NOW) for one in witnesses)
        return Note(text=signed.note.text, signatures=(*signed.note.signatures, *lines)).to_bytes()


def witness_of(site: str, seed: int) -> WitnessSigner:
    """A hospital's witness key."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return WitnessSigner(f"{ORIGIN}/witness/{site}", key)

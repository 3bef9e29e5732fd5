"""The Merkle tree of RFC 6962 section 2.1 (= RFC 9162 section 2.1): hashes, roots, proofs. Pure.

Log format section 1. Every hash is 32 bytes, SHA-256.
    leaf hash = SHA-256(0x00 || entry)        node hash = SHA-256(0x01 || left || right)
A lone node is promoted, never doubled. The two prefixes are what stops an inner node from passing as an entry.

Verification raises `VerificationError`; nothing here returns a bool.
"""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import islice

from audit.errors import VerificationError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
PROOF_HASHES_MAX = 64
"""A tree of 2^64 leaves has no longer path; longer proofs are refused unread."""
_LEAVES = 65_536
"""Leaf hashes put into a tree at a time."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash of one entry's stored bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    """`leaf_hash` of each."""
    sha256 = hashlib.sha256
    return [sha256(b"\x00" + entry).digest() for entry in entries]


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node, from the two 32-byte hashes below it."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def fold(peaks: Sequence[bytes]) -> bytes:
    """Root over complete subtrees, largest (leftmost) first; the empty tree for none."""
    if not peaks:
        return EMPTY_ROOT
    result = peaks[-1]
    for left in reversed(peaks[:-1]):
        result = node_hash(left, result)
    return result


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """Root of a tree given all its leaf hashes; holds one hash per level in memory."""
    stack: list[tuple[int, bytes]] = []
    for leaf in leaf_hashes:
        level, value = 0, leaf
        while stack and stack[-1][0] == level:
            value = node_hash(stack.pop()[1], value)
            level += 1
        stack.append((level, value))
    return fold([value for _, value in stack])


class Tree:
    """A growing tree that answers for every size it has ever had.

    It owns the one mutable thing of this module: per level, the hashes of all complete subtrees of 2^level leaves,
    packed 32 bytes each (64 bytes per leaf in all, so 64 MB for a million entries).
    """

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        self._levels: list[bytearray] = [bytearray()]
        self.extend(leaf_hashes)

    @property
    def size(self) -> int:
        """How many leaves."""
        return len(self._levels[0]) // HASH_BYTES

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Append leaves; one hash for each node that is complete by then."""
        leaves = iter(leaf_hashes)
        while part := list(islice(leaves, _LEAVES)):
            for leaf in part:
                if len(leaf) != HASH_BYTES:
                    raise ValueError(f"a leaf hash has 32 bytes, this has {len(leaf)}")
            self._levels[0] += b"".join(part)
            self._complete_pairs()

    def _complete_pairs(self) -> None:
        """Level by level, the parents of pairs that have none yet."""
        sha256, level = hashlib.sha256, 0
        while len(below := self._levels[level]) >= 2 * HASH_BYTES:
            level += 1
            if level == len(self._levels):
                self._levels.append(bytearray())
            above = self._levels[level]
            stop = len(below) & -(2 * HASH_BYTES)
            above += b"".join(
                [sha256(b"\x01" + below[at : at + 64]).digest() for at in range(2 * len(above), stop, 2 * HASH_BYTES)]
            )

    def truncate(self, size: int) -> None:
        """Forget every leaf from `size` on."""
        self._known(size)
        for level, hashes in enumerate(self._levels):
            del hashes[(size >> level) * HASH_BYTES :]

    def complete(self, level: int, index: int) -> bytes:
        """Hash of the complete subtree of 2^level leaves that starts at leaf index * 2^level."""
        if not 0 <= index < (self.size >> level):
            raise ValueError(f"there is no complete subtree {index} of level {level} in {self.size} leaves")
        start = index * HASH_BYTES
        return bytes(self._levels[level][start : start + HASH_BYTES])

    def hashes(self, level: int, start: int, stop: int) -> bytes:
        """`complete` of start..stop, one after the other."""
        if not 0 <= start <= stop <= (self.size >> level):
            raise ValueError(f"there are no subtrees {start} to {stop} of level {level} in {self.size} leaves")
        return bytes(self._levels[level][start * HASH_BYTES : stop * HASH_BYTES]) if stop > start else b""

    def leaf(self, index: int) -> bytes:
        """Hash of leaf `index`."""
        return self.complete(0, index)

    def subtree(self, start: int, stop: int) -> bytes:
        """Root over leaves start..stop, where start is a multiple of the largest power of two in the range's path."""
        peaks: list[bytes] = []
        while start < stop:
            level = (stop - start).bit_length() - 1
            peaks.append(self.complete(level, start >> level))
            start += 1 << level
        return fold(peaks)

    def root(self, size: int | None = None) -> bytes:
        """Root of the first `size` leaves (all of them by default)."""
        return self.subtree(0, self._known(self.size if size is None else size))

    def inclusion_proof(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """PATH(index, D[0:size]): the leaf's sibling first. At most 20 hashes for a million leaves."""
        size = self._known(self.size if size is None else size)
        if not 0 <= index < size:
            raise ValueError(f"leaf {index} is not among the first {size}")
        start, stop = 0, size
        path: list[bytes] = []
        while stop - start > 1:
            middle = start + _split(stop - start)
            if index < middle:
                path.append(self.subtree(middle, stop))
                stop = middle
            else:
                path.append(self.subtree(start, middle))
                start = middle
        return tuple(reversed(path))

    def consistency_proof(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """PROOF(old, D[0:new]): that the first `old` leaves are a prefix. Empty when old is 0 or equals new."""
        new = self._known(self.size if new is None else new)
        if not 0 <= old <= new:
            raise ValueError(f"size {old} is not a prefix of size {new}")
        if old in {0, new}:
            return ()
        start, stop, whole = 0, new, True
        path: list[bytes] = []
        while old != stop:
            middle = start + _split(stop - start)
            if old <= middle:
                path.append(self.subtree(middle, stop))
                stop = middle
            else:
                path.append(self.subtree(start, middle))
                start, whole = middle, False
        if not whole:
            path.append(self.subtree(start, stop))
        return tuple(reversed(path))

    def _known(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise ValueError(f"the tree has {self.size} leaves, not {size}")
        return size


def _split(count: int) -> int:
    """Largest power of two strictly below `count` (count >= 2)."""
    return 1 << ((count - 1).bit_length() - 1)


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """RFC 9162 section 2.1.3.2: the leaf hash is at `index` in the tree of `size` leaves with this root.

    Raises:
        VerificationError: in every other case.
    """
    step = f"inclusion of leaf {index} in a tree of {size}"
    _check_proof(step, proof)
    if not 0 <= index < size:
        raise VerificationError(step, f"an index below {size}", str(index))
    fn, sn, result = index, size - 1, leaf
    for part in proof:
        if sn == 0:
            raise VerificationError(step, "a shorter proof", f"{len(proof)} hashes")
        if fn & 1 or fn == sn:
            result = node_hash(part, result)
            while not fn & 1 and fn:  # only when fn == sn: the path climbs past levels where this node was alone
                fn, sn = fn >> 1, sn >> 1
        else:
            result = node_hash(result, part)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise VerificationError(step, "a longer proof", f"{len(proof)} hashes")
    if result != root:
        raise VerificationError(step, f"root {root.hex()}", result.hex())


def verify_consistency(*, old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """RFC 9162 section 2.1.4.2: the tree of `old` leaves is a prefix of the tree of `new` leaves.

    | old, new  | accepted with                                  |
    |-----------|------------------------------------------------|
    | 0, any    | never: an empty tree says nothing              |
    | n, n      | an empty proof and equal roots                 |
    | n, m < n  | never                                          |

    Raises:
        VerificationError: in every other case.
    """
    step = f"consistency of size {old} with size {new}"
    _check_proof(step, proof)
    if old < 1 or new < old:
        raise VerificationError(step, "1 <= old size <= new size", f"{old} and {new}")
    if old == new:
        if proof:
            raise VerificationError(step, "an empty proof", f"{len(proof)} hashes")
        if old_root != new_root:
            raise VerificationError(step, f"root {old_root.hex()}", new_root.hex())
        return
    if not proof:
        raise VerificationError(step, "a proof", "an empty one")
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for part in path[1:]:
        if sn == 0:
            raise VerificationError(step, "a shorter proof", f"{len(proof)} hashes")
        if fn & 1 or fn == sn:
            first, second = node_hash(part, first), node_hash(part, second)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = node_hash(second, part)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise VerificationError(step, "a longer proof", f"{len(proof)} hashes")
    if first != old_root:
        raise VerificationError(step, f"old root {old_root.hex()}", first.hex())
    if second != new_root:
        raise VerificationError(step, f"new root {new_root.hex()}", second.hex())


def _check_proof(step: str, proof: Sequence[bytes]) -> None:
    if len(proof) > PROOF_HASHES_MAX:
        raise VerificationError(step, f"at most {PROOF_HASHES_MAX} hashes", str(len(proof)))
    if any(len(part) != HASH_BYTES for part in proof):
        raise VerificationError(step, "hashes of 32 bytes", "another length")

"""Whatever is dropped, of a log of any size: its root, every proof and every entry that stays are what they were."""

import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import merkle
from audit.dropped import Dropped
from audit.log import Log
from audit.note import NoteSigner
from tests.fakes.old_log import OldConsortium, applied

SIGNER = NoteSigner("fl.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes([5]) * 32))
ENTRIES = [b'{"n":%d}' % at for at in range(620)]


@st.composite
def drops(draw: st.DrawFn) -> tuple[int, Dropped]:
    """A log's size, and some leaves of its whole bundles, not the first."""
    size = draw(st.integers(256, 600))
    runs = draw(st.lists(st.tuples(st.integers(1, size // 256 * 256 - 1), st.integers(1, 300)), min_size=1, max_size=5))
    leaves = {leaf for first, count in runs for leaf in range(first, min(first + count, size // 256 * 256))}
    return size, Dropped.of(sorted(leaves))


@settings(max_examples=5, deadline=None)
@given(drops(), st.data())
def test_root_proofs_and_what_stays_are_as_before(case: tuple[int, Dropped], data: st.DataObject) -> None:
    size, leaves = case
    tree = merkle.Tree(merkle.leaf_hashes(ENTRIES[:size]))
    with tempfile.TemporaryDirectory() as folder:
        log = Log.create(Path(folder), SIGNER)
        log.append(ENTRIES[:size])
        log.append([applied(OldConsortium(), leaves)])
        log.drop(leaves)
        log.append(ENTRIES[size:])
        log.close()
        log = Log.open(Path(folder), SIGNER)
        assert log.root_at(size) == tree.root()
        assert log.fsck() == log.size
        kept = [None if leaf in leaves else entry for leaf, entry in enumerate(ENTRIES[:size])]
        assert list(log.known(0, size)) == kept
        for leaf in data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20)):
            proof = log.inclusion_proof(leaf, size)
            assert proof == tree.inclusion_proof(leaf, size)
            hashed = merkle.leaf_hash(ENTRIES[leaf])
            merkle.verify_inclusion(leaf=hashed, index=leaf, size=size, proof=proof, root=tree.root())
            assert log.consistency_proof(leaf + 1, size) == tree.consistency_proof(leaf + 1, size)
        log.close()


@settings(max_examples=25)
@given(st.sets(st.integers(1, 2000), max_size=40))
def test_a_list_says_the_leaves_it_was_made_of(leaves: set[int]) -> None:
    made = Dropped.of(sorted(leaves))
    assert Dropped.parse(made.bits) == made
    assert {leaf for first, last in made.runs() for leaf in range(first, last + 1)} == leaves
    assert made.count == len(leaves)
    assert all(leaf in made for leaf in leaves)

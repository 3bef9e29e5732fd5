"""For any tree: proofs made by `Tree` verify, no other proof does, and verify.py's own arithmetic agrees."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import merkle, tiles, verify
from audit.errors import VerificationError

SIZES = st.integers(min_value=1, max_value=600)


def leaves(size: int) -> list[bytes]:
    return [hashlib.sha256(size.to_bytes(4) + number.to_bytes(4)).digest() for number in range(size)]


@given(size=SIZES, data=st.data())
def test_inclusion(size, data):
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    hashes = leaves(size)
    tree = merkle.Tree(hashes)
    proof, root = tree.inclusion_proof(index), tree.root()
    assert root == merkle.root(hashes) == verify.tree_root(hashes)
    assert len(proof) <= max(1, (size - 1).bit_length())
    merkle.verify_inclusion(leaf=hashes[index], index=index, size=size, proof=proof, root=root)
    verify.check_inclusion("test", hashes[index], proof, index=index, size=size, root=root)


@given(size=SIZES, data=st.data())
def test_consistency(size, data):
    old = data.draw(st.integers(min_value=1, max_value=size))
    hashes = leaves(size)
    tree = merkle.Tree(hashes)
    proof = tree.consistency_proof(old)
    before, after = merkle.root(hashes[:old]), tree.root()
    merkle.verify_consistency(old=old, new=size, old_root=before, new_root=after, proof=proof)
    verify.check_consistency("test", proof, old=old, new=size, old_root=before, new_root=after)


@given(size=st.integers(min_value=2, max_value=300), data=st.data())
def test_one_flipped_bit_spoils_a_proof(size, data):
    index = data.draw(st.integers(min_value=0, max_value=size - 1))
    tree = merkle.Tree(leaves(size))
    proof = list(tree.inclusion_proof(index))
    part = data.draw(st.integers(min_value=0, max_value=len(proof) - 1))
    bit = data.draw(st.integers(min_value=0, max_value=255))
    proof[part] = (int.from_bytes(proof[part]) ^ (1 << bit)).to_bytes(32)
    with pytest.raises(VerificationError):
        merkle.verify_inclusion(leaf=tree.leaf(index), index=index, size=size, proof=proof, root=tree.root())
    with pytest.raises(verify.Failure):
        verify.check_inclusion("test", tree.leaf(index), proof, index=index, size=size, root=tree.root())


@given(size=SIZES, data=st.data())
def test_a_tree_that_forgot_a_leaf_is_not_consistent(size, data):
    old = data.draw(st.integers(min_value=1, max_value=size))
    hashes = leaves(size)
    changed = data.draw(st.integers(min_value=0, max_value=old - 1))
    other = merkle.Tree([hashlib.sha256(b"other").digest() if n == changed else h for n, h in enumerate(hashes)])
    with pytest.raises(VerificationError):
        merkle.verify_consistency(
            old=old,
            new=size,
            old_root=merkle.root(hashes[:old]),
            new_root=other.root(),
            proof=other.consistency_proof(old),
        )


@given(sizes=st.lists(st.integers(min_value=0, max_value=200), max_size=5))
def test_growing_in_parts_changes_nothing(sizes):
    tree = merkle.Tree()
    for size in sizes:
        tree.extend(leaves(size))
    whole = [leaf for size in sizes for leaf in leaves(size)]
    assert tree.root() == merkle.root(whole)
    assert tree.size == len(whole)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(min_value=0, max_value=70_000))
def test_the_right_edge_alone_determines_the_root(size):
    tree = merkle.Tree(hashlib.sha256(b"%d" % number).digest() for number in range(size))
    assert tiles.root_from_edge(size, lambda tile: tile.content(tree)) == tree.root()

"""audit/merkle.py against vectors made from the RFC's own recursive definitions, and against what it must refuse."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from audit import merkle
from audit.errors import VerificationError

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors/audit/merkle.json").read_text(encoding="utf-8")
)
HASHES = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]]
ROOTS = {int(size): bytes.fromhex(root) for size, root in VECTORS["roots"].items()}


def test_roots_known_since_certificate_transparency():
    assert ROOTS[1].hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert ROOTS[2].hex() == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert ROOTS[8].hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@pytest.mark.parametrize("size", range(9))
def test_roots(size):
    assert merkle.root(HASHES[:size]) == ROOTS[size]
    assert merkle.Tree(HASHES[:size]).root() == ROOTS[size]
    assert merkle.Tree(HASHES).root(size) == ROOTS[size]


def test_inclusion_vectors():
    tree = merkle.Tree(HASHES)
    for case in VECTORS["inclusion"]:
        proof = tree.inclusion_proof(case["index"], case["size"])
        assert [part.hex() for part in proof] == case["proof"]
        merkle.verify_inclusion(
            leaf=HASHES[case["index"]], index=case["index"], size=case["size"], proof=proof, root=ROOTS[case["size"]]
        )


def test_consistency_vectors():
    tree = merkle.Tree(HASHES)
    for case in VECTORS["consistency"]:
        proof = tree.consistency_proof(case["old"], case["new"])
        assert [part.hex() for part in proof] == case["proof"]
        merkle.verify_consistency(
            old=case["old"], new=case["new"], old_root=ROOTS[case["old"]], new_root=ROOTS[case["new"]], proof=proof
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": 5}, "root"),
        ({"index": 7}, "an index below 7"),
        ({"index": -1}, "an index below 7"),
        ({"proof": ()}, "a longer proof"),
        ({"proof": (bytes(32),) * 4}, "a shorter proof"),
        ({"proof": (bytes(31),) * 3}, "hashes of 32 bytes"),
        ({"proof": (bytes(32),) * 65}, "at most 64 hashes"),
        ({"root": bytes(32)}, "root"),
        ({"leaf": bytes(32)}, "root"),
        ({"size": 4}, "a shorter proof"),
    ],
)
def test_wrong_inclusion_is_refused(change, message):
    proof = merkle.Tree(HASHES).inclusion_proof(2, 7)
    right = {"leaf": HASHES[2], "index": 2, "size": 7, "proof": proof, "root": ROOTS[7]}
    with pytest.raises(VerificationError, match=message):
        merkle.verify_inclusion(**(right | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"old": 0}, "1 <= old size"),
        ({"old": 0, "new": 0}, "1 <= old size"),
        ({"old": 8}, "1 <= old size"),
        ({"proof": ()}, "a proof"),
        ({"old": 7}, "an empty proof"),
        ({"old_root": bytes(32)}, "old root"),
        ({"new_root": bytes(32)}, "new root"),
        ({"proof": (bytes(32),) * 9}, "a shorter proof"),
        ({"proof": (bytes(32),)}, "a longer proof"),
        ({"old": 4, "proof": (HASHES[0],)}, "root|longer"),
    ],
)
def test_wrong_consistency_is_refused(change, message):
    proof = merkle.Tree(HASHES).consistency_proof(3, 7)
    right = {"old": 3, "new": 7, "old_root": ROOTS[3], "new_root": ROOTS[7], "proof": proof}
    with pytest.raises(VerificationError, match=message):
        merkle.verify_consistency(**(right | change))


def test_equal_sizes_need_equal_roots():
    merkle.verify_consistency(old=3, new=3, old_root=ROOTS[3], new_root=ROOTS[3], proof=())
    with pytest.raises(VerificationError, match="root"):
        merkle.verify_consistency(old=3, new=3, old_root=ROOTS[3], new_root=ROOTS[4], proof=())


def test_questions_outside_the_tree():
    tree = merkle.Tree(HASHES)
    for question in (
        lambda: tree.root(9),
        lambda: tree.inclusion_proof(3, 3),
        lambda: tree.consistency_proof(5, 4),
        lambda: tree.leaf(8),
        lambda: tree.extend([b"short"]),
    ):
        with pytest.raises(ValueError, match=re.compile("tree|among|prefix|complete|32 bytes")):
            question()
    assert tree.size == 8


def test_an_inner_node_is_not_a_leaf():
    # The one-byte prefixes: without them a 64-byte entry could pass for two hashes.
    left, right = HASHES[:2]
    assert merkle.node_hash(left, right) != merkle.leaf_hash(left + right)


class Sized(merkle.Tree):
    """A tree of a million leaves that has only its size: how long a proof is depends on nothing else."""

    size = 1_000_000

    def subtree(self, start, stop):
        return bytes(32)


def test_proofs_at_a_million_leaves_have_at_most_twenty_hashes():
    tree = Sized()
    lengths = {len(tree.inclusion_proof(index)) for index in (0, 2**19 - 1, 2**19, *range(0, tree.size, 997), 999_999)}
    assert max(lengths) == 20
    assert max(len(tree.consistency_proof(old)) for old in range(1, tree.size, 1013)) <= 21
    small = merkle.Tree(HASHES[0] for _ in range(70_000))
    assert len(small.inclusion_proof(0)) == 17
    assert len(small.consistency_proof(700)) == 16


def test_many_leaves_at_once_make_the_same_tree_as_one_by_one():
    leaves = [hashlib.sha256(b"%d" % number).digest() for number in range(70)]
    grown = merkle.Tree()
    for leaf in leaves:
        grown.extend([leaf])
    for cut in range(70):
        tree = merkle.Tree(leaves[:cut])
        tree.extend(leaves[cut:])
        assert [tree.root(size) for size in range(71)] == [grown.root(size) for size in range(71)]
    assert tree.root() == merkle.root(leaves)
    assert tree.hashes(1, 3, 9) == b"".join(tree.complete(1, index) for index in range(3, 9))
    assert tree.hashes(9, 0, 0) == b""

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


def test_proofs_at_a_million_leaves_have_at_most_twenty_hashes():
    size = 1_000_000
    leaf = hashlib.sha256(b"leaf").digest()
    tree = merkle.Tree()
    tree.extend(leaf for _ in range(70_000))
    assert len(tree.inclusion_proof(0)) == 17
    assert len(tree.consistency_proof(700)) == 16
    assert (size - 1).bit_length() == 20

"""audit/witness.py: the table of refusals in log format section 9, one row each."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import merkle
from audit.checkpoint import Checkpoint, sign_checkpoint
from audit.note import NoteSigner
from audit.witness import CheckpointRefused, Remembered, Request, judge

LOG = NoteSigner("fl.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32))
LEAVES = [merkle.leaf_hash(bytes([at])) for at in range(9)]


def tree(count, *, other=()):
    found = merkle.Tree(LEAVES[:count])
    found.extend(merkle.leaf_hash(b"other" + bytes([at])) for at in other)
    return found


def note(leaves, *, size=None, signer=LOG, root=None) -> bytes:
    size = size if size is not None else leaves.size
    return sign_checkpoint(
        Checkpoint(origin=signer.name, size=size, root=root if root is not None else leaves.root(size)), signer
    ).to_bytes()


def asked(old, new, leaves=None):
    leaves = leaves or tree(new)
    proof = leaves.consistency_proof(old, new) if 0 < old < new else ()
    return Request(old_size=old, proof=tuple(proof), note=note(leaves, size=new))


def after(size):
    return judge(Remembered(), asked(0, size), LOG.verifier)[0]


def refused(remembered, request, log=LOG.verifier):
    with pytest.raises(CheckpointRefused) as caught:
        judge(remembered, request, log)
    return caught.value


@pytest.mark.parametrize("old", range(10))
def test_a_log_that_grew_is_cosigned(old):
    remembered = after(old) if old else Remembered()
    for new in range(max(old, 1), 10):
        next_one, signed = judge(remembered, asked(old, new), LOG.verifier)
        assert (next_one.size, next_one.root) == (new, tree(new).root(new))
        assert signed.checkpoint.size == new
        assert next_one.note == note(tree(new))


def test_404_a_log_it_does_not_know():
    stranger = NoteSigner("other.example/log", Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32))
    request = Request(old_size=0, proof=(), note=note(tree(3), signer=stranger))
    assert refused(Remembered(), request).status == 404


def test_403_nobody_it_trusts_signed():
    impostor = NoteSigner(LOG.name, Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32))
    assert refused(Remembered(), Request(old_size=0, proof=(), note=note(tree(3), signer=impostor))).status == 403
    broken = note(tree(3)).replace(b"\n3\n", b"\n4\n", 1)
    assert refused(Remembered(), Request(old_size=0, proof=(), note=broken)).status == 403


def test_400_a_proof_from_beyond_the_checkpoint_and_bytes_that_are_no_checkpoint():
    assert refused(after(3), Request(old_size=5, proof=(), note=note(tree(4)))).status == 400
    assert refused(after(3), Request(old_size=3, proof=(), note=b"not a note")).status == 400


def test_409_a_proof_from_another_size_than_the_one_remembered():
    found = refused(after(3), asked(2, 6))
    assert found.status == 409
    assert "has 3 entries" in str(found)
    assert not found.keep_both


def test_422_one_size_and_two_roots_is_a_proof_of_a_fork():
    other = tree(4, other=[0])
    found = refused(after(5), Request(old_size=5, proof=(), note=note(other)))
    assert found.status == 422
    assert found.keep_both
    assert "signed two roots" in str(found)
    assert "keep both checkpoints" in found.advice()


def test_422_a_log_that_grew_from_another_history():
    other = tree(2, other=range(5))
    request = Request(old_size=5, proof=tuple(other.consistency_proof(5, 7)), note=note(other))
    assert refused(after(5), request).keep_both
    assert refused(after(5), Request(old_size=5, proof=(), note=note(tree(7)))).status == 422


def test_422_nothing_needs_no_proof_and_has_one_root():
    assert refused(Remembered(), Request(old_size=0, proof=(bytes(32),), note=note(tree(3)))).status == 422
    odd = note(tree(0), size=0, root=bytes(32))
    assert refused(Remembered(), Request(old_size=0, proof=(), note=odd)).status == 422


def test_a_log_that_shrank():
    # The coordinator remembers less than the witness: it asks with its own size, and learns the witness's.
    found = refused(after(8), asked(3, 5))
    assert found.status == 409
    assert "has 8 entries" in str(found)

"""`aics-tlog`, which nobody here wrote, verifies logs that we wrote: checkpoints, tiles, proofs, a witness quorum."""

import random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.interop.grown_logs import EDGES, LOG, NOW, SECOND_LEVEL, WITNESSES, cosigned, entry, grown

tlog = pytest.importorskip("aics_tlog", reason="aics-tlog is not installed")
LOG_KEY = tlog.parse_vkey(LOG.verifier.vkey())


def trusted(note):
    found = tlog.verify_checkpoint(tlog.parse_note(note), LOG_KEY)
    assert found.ok, found.error
    return found


def require_agreement(folder, sizes, generator):
    log, notes = grown(folder, sizes)
    log.close()
    reader = tlog.FileSystemTileReader(folder / "public")
    heads = {size: trusted(note) for size, note in notes.items()}
    last = max(heads)
    assert tlog.audit_tiles(reader, last, heads[last].root).size == last
    assert tlog.tree_root_from_tiles(reader, last) == heads[last].root
    for index in {0, last - 1, *(generator.randrange(last) for _ in range(5))}:
        assert tlog.read_entry(reader, index, last) == entry(index)
        ours = list(log.inclusion_proof(index))
        assert tlog.verify_leaf_inclusion(entry(index), index, last, ours, heads[last].root)
        assert ours == tlog.inclusion_proof_from_tiles(reader, index, last)
    for size, head in heads.items():
        proof = list(log.consistency_proof(size, last))
        assert tlog.verify_consistency(size, last, head.root, heads[last].root, proof)


def test_small_logs_and_the_edges_of_tiles(tmp_path):
    require_agreement(tmp_path, EDGES, random.Random(1))


def test_a_log_of_a_size_nobody_chose(tmp_path):
    generator = random.Random(2)
    require_agreement(tmp_path, tuple(sorted(generator.sample(range(300, 5000), 4))), generator)


@pytest.mark.slow
def test_the_edge_of_the_second_level(tmp_path):
    require_agreement(tmp_path, SECOND_LEVEL, random.Random(3))


def test_witnesses_and_their_quorum(tmp_path):
    log, _ = grown(tmp_path, (3,))
    log.close()
    policy = tlog.WitnessPolicy(quorum=3, witnesses=tuple(tlog.parse_vkey(one.key.vkey()) for one in WITNESSES))
    for count in range(5):
        found = tlog.verify_checkpoint(tlog.parse_note(cosigned(log, count)), LOG_KEY, policy=policy)
        assert found.log_ok
        assert found.cosignature_count == count
        assert found.ok == (count >= 3)


def test_both_cosign_alike(tmp_path):
    log, notes = grown(tmp_path, (3,))
    log.close()
    key = Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32)
    _, line = tlog.sign_cosignature(key, WITNESSES[0].key.name, NOW, LOG.name, 3, trusted(notes[3]).root)
    ours = WITNESSES[0].cosign(log.checkpoint().note.text, NOW)
    assert (line.name, line.key_id, line.signature) == (ours.name, ours.key_id, ours.payload)

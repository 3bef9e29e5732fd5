"""A-22: a coordinator shows hospitals different histories, takes one back, or two coordinators write one log.

A hospital that has cosigned one history cosigns no other: it stops, and keeps both checkpoints, each signed by the log.
That others were shown another history it learns from their cosignatures, which nobody can make for them.

Tried: rows a22 of `mutations.py`, such as `judge` without its proof, `FollowedLog.hear` without comparing roots,
and `Witnesses.require_not_set_back` without sizes or without roots.
"""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import merkle
from audit.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from audit.errors import LogSetBack
from audit.note import Note, parse_note
from consortium.contract.messages import LogPosition
from site_agent.followed_log import FORKED
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.growing_log import SIGNER, witness_of
from tests.fakes.small_study import SITES
from tests.fakes.watching_hospital import enrolled, named_witness, watching

OTHER = b'{"actor":"coordinator","type":"model.released","body":{}}'


@pytest.mark.parametrize("at", [0, 1])
async def test_the_log_is_another_than_it_was(tmp_path, at):
    async with watching(tmp_path) as world:
        await world.follows()
        before = world.service.log.note()
        world.service.log = world.service.log.forked(at=at)
        world.service.log.add(OTHER)
        both = (before, world.service.log.note())
        broken = await world.breaks()
        assert broken.kind == FORKED
        assert parse_note(world.service.cosigned[-1][1]).text == parse_note(before).text
        kept = {verify_checkpoint(note, SIGNER.verifier).checkpoint for note in world.kept()}
        assert kept == {verify_checkpoint(note, SIGNER.verifier).checkpoint for note in both}


async def test_two_roots_of_one_size(tmp_path):
    async with watching(tmp_path) as world:
        await world.follows()
        world.service.log = world.service.log.forked(at=0)
        assert "two roots" in str(await world.breaks())


async def test_the_log_has_become_shorter(tmp_path):
    async with watching(tmp_path) as world:
        world.service.log.add(OTHER, OTHER)
        await world.follows()
        del world.service.log.entries[-1]
        assert "begins at" in str(await world.breaks())


async def test_other_entries_than_the_signed_ones_are_sent(tmp_path):
    async with watching(tmp_path) as world:
        await world.follows()
        honest = world.service.log
        world.service.log.add(OTHER)
        lying = honest.forked(at=len(honest.entries) - 1)

        class Swapped(type(honest)):
            def since(self, old, *cosigned):
                return honest.since(old, *cosigned)[0], lying.entries[old:]

        world.service.log = Swapped(honest.entries)
        assert "hash to the root" in str(await world.breaks())


async def test_another_hospital_has_cosigned_another_history(tmp_path):
    """What it cosigned is larger than the copy here at first, and waits until the copy has come as far."""
    async with watching(tmp_path) as world:
        theirs = witness_of("birch-hospital", 9)
        other = _with_witness(world, theirs)
        await world.follows()
        forked = world.service.log.forked(at=other)
        forked.add(OTHER, OTHER)
        note = forked.cosigned_by(theirs)
        world.service.gossip = [note]
        world.service.log.add(OTHER)
        await world.follows()  # it has one entry less than the note covers
        world.service.log.add(OTHER)
        broken = await world.breaks()
        assert broken.kind == FORKED
        assert "birch-hospital" in str(broken)
        assert note in world.kept()


async def test_a_line_that_nobody_made_is_no_evidence(tmp_path):
    async with watching(tmp_path) as world:
        theirs = witness_of("birch-hospital", 9)
        _with_witness(world, theirs)
        forked = world.service.log.forked(at=0)
        other = parse_note(forked.cosigned_by(witness_of("birch-hospital", 8)))
        forged = replace(other.signatures[-1], key_id=theirs.key.key_id)
        under_their_name = Note(text=other.text, signatures=(other.signatures[0], forged))
        world.service.gossip = [other.to_bytes(), under_their_name.to_bytes(), b"no note", forked.note()]
        await world.follows()
        world.service.log.add(OTHER)
        await world.follows()
        assert not world.task.done()


def _with_witness(world, signer):
    """Another hospital enrols and names its witness key; the leaf of the entry after those."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32)
    world.service.log.add(enrolled("birch-hospital", key.public_key().public_bytes_raw()))
    world.service.log.add(named_witness("birch-hospital", key, signer), OTHER)
    return len(world.service.log.entries) - 1


@pytest.mark.parametrize("grows", [False, True])
def test_a_coordinator_restored_from_a_backup_signs_nothing_more(tmp_path, grows):
    """An honest coordinator on an older copy of its home learns of it from a hospital, whether it grew since or not."""
    with coordinator_in(tmp_path) as world:
        hospital = world.enrol(SITES[0])
        signer = world.coordinator.home.log_signer
        checkpoint = world.rooms.recorder.log.checkpoint()
        ahead = _longer(signer, checkpoint, world)
        if grows:
            world.enrol(SITES[1])
            world.enrol(SITES[2])
            assert world.rooms.recorder.log.size >= ahead.checkpoint.size
        position = LogPosition(size=ahead.checkpoint.size, note=ahead.to_bytes())
        with pytest.raises(LogSetBack, match=hospital.site):
            world.rooms.witnesses.follow(hospital.site, position)
        size = world.rooms.recorder.written.size
        with pytest.raises(LogSetBack):
            world.enrol(SITES[3])
        assert world.rooms.recorder.written.size == size


def _longer(signer, checkpoint, world):
    """A checkpoint that this log's key signed, of one entry more than it has."""
    tree = merkle.Tree(merkle.leaf_hash(entry) for entry in world.rooms.recorder.log.entries())
    tree.extend([merkle.leaf_hash(OTHER)])
    size = checkpoint.checkpoint.size + 1
    return sign_checkpoint(Checkpoint(origin=signer.name, size=size, root=tree.root()), signer)

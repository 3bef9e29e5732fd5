"""A witness's copy of a log: it grows by judged checkpoints alone, and survives being killed between any two writes."""

import pytest

from audit.errors import VerificationError
from audit.mirror import ARRIVING, Mirror
from audit.note import parse_note
from audit.storage import CHECKPOINT
from audit.witness import CheckpointRefused
from tests.fakes.growing_log import SIGNER, GrowingLog, witness_of

ENTRIES = [b'{"actor":"coordinator","type":"x","body":{"n":%d}}' % at for at in range(40)]


def log_of(size):
    return GrowingLog(ENTRIES[:size])


def grow(mirror, log, old=None, *, entries=None):
    growth, missing = log.since(mirror.size if old is None else old)
    with mirror.growth(growth.note, growth.proof) as growing:
        growing.add(missing if entries is None else entries)
        return growing.complete()


def test_a_copy_grows_and_is_read_back(tmp_path):
    mirror = Mirror.open(tmp_path, SIGNER.verifier)
    assert (mirror.size, mirror.remembered().note) == (0, b"")
    for size in (1, 7, 7, 40):
        assert grow(mirror, log_of(size)).checkpoint.size == size
    mirror.close()
    again = Mirror.open(tmp_path, SIGNER.verifier)
    assert list(again.entries()) == ENTRIES
    assert again.remembered().note == log_of(40).note()
    assert again.root_at(7) == log_of(7).tree().root()
    again.close()


def test_what_does_not_hash_to_the_signed_root_leaves_the_copy_as_it_was(tmp_path):
    mirror = Mirror.open(tmp_path, SIGNER.verifier)
    grow(mirror, log_of(5))
    wrong = [*ENTRIES[5:8], ENTRIES[0]]
    for entries, why in ((wrong, "hash to the root"), (ENTRIES[5:8], "1 of the entries"), (ENTRIES[5:10], "more were")):
        with pytest.raises(CheckpointRefused, match=why):
            grow(mirror, log_of(9), entries=entries)
        assert (mirror.size, mirror.root_at(5)) == (5, log_of(5).tree().root())
    with pytest.raises(VerificationError, match="1 to 65535"):
        grow(mirror, log_of(9), entries=[b""])
    assert grow(mirror, log_of(9)).checkpoint.size == 9
    mirror.close()


@pytest.mark.parametrize("at", [0, 4])
def test_another_history_is_refused_with_both_checkpoints(tmp_path, at):
    mirror = Mirror.open(tmp_path, SIGNER.verifier)
    grow(mirror, log_of(5))
    with pytest.raises(CheckpointRefused) as caught:
        grow(mirror, log_of(12).forked(at=at))
    assert caught.value.keep_both
    with pytest.raises(CheckpointRefused, match="two roots"):
        grow(mirror, log_of(5).forked(at=at))
    with pytest.raises(CheckpointRefused, match="begins at 5"):
        grow(mirror, log_of(3))
    mirror.close()


class Dies(Exception):
    pass


class DyingStorage:
    """Stops at the n-th write, before or after it happened."""

    def __init__(self, inner, dies_at, *, before):
        self._inner, self._left, self._before = inner, dies_at, before

    def __getattr__(self, name):
        method = getattr(self._inner, name)
        if name not in ("append", "write"):
            return method

        def writes(*args):
            self._left -= 1
            if self._left == 0 and self._before:
                raise Dies
            method(*args)
            if self._left == 0:
                raise Dies

        return writes


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("dies_at", [1, 2, 3])
def test_a_witness_that_dies_cosigns_nothing_twice(tmp_path, dies_at, before):
    """The same history goes on; of another one the first signed checkpoint is still there to be shown."""
    honest, other = log_of(9), log_of(12).forked(at=7)
    mirror = Mirror.open(tmp_path, SIGNER.verifier)
    grow(mirror, log_of(5))
    inner = mirror._storage
    mirror._storage = DyingStorage(inner, dies_at, before=before)
    with pytest.raises(Dies):
        grow(mirror, honest)
    inner.close()

    again = Mirror.open(tmp_path, SIGNER.verifier)
    assert again.size == (9 if (dies_at, before) == (3, False) else 5)
    if inner_count(again) > 5:  # something of the growth has arrived, so its checkpoint is kept
        shown = again._storage.read(CHECKPOINT) if again.size == 9 else again._storage.read(ARRIVING)
        assert shown == honest.note()
        with pytest.raises(CheckpointRefused) as caught:
            grow(again, other)
        assert caught.value.keep_both
        assert again.size == 9 or caught.value.earlier == honest.note()
    assert grow(again, log_of(20)).checkpoint.size == 20
    assert list(again.entries()) == ENTRIES[:20]
    again.close()


def inner_count(mirror):
    return mirror._storage.count()


def test_cosignatures_are_kept_under_the_copys_own_checkpoint_only(tmp_path):
    mirror = Mirror.open(tmp_path, SIGNER.verifier)
    grow(mirror, log_of(5))
    one, two = witness_of("amber-clinic", 1), witness_of("birch-hospital", 2)
    mirror.keep_cosignatures(parse_note(log_of(4).cosigned_by(one)))
    assert len(mirror.checkpoint().note.signatures) == 1
    mirror.keep_cosignatures(parse_note(log_of(5).cosigned_by(one, two)))
    mirror.keep_cosignatures(parse_note(log_of(5).cosigned_by(one)))
    mirror.close()
    again = Mirror.open(tmp_path, SIGNER.verifier)
    assert [line.name.rpartition("/")[2] for line in again.checkpoint().note.signatures] == [
        "log", "amber-clinic", "birch-hospital",
    ]  # fmt: skip
    again.close()

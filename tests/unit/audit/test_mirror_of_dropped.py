"""A copy of a log that has dropped entries: hashes in their place, what it has it keeps, and a death at any write."""

from pathlib import Path

import pytest

from audit import merkle
from audit.dropped import Dropped
from audit.errors import LogUnwritable
from audit.log import LogView
from audit.mirror import Mirror
from audit.storage import DirectoryStorage
from audit.witness import CheckpointRefused
from consortium.contract.messages import DroppedLeaves
from tests.fakes.failing_storage import FailingStorage
from tests.fakes.growing_log import SIGNER, GrowingLog
from tests.fakes.old_log import OldConsortium, applied

GONE = Dropped.of([*range(10, 120), *range(200, 256)])
ENTRIES = [b'{"actor":"coordinator","type":"x","body":{"n":%d}}' % at for at in range(300)]
LOG = GrowingLog([*ENTRIES, applied(OldConsortium(), GONE), b'{"more":1}'], dropped=GONE)


def grow(mirror: Mirror, log: GrowingLog) -> None:
    growth, missing = log.since(mirror.size)
    with mirror.growth(growth.note, growth.proof, growth.dropped) as growing:
        for part in log.parts(mirror.size, missing):
            if isinstance(part, DroppedLeaves):
                growing.add_hashes(part.hashes)
            else:
                growing.add(part)
        growing.complete()


def expected(had: int) -> list[bytes | None]:
    return [None if leaf in GONE and leaf >= had else entry for leaf, entry in enumerate(LOG.entries)]


@pytest.mark.parametrize("had", [0, 100, 230, 256])
def test_hashes_come_for_what_the_copy_never_had(tmp_path: Path, had: int) -> None:
    mirror = Mirror.open(tmp_path, SIGNER.verifier)
    if had:
        grow(mirror, GrowingLog(ENTRIES[:had]))
    grow(mirror, LOG)
    assert list(mirror.known()) == expected(had)
    mirror.close()
    view = LogView.read(tmp_path, SIGNER.verifier)
    assert list(view.known()) == expected(had)
    assert view.root_at(300) == merkle.Tree(merkle.leaf_hashes(ENTRIES)).root()
    assert [view.leaf_hash(leaf) for leaf in range(300)] == merkle.leaf_hashes(ENTRIES)
    view.close()


def test_a_list_that_takes_back_an_earlier_one(tmp_path: Path) -> None:
    mirror = Mirror.open(tmp_path, SIGNER.verifier)
    grow(mirror, LOG)
    other = Dropped.of([600])
    later = [*LOG.entries, *ENTRIES, *ENTRIES]
    longer = GrowingLog([*later, applied(OldConsortium(), other)], dropped=other)
    with pytest.raises(CheckpointRefused, match=r"no retention\.applied"):
        grow(mirror, longer)
    both = Dropped.of([leaf for leaf in range(700) if leaf in GONE or leaf == 600])
    grow(mirror, GrowingLog([*later, applied(OldConsortium(), both)], dropped=both))
    assert [data is None for data in mirror.known()] == [leaf in both for leaf in range(mirror.size)]
    mirror.close()


@pytest.mark.parametrize("kept", [False, True])
def test_a_copy_that_dies_at_any_write_goes_on(tmp_path: Path, kept: bool) -> None:
    fail_at, finished = 1, False
    while not finished:
        folder = tmp_path / str(fail_at)
        mirror = Mirror.open(folder, SIGNER.verifier)
        grow(mirror, GrowingLog(ENTRIES[:5]))
        mirror.close()
        storage = FailingStorage(DirectoryStorage(folder, writable=True), fail_at=fail_at, kept=kept)
        mirror = Mirror(storage, SIGNER.verifier)
        try:
            grow(mirror, LOG)
            finished = True
        except LogUnwritable:
            pass
        storage.close()
        again = Mirror.open(folder, SIGNER.verifier)
        assert again.size in {5, len(LOG.entries)}
        assert list(again.known(0, again.size)) == expected(5)[: again.size]
        grow(again, GrowingLog([*LOG.entries, b'{"later":1}'], dropped=GONE))
        assert list(again.known(0, len(LOG.entries))) == expected(5)
        again.close()
        LogView.read(folder, SIGNER.verifier).close()
        fail_at += 1
    assert fail_at > 6

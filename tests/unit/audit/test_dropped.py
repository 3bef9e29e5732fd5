"""Dropping entries: which may go, what stays in their place, and a crash at any step of it."""

from datetime import date

import pytest

from audit import entries, merkle
from audit.dropped import Dropped, EntriesDropped
from audit.errors import EntryRefused, ExportRefused, LogCorrupt, LogUnwritable, VerificationError
from audit.fsck import examine
from audit.log import Log, LogView
from audit.storage import DirectoryStorage
from audit.tile_requests import tile_bytes, wanted
from tests.fakes.failing_storage import FailingStorage
from tests.fakes.old_log import OLDER, PROMISED, OldConsortium, applied, drop, planned
from tests.fakes.sample_study_log import STUDY, SampleConsortium


@pytest.fixture(scope="module")
def sample() -> SampleConsortium:
    return OldConsortium(heartbeats=300).whole_study()


def kinds(sample: SampleConsortium, leaves: Dropped) -> set[str]:
    return {entries.parse_entry(line).TYPE for leaf, line in enumerate(sample.lines) if leaf in leaves}


def test_a_list_is_its_bits():
    leaves = Dropped.of([1, 2, 3, 9, 300])
    assert (leaves.stop, leaves.count, leaves.first, leaves.last) == (512, 5, 1, 300)
    assert list(leaves.runs()) == [(1, 3), (9, 9), (300, 300)]
    assert leaves.bits[:2] == bytes([0b01110000, 0b01000000])
    assert [leaf for leaf in range(-1, 600) if leaf in leaves] == [1, 2, 3, 9, 300]
    assert Dropped.parse(leaves.bits) == leaves
    assert list(leaves.bundles()) == [0, 1]
    assert leaves.holds(Dropped.of([9])) and not Dropped.of([9]).holds(leaves)  # noqa: PT018
    assert Dropped.of([300]).holds(Dropped()) and not Dropped()  # noqa: PT018
    assert leaves.any_in(4, 10) and not leaves.any_in(10, 300)  # noqa: PT018


@pytest.mark.parametrize("data", [bytes(31), bytes(32), b"\1" * 32 + bytes(32), b"\x80" + bytes(31), bytes(1 << 21)])
def test_what_is_no_list(data):
    with pytest.raises(VerificationError):
        Dropped.parse(data)


def test_a_study_goes_as_a_whole_and_what_it_spent_stays(tmp_path, sample):
    log = sample.open_log(tmp_path)
    made = planned(log)
    assert made.studies == (OLDER,)
    assert kinds(sample, made.dropped) == {
        "heartbeat",
        "study.created",
        "study.approved",
        "update.submitted",
        "study.completed",
    }
    assert made.dropped.stop == 256  # the second bundle has entries of today
    assert made.entries == made.dropped.count
    for changed in ({"promised": PROMISED | {OLDER: 9}}, {"promised": {STUDY: 1}}, {"today": date(2024, 11, 1)}):
        assert kinds(sample, planned(log, **changed).dropped) == {"heartbeat"}
    log.close()


def test_a_study_that_goes_on_or_was_exported_since_stays(tmp_path):
    sample = OldConsortium(heartbeats=300)
    sample.opening()
    completed = next(line for line in sample.lines if b"study.completed" in line)
    asked = entries.ExportCreated(**sample.stamp(), study=OLDER, manifest_sha256="0" * 64, log_size=1)
    goes_on = [line for line in sample.lines if line != completed]
    for name, lines in ("goes-on", goes_on), ("exported", [*sample.lines, entries.entry_bytes(asked)]):
        log = Log.create(tmp_path / name, sample.log_signer)
        log.append(lines)
        assert planned(log).studies == ()
        log.close()


def test_a_hospitals_newest_entry_stays(tmp_path):
    sample = OldConsortium(heartbeats=300)
    sample.opening()
    log = sample.open_log(tmp_path)
    gone = planned(log).dropped
    last = [max(leaf for leaf, line in enumerate(sample.lines) if f'"actor":"site:{name}"'.encode() in line)
            for name in sample.chains]  # fmt: skip
    assert not any(leaf in gone for leaf in last)
    assert gone
    log.close()


def test_what_was_dropped_is_known_by_its_hash(tmp_path, sample):
    log = sample.open_log(tmp_path)
    proofs = [log.inclusion_proof(leaf, 300) for leaf in range(300)]
    before = log.checkpoint().checkpoint
    leaves = drop(sample, log)
    assert log.consistency_proof(before.size)
    assert [log.inclusion_proof(leaf, 300) for leaf in range(300)] == proofs
    assert [log.leaf_hash(leaf) for leaf in range(300)] == merkle.leaf_hashes(sample.lines[:300])
    assert [data is None for data in log.known(0, 300)] == [leaf in leaves for leaf in range(300)]
    with pytest.raises(EntriesDropped) as caught:
        list(log.entries())
    assert "--entry" in caught.value.advice()
    with pytest.raises(EntriesDropped):
        tile_bytes(log, wanted("tile/entries/000"))
    assert tile_bytes(log, wanted("tile/0/000")) == b"".join(merkle.leaf_hashes(sample.lines[:256]))
    assert log.fsck() == log.size
    found = examine(tmp_path, log.verifier)
    assert found.dropped.startswith(
        f"{leaves.count} of the entries 0 to 255 were dropped on 2026-11-18 under the policy"
    )
    with pytest.raises(ExportRefused, match="no entries of 'older-study'"):
        sample.export(log, tmp_path / "out.zip", study=OLDER)
    log.append([b"more"])
    log.close()
    again = Log.open(tmp_path, sample.log_signer)
    assert (again.dropped, again.fsck()) == (leaves, before.size + 2)
    assert list(again.entries(256, before.size)) == sample.lines[256:]
    again.close()
    for hidden in sample.lines[9:14]:
        assert all(hidden not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_second_drop_holds_the_first(tmp_path):
    sample = OldConsortium()
    sample.opening()
    log = sample.open_log(tmp_path)
    first = drop(sample, log, Dropped.of(range(20, 40)))
    other, both = Dropped.of([300]), Dropped.of([*range(20, 40), 300])
    log.append([applied(sample, other)])
    with pytest.raises(EntryRefused):
        log.drop(other)
    drop(sample, log, both)
    assert (log.dropped.count, log.applied.leaf) == (first.count + 1, log.size - 1)
    assert planned(log).dropped.holds(both)
    log.close()


@pytest.mark.parametrize("kept", [False, True])
def test_a_crash_at_every_step_of_a_drop(tmp_path, sample, kept):
    """Announced first; from the moment the list is in place the next start finishes, before it nothing is gone."""
    fail_at, finished = 1, False
    while not finished:
        folder = tmp_path / str(fail_at)
        log = sample.open_log(folder)
        leaves = planned(log).dropped
        log.prepare_drop(leaves)
        assert log.intended() is None
        log.append([applied(sample, leaves)])
        size, root = log.size, log.checkpoint().checkpoint.root
        log.close()
        failing = FailingStorage(DirectoryStorage(folder, writable=True), fail_at=fail_at, kept=kept)
        log = Log(failing, sample.log_signer)
        found, entry = log.intended()
        assert (found, entry.leaf) == (leaves, size - 1)
        try:
            log.drop(found)
            finished = True
        except LogUnwritable:
            with pytest.raises(LogUnwritable):
                log.append([b"later"])
        log.close()
        again = Log.open(folder, sample.log_signer)
        begun = bool(again.dropped)
        assert begun or (fail_at, kept) == (1, False)
        assert (again.intended() is None) is begun
        gone = [data is None for data in again.known(0, 256)]
        assert gone == [begun and leaf in leaves for leaf in range(256)]
        assert (folder / "public/tile/entries/000").exists() is not begun
        assert (again.fsck(), again.checkpoint().checkpoint.root) == (size, root)
        again.close()
        fail_at += 1
    assert fail_at > 3


def test_a_hash_that_is_not_on_the_disk_is_no_reason_to_drop(tmp_path, sample):
    log = sample.open_log(tmp_path)
    leaves = planned(log).dropped
    log.append([applied(sample, leaves)])
    (tmp_path / "public/tile/0/000").write_bytes(bytes(8192))
    with pytest.raises(LogCorrupt, match="tile/0/000"):
        log.drop(leaves)
    log.close()
    view = LogView.read(tmp_path, log.verifier)
    assert None not in list(view.known())
    view.close()


def test_a_kept_entry_that_is_missing_is_no_dropped_one(tmp_path, sample):
    log = sample.open_log(tmp_path)
    drop(sample, log)
    log._storage.drop([(1, 1)])
    log.close()
    with pytest.raises(LogCorrupt, match="entry 1"):
        LogView.read(tmp_path, log.verifier)


def test_a_declared_drop_has_its_list():
    stamp = entries.stamp(1_795_000_000_000, bytes(10))
    said = {"years": 6, "older_than": "2020-11-18", "entries_due": 0}
    with pytest.raises(EntryRefused, match="audit retention --drop"):
        entries.RetentionApplied(**stamp, **said, action="dropped")
    with pytest.raises(EntryRefused, match="none with 'kept'"):
        entries.RetentionApplied(**stamp, **said, action="kept", dropped_sha256="0" * 64)

"""audit/log.py and audit/storage.py: durable in the right order, and stubborn about what was signed."""

import errno
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import merkle, tiles
from audit.checkpoint import verify_checkpoint, verify_receipt
from audit.errors import EntryRefused, LogCorrupt, LogExists, LogLocked, LogUnwritable
from audit.log import Log, LogView
from audit.note import NoteSigner
from audit.storage import DirectoryStorage
from tests.fakes.failing_storage import FailingStorage

SIGNER = NoteSigner("fl.example.org/test", Ed25519PrivateKey.from_private_bytes(bytes(32)))


def numbered(start: int, stop: int) -> list[bytes]:
    return [b'{"entry":%d}' % number for number in range(start, stop)]


def root_of(entries: list[bytes]) -> bytes:
    return merkle.root(merkle.leaf_hash(entry) for entry in entries)


@pytest.fixture
def log(tmp_path):
    opened = Log.create(tmp_path / "log", SIGNER)
    yield opened
    opened.close()


def test_a_new_log_is_signed_and_empty(log):
    assert log.size == 0
    assert log.checkpoint().checkpoint.root == merkle.EMPTY_ROOT
    assert log.origin == "fl.example.org/test"
    assert list(log.entries()) == []
    assert log.append([]) == ()
    assert log.fsck() == 0


def test_append_returns_indices_and_the_checkpoint_covers_them(log):
    assert log.append(numbered(0, 3)) == (0, 1, 2)
    assert log.append(numbered(3, 4)) == (3,)
    head = verify_checkpoint(log.checkpoint().to_bytes(), SIGNER.verifier).checkpoint
    assert (head.size, head.root) == (4, root_of(numbered(0, 4)))
    assert list(log.entries(1, 3)) == numbered(1, 3)
    for index, entry in enumerate(numbered(0, 4)):
        verify_receipt(log.receipt(index).to_bytes(), entry, SIGNER.verifier)
    merkle.verify_consistency(
        old=3, new=4, old_root=root_of(numbered(0, 3)), new_root=head.root, proof=log.consistency_proof(3)
    )


@pytest.mark.parametrize("sizes", [(255,), (256,), (257,), (200, 56), (200, 57, 300), (1,) * 5, (700, 5)])
def test_tiles_and_bundles_at_their_edges(log, tmp_path, sizes):
    total = 0
    for size in sizes:
        log.append(numbered(total, total + size))
        total += size
    assert log.fsck() == total
    public = tmp_path / "log/public"
    for tile in tiles.tiles_of(total):
        assert (public / tile.path()).read_bytes() == log.tile(tile)
    first = tiles.Tile(level=0, number=0, width=min(256, total))
    assert tiles.unpack_bundle((public / first.bundle_path()).read_bytes(), "") == numbered(0, first.width)
    assert (public / "tile/0/000.p").exists() == (total < 256)  # partial tiles go once the full one is there


@pytest.mark.parametrize("size", [0, 1, 256, 300])
def test_reopened_it_is_the_same_log(tmp_path, size):
    with_entries = Log.create(tmp_path / "log", SIGNER)
    with_entries.append(numbered(0, size))
    before = with_entries.checkpoint()
    with_entries.close()
    again = Log.open(tmp_path / "log", SIGNER)
    assert again.checkpoint() == before
    assert again.append([b"{}"]) == (size,)
    again.close()
    view = LogView.read(tmp_path / "log", SIGNER.verifier)
    assert list(view.entries()) == [*numbered(0, size), b"{}"]
    view.close()


def test_a_reader_sees_a_log_that_is_being_written(tmp_path, log):
    log.append(numbered(0, 5))
    view = LogView.read(tmp_path / "log", SIGNER.verifier)
    log.append(numbered(5, 9))
    assert view.size == 5
    view.close()


def test_only_one_writer(tmp_path, log):
    with pytest.raises(LogLocked, match="another process") as locked:
        Log.open(tmp_path / "log", SIGNER)
    assert "stop it first" in locked.value.advice()
    code = f"""
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from audit.errors import LogLocked
from audit.log import Log
from audit.note import NoteSigner
try:
    signer = NoteSigner({SIGNER.name!r}, Ed25519PrivateKey.from_private_bytes(bytes(32)))
    Log.open(Path({str(tmp_path / "log")!r}), signer)
except LogLocked:
    print("locked")
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert answer.stdout == "locked\n"


def test_the_lock_goes_with_the_log(tmp_path, log):
    log.close()
    Log.open(tmp_path / "log", SIGNER).close()


def test_where_there_is_no_log_or_already_one(tmp_path, log):
    with pytest.raises(LogCorrupt, match=r"a log with a checkpoint"):
        Log.open(tmp_path / "nothing", SIGNER)
    assert not (tmp_path / "nothing").exists()
    log.close()
    with pytest.raises(LogExists, match="already a log"):
        Log.create(tmp_path / "log", SIGNER)


def test_an_interrupted_creation_is_finished(tmp_path):
    DirectoryStorage(tmp_path / "log", writable=True).close()
    with pytest.raises(LogCorrupt):
        Log.open(tmp_path / "log", SIGNER)
    Log.create(tmp_path / "log", SIGNER).close()


def test_entries_have_a_size(log):
    for bad in (b"", b"x" * 65_536):
        with pytest.raises(EntryRefused, match="bytes"):
            log.append([b"good", bad])
    assert log.size == 0
    assert log.append([b"x" * 65_535]) == (0,)


def test_questions_outside_the_log(log):
    log.append(numbered(0, 3))
    for question in (lambda: list(log.entries(0, 4)), lambda: log.inclusion_proof(0, 4), lambda: log.receipt(3)):
        with pytest.raises(ValueError, match=r"entries|among"):
            question()


def test_many_threads_share_commits_and_nobody_is_lost(log):
    answers: dict[int, tuple[int, ...]] = {}

    def work(number: int) -> None:
        for step in range(5):
            answers[number * 5 + step] = log.append([b"%d" % (number * 5 + step)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = list(log.entries())
    assert len(stored) == log.size == 40
    for value, (index,) in answers.items():
        assert stored[index] == b"%d" % value
    assert log.fsck() == 40


def test_entries_cannot_be_changed_through_sqlite(log, tmp_path):
    log.append(numbered(0, 2))
    database = sqlite3.connect(tmp_path / "log/entries.sqlite3")
    for statement in ("UPDATE entry SET bytes = x'00'", "DELETE FROM entry"):
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            database.execute(statement)
    database.close()


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("before", [0, 254])
def test_a_crash_at_every_durable_write(tmp_path, before, kept):
    """Each write of two appends fails once; no acknowledged entry is lost and the reopened log is sound."""
    fail_at, finished = 1, False
    while not finished:
        directory = tmp_path / f"{fail_at}"
        healthy = Log.create(directory, SIGNER)
        acknowledged = numbered(0, before)
        healthy.append(acknowledged)
        healthy.close()
        failing = FailingStorage(DirectoryStorage(directory, writable=True), fail_at=fail_at, kept=kept)
        log = Log(failing, SIGNER)
        signed = log.checkpoint().checkpoint
        finished = True
        for part in (numbered(before, before + 1), numbered(before + 1, before + 4)):
            try:
                log.append(part)
                acknowledged += part
                signed = log.checkpoint().checkpoint
            except LogUnwritable:
                with pytest.raises(LogUnwritable):  # stopped: it does not retry
                    log.append([b"later"])
                finished = False
                break
        log.close()

        again = Log.open(directory, SIGNER)
        stored = list(again.entries())
        assert stored[: len(acknowledged)] == acknowledged
        assert stored == numbered(0, len(stored))  # whole batches, in order, or nothing
        assert again.fsck() == len(stored)
        if signed.size:
            merkle.verify_consistency(
                old=signed.size,
                new=again.size,
                old_root=signed.root,
                new_root=again.checkpoint().checkpoint.root,
                proof=again.consistency_proof(signed.size),
            )
        again.append(numbered(len(stored), len(stored) + 1))
        assert again.fsck() == len(stored) + 1
        again.close()
        fail_at += 1
    assert fail_at > 8  # four durable writes for each of two appends, and more where a tile fills up


def test_a_full_disk_while_files_are_written(tmp_path, log, monkeypatch):
    log.append(numbered(0, 2))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(LogUnwritable, match="No space left") as error:
            log.append(numbered(2, 3))
    assert "Free disk space" in error.value.advice()
    with pytest.raises(LogUnwritable):
        log.append(numbered(3, 4))
    assert not list((tmp_path / "log/public").rglob(".*"))
    log.close()
    again = Log.open(tmp_path / "log", SIGNER)
    assert list(again.entries()) == numbered(0, 3)  # durable in the database, so completed
    assert again.fsck() == 3
    again.close()


def test_a_full_disk_in_the_database(tmp_path, log):
    log.append(numbered(0, 2))
    pages = log._storage._database.execute("PRAGMA page_count").fetchone()[0]
    log._storage._database.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(LogUnwritable, match="full"):
        log.append([b"x" * 60_000])
    log.close()
    again = Log.open(tmp_path / "log", SIGNER)
    assert list(again.entries()) == numbered(0, 2)
    again.close()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LogUnwritable):
        Log.create(tmp_path / "file/log", SIGNER)


def test_an_unexpected_error_stops_the_log_for_everybody(log, monkeypatch):
    def broken(first: int, entries: object) -> None:
        raise MemoryError

    monkeypatch.setattr(log._storage, "append", broken)
    with pytest.raises(MemoryError):
        log.append([b"one"])
    monkeypatch.undo()
    with pytest.raises(LogUnwritable, match="MemoryError"):
        log.append([b"two"])


def test_missing_derived_files_are_written_again(tmp_path, log):
    log.append(numbered(0, 300))
    log.close()
    public = tmp_path / "log/public"
    (public / "tile/0/000").unlink()
    (public / "tile/entries/001.p/44").unlink()
    again = Log.open(tmp_path / "log", SIGNER)
    assert again.fsck() == 300
    again.close()


@pytest.mark.parametrize("path", ["tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/000"])
def test_fsck_names_the_file(tmp_path, log, path):
    log.append(numbered(0, 300))
    target = tmp_path / "log/public" / path
    data = bytearray(target.read_bytes())
    data[-1] ^= 1
    target.write_bytes(data)
    with pytest.raises(LogCorrupt, match=path.replace(".", r"\.")) as error:
        log.fsck()
    assert "backup" in error.value.advice()
    target.unlink()
    with pytest.raises(LogCorrupt, match="a file"):
        log.fsck()


def test_another_key_cannot_open_it(tmp_path, log):
    log.append(numbered(0, 1))
    log.close()
    other = NoteSigner(SIGNER.name, Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32))
    with pytest.raises(LogCorrupt, match="signature"):
        Log.open(tmp_path / "log", other)


def test_a_database_that_is_none(tmp_path, log):
    log.append(numbered(0, 1))
    log.close()
    (tmp_path / "log/entries.sqlite3").write_bytes(b"not a database" * 100)
    with pytest.raises(LogCorrupt):
        Log.open(tmp_path / "log", SIGNER)
    Log.create(tmp_path / "new", SIGNER).close()  # the lock of the failed opening was let go


def test_tile_paths():
    assert tiles.Tile(level=0, number=1234067, width=256).path() == "tile/0/x001/x234/067"
    assert tiles.Tile(level=1, number=70_000, width=3).path() == "tile/1/x070/000.p/3"
    widths = {(tile.level, tile.number): tile.width for tile in tiles.tiles_of(70_000)}
    assert (len(widths), widths[0, 273], widths[1, 0], widths[1, 1], widths[2, 0]) == (277, 112, 256, 17, 1)
    assert [tile.path() for tile in tiles.tiles_of(256)] == ["tile/0/000", "tile/1/000.p/1"]


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x05abc", b"\x00\x01a\x00"])
def test_bundles_whose_lengths_do_not_add_up(data):
    with pytest.raises(Exception, match="bundle"):
        tiles.unpack_bundle(data, "bundle")

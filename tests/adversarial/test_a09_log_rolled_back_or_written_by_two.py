"""A-09: the log's folder, or only its checkpoint, is set back to an older state, or changed by another signer.

Held by: before every signature the checkpoint on the disk must be the one this process signed last; a database older
than its checkpoint does not open; one lock per log. Tried: rows a09 of `mutations.py`.
"""

import shutil

import pytest

from audit.errors import LogCorrupt, LogFork, LogLocked
from audit.log import Log
from tests.fakes.sample_study_log import SampleConsortium


@pytest.fixture
def sample():
    return SampleConsortium().whole_study()


def test_a_checkpoint_set_back_under_a_running_log(sample, tmp_path):
    log = sample.open_log(tmp_path / "log")
    older = (tmp_path / "log/public/checkpoint").read_bytes()
    log.append([b"one"])
    (tmp_path / "log/public/checkpoint").write_bytes(older)
    with pytest.raises(LogFork, match="checkpoint") as refused:
        log.append([b"two"])
    assert "Never continue from an older copy" in refused.value.advice()
    with pytest.raises(LogFork):
        log.append([b"three"])
    log.close()


def test_a_database_older_than_its_checkpoint(sample, tmp_path):
    sample.open_log(tmp_path / "log").close()
    shutil.copytree(tmp_path / "log", tmp_path / "backup")
    log = Log.open(tmp_path / "log", sample.log_signer)
    log.append([b"later"])
    log.close()
    for name in ("entries.sqlite3", "entries.sqlite3-wal", "entries.sqlite3-shm"):
        (tmp_path / "log" / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup/entries.sqlite3", tmp_path / "log/entries.sqlite3")
    with pytest.raises(LogFork, match="at least"):
        Log.open(tmp_path / "log", sample.log_signer)


def test_a_forged_checkpoint_does_not_open(sample, tmp_path):
    sample.open_log(tmp_path / "log").close()
    path = tmp_path / "log/public/checkpoint"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n1", 1))
    with pytest.raises(LogCorrupt, match="signature"):
        Log.open(tmp_path / "log", sample.log_signer)
    path.unlink()
    with pytest.raises(LogCorrupt):
        Log.open(tmp_path / "log", sample.log_signer)


def test_a_tile_that_flips_before_it_is_signed(sample, tmp_path, monkeypatch):
    log = sample.open_log(tmp_path / "log")
    real = log._storage.write_all

    def flipped(files: list[tuple[str, bytes]]) -> None:
        real([(path, bytes([data[0] ^ 1]) + data[1:] if path.startswith("tile/0") else data) for path, data in files])

    monkeypatch.setattr(log._storage, "write_all", flipped)
    before = (tmp_path / "log/public/checkpoint").read_bytes()
    with pytest.raises(LogCorrupt, match="tile/0"):
        log.append([b"next"])
    assert (tmp_path / "log/public/checkpoint").read_bytes() == before
    log.close()


def test_two_at_once(sample, tmp_path):
    log = sample.open_log(tmp_path / "log")
    with pytest.raises(LogLocked):
        Log.open(tmp_path / "log", sample.log_signer)
    log.close()

"""audit/fsck.py: a sound log is called sound, and the first fault of another is named."""

import sqlite3

import pytest

from audit.errors import AuditError, LogCorrupt, LogFork
from audit.fsck import examine
from audit.log import LogView
from tests.fakes.sample_study_log import SITES, SampleConsortium


@pytest.fixture
def sound(tmp_path):
    log = SampleConsortium().whole_study().open_log(tmp_path / "log")
    log.close()
    return tmp_path / "log", log


def test_a_sound_log(sound):
    folder, log = sound
    found = examine(folder, log.verifier)
    assert (found.origin, found.entries, found.hospitals) == (log.origin, log.size, len(SITES))
    assert found.root == log.checkpoint().checkpoint.root


def test_a_bit_in_a_tile(sound):
    folder, log = sound
    (tile,) = (folder / "public/tile/0").rglob("*.p/*")
    data = bytearray(tile.read_bytes())
    data[40] ^= 1
    tile.write_bytes(data)
    with pytest.raises(LogCorrupt, match=r"tile/0/000\.p"):
        examine(folder, log.verifier)


def test_a_bundle_that_is_gone(sound):
    folder, log = sound
    next((folder / "public/tile/entries").rglob("*.p/*")).unlink()
    with pytest.raises(LogCorrupt, match="expected a file, found none"):
        examine(folder, log.verifier)


def test_an_entry_that_was_rewritten(sound):
    folder, log = sound
    with sqlite3.connect(folder / "entries.sqlite3") as connection:
        connection.execute("DROP TRIGGER entry_is_never_changed")
        connection.execute("UPDATE entry SET bytes = CAST(replace(bytes, '0', '1') AS BLOB) WHERE leaf = 3")
    connection.close()
    with pytest.raises(LogFork):
        examine(folder, log.verifier)


def test_a_chain_with_a_gap_is_found_under_a_true_root(tmp_path):
    consortium = SampleConsortium().whole_study()
    number = next(at for at, line in enumerate(consortium.lines) if b'"site_seq":2' in line)
    del consortium.lines[number]
    log = consortium.open_log(tmp_path / "log")
    log.close()
    with pytest.raises(AuditError, match="chain"):
        examine(tmp_path / "log", log.verifier)


def test_a_log_that_grows_meanwhile(sound, monkeypatch):
    """A partial tile that the writer has removed is no fault where a newer checkpoint stands."""
    folder, log = sound
    honest, looked = LogView.fsck, []

    def once_too_late(view):
        looked.append(view.size)
        if len(looked) == 1:
            monkeypatch.setattr("audit.fsck._moved", lambda *_: True)
            raise LogCorrupt("tile/0/000.p/9", "a file", "none")
        return honest(view)

    monkeypatch.setattr(LogView, "fsck", once_too_late)
    assert examine(folder, log.verifier).entries == log.size
    assert len(looked) == 2

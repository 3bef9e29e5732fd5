"""Opening a home: one process at a time, and every file let go again."""

from pathlib import Path

import pytest

from audit.errors import LogCorrupt, LogLocked
from consortium.app import opened
from consortium.database import Database
from consortium.errors import HomeInvalid, HomeUnwritable
from tests.fakes.coordinator_home import coordinator_in, new_home


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world, pytest.raises(LogLocked), opened(world.folder):
        pass
    with opened(world.folder):
        pass


def test_an_error_inside_lets_the_lock_go(tmp_path: Path) -> None:
    folder = new_home(tmp_path)
    with pytest.raises(RuntimeError), opened(folder):
        raise RuntimeError
    with opened(folder):
        pass


def test_a_database_that_is_none_lets_the_lock_go(tmp_path: Path) -> None:
    folder = new_home(tmp_path)
    (folder / "consortium.db").write_bytes(b"this is no database " * 100)
    with pytest.raises(HomeInvalid, match="database"), opened(folder):
        pass
    (folder / "consortium.db").unlink()
    with opened(folder):
        pass


def test_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(HomeUnwritable):
        Database(f"sqlite:///{tmp_path / 'state.db'}")


def test_a_home_without_a_log(tmp_path: Path) -> None:
    folder = new_home(tmp_path)
    (folder / "log" / "public" / "checkpoint").unlink()
    with pytest.raises(LogCorrupt), opened(folder):
        pass

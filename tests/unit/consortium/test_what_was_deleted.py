"""What the coordinator's database deletes is in none of its files any more."""

from pathlib import Path

import sqlalchemy as sa

from consortium.database import Database, journal

SHARES = b'{"type": "message", "message": "' + bytes(range(33)).hex().encode() + b'"}'


def in_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if SHARES in path.read_bytes())


def test_nor_in_the_write_ahead_log(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'consortium.db'}")
    try:
        with database.transaction() as connection:
            row = {"study_digest": "a" * 64, "round": 1, "attempt": 1, "event": SHARES}
            connection.execute(sa.insert(journal).values(row))
        assert in_files(tmp_path) == ["consortium.db-wal"]
        with database.transaction() as connection:
            connection.execute(sa.delete(journal))
        assert in_files(tmp_path) == ["consortium.db-wal"]  # why scrubbing is needed
        database.scrub()
        assert in_files(tmp_path) == []
        with database.reading() as connection:  # and whoever reads keeps it from nothing but this
            connection.execute(sa.select(journal.c.id)).fetchall()
            database.scrub()
        with database.transaction() as connection:
            connection.execute(sa.insert(journal).values(row))
    finally:
        database.close()


def test_a_killed_process_leaves_its_log_to_the_next(tmp_path: Path) -> None:
    first = Database(f"sqlite:///{tmp_path / 'consortium.db'}")
    try:
        with first.transaction() as connection:
            row = {"study_digest": "a" * 64, "round": 1, "attempt": 1, "event": SHARES}
            connection.execute(sa.insert(journal).values(row))
        with first.transaction() as connection:
            connection.execute(sa.delete(journal))
        assert in_files(tmp_path) == ["consortium.db-wal"]
        second = Database(f"sqlite:///{tmp_path / 'consortium.db'}")
        second.close()
        assert in_files(tmp_path) == []
    finally:
        first.close()

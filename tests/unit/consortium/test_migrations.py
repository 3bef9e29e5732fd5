"""A database of an older program becomes one of this one, with everything that was in it."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from consortium import database as tables
from consortium.database import Database
from consortium.errors import SchemaTooNew
from consortium.migrations import HEAD

OLDEST = (Path(__file__).parents[2] / "vectors/state-v0001.sql").read_text()
ROW = ("0" * 64, "amber-clinic", 1.0)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "state.db"


def old(file):
    """A database as programs before schemas had numbers made it, with a row in it."""
    with sqlite3.connect(file) as connection:
        connection.executescript(OLDEST)
        connection.execute("INSERT INTO invitations (token_sha256, site, expires_at) VALUES (?, ?, ?)", ROW)
    connection.close()


def differences(database):
    with database.transaction() as connection:
        return compare_metadata(MigrationContext.configure(connection), tables._metadata)


def number(database):
    with database.reading() as connection:
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def opened(file):
    return Database(f"sqlite:///{file}")


def test_one_without_a_number_gets_what_it_lacks_and_keeps_what_it_has(file):
    old(file)
    database = opened(file)
    assert differences(database) == []
    assert number(database) == HEAD
    with database.reading() as connection:
        assert connection.execute(sa.select(tables.invitations)).one() == (*ROW, None, "")
    database.close()
    again = opened(file)
    assert differences(again) == []
    again.close()


def test_an_even_older_one_that_lacks_a_table_gets_that_too(file):
    old(file)
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE witnesses")
    connection.close()
    database = opened(file)
    assert differences(database) == []
    database.close()


def test_a_new_one_is_what_the_migrations_make(file, tmp_path):
    old(file)
    migrated, new = opened(file), opened(tmp_path / "new.db")

    def tables_of(database):
        with database.reading() as connection:
            inspector = sa.inspect(connection)
            return {
                name: [
                    (c["name"], str(c["type"]), c["nullable"], c["primary_key"]) for c in inspector.get_columns(name)
                ]
                for name in inspector.get_table_names()
            }

    assert tables_of(migrated) == tables_of(new)
    assert number(new) == HEAD
    migrated.close()
    new.close()


def test_one_of_a_newer_program_is_refused_and_left_alone(file):
    opened(file).close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9999'")
    connection.close()
    with pytest.raises(SchemaTooNew, match=f"schema v9999; this program knows {HEAD}"):
        opened(file)
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("v9999",)]
    connection.close()


def test_a_migration_that_fails_half_way_leaves_the_old_one(file, monkeypatch):
    old(file)
    with sqlite3.connect(file) as connection:  # what the second migration would make is there, as something else
        connection.execute("CREATE VIEW objections AS SELECT 1 AS one")
    connection.close()
    with pytest.raises(Exception, match="objections"):
        opened(file)
    with sqlite3.connect(file) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert connection.execute("SELECT count(*) FROM invitations").fetchone() == (1,)
    connection.close()
    assert "webhooks" not in names
    assert "alembic_version" not in names

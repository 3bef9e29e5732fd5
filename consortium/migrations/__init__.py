"""The tables of the coordinator's state over the versions of this program. Alembic applies what is missing.

A database is brought up to date when it is opened, within one transaction: it is of the new schema or as it was. One
of a newer program is left alone. To change a table: change `consortium/database.py` and add a file to `versions/` that
does the same to a database that is there; `tests/unit/consortium/test_migrations.py` holds the two against each other.
"""

from pathlib import Path

import sqlalchemy as sa

from consortium.errors import SchemaTooNew

HEAD = "v0006"
"""The newest of `versions/`, which the tables of `database.py` are."""
_NUMBER = "alembic_version"


def bring_up_to_date(connection: sa.Connection, metadata: sa.MetaData) -> None:
    """Make the tables, or add what the program's version of them has more; changes nothing that is current.

    Args:
        connection: In a transaction, which is the caller's to commit.
        metadata: The tables of `database.py`.

    Raises:
        SchemaTooNew: A newer program was here; nothing was changed.
    """
    inspector = sa.inspect(connection)
    number = _number(connection) if inspector.has_table(_NUMBER) else None
    if number == HEAD:
        return
    if number is None and not inspector.has_table("studies"):
        metadata.create_all(connection)
        _stamp(connection, HEAD)
        return
    _upgrade(connection, number)


def _number(connection: sa.Connection) -> str | None:
    found = connection.execute(sa.text(f"SELECT version_num FROM {_NUMBER}")).scalar()  # noqa: S608 - a constant
    return None if found is None else str(found)


def _stamp(connection: sa.Connection, number: str) -> None:
    """As Alembic does it, without loading it for every new database."""
    table = sa.Table(_NUMBER, sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))
    table.create(connection, checkfirst=True)
    connection.execute(sa.delete(table))
    connection.execute(sa.insert(table).values(version_num=number))


def _upgrade(connection: sa.Connection, number: str | None) -> None:
    from alembic import command  # noqa: PLC0415 - needed once in the life of a schema
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    known = {one.revision for one in ScriptDirectory.from_config(config).walk_revisions()}
    if number is not None and number not in known:
        raise SchemaTooNew(number[:40], HEAD)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

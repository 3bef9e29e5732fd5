"""Alembic runs this: the migrations, over the connection and in the transaction that `bring_up_to_date` hands over."""

from alembic import context


def run() -> None:
    """All that are missing."""
    context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
    context.run_migrations()


if not __name__.startswith("consortium."):  # Alembic loads it as a file, under a name of its own
    run()

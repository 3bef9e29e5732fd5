"""How far in the log each webhook has been told (`webhooks.py`)."""

import sqlalchemy as sa

from consortium.database import Database, webhooks


class Places:
    """How far in the log each webhook has been told; durable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, url: str, beginning: int) -> int:
        """The next leaf for a webhook; one that is new begins at `beginning`, for what was before is no news."""
        with self._database.transaction() as connection:
            found = connection.execute(sa.select(webhooks.c.next_leaf).where(webhooks.c.url == url)).scalar()
            if found is not None:
                return int(found)
            connection.execute(sa.insert(webhooks).values(url=url, next_leaf=beginning))
        return beginning

    def move(self, url: str, next_leaf: int) -> None:
        """Everything before this leaf is done with."""
        with self._database.transaction() as connection:
            connection.execute(sa.update(webhooks).where(webhooks.c.url == url).values(next_leaf=next_leaf))

"""The coordinator's durable state: tables, and the few questions asked of them.

SQLAlchemy Core; SQLite in WAL mode with synchronous=FULL by default. Whatever must also reach the log is written to
`outbox` in the same transaction and moved from there (see `record.py`), so that state and log cannot disagree.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from consortium.contract.names import Digest, RoundNumber, SiteId, StudyId
from consortium.errors import HomeInvalid, HomeUnwritable

_metadata = sa.MetaData()

invitations = sa.Table(
    "invitations",
    _metadata,
    sa.Column("token_sha256", sa.String(64), primary_key=True),
    sa.Column("site", sa.String(40), nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),  # unix seconds
    sa.Column("used_at", sa.Float),
)

sites = sa.Table(
    "sites",
    _metadata,
    sa.Column("site", sa.String(40), primary_key=True),
    sa.Column("certificate", sa.LargeBinary, nullable=False),  # DER
    sa.Column("spki_sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("signing_key", sa.String(64), nullable=False, unique=True),
    sa.Column("ecdsa_key", sa.String(130), nullable=False, unique=True),
    sa.Column("enrolled_at", sa.Float, nullable=False),
    sa.Column("revoked_at", sa.Float),
    sa.Column("last_sequence", sa.Integer, nullable=False, default=0),
    sa.Column("last_event_sha256", sa.String(64), nullable=False, default=""),
)

studies = sa.Table(
    "studies",
    _metadata,
    sa.Column("study", sa.String(64), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("document", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("submitted_at", sa.Float, nullable=False),
    sa.Column("next_round", sa.Integer, nullable=False, default=1),
    sa.Column("next_attempt", sa.Integer, nullable=False, default=1),
    sa.Column("last_attempt", sa.Integer, nullable=False),  # of the present round, before somebody has to look
    sa.Column("model_digest", sa.String(64), nullable=False, default=""),
    sa.Column("transcript", sa.String(64), nullable=False, default="0" * 64),
    sa.Column("measured", sa.Text, nullable=False, default="[]"),  # survivors of the last round with metrics
    sa.Column("reason", sa.Text, nullable=False, default=""),
)

approvals = sa.Table(
    "approvals",
    _metadata,
    sa.Column("study_digest", sa.String(64), primary_key=True),
    sa.Column("site", sa.String(40), primary_key=True),
    sa.Column("decision", sa.String(16), nullable=False),  # approved | rejected | withdrawn
    sa.Column("reason", sa.Text, nullable=False, default=""),
)

rounds = sa.Table(
    "rounds",
    _metadata,
    sa.Column("study_digest", sa.String(64), primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),  # open | closed | aborted
    sa.Column("plan", sa.LargeBinary, nullable=False),
    sa.Column("facts", sa.Text, nullable=False, default="{}"),  # JSON: survivors, dropouts, metrics, seconds, reason
)

spends = sa.Table(
    "spends",
    _metadata,
    sa.Column("study_digest", sa.String(64), primary_key=True),
    sa.Column("site", sa.String(40), primary_key=True),
    sa.Column("epsilon", sa.Float, nullable=False),
    sa.Column("delta", sa.Float, nullable=False),
)

endorsements = sa.Table(
    "endorsements",
    _metadata,
    sa.Column("study_digest", sa.String(64), primary_key=True),
    sa.Column("model_digest", sa.String(64), primary_key=True),
    sa.Column("site", sa.String(40), primary_key=True),
    sa.Column("entry", sa.LargeBinary, nullable=False),  # the site's signed model.verified
)

journal = sa.Table(
    "journal",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("study_digest", sa.String(64), nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("event", sa.LargeBinary, nullable=False),
)

outbox = sa.Table(
    "outbox",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("entry", sa.LargeBinary, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """Where a study stands."""

    study: StudyId
    digest: Digest
    document: bytes
    state: str
    next_round: RoundNumber
    next_attempt: int
    last_attempt: int  # the present round is not attempted more often than this before somebody looks
    model_digest: Digest
    transcript: Digest
    measured: tuple[SiteId, ...]  # survivors of the last round whose metrics were published; empty before the first
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRow:
    """An enrolled site."""

    site: SiteId
    certificate: bytes
    spki_sha256: Digest
    signing_key: str
    ecdsa_key: str
    enrolled_at: datetime
    revoked: bool
    last_sequence: int
    last_event_sha256: str


class Database:
    """One engine. `transaction()` is the only way to write."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _sqlite_durable)
            sa.event.listen(self._engine, "begin", _sqlite_begin)
        try:
            with self.transaction() as connection:
                _metadata.create_all(connection)
            self.scrub()  # a process that was killed left its write-ahead log behind
        except BaseException:
            self.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """All of the writes inside happen, or none.

        Raises:
            HomeUnwritable: The disk refuses, or another process holds the database.
            HomeInvalid: The file is not a database of ours.
            sa.exc.IntegrityError: A row that is there already; for the caller to explain.
        """
        with _explained(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One consistent view, without waiting for whoever writes; raises as `transaction` does."""
        with _explained(), self._engine.connect() as connection:
            yield connection.execution_options(**{_READ_ONLY: True})

    def scrub(self) -> None:
        """Make what was deleted unreadable in the files too, as far as they are ours; does nothing if they are busy.

        SQLite overwrites what it deletes (`secure_delete`), but its write-ahead log keeps the pages as they were until
        it begins anew.
        """
        if self._engine.dialect.name != "sqlite":
            return
        with suppress(sa.exc.OperationalError, sqlite3.OperationalError):
            connection = self._engine.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute(f"PRAGMA busy_timeout={_SCRUB_PATIENCE_MS}")
                try:
                    cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    cursor.fetchall()
                finally:
                    cursor.execute(f"PRAGMA busy_timeout={_PATIENCE_MS}")
                    cursor.close()
            finally:
                connection.close()  # back to the pool

    def close(self) -> None:
        """Release the file."""
        self._engine.dispose()


_READ_ONLY = "consortium_read_only"
_PATIENCE_MS, _SCRUB_PATIENCE_MS = 10_000, 100


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sa.exc.OperationalError as error:
        raise HomeUnwritable(f"the database could not be used: {error.orig}") from error
    except sa.exc.IntegrityError:
        raise
    except sa.exc.DatabaseError as error:
        raise HomeInvalid(f"the database could not be read: {error.orig}") from error


def _sqlite_durable(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # SQLAlchemy says when to begin
    try:
        cursor = connection.cursor()
        # secure_delete: shares in the journal of a closed round are gone, not only unlisted.
        for pragma in (
            f"busy_timeout={_PATIENCE_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
    except BaseException:
        connection.close()
        raise


def _sqlite_begin(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def study_row(row: sa.Row[tuple[object, ...]]) -> StudyRow:
    """A row of `studies` as a value."""
    return StudyRow(
        study=StudyId(row.study),
        digest=Digest(row.digest),
        document=row.document,
        state=row.state,
        next_round=RoundNumber(row.next_round),
        next_attempt=row.next_attempt,
        last_attempt=row.last_attempt,
        model_digest=Digest(row.model_digest),
        transcript=Digest(row.transcript),
        measured=tuple(SiteId(name) for name in json.loads(row.measured)),
        reason=row.reason,
    )

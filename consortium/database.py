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
from consortium.errors import DatabaseAway, DatabaseBusy, DatabaseLed, HomeInvalid, HomeUnwritable
from consortium.migrations import bring_up_to_date

_metadata = sa.MetaData()

invitations = sa.Table(
    "invitations",
    _metadata,
    sa.Column("token_sha256", sa.String(64), primary_key=True),
    sa.Column("site", sa.String(40), nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),  # unix seconds
    sa.Column("used_at", sa.Float),
    sa.Column("legal_entity", sa.Text, nullable=False, default="", server_default=""),
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
    sa.Column("legal_entity", sa.Text, nullable=False, default="", server_default=""),
    sa.Column("suspended_at", sa.Float),
    sa.Column("reason", sa.Text, nullable=False, default="", server_default=""),  # of its suspension
    sa.Column("next_certificate", sa.LargeBinary),  # DER; renewed, and not shown by the site yet
    sa.Column("next_spki_sha256", sa.String(64)),
    sa.Column("previous_spki_sha256", sa.String(64)),  # of the certificate before, which goes on for a while
    sa.Column("previous_until", sa.Float),
)

# Keys that hospitals signed with and do not any more: nobody is enrolled with one again, nor changes to one.
former_keys = sa.Table(
    "former_keys",
    _metadata,
    sa.Column("signing_key", sa.String(64), primary_key=True),
    sa.Column("ecdsa_key", sa.String(130), nullable=False, unique=True),
    sa.Column("site", sa.String(40), nullable=False),
    sa.Column("enrolled_at", sa.Float, nullable=False),  # which enrolment of the site they go back to
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
    # Whoever submitted it, by the pseudonym that the log has, and the signed statement; empty from before there was one
    sa.Column("owner", sa.String(80), nullable=False, default="", server_default=""),
    sa.Column("submission", sa.Text, nullable=False, default="", server_default=""),
)

accounts = sa.Table(
    "accounts",
    _metadata,
    sa.Column("account", sa.String(40), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("spki_sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("signing_key", sa.String(64), nullable=False, unique=True),
    sa.Column("enrolled_at", sa.Float, nullable=False),
    sa.Column("not_after", sa.Float, nullable=False),  # of its newest certificate
    sa.Column("revoked_at", sa.Float),
)

account_invitations = sa.Table(
    "account_invitations",
    _metadata,
    sa.Column("token_sha256", sa.String(64), primary_key=True),
    sa.Column("account", sa.String(40), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),  # unix seconds
    sa.Column("used_at", sa.Float),
)

approvals = sa.Table(
    "approvals",
    _metadata,
    sa.Column("study_digest", sa.String(64), primary_key=True),
    sa.Column("site", sa.String(40), primary_key=True),
    sa.Column("decision", sa.String(16), nullable=False),  # approved | rejected | unsigned: handed over, and not taken
    sa.Column("reason", sa.Text, nullable=False, default=""),
)

steward_keys = sa.Table(
    "steward_keys",
    _metadata,
    sa.Column("site", sa.String(40), primary_key=True),
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("steward", sa.String(80), nullable=False, default=""),  # the pseudonym; empty of a key that is gone
    sa.Column("standing", sa.Boolean, nullable=False),
)

steward_signatures = sa.Table(
    "steward_signatures",
    _metadata,
    sa.Column("site", sa.String(40), primary_key=True),
    sa.Column("study_digest", sa.String(64), primary_key=True),
    sa.Column("sig", sa.String(88), primary_key=True),  # under an approval
    sa.Column("used_up", sa.Boolean, nullable=False),  # that was taken back
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

webhooks = sa.Table(
    "webhooks",
    _metadata,
    sa.Column("url", sa.String(1024), primary_key=True),
    sa.Column("next_leaf", sa.Integer, nullable=False),  # everything before it has been told, or was not to be
)

witnesses = sa.Table(
    "witnesses",
    _metadata,
    sa.Column("site", sa.String(40), primary_key=True),
    sa.Column("vkey", sa.String(512), nullable=False),  # of the site's newest witness.enrolled
)

cosigned = sa.Table(
    "cosigned",
    _metadata,
    sa.Column("size", sa.Integer, primary_key=True),  # entries that the checkpoint covers
    sa.Column("note", sa.LargeBinary, nullable=False),  # with every cosignature that has come for it
)

objections = sa.Table(
    "objections",
    _metadata,
    sa.Column("witness", sa.String(512), primary_key=True),  # a site, or an outside witness by its key's name
    sa.Column("status", sa.Integer, nullable=False),  # of its answer; 0 for an entry of its own that it misses
    sa.Column("said", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),  # unix seconds
)

deployed = sa.Table(
    "deployed",
    _metadata,
    sa.Column("part", sa.String(40), primary_key=True),  # the configuration file, or the software
    sa.Column("sha256", sa.String(64), nullable=False),  # as the log has it
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
    owner: str = ""  # the pseudonym of whoever submitted it
    submission: str = ""  # what the owner signed, as JSON (`contract/submission.py`)


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
    legal_entity: str = ""  # whom the certificate is for, as the consortium lead wrote it; empty: not said
    suspended: bool = False
    reason: str = ""  # why it is suspended
    next_spki_sha256: str = ""  # of a renewed certificate that the site has not shown yet
    previous_spki_sha256: str = ""  # of the one before, good until:
    previous_until: float = 0.0  # unix seconds

    @property
    def stands(self) -> bool:
        """Whether it may take part: neither revoked nor suspended."""
        return not self.revoked and not self.suspended


class Database:
    """One engine. `transaction()` is the only way to write."""

    def __init__(self, url: str) -> None:
        """Open it, and bring its tables up to date.

        Raises:
            SchemaTooNew: A newer program was here.
            DatabaseLed: Another coordinator works with it; only PostgreSQL can tell, of SQLite the log's lock does.
            HomeUnwritable, HomeInvalid: See `transaction`.
        """
        self._engine = _engine(url)
        self._leading: sa.Connection | None = None
        self._leading_pid = 0
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _sqlite_durable)
            sa.event.listen(self._engine, "begin", _sqlite_begin)
        else:
            sa.event.listen(self._engine, "begin", self._postgresql_begin)
        try:
            self._lead()
            with self.transaction() as connection:
                bring_up_to_date(connection, _metadata)
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

    def _lead(self) -> None:
        """One coordinator for a database: a lock that ends with its connection, and so with its process."""
        if self._engine.dialect.name == "sqlite":
            return
        with _explained():
            self._leading = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            if not self._leading.execute(_LEAD).scalar():
                raise DatabaseLed
            self._leading_pid = int(self._leading.execute(sa.func.pg_backend_pid().select()).scalar_one())

    def require_lead(self) -> None:
        """Raise DatabaseLed if the lock may be another's by now: the server was started again, or is gone."""
        if self._leading is None:
            return
        try:
            held = self._leading.execute(_LEADS, {"pid": self._leading_pid}).scalar()
        except sa.exc.SQLAlchemyError as error:
            raise DatabaseLed from error
        if not held:
            raise DatabaseLed

    def _postgresql_begin(self, connection: sa.Connection) -> None:
        """As SQLite has it: one writer at a time, and a reader sees one state from its first question on.

        A writer asks whether this process still leads, for its pool outlives a restart of the server and the lock does
        not.
        """
        options = connection.get_execution_options()
        if options.get("isolation_level") == "AUTOCOMMIT":
            return
        if options.get(_READ_ONLY, False):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return
        connection.exec_driver_sql(_WRITE_IN_TURNS)
        if not connection.execute(_LEADS, {"pid": self._leading_pid}).scalar():
            raise DatabaseLed

    def close(self) -> None:
        """Release the file, or the lock."""
        if self._leading is not None:
            self._leading.close()
        self._engine.dispose()


def _engine(url: str) -> sa.Engine:
    """SQLAlchemy's engine; PostgreSQL is reached by psycopg 3, however its address is written."""
    if url.startswith("postgresql://"):
        url = f"postgresql+psycopg://{url.removeprefix('postgresql://')}"
    try:
        return sa.create_engine(url, pool_pre_ping=True) if url.startswith("postgresql") else sa.create_engine(url)
    except ImportError as error:
        package = "pip install 'hospital-consortium[postgres]'"
        raise HomeInvalid(f"the state is in PostgreSQL, which needs psycopg: {package}") from error


_LOCK = int.from_bytes(b"consrtm", "big")  # any number of ours: locks are per database
_LEAD = sa.text(f"SELECT pg_try_advisory_lock({_LOCK})")
_LEADS = sa.text(
    "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND pid = :pid AND granted"
    " AND (classid::bigint << 32) + objid::bigint = :lock"
).bindparams(lock=_LOCK)
_WRITE_IN_TURNS = f"SELECT pg_advisory_xact_lock({_LOCK + 1})"
_READ_ONLY = "consortium_read_only"
_PATIENCE_MS, _SCRUB_PATIENCE_MS = 10_000, 100
_SAID_MAX = 200


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sa.exc.OperationalError as error:
        raise _refused(error.orig) from error
    except sa.exc.IntegrityError:
        raise
    except sa.exc.DatabaseError as error:
        raise HomeInvalid(f"the database could not be read: {error.orig}") from error


def _refused(error: BaseException | None) -> HomeUnwritable:
    """Why the database would not: busy, away, or a disk that is full, read-only or broken."""
    if not isinstance(error, sqlite3.Error):
        return DatabaseAway(" ".join(str(error).split())[:_SAID_MAX])
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseBusy(_PATIENCE_MS / 1000)
    return HomeUnwritable(f"the database could not be used: {error}")


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
        owner=row.owner,
        submission=row.submission,
    )

"""What the hospital's agent remembers: approvals, its signed events, what left the building, what it released.

SQLite in the agent's home, WAL with synchronous=FULL, so that every answer that must be remembered (an approval, a
release of shares) is on disk before it has any effect. The command line and the running agent may use it at once.
The privacy ledger is a file of its own (`ledger.py`).
"""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from audit.entries import NO_ENTRY
from audit.entry_types.steward_entries import StewardSignature
from audit.site_keys import KeysChanged, SigningKeys
from consortium.contract.names import Digest, SiteId, StudyId
from site_agent import egress_rows, own_key_rows, starts, steward_rows, told, withdrawal_rows
from site_agent.egress_rows import EgressRecord, LogHead
from site_agent.errors import SiteError
from site_agent.own_key_rows import OwnChange, PeerChange
from site_agent.sqlite_trouble import passes, words_of
from site_agent.steward_rows import KeyChange, StewardRow
from site_agent.told import Told
from site_agent.withdrawal_rows import Retaken, Withdrawal, WithdrawalRow

PATIENCE_MS = 15_000
"""How long another process may hold the file."""
SCRUB_AFTER_S = 10.0
"""Shares of closed rounds are in no file any more after so long, or once the study has ended."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions (
    study_digest TEXT PRIMARY KEY, study TEXT NOT NULL, document BLOB NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('approved', 'rejected', 'withdrawn')),
    steward TEXT NOT NULL, statement TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY, entry BLOB NOT NULL, acknowledged INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS events_to_hand_over ON events (sequence) WHERE acknowledged = 0;
CREATE TABLE IF NOT EXISTS released (
    context TEXT PRIMARY KEY, study_digest TEXT NOT NULL, model_digest TEXT NOT NULL, transcript TEXT NOT NULL,
    survivors TEXT NOT NULL, measured INTEGER NOT NULL, plan BLOB NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS released_of_study ON released (study_digest, measured, model_digest);
CREATE TABLE IF NOT EXISTS shares_sent (
    context TEXT PRIMARY KEY, study_digest TEXT NOT NULL, message BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS peers (
    site TEXT PRIMARY KEY, spki_sha256 TEXT NOT NULL, signing_key TEXT NOT NULL, ecdsa_key TEXT NOT NULL,
    first_seen REAL NOT NULL);
CREATE TABLE IF NOT EXISTS chain (
    study_digest TEXT PRIMARY KEY, round INTEGER NOT NULL, model_digest TEXT NOT NULL, transcript TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ended (study_digest TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS announced (study_digest TEXT PRIMARY KEY);
"""


class StoreUnwritable(SiteError):
    """The file cannot be read or written: a full disk, permissions, damage. Nothing was changed."""

    code = "try_later"

    def __init__(self, words: str, *, passes: bool = False) -> None:
        """`passes`: whether the same may succeed later without anybody changing the file (`sqlite_trouble.py`)."""
        super().__init__(words)
        self.passes = passes

    def advice(self) -> str:
        """What to do next."""
        return (
            "Free some space in the agent's home, close whatever keeps the file open, or mend its permissions; nothing "
            "half-written was kept. An agent that was running goes on by itself; otherwise start it again."
        )


class PeerChanged(SiteError):
    """A hospital shows another key than the one it had before."""

    def __init__(self, site: SiteId) -> None:
        super().__init__(f"the signing keys of {site} are not those this agent has known")
        self.site = site

    def advice(self) -> str:
        """What to do next."""
        return (
            f"Telephone {self.site} and compare fingerprints. If it really enrolled with new keys, accept them with "
            f"`site-agent peers forget {self.site}`; if not, somebody is impersonating it."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the steward decided about a study."""

    study_digest: Digest
    study: StudyId
    document: bytes
    decision: str  # approved | rejected | withdrawn
    steward: str
    statement: str
    at: float
    signatures: tuple[StewardSignature, ...] = ()  # of stewards, with keys of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainLink:
    """The last round of a study this site saw closed, and the global model that follows from it."""

    round: int
    model_digest: Digest
    transcript: Digest
    ended: bool = False  # whether the study's own rule makes it the last round (`evaluation.keep_best`)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """An attempt in which this site released shares, so that the sum over `survivors` may be known (protocol 4.4)."""

    context: bytes  # 32 bytes
    model_digest: Digest  # the global model the attempt started from
    transcript: bytes  # T3
    survivors: tuple[SiteId, ...]
    measured: bool  # whether the sum has exact metrics in it
    plan: bytes = field(repr=False)  # RoundPlan.to_bytes(): a result that comes after a restart is still verified


BuildEntry: TypeAlias = Callable[[int, str], bytes]
"""Given an entry's counter and the hash of the entry before it (64 zeros for the first), its signed bytes."""


class Store:
    """The agent's memory. Safe to use from several threads and processes at once.

    Raises (every method):
        StoreUnwritable: The file cannot be read or written; nothing was changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.touch(mode=0o600)  # before SQLite makes it, so that it is never readable by others
            path.chmod(0o600)
        except OSError as error:
            raise StoreUnwritable(f"{path.name} could not be made: {error.strerror}") from error
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None
        self._inode = 0  # of the file that is open
        with self._transaction() as connection:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            told.make(connection)
            starts.make(connection)
            steward_rows.make(connection)
            withdrawal_rows.make(connection)
            egress_rows.make(connection)
            own_key_rows.make(connection)
        self._scrubbed_s = 0.0
        self._scrub()  # a process that was killed left its write-ahead log behind

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with self._lock:
            self._close()

    @contextmanager
    def _transaction(self, *, synchronous: str = "FULL") -> Iterator[sqlite3.Connection]:
        """One connection stays open: opening and closing one takes longer than what is done with it in between."""
        with self._lock:
            connection = self._connection()
            try:
                connection.execute(f"PRAGMA synchronous={synchronous}")
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._close()
                raise self._refused(error) from error
            except BaseException:
                self._close()
                raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """For one question: it takes microseconds and waits for no other process, whatever that one is writing."""
        with self._lock:
            connection = self._connection()
            try:
                yield connection
            except sqlite3.Error as error:
                self._close()
                raise self._refused(error) from error

    def _refused(self, error: sqlite3.Error) -> StoreUnwritable:
        words = words_of(error, PATIENCE_MS / 1000)
        return StoreUnwritable(f"{self._path.name} could not be used: {words}", passes=passes(error))

    def _connection(self) -> sqlite3.Connection:
        try:
            identity = self._path.stat().st_ino
        except OSError as error:
            raise StoreUnwritable(f"{self._path.name} is not there any more: {error.strerror}") from error
        if self._open is not None and identity != self._inode:
            # What is written to a file that was taken away is forgotten at the next start: releases, too.
            raise StoreUnwritable(f"{self._path.name} was replaced while the agent was using it")
        if self._open is None:
            self._inode = identity
            try:
                self._open = sqlite3.connect(
                    self._path, timeout=PATIENCE_MS / 1000, isolation_level=None, check_same_thread=False
                )
                self._open.execute("PRAGMA journal_mode=WAL")
                self._open.execute("PRAGMA synchronous=FULL")
                # Shares of a closed round are gone, not only unlisted.
                self._open.execute("PRAGMA secure_delete=ON")
            except sqlite3.Error as error:
                self._close()
                raise self._refused(error) from error
        return self._open

    def _scrub(self) -> None:
        """SQLite overwrites what it deletes, but its write-ahead log keeps the pages as they were until it is emptied.

        Does nothing if another process is reading.
        """
        with self._lock:
            self._scrubbed_s = time.monotonic()
            connection = self._connection()
            with suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA busy_timeout=100")
                try:
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                finally:
                    connection.execute(f"PRAGMA busy_timeout={PATIENCE_MS}")

    def _close(self) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            connection.close()  # without COMMIT this rolls back

    # --- starts ----------------------------------------------------------------------------------------------------

    def begin_start(self, start: bytes) -> tuple[bytes, ...]:
        """Remember that the agent was started; returns the earlier starts of this home (`starts.py`)."""
        with self._transaction() as connection:
            return starts.begin(connection, start)

    def start_welcomed(self, start: bytes) -> None:
        """The coordinator knows of this start."""
        with self._transaction() as connection:
            starts.welcomed(connection, start)

    # --- approvals -------------------------------------------------------------------------------------------------

    def decision(self, study_digest: Digest) -> Decision | None:
        """The standing decision about a study, or None if there is none yet."""
        with self._reading() as connection:
            row = connection.execute("SELECT * FROM decisions WHERE study_digest = ?", (study_digest,)).fetchone()
            return _decision(row, steward_rows.signatures(connection, study_digest)) if row else None

    def decisions(self) -> tuple[Decision, ...]:
        """Every decision, oldest first."""
        with self._reading() as connection:
            rows = connection.execute("SELECT * FROM decisions ORDER BY at").fetchall()
            return tuple(_decision(row, steward_rows.signatures(connection, Digest(row[0]))) for row in rows)

    def stewards(self) -> tuple[StewardRow, ...]:
        """Every steward's key this hospital ever registered, oldest first."""
        with self._reading() as connection:
            return steward_rows.read(connection)

    def keep_signature(self, study_digest: Digest, signed: StewardSignature) -> tuple[StewardSignature, ...]:
        """Remember one steward's approval while others are waited for; returns all there are of the study."""
        with self._transaction() as connection:
            steward_rows.sign(connection, study_digest, signed)
            return steward_rows.signatures(connection, study_digest)

    def forget_steward(self, name: str, pseudonym: str) -> None:
        """Put a pseudonym in the place of the name of whoever decided; the name is nowhere in this file any more."""
        with self._transaction() as connection:
            connection.execute("UPDATE decisions SET steward = ? WHERE steward = ?", (pseudonym, name))
        self._scrub()

    # --- signed events ---------------------------------------------------------------------------------------------

    def add_events(
        self,
        builds: Sequence[BuildEntry],
        *,
        decision: Decision | None = None,
        closed: tuple[Digest, ChainLink] | None = None,
        announcing: Digest | None = None,
        spent: Told | None = None,
        key_change: KeyChange | None = None,
        withdrawal: Withdrawal | None = None,
        retaken: Retaken | None = None,
        under: SigningKeys | Literal[""] | None = "",
        own_keys: OwnChange | None = None,
        durably: bool = True,
    ) -> bool:
        """Make the next events of this site's chain and keep them until the log has them, all or none.

        Args:
            builds: One for each event.
            decision: What was decided about a study, to remember with them; it replaces an earlier decision.
            closed: A study and its round that this site saw closed, to remember with them.
            announcing: A study that is announced by them, once.
            spent: What they say was spent, to remember with them; each attempt is signed for once, in order.
            key_change: A steward's key that comes or goes, to remember with them.
            withdrawal: Patients who withdrew, to remember with them.
            retaken: A study whose cohort they are about, which was due to be signed for again.
            under: The keys that they are signed with, None for those of the enrolment; not given: whoever calls knows.
            own_keys: The keys that entries stand under from the next one on, which the last of these names.
            durably: Whether they outlive a power cut from now on. Otherwise they outlive the process, and a power cut
                once anything else is remembered.

        Raises:
            OwnKeysChanged: Entries stand under other keys than `under` by now; nothing was kept.
            StewardGone: The steward who signed for `own_keys` was removed; nothing was kept.

        Returns:
            False, and nothing is done, if the study was announced before, its cohort was not due, or the spend was
            signed for.
        """
        with self._transaction(synchronous="FULL" if durably else "NORMAL") as connection:
            if under != "":
                own_key_rows.require_own(connection, under)
            if announcing is not None:
                cursor = connection.execute("INSERT OR IGNORE INTO announced VALUES (?)", (announcing,))
                if cursor.rowcount != 1:
                    return False
            if retaken is not None and not withdrawal_rows.taken(connection, retaken):
                return False
            if spent is not None and not told.is_news(connection, spent):
                return False
            entry = b""
            for build in builds:
                last = connection.execute(
                    "SELECT sequence, entry FROM events ORDER BY sequence DESC LIMIT 1"
                ).fetchone()
                sequence, previous = (last[0] + 1, hashlib.sha256(last[1]).hexdigest()) if last else (1, NO_ENTRY)
                entry = build(sequence, previous)
                connection.execute("INSERT INTO events (sequence, entry) VALUES (?, ?)", (sequence, entry))
            if decision is not None:
                _remember(connection, decision)
                egress_rows.decided(connection, decision.study_digest, decision.decision == "approved", entry)
            if spent is not None:
                told.remember(connection, spent)
            if key_change is not None:
                steward_rows.change(connection, key_change)
            if own_keys is not None:
                own_key_rows.change_own(connection, own_keys)
            if withdrawal is not None:
                withdrawal_rows.add(connection, withdrawal)
            if closed is not None:
                study_digest, link = closed
                connection.execute(
                    "INSERT OR REPLACE INTO chain VALUES (?, ?, ?, ?)",
                    (study_digest, link.round, link.model_digest, link.transcript),
                )
                if link.ended:
                    connection.execute("INSERT OR IGNORE INTO ended VALUES (?)", (study_digest,))
                connection.execute("DELETE FROM shares_sent WHERE study_digest = ?", (study_digest,))
        if closed is not None and time.monotonic() - self._scrubbed_s >= SCRUB_AFTER_S:
            self._scrub()
        return True

    def pending_events(self, limit: int = 1000) -> tuple[tuple[int, bytes], ...]:
        """The first events that the coordinator has not acknowledged: counter and bytes, in order."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT sequence, entry FROM events WHERE acknowledged = 0 ORDER BY sequence LIMIT ?", (limit,)
            )
            return tuple((row[0], row[1]) for row in rows)

    def acknowledge(self, last_sequence: int) -> int:
        """The log holds every event up to this counter; returns how many of them were pending."""
        with self._transaction() as connection:
            return connection.execute(
                "UPDATE events SET acknowledged = 1 WHERE acknowledged = 0 AND sequence <= ?", (last_sequence,)
            ).rowcount

    def signed_entries(self) -> tuple[bytes, ...]:
        """Every entry this site ever signed, in the order of its chain."""
        with self._reading() as connection:
            return tuple(row[0] for row in connection.execute("SELECT entry FROM events ORDER BY sequence"))

    def signed_entry(self, sequence: int) -> bytes | None:
        """The entry with this counter, as this site signed it; None if there is none."""
        with self._reading() as connection:
            row = connection.execute("SELECT entry FROM events WHERE sequence = ?", (sequence,)).fetchone()
        return bytes(row[0]) if row else None

    def own_keys(self) -> SigningKeys | None:
        """The signing keys that this site's next entry stands under; None for those of its enrolment."""
        with self._reading() as connection:
            return own_key_rows.own(connection)

    def former_own_keys(self, enrolled: str) -> tuple[str, ...]:
        """The Ed25519 keys that this site had before it changed them; `enrolled` is the first."""
        with self._reading() as connection:
            return (enrolled, *own_key_rows.every_own(connection))[:-1]

    def settle_own_keys(self, settle: Callable[[SigningKeys | None], None]) -> None:
        """Call `settle` with those keys while nobody can sign an entry, nor change them."""
        with self._transaction() as connection:
            settle(own_key_rows.own(connection))

    def last_acknowledged(self) -> int:
        """The counter of the last entry that the coordinator has taken in; 0 before the first."""
        with self._reading() as connection:
            return int(
                connection.execute("SELECT COALESCE(MAX(sequence), 0) FROM events WHERE acknowledged = 1").fetchone()[0]
            )

    def told(self) -> tuple[Told, ...]:
        """What this site has signed that it spent: the last spend of every study on every dataset."""
        with self._reading() as connection:
            return told.read(connection)

    def newest_in_log(self) -> bytes | None:
        """The last entry that the log is known to hold; None before the first."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT entry FROM events WHERE acknowledged = 1 ORDER BY sequence DESC LIMIT 1"
            ).fetchone()
        return bytes(row[0]) if row else None

    def last_sequence(self) -> int:
        """The counter of this site's newest entry; 0 before the first."""
        with self._reading() as connection:
            return int(connection.execute("SELECT COALESCE(MAX(sequence), 0) FROM events").fetchone()[0])

    # --- egress ----------------------------------------------------------------------------------------------------

    def record_egress(self, record: EgressRecord) -> None:
        """Write down that something leaves.

        It outlives the process, and a power cut once anything else is remembered: the list is long and nothing is
        decided by it, so each line does not wait for the disk by itself.
        """
        with self._transaction(synchronous="NORMAL") as connection:
            egress_rows.add(connection, record)

    def egress(self, limit: int = -1) -> tuple[EgressRecord, ...]:
        """What has left and is not in the hospital's own log yet, oldest first; all of it, or the first so many."""
        with self._reading() as connection:
            return egress_rows.read(connection, limit)

    def egress_moved(self, last: int, head: LogHead) -> None:
        """The hospital's own log has every record up to number `last` and stands at `head`."""
        with self._transaction(synchronous="NORMAL") as connection:
            egress_rows.moved(connection, last, head)

    def egress_head(self) -> LogHead | None:
        """Where the hospital's own log stood when records were moved there last; None before the first time."""
        with self._reading() as connection:
            return egress_rows.head(connection)

    # --- releases (protocol 4.4) -----------------------------------------------------------------------------------

    def record_release(self, study_digest: Digest, release: Release, shares: bytes) -> bool:
        """Write, durably, that shares of this attempt are about to be released; False if they were before.

        Args:
            study_digest: The study.
            release: The attempt and its sum.
            shares: The message that will carry them, kept until the round is closed here. Only these bytes may be
                sent again, to a coordinator that lost them.
        """
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO shares_sent VALUES (?, ?, ?)", (release.context.hex(), study_digest, shares)
            )
            cursor = connection.execute(
                "INSERT OR IGNORE INTO released VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    release.context.hex(),
                    study_digest,
                    release.model_digest,
                    release.transcript.hex(),
                    ",".join(release.survivors),
                    release.measured,
                    release.plan,
                    time.time(),
                ),
            )
            return cursor.rowcount == 1

    def release(self, context: bytes) -> Release | None:
        """What this site released in an attempt, or None."""
        return next(iter(self._releases("context = ?", context.hex())), None)

    def measured_releases(self, study_digest: Digest, model_digest: Digest) -> tuple[Release, ...]:
        """Releases with exact metrics: the study's last one, and those on one global model, in order."""
        return self._releases(
            "study_digest = ?1 AND measured AND (model_digest = ?2 OR rowid ="
            " (SELECT MAX(rowid) FROM released WHERE study_digest = ?1 AND measured))",
            study_digest,
            model_digest,
        )

    def releases(self, study_digest: Digest) -> tuple[Release, ...]:
        """Every attempt of a study in which this site released shares, in order."""
        return self._releases("study_digest = ?", study_digest)

    def _releases(self, which: str, *values: str) -> tuple[Release, ...]:
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT context, model_digest, transcript, survivors, measured, plan FROM released"  # noqa: S608 - three conditions, above
                f" WHERE {which} ORDER BY rowid",
                values,
            )
            return tuple(
                Release(
                    context=bytes.fromhex(row[0]),
                    model_digest=Digest(row[1]),
                    transcript=bytes.fromhex(row[2]),
                    survivors=tuple(SiteId(name) for name in row[3].split(",")),
                    measured=bool(row[4]),
                    plan=row[5],
                )
                for row in rows
            )

    def forget_shares(self, study_digest: Digest) -> None:
        """The study has ended: nobody will ask for them again, and no file shall have them."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM shares_sent WHERE study_digest = ?", (study_digest,))
        self._scrub()

    def shares_sent(self, context: bytes) -> bytes | None:
        """The message that carried this site's shares of an attempt whose round is not closed here yet, or None."""
        with self._reading() as connection:
            row = connection.execute("SELECT message FROM shares_sent WHERE context = ?", (context.hex(),)).fetchone()
        return bytes(row[0]) if row else None

    def released_in(self, context: bytes) -> Digest | None:
        """The study of an attempt in which this site released shares, or None."""
        with self._reading() as connection:
            row = connection.execute("SELECT study_digest FROM released WHERE context = ?", (context.hex(),)).fetchone()
        return Digest(row[0]) if row else None

    # --- patients who withdrew -------------------------------------------------------------------------------------

    def withdrawn_marks(self) -> tuple[frozenset[bytes], frozenset[str], int]:
        """The marks of all who withdrew, the keys they are under, and how often somebody did."""
        with self._reading() as connection:
            return withdrawal_rows.marks(connection)

    def withdrawals(self) -> tuple[WithdrawalRow, ...]:
        """When patients withdrew, and of which dataset, oldest first."""
        with self._reading() as connection:
            return withdrawal_rows.read(connection)

    def cohort_is_due(self, study_digest: Digest) -> bool:
        """Whether somebody withdrew from a study since its cohort was signed for."""
        with self._reading() as connection:
            return withdrawal_rows.is_due(connection, study_digest)

    # --- other hospitals -------------------------------------------------------------------------------------------

    def pin_peer(self, site: SiteId, spki_sha256: str, signing_key: str, ecdsa_key: str) -> None:
        """Remember a hospital's keys at first sight; raises PeerChanged if it had other signing keys.

        Its TLS key may change, and does whenever its certificate is renewed: it proves the hospital to the coordinator.
        What it says to other hospitals its signing keys sign.
        """
        keys = (spki_sha256, signing_key, ecdsa_key)
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT spki_sha256, signing_key, ecdsa_key FROM peers WHERE site = ?", (site,)
            ).fetchone()
            if row is None:
                connection.execute("INSERT INTO peers VALUES (?, ?, ?, ?, ?)", (site, *keys, time.time()))
            elif row[1:] != keys[1:]:
                raise PeerChanged(site)
            elif row != keys:
                connection.execute("UPDATE peers SET spki_sha256 = ? WHERE site = ?", (spki_sha256, site))

    def peers(self) -> tuple[tuple[str, str, str, str], ...]:
        """Known hospitals: name, TLS key fingerprint, signing key, ECDSA key."""
        with self._reading() as connection:
            return tuple(
                connection.execute("SELECT site, spki_sha256, signing_key, ecdsa_key FROM peers ORDER BY site")
            )

    def follow_peer(self, change: KeysChanged) -> bool:
        """Remember the new signing keys of a hospital whose change of them holds (`audit.site_keys`).

        False, and nothing is done, unless it is known here under exactly the old ones: a change that was followed
        before, a hospital that nobody here has met, or one whose keys a person has looked into since.
        """
        with self._transaction() as connection:
            return own_key_rows.follow(connection, change)

    def followed_changes(self) -> tuple[PeerChange, ...]:
        """Changes of other hospitals' signing keys that this one followed, oldest first."""
        with self._reading() as connection:
            return own_key_rows.followed(connection)

    def forget_peer(self, site: str) -> bool:
        """Accept whatever certificate this hospital shows next; False if it was not known."""
        with self._transaction() as connection:
            return connection.execute("DELETE FROM peers WHERE site = ?", (site,)).rowcount == 1

    # --- the chain of global models (protocol 4.5) -----------------------------------------------------------------

    def chain(self, study_digest: Digest) -> ChainLink | None:
        """The last round of the study this site saw closed."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT round, model_digest, transcript, EXISTS (SELECT 1 FROM ended WHERE study_digest = ?1)"
                " FROM chain WHERE study_digest = ?1",
                (study_digest,),
            ).fetchone()
        if row is None:
            return None
        return ChainLink(round=row[0], model_digest=Digest(row[1]), transcript=Digest(row[2]), ended=bool(row[3]))


def _remember(connection: sqlite3.Connection, decision: Decision) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            decision.study_digest,
            decision.study,
            decision.document,
            decision.decision,
            decision.steward,
            decision.statement,
            decision.at,
        ),
    )
    # An approval that was taken back is used up: whoever approves again signs again.
    signed = [one for one in decision.signatures if one.decision == decision.decision]
    steward_rows.replace(connection, decision.study_digest, signed)


def _decision(row: tuple[str, str, bytes, str, str, str, float], signatures: tuple[StewardSignature, ...]) -> Decision:
    return Decision(
        study_digest=Digest(row[0]),
        study=StudyId(row[1]),
        document=row[2],
        decision=row[3],
        steward=row[4],
        statement=row[5],
        at=row[6],
        signatures=signatures,
    )

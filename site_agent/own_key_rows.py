"""Which signing keys this hospital's chain of entries stands under, in the agent's memory (agent.db).

A row for each change, written in the transaction that adds `site.keys_rotated`: from then on the next entry is signed
with the new key, whatever files the process that made the change lived to write. None: the keys of the enrolment.
And, of other hospitals, which change of theirs this one has followed.
"""

import sqlite3
import time
from dataclasses import dataclass

from audit.site_keys import KeysChanged, SigningKeys

_OWN = """CREATE TABLE IF NOT EXISTS own_keys (
    number INTEGER PRIMARY KEY AUTOINCREMENT, signing_key TEXT NOT NULL, ecdsa_key TEXT NOT NULL)"""
_FOLLOWED = """CREATE TABLE IF NOT EXISTS peer_changes (
    site TEXT NOT NULL, old_signing_key TEXT NOT NULL, old_ecdsa_key TEXT NOT NULL, signing_key TEXT NOT NULL,
    ecdsa_key TEXT NOT NULL, steward TEXT NOT NULL, at TEXT NOT NULL, followed REAL NOT NULL,
    PRIMARY KEY (site, signing_key))"""


class OwnKeysChanged(Exception):
    """An entry was to be signed with a key that another process of this agent has just replaced; nothing was kept."""


class StewardGone(Exception):
    """The steward who signed for new keys was removed meanwhile; nothing was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnChange:
    """The keys that entries stand under from the next one on, and the key of the steward who signed for them."""

    keys: SigningKeys
    steward_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerChange:
    """A change of another hospital's signing keys that this one followed."""

    change: KeysChanged
    followed: float  # unix seconds


def make(connection: sqlite3.Connection) -> None:
    """The tables."""
    connection.execute(_OWN)
    connection.execute(_FOLLOWED)


def own(connection: sqlite3.Connection) -> SigningKeys | None:
    """The keys that the next entry stands under; None for those of the enrolment."""
    row = connection.execute("SELECT signing_key, ecdsa_key FROM own_keys ORDER BY number DESC LIMIT 1").fetchone()
    return None if row is None else SigningKeys(signing=row[0], ecdsa=row[1])


def every_own(connection: sqlite3.Connection) -> tuple[str, ...]:
    """The Ed25519 keys that entries stood under since the enrolment's, and stand under now."""
    return tuple(row[0] for row in connection.execute("SELECT signing_key FROM own_keys ORDER BY number"))


def require_own(connection: sqlite3.Connection, under: SigningKeys | None) -> None:
    """Raise OwnKeysChanged unless entries stand under these keys still."""
    if own(connection) != under:
        raise OwnKeysChanged


def change_own(connection: sqlite3.Connection, change: OwnChange) -> None:
    """Entries stand under these keys from the next one on; raises StewardGone."""
    keys = change.keys
    # Here and not only before: a steward who was removed a moment ago is so in the log by now, which refuses the entry.
    if not connection.execute("SELECT 1 FROM stewards WHERE key = ? AND standing", (change.steward_key,)).fetchone():
        raise StewardGone
    connection.execute("INSERT INTO own_keys (signing_key, ecdsa_key) VALUES (?, ?)", (keys.signing, keys.ecdsa))


def follow(connection: sqlite3.Connection, change: KeysChanged) -> bool:
    """Remember the new keys of a hospital, if it is known here under exactly the old ones."""
    cursor = connection.execute(
        "UPDATE peers SET signing_key = ?, ecdsa_key = ? WHERE site = ? AND signing_key = ? AND ecdsa_key = ?",
        (change.new.signing, change.new.ecdsa, change.site, change.old.signing, change.old.ecdsa),
    )
    if cursor.rowcount != 1:
        return False
    old, new = change.old, change.new
    values = (change.site, old.signing, old.ecdsa, new.signing, new.ecdsa, change.steward, change.at, time.time())
    connection.execute("INSERT OR REPLACE INTO peer_changes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    return True


def followed(connection: sqlite3.Connection) -> tuple[PeerChange, ...]:
    """Every change that was followed here, oldest first."""
    rows = connection.execute("SELECT * FROM peer_changes ORDER BY followed, rowid")
    return tuple(
        PeerChange(
            change=KeysChanged(
                site=row[0],
                old=SigningKeys(signing=row[1], ecdsa=row[2]),
                new=SigningKeys(signing=row[3], ecdsa=row[4]),
                steward=row[5],
                at=row[6],
            ),
            followed=row[7],
        )
        for row in rows
    )

"""Hospitals' stewards' keys as their own entries name them, and which signatures are used up: kept with the approvals.

The coordinator decides nothing about stewards: it looks, by the same rule as `verify.py`, before a hospital's decision
is written down, so that an approval which the evidence would not pass never lets a hospital take part (ADR 42).
"""

import sqlalchemy as sa
import structlog

from audit import entries
from audit.entry_types.steward_entries import StewardKeyEntry
from audit.errors import AuditError, VerificationError
from audit.log import Log
from audit.stewards import About, StewardKeys, check_decision_entry
from consortium.contract.names import SiteId
from consortium.database import Database, deployed, outbox, steward_keys, steward_signatures

log = structlog.get_logger(__name__)

_READ_FROM_LOG = "stewards"
"""The part of `deployed` that says that the tables hold what the log says."""
_TYPES = tuple(
    f'"type":"{kind.TYPE}"'.encode()
    for kind in (entries.StewardEnrolled, entries.StewardRemoved, entries.StudyApproved, entries.StudyRejected)
)


class SiteStewards:
    """One hospital's, within a transaction. Mutable: what its entries change is written by `write`, once."""

    def __init__(self, connection: sa.Connection, site: SiteId, log_origin: str) -> None:
        self._connection = connection
        self._site = site
        self._origin = log_origin
        self._read: StewardKeys | None = None
        self._keys: StewardKeys | None = None
        self._signatures: dict[str, dict[str, bool]] = {}  # study digest -> signature -> whether it is used up

    def take_key(self, entry: StewardKeyEntry) -> None:
        """A key comes or goes; raises VerificationError for an entry that does not follow."""
        self._keys = self._standing().after(entry, self._origin)

    def take_decision(self, entry: entries.StudyApproved | entries.StudyRejected, study: str) -> None:
        """A decision about a study; raises VerificationError for one that does not count."""
        about = About(log=self._origin, site=self._site, study=study, study_digest=entry.study_digest)
        known = self._known(entry.study_digest)
        used_up = {signature for signature, is_used_up in known.items() if is_used_up}
        check_decision_entry(about, entry, self._standing(), used_up)
        if isinstance(entry, entries.StudyApproved):
            known.update((one.sig, False) for one in entry.signed or ())
        else:  # what was approved is taken back, and its signatures with it
            known.update(dict.fromkeys(known, True))

    def write(self) -> None:
        """Carry it out."""
        if self._keys is not None and self._keys != self._read:
            standing = [(key, steward, True) for key, steward in self._keys.standing.items()]
            rows = [*standing, *((key, "", False) for key in sorted(self._keys.gone))]
            self._connection.execute(sa.delete(steward_keys).where(steward_keys.c.site == self._site))
            self._connection.execute(
                sa.insert(steward_keys),
                [{"site": self._site, "key": k, "steward": who, "standing": stands} for k, who, stands in rows],
            )
        for digest, known in self._signatures.items():
            table = steward_signatures
            self._connection.execute(sa.delete(table).where(table.c.site == self._site, table.c.study_digest == digest))
            if known:
                named = [{"site": self._site, "study_digest": digest, "sig": s, "used_up": u} for s, u in known.items()]
                self._connection.execute(sa.insert(table), named)

    def _standing(self) -> StewardKeys:
        if self._keys is None:
            found = self._connection.execute(sa.select(steward_keys).where(steward_keys.c.site == self._site)).all()
            self._read = self._keys = StewardKeys(
                standing={row.key: row.steward for row in found if row.standing},
                gone=frozenset(row.key for row in found if not row.standing),
            )
        return self._keys

    def _known(self, digest: str) -> dict[str, bool]:
        if digest not in self._signatures:
            table = steward_signatures
            found = self._connection.execute(
                sa.select(table).where(table.c.site == self._site, table.c.study_digest == digest)
            )
            self._signatures[digest] = {row.sig: row.used_up for row in found}
        return self._signatures[digest]


def read_from_log(database: Database, audit_log: Log) -> None:
    """Once in the life of a database: what hospitals' stewards signed while coordinators did not look at it yet.

    An entry that does not follow changes nothing here; it stays in the log, where `verify.py` names it. What was
    dropped under a retention policy is not known any more, as in the evidence.
    """
    with database.reading() as connection:
        if connection.execute(sa.select(deployed.c.part).where(deployed.c.part == _READ_FROM_LOG)).first() is not None:
            return
        queued = [row.entry for row in connection.execute(sa.select(outbox.c.entry).order_by(outbox.c.id))]
    odd = 0
    with database.transaction() as connection:
        sites: dict[str, SiteStewards] = {}
        for data in (*(data for data in audit_log.known() if data is not None), *queued):
            if not any(kind in data for kind in _TYPES):
                continue
            try:
                entry = entries.parse_entry(data)
                name = entry.actor.removeprefix("site:")
                stewards = sites.setdefault(name, SiteStewards(connection, SiteId(name), audit_log.origin))
                if isinstance(entry, StewardKeyEntry):
                    stewards.take_key(entry)
                elif isinstance(entry, entries.StudyApproved | entries.StudyRejected):
                    stewards.take_decision(entry, entry.study)
            except (VerificationError, AuditError):
                odd += 1
        for stewards in sites.values():
            stewards.write()
        connection.execute(sa.insert(deployed).values(part=_READ_FROM_LOG, sha256="0" * 64))
    if odd:
        log.warning("stewards.entries_not_followed", count=odd)

"""Enrolled hospitals: who was invited, whose certificate is good, and the chain of what each one signed."""

import hashlib
import os
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import NoReturn

import sqlalchemy as sa
import structlog

from audit import entries
from audit.errors import AuditError, VerificationError
from consortium.contract import certificates
from consortium.contract.certificates import CertificateRefused, PeerIdentity, Role
from consortium.contract.kit import Kit
from consortium.contract.messages import EnrolmentGrant, EnrolmentRequest, EventReceipt
from consortium.contract.names import Digest, SiteId, is_name
from consortium.database import Database, SiteRow, approvals, endorsements, invitations, sites, spends, studies
from consortium.errors import AccessDenied, EnrolmentRefused, EventRefused, SiteConflict, SiteUnknown
from consortium.home import CoordinatorHome
from consortium.record import Recorder, now_stamp
from consortium.studies import roster_of
from privacy.secagg.messages import COORDINATOR

log = structlog.get_logger(__name__)

EVENTS_MAX = 64
"""Events a site may submit in one call."""
FAILURES_LOGGED_MAX, FAILURES_WINDOW_S = 100, 3600.0
"""How many failed attempts to get in the audit log takes: anybody can make one, and the log is kept for ever."""


class Sites:
    """The register of hospitals."""

    def __init__(self, home: CoordinatorHome, database: Database, recorder: Recorder) -> None:
        self._home = home
        self._database = database
        self._recorder = recorder
        self._failures = _AtMost(FAILURES_LOGGED_MAX, FAILURES_WINDOW_S)
        self._standing: dict[str, SiteRow] = {}  # enrolled sites, as they were read last
        self._everybody: tuple[SiteRow, ...] | None = None
        self._standing_lock = Lock()

    # --- enrolment -------------------------------------------------------------------------------------------------

    def invite(self, site: str) -> tuple[bytes, datetime]:
        """Make a one-time kit; returns its bytes and when it expires. Only the token's hash is kept here."""
        if not is_name(site) or site == COORDINATOR:
            raise SiteConflict(
                f"{site!r} cannot name a site: 3 to 40 of a-z, 0-9 and '-', starting with a letter, not {COORDINATOR!r}"
            )
        token = os.urandom(32).hex()
        expires = datetime.now(UTC) + timedelta(hours=self._home.config.token_lifetime_hours)
        with self._database.transaction() as connection:
            found = connection.execute(sa.select(sites.c.revoked_at).where(sites.c.site == site)).first()
            if found is not None and found.revoked_at is None:
                raise SiteConflict(f"{site} is enrolled; revoke it first if it needs new keys")
            connection.execute(
                sa.insert(invitations).values(
                    token_sha256=hashlib.sha256(token.encode()).hexdigest(), site=site, expires_at=expires.timestamp()
                )
            )
            self._recorder.add(connection, [entries.entry_bytes(entries.SiteInvited(**now_stamp(), site=site))])
        self._recorder.flush()
        kit = Kit(
            consortium=self._home.config.name,
            address=self._home.config.address,
            enrolment_address=self._home.config.enrolment_address,
            site=SiteId(site),
            token=token,
            log_vkey=self._home.log_vkey,
            coordinator_signing_key=self._home.signing_key_hex,
            expires=expires,
            ca_pem=self._home.ca_pem,
        )
        return kit.to_bytes(), expires

    def enrol(self, request: EnrolmentRequest) -> EnrolmentGrant:
        """Certify the keys of a site that shows an unused token; the token is spent in the same transaction.

        Raises:
            EnrolmentRefused: The token or the keys are not good; it is logged, and nothing else changed.
            RequestRefused: The certificate request is not one the authority signs; the token stays good.
        """
        now = datetime.now(UTC)
        token_sha256 = hashlib.sha256(request.token.encode()).hexdigest()
        with self._database.transaction() as connection:
            reason = self._against(connection, token_sha256, request.site, now)
        if reason:
            self._refuse(request, reason)
        pem = certificates.issue_site(
            self._home.authority,
            request.site,
            request.request_der,
            now=now,
            valid_for=timedelta(days=self._home.config.certificate_days),
        )
        der = certificates.certificate_der(pem)
        identity = certificates.verify_certificate(der, self._home.ca_certificate, now, role=Role.SITE)
        # issue_site copies both into every site's certificate.
        assert identity.signing_key is not None
        assert identity.ecdsa_key is not None
        keys = {
            "spki_sha256": identity.spki_sha256.hex(),
            "signing_key": identity.signing_key.hex(),
            "ecdsa_key": identity.ecdsa_key.hex(),
        }
        with self._database.transaction() as connection:
            # Asked again: another call may have shown the same token in between.
            reason = self._against(connection, token_sha256, request.site, now)
            taken = sa.or_(*(sites.c[name] == value for name, value in keys.items()))
            if not reason and connection.execute(sa.select(sites.c.site).where(taken)).first() is not None:
                # A chain of signed entries belongs to one key, so a key that was in use never begins a second one.
                reason = "its keys are in use, or were revoked"
            if not reason:
                self._admit(connection, request.site, der, keys, now)
        if reason:
            self._refuse(request, reason)
        self._forget_standing()
        self._recorder.flush()
        return EnrolmentGrant(consortium=self._home.config.name, certificate_pem=pem)

    def _against(self, connection: sa.Connection, token_sha256: str, site: SiteId, now: datetime) -> str:
        """What stands against an enrolment; empty if nothing does."""
        row = connection.execute(sa.select(invitations).where(invitations.c.token_sha256 == token_sha256)).first()
        enrolled = connection.execute(sa.select(sites.c.revoked_at).where(sites.c.site == site)).first()
        if row is None or row.site != site:
            return "the token is not one this consortium gave to this site"
        if row.used_at is not None:
            return "the token was used before, or is not good any more"
        if row.expires_at < now.timestamp():
            return "the token has expired"
        if enrolled is not None and enrolled.revoked_at is None:
            return "the site is enrolled already"
        return ""

    def _admit(self, connection: sa.Connection, site: SiteId, der: bytes, keys: dict[str, str], now: datetime) -> None:
        _spend_invitations(connection, site, now.timestamp())
        connection.execute(sa.delete(sites).where(sites.c.site == site))
        connection.execute(
            sa.insert(sites).values(
                site=site,
                certificate=der,
                enrolled_at=now.timestamp(),
                last_sequence=0,
                last_event_sha256=entries.NO_ENTRY,
                **keys,
            )
        )
        enrolled = entries.SiteEnrolled(
            **now_stamp(),
            site=site,
            certificate_sha256=hashlib.sha256(der).hexdigest(),
            spki_sha256=keys["spki_sha256"],
            signing_key=keys["signing_key"],
        )
        self._recorder.add(connection, [entries.entry_bytes(enrolled)])

    def _refuse(self, request: EnrolmentRequest, reason: str) -> NoReturn:
        log.warning("enrolment.refused", site=request.site, reason=reason)
        if self._failures.admit():
            failed = entries.AuthFailed(**now_stamp(), reason=f"enrolment: {reason}")
            self._recorder.record(entries.entry_bytes(failed))
        raise EnrolmentRefused(f"{request.site} cannot enrol: {reason}")

    def revoke(self, site: str) -> None:
        """Refuse the site's certificate from now on, and any kit that is still out."""
        with self._database.transaction() as connection:
            now = time.time()
            revoked = connection.execute(
                sa.update(sites).where(sites.c.site == site, sites.c.revoked_at.is_(None)).values(revoked_at=now)
            )
            if revoked.rowcount != 1:
                if connection.execute(sa.select(sites.c.site).where(sites.c.site == site)).first() is None:
                    raise SiteUnknown(site)
                raise SiteConflict(f"{site} is revoked already")
            _spend_invitations(connection, SiteId(site), now)
            entry = entries.SiteRevoked(**now_stamp(), site=site, reason="revoked by the operator")
            self._recorder.add(connection, [entries.entry_bytes(entry)])
        self._forget_standing()
        self._recorder.flush()

    # --- questions -------------------------------------------------------------------------------------------------

    def get(self, site: str) -> SiteRow:
        """An enrolled site, revoked or not; raises SiteUnknown."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(sites).where(sites.c.site == site)).first()
        if row is None:
            raise SiteUnknown(site)
        return _site_row(row)

    def all(self) -> tuple[SiteRow, ...]:
        """Every site, by name."""
        with self._database.reading() as connection:
            return tuple(_site_row(row) for row in connection.execute(sa.select(sites).order_by(sites.c.site)))

    def authenticate(self, peer: PeerIdentity) -> SiteRow:
        """The enrolled site behind a certificate; raises AccessDenied for one that was replaced or revoked."""
        row = self._standing_of(peer.name)
        if row is None or row.spki_sha256 != peer.spki_sha256.hex():
            reason = f"the certificate shown for {peer.name} is not the one enrolled"
        elif row.revoked:
            reason = f"{peer.name} is revoked"
        else:
            return row
        log.warning("site.denied", site=peer.name, reason=reason)
        if self._failures.admit():
            denied = entries.AuthzDenied(**now_stamp(), subject=f"site:{peer.name}", action="connect", rule=reason)
            self._recorder.record(entries.entry_bytes(denied))
        raise AccessDenied(reason)

    def standing(self) -> tuple[SiteRow, ...]:
        """Every site, by name, kept in memory: how far each one's chain has come may be out of date."""
        with self._standing_lock:
            if self._everybody is None:
                self._everybody = self.all()
            return self._everybody

    def _standing_of(self, name: str) -> SiteRow | None:
        """The row of an enrolled site, kept in memory: it is asked for with every call."""
        with self._standing_lock:
            if name not in self._standing:
                try:
                    self._standing[name] = self.get(name)
                except SiteUnknown:
                    return None
            return self._standing[name]

    def _forget_standing(self) -> None:
        """A site was enrolled or revoked, and that is committed: what was read before is not used again."""
        with self._standing_lock:
            self._standing.clear()
            self._everybody = None

    def is_current(self, row: SiteRow) -> bool:
        """Whether the site's certificate is good today, so that the other sites will accept it."""
        try:
            certificates.verify_certificate(row.certificate, self._home.ca_certificate, datetime.now(UTC))
        except CertificateRefused:
            return False
        return not row.revoked

    # --- what sites sign -------------------------------------------------------------------------------------------

    def submit_events(self, site: SiteId, events: Sequence[bytes]) -> EventReceipt:
        """Put a site's signed events into the log, in its order, once each.

        Events that are in the log already are acknowledged again, so that a site may repeat itself after a crash.

        Raises:
            EventRefused: A signature, counter or hash that does not continue what the site signed before, or an event
                about a study this site is no part of. Nothing of the call is kept.
        """
        if len(events) > EVENTS_MAX:
            raise EventRefused(f"{len(events)} events in one call; at most {EVENTS_MAX} are allowed")
        with self._database.transaction() as connection:
            row = connection.execute(sa.select(sites).where(sites.c.site == site)).first()
            if row is None:
                raise SiteUnknown(site)
            chain = entries.SiteChain(
                site=site, next_seq=row.last_sequence + 1, previous=row.last_event_sha256 or entries.NO_ENTRY
            )
            accepted: list[bytes] = []
            changes = _Changes(connection, site)
            for data in events:
                try:
                    entry = entries.verify_site_entry(data, bytes.fromhex(row.signing_key))
                    if entry.site_seq < chain.next_seq:
                        _check_known(chain, entry, data)
                        continue
                    chain = chain.admit(data, entry)
                except AuditError as error:
                    raise EventRefused(f"{site}: {error}") from error
                changes.take(entry, data)
                accepted.append(data)
            changes.write()
            connection.execute(
                sa.update(sites)
                .where(sites.c.site == site)
                .values(last_sequence=chain.next_seq - 1, last_event_sha256=chain.previous)
            )
            self._recorder.add(connection, accepted)
        self._recorder.flush_soon()  # they are durable: the receipt need not wait for the log
        return EventReceipt(last_sequence=chain.next_seq - 1)


class _Changes:
    """What the signed events of one call change in the state that studies are run from, written once, at its end.

    Of spends and endorsements the last one of a study counts, and no other is read. Mutable, for one transaction.
    """

    def __init__(self, connection: sa.Connection, site: SiteId) -> None:
        self._connection = connection
        self._site = site
        self._studies: dict[str, str] = {}  # name -> digest
        self._approvals: dict[str, dict[str, object]] = {}  # study digest -> columns
        self._spends: dict[str, dict[str, object]] = {}
        self._endorsements: dict[str, dict[str, object]] = {}

    def take(self, entry: entries.SiteEntry, data: bytes) -> None:
        """The next entry; raises EventRefused for one about a study this site is no part of."""
        digest = self._digest_of(entry.study)
        match entry:
            case entries.StudyApproved() | entries.StudyRejected():
                if entry.study_digest != digest:
                    raise EventRefused(
                        f"{self._site} decided on {entry.study!r} with another digest than the one submitted"
                    )
                approved = isinstance(entry, entries.StudyApproved)
                reason = "" if isinstance(entry, entries.StudyApproved) else entry.reason
                self._approvals[digest] = {"decision": "approved" if approved else "rejected", "reason": reason}
            case entries.DpSpent():
                self._spends[digest] = {"epsilon": entry.epsilon, "delta": entry.delta}
            case entries.ModelVerified():
                self._endorsements[digest] = {"model_digest": entry.next_model_digest, "entry": data}
            case _:
                pass

    def write(self) -> None:
        """Carry them out."""
        for table, changed in (
            (approvals, self._approvals),
            (spends, self._spends),
            (endorsements, self._endorsements),
        ):
            for digest, values in changed.items():
                key = {"study_digest": digest, "site": self._site}
                self._connection.execute(_FORGET[table], {f"its_{name}": value for name, value in key.items()})
                self._connection.execute(_KEEP[table], {**key, **values})

    def _digest_of(self, name: str) -> str:
        if name not in self._studies:
            study = self._connection.execute(_STUDY, {"name": name}).first()
            if study is None or self._site not in roster_of(study.document):
                raise EventRefused(f"{self._site} signed an event about {name!r}, a study it is no part of")
            self._studies[name] = study.digest
        return self._studies[name]


_STUDY = sa.select(studies.c.digest, studies.c.document).where(studies.c.study == sa.bindparam("name"))
_KEPT = (approvals, spends, endorsements)
_FORGET = {
    table: sa.delete(table).where(
        table.c.study_digest == sa.bindparam("its_study_digest"), table.c.site == sa.bindparam("its_site")
    )
    for table in _KEPT
}
_KEEP = {table: sa.insert(table) for table in _KEPT}


class _AtMost:
    """Says yes at most `most` times in any `window_s` seconds; may be asked from any thread."""

    def __init__(self, most: int, window_s: float) -> None:
        self._window_s = window_s
        self._admitted: deque[float] = deque(maxlen=most)
        self._lock = Lock()

    def admit(self) -> bool:
        """Whether this one still fits."""
        now = time.monotonic()
        with self._lock:
            if len(self._admitted) == self._admitted.maxlen and now - self._admitted[0] < self._window_s:
                return False
            self._admitted.append(now)
            return True


def _check_known(chain: entries.SiteChain, entry: entries.SiteEntry, data: bytes) -> None:
    """An event that is in the log already may come again; another one under the same number may not."""
    newest = chain.next_seq - 1
    if entry.site_seq == newest and hashlib.sha256(data).hexdigest() != chain.previous:
        raise VerificationError(f"chain of site {chain.site}", f"entry {newest} as it is in the log", "another")


def _spend_invitations(connection: sa.Connection, site: SiteId, at: float) -> None:
    """No kit made for the site so far is good any more."""
    connection.execute(
        sa.update(invitations).where(invitations.c.site == site, invitations.c.used_at.is_(None)).values(used_at=at)
    )


def _site_row(row: sa.Row[tuple[object, ...]]) -> SiteRow:
    return SiteRow(
        site=SiteId(row.site),
        certificate=row.certificate,
        spki_sha256=Digest(row.spki_sha256),
        signing_key=row.signing_key,
        ecdsa_key=row.ecdsa_key,
        enrolled_at=datetime.fromtimestamp(row.enrolled_at, UTC),
        revoked=row.revoked_at is not None,
        last_sequence=row.last_sequence,
        last_event_sha256=row.last_event_sha256,
    )

"""Enrolled hospitals: who was invited, whose certificate is good, and the chain of what each one signed."""

import hashlib
import hmac
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from audit import entries
from audit.errors import AuditError
from consortium.contract import certificates
from consortium.contract.certificates import CertificateRefused, PeerIdentity, Role
from consortium.contract.kit import Kit
from consortium.contract.messages import EnrolmentGrant, EnrolmentRequest, EventReceipt
from consortium.contract.names import Digest, SiteId, is_name
from consortium.database import Database, SiteRow, approvals, endorsements, invitations, sites, spends, studies
from consortium.errors import AccessDenied, EnrolmentRefused, EventRefused, SiteConflict, SiteUnknown
from consortium.home import CoordinatorHome
from consortium.record import Recorder, now_stamp

EVENTS_MAX = 64
"""Events a site may submit in one call."""


class Sites:
    """The register of hospitals."""

    def __init__(self, home: CoordinatorHome, database: Database, recorder: Recorder) -> None:
        self._home = home
        self._database = database
        self._recorder = recorder

    # --- enrolment -------------------------------------------------------------------------------------------------

    def invite(self, site: str) -> tuple[bytes, datetime]:
        """Make a one-time kit; returns its bytes and when it expires. Only the token's hash is kept here."""
        if not is_name(site):
            raise SiteConflict(f"{site!r} cannot name a site: 3 to 40 of a-z, 0-9 and '-', starting with a letter")
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
        """Certify the keys of a site that shows an unused token; the token is spent in the same transaction."""
        now = datetime.now(UTC)
        token_sha256 = hashlib.sha256(request.token.encode()).hexdigest()
        with self._database.transaction() as connection:
            row = connection.execute(sa.select(invitations).where(invitations.c.token_sha256 == token_sha256)).first()
            if row is None or not hmac.compare_digest(row.site, request.site):
                reason = "the token is not one this consortium gave to this site"
            elif row.used_at is not None:
                reason = "the token was used before"
            elif row.expires_at < now.timestamp():
                reason = "the token has expired"
            else:
                reason = ""
        if reason:
            self._recorder.record(entries.entry_bytes(entries.AuthFailed(**now_stamp(), reason=f"enrolment: {reason}")))
            raise EnrolmentRefused(f"{request.site} cannot enrol: {reason}")
        pem = certificates.issue_site(
            self._home.authority,
            request.site,
            request.request_der,
            now=now,
            valid_for=timedelta(days=self._home.config.certificate_days),
        )
        der = certificates.certificate_der(pem)
        identity = certificates.verify_certificate(der, self._home.ca_certificate, now, role=Role.SITE)
        assert identity.signing_key is not None  # issue_site copies it into every site's certificate
        spki_sha256, signing_key = identity.spki_sha256.hex(), identity.signing_key.hex()
        with self._database.transaction() as connection:
            spent = connection.execute(
                sa.update(invitations)
                .where(invitations.c.token_sha256 == token_sha256, invitations.c.used_at.is_(None))
                .values(used_at=now.timestamp())
            )
            if spent.rowcount != 1:
                raise EnrolmentRefused(f"{request.site} cannot enrol: the token was used before")
            connection.execute(sa.delete(sites).where(sites.c.site == request.site))
            connection.execute(
                sa.insert(sites).values(
                    site=request.site,
                    certificate=der,
                    spki_sha256=spki_sha256,
                    signing_key=signing_key,
                    enrolled_at=now.timestamp(),
                    last_sequence=0,
                    last_event_sha256=entries.NO_ENTRY,
                )
            )
            enrolled = entries.SiteEnrolled(
                **now_stamp(),
                site=request.site,
                certificate_sha256=hashlib.sha256(der).hexdigest(),
                spki_sha256=spki_sha256,
                signing_key=signing_key,
            )
            self._recorder.add(connection, [entries.entry_bytes(enrolled)])
        self._recorder.flush()
        return EnrolmentGrant(consortium=self._home.config.name, certificate_pem=pem)

    def revoke(self, site: str) -> None:
        """Refuse the site's certificate from now on."""
        self.get(site)
        with self._database.transaction() as connection:
            connection.execute(sa.update(sites).where(sites.c.site == site).values(revoked_at=time.time()))
            entry = entries.SiteRevoked(**now_stamp(), site=site, reason="revoked by the operator")
            self._recorder.add(connection, [entries.entry_bytes(entry)])
        self._recorder.flush()

    # --- questions -------------------------------------------------------------------------------------------------

    def get(self, site: str) -> SiteRow:
        """An enrolled site, revoked or not; raises SiteUnknown."""
        with self._database.transaction() as connection:
            row = connection.execute(sa.select(sites).where(sites.c.site == site)).first()
        if row is None:
            raise SiteUnknown(site)
        return _site_row(row)

    def all(self) -> tuple[SiteRow, ...]:
        """Every site, by name."""
        with self._database.transaction() as connection:
            return tuple(_site_row(row) for row in connection.execute(sa.select(sites).order_by(sites.c.site)))

    def authenticate(self, peer: PeerIdentity) -> SiteRow:
        """The enrolled site behind a certificate; raises AccessDenied for one that was replaced or revoked."""
        try:
            row = self.get(peer.name)
        except SiteUnknown:
            row = None
        if row is None or row.spki_sha256 != peer.spki_sha256.hex():
            reason = f"the certificate shown for {peer.name} is not the one enrolled"
        elif row.revoked:
            reason = f"{peer.name} is revoked"
        else:
            return row
        denied = entries.AuthzDenied(**now_stamp(), subject=f"site:{peer.name}", action="connect", rule=reason)
        self._recorder.record(entries.entry_bytes(denied))
        raise AccessDenied(reason)

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
            EventRefused: A signature, counter or hash that does not continue what the site signed before.
        """
        if len(events) > EVENTS_MAX:
            raise EventRefused(f"{len(events)} events in one call; at most {EVENTS_MAX} are allowed")
        with self._database.transaction() as connection:
            row = connection.execute(sa.select(sites).where(sites.c.site == site)).one()
            chain = entries.SiteChain(
                site=site, next_seq=row.last_sequence + 1, previous=row.last_event_sha256 or entries.NO_ENTRY
            )
            accepted: list[bytes] = []
            for data in events:
                try:
                    entry = entries.verify_site_entry(data, bytes.fromhex(row.signing_key))
                    if entry.site_seq < chain.next_seq:
                        continue
                    chain = chain.admit(data, entry)
                    self._apply(connection, site, entry, data)
                except AuditError as error:
                    raise EventRefused(f"{site}: {error}") from error
                accepted.append(data)
            connection.execute(
                sa.update(sites)
                .where(sites.c.site == site)
                .values(last_sequence=chain.next_seq - 1, last_event_sha256=chain.previous)
            )
            self._recorder.add(connection, accepted)
        self._recorder.flush()
        return EventReceipt(last_sequence=chain.next_seq - 1)

    def _apply(self, connection: sa.Connection, site: SiteId, entry: entries.SiteEntry, data: bytes) -> None:
        """What a signed event changes in the state that studies are run from."""
        match entry:
            case entries.StudyApproved() | entries.StudyRejected():
                approved = isinstance(entry, entries.StudyApproved)
                _replace(
                    connection,
                    approvals,
                    {"study_digest": entry.study_digest, "site": site},
                    {
                        "decision": "approved" if approved else "rejected",
                        "reason": "" if isinstance(entry, entries.StudyApproved) else entry.reason,
                    },
                )
            case entries.DpSpent():
                digest = connection.execute(sa.select(studies.c.digest).where(studies.c.study == entry.study)).scalar()
                if digest is None:
                    raise EventRefused(f"{site} spent epsilon on {entry.study!r}, which was never submitted")
                _replace(
                    connection,
                    spends,
                    {"study_digest": digest, "site": site},
                    {"epsilon": entry.epsilon, "delta": entry.delta},
                )
            case entries.ModelVerified():
                digest = connection.execute(sa.select(studies.c.digest).where(studies.c.study == entry.study)).scalar()
                if digest is None:
                    raise EventRefused(f"{site} verified a model of {entry.study!r}, which was never submitted")
                _replace(
                    connection,
                    endorsements,
                    {"study_digest": digest, "model_digest": entry.next_model_digest, "site": site},
                    {"entry": data},
                )
            case _:
                pass


def _replace(connection: sa.Connection, table: sa.Table, key: dict[str, object], values: dict[str, object]) -> None:
    condition = sa.and_(*(table.c[name] == value for name, value in key.items()))
    connection.execute(sa.delete(table).where(condition))
    connection.execute(sa.insert(table).values(**key, **values))


def _site_row(row: sa.Row[tuple[object, ...]]) -> SiteRow:
    return SiteRow(
        site=SiteId(row.site),
        certificate=row.certificate,
        spki_sha256=Digest(row.spki_sha256),
        signing_key=row.signing_key,
        enrolled_at=datetime.fromtimestamp(row.enrolled_at, UTC),
        revoked=row.revoked_at is not None,
        last_sequence=row.last_sequence,
        last_event_sha256=row.last_event_sha256,
    )

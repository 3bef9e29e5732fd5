"""Enrolled hospitals: who was invited, whose certificate is good, and the chain of what each one signed."""

import copy
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import NoReturn

import sqlalchemy as sa
import structlog

from audit import entries
from audit.cosignature import WitnessKey
from audit.entry_types.steward_entries import StewardKeyEntry
from audit.errors import AuditError, VerificationError
from audit.site_keys import READ, SigningKeys, SiteKeys, may_be_about_keys
from consortium.access_record import AccessRecord
from consortium.contract import certificates
from consortium.contract.certificates import CertificateRefused, PeerIdentity, Role
from consortium.contract.kit import Kit
from consortium.contract.messages import EnrolmentGrant, EnrolmentRequest, EventReceipt
from consortium.contract.names import Digest, SiteId, is_name
from consortium.database import (
    Database,
    SiteRow,
    approvals,
    endorsements,
    former_keys,
    invitations,
    sites,
    spends,
    studies,
)
from consortium.errors import (
    AccessDenied,
    DecisionUnsigned,
    EnrolmentRefused,
    EventRefused,
    RenewalRefused,
    RenewedTooOften,
    SiteConflict,
    SiteRevoked,
    SiteSuspended,
    SiteUnknown,
)
from consortium.home import CoordinatorHome
from consortium.invitations import made_out, of_another_kit, why_over
from consortium.record import Recorder, now_stamp
from consortium.steward_keys import SiteStewards
from consortium.studies import roster_of
from consortium.witnesses import Witnesses
from privacy.secagg.messages import COORDINATOR

log = structlog.get_logger(__name__)

EVENTS_MAX = 64
"""Events a site may submit in one call."""
OVERLAP = timedelta(hours=24)
"""A certificate goes on for so long after its successor was shown first: for what is under way over its connection."""
RENEWALS_PER_HOUR_MAX = 10
"""Of one site; each leaves an entry in the log."""


class Sites:
    """The register of hospitals."""

    def __init__(
        self,
        home: CoordinatorHome,
        database: Database,
        recorder: Recorder,
        witnesses: Witnesses,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._home = home
        self.clock = clock
        self._database = database
        self._recorder = recorder
        self._witnesses = witnesses
        self.access = AccessRecord(recorder, pseudonym=home.vault.known)
        self._standing: dict[str, SiteRow] = {}  # enrolled sites, as they were read last
        self._everybody: tuple[SiteRow, ...] | None = None
        self._standing_lock = Lock()
        self._keys, self._keys_read = SiteKeys(home.config.log_origin), 0  # whose key is whose by so much of the log
        self._keys_lock = Lock()
        self._in_sight_from: dict[SiteId, int] = {}  # site -> entries of the log with its last change of keys
        self._renewed: dict[SiteId, deque[float]] = {}  # when a site's certificate was renewed last, unix seconds

    # --- enrolment -------------------------------------------------------------------------------------------------

    def invite(self, site: str, legal_entity: str = "") -> tuple[bytes, datetime]:
        """Make a one-time kit; returns its bytes and when it expires. Of what is in it, the token's hash is kept here.

        Args:
            site: The name it is for.
            legal_entity: Who answers for it: a registered name, or an identifier such as an LEI. One with a
                certificate under another name, or with a kit that is still good, gets no second one.
        """
        legal_entity = " ".join(legal_entity.split())
        if not is_name(site) or site == COORDINATOR:
            raise SiteConflict(
                f"{site!r} cannot name a site: 3 to 40 of a-z, 0-9 and '-', starting with a letter, not {COORDINATOR!r}"
            )
        token = os.urandom(32).hex()
        now = self.clock()
        invitation, expires = made_out(self._home, token, now)
        with self._database.transaction() as connection:
            found = connection.execute(sa.select(sites.c.revoked_at).where(sites.c.site == site)).first()
            if found is not None and found.revoked_at is None:
                raise SiteConflict(f"{site} is enrolled; revoke it first if it needs new keys")
            other = _other_of(connection, legal_entity, site, now)
            if other is not None:
                raise SiteConflict(f"{other} is the certificate of {legal_entity!r}; a legal entity has one")
            connection.execute(
                sa.insert(invitations).values(
                    token_sha256=hashlib.sha256(token.encode()).hexdigest(),
                    site=site,
                    expires_at=expires.timestamp(),
                    legal_entity=legal_entity,
                )
            )
            invited = entries.SiteInvited(**now_stamp(), site=site, legal_entity=legal_entity or None)
            self._recorder.add(connection, [entries.entry_bytes(invited)])
        self._recorder.flush()
        kit = Kit(
            consortium=self._home.config.name,
            address=self._home.config.address,
            site=SiteId(site),
            token=token,
            invitation=invitation,
            log_vkey=self._recorder.written.verifier.vkey(),
            coordinator_signing_key=self._home.signing_key_hex,
            expires=expires,
            ca_pem=self._home.ca_pem,
        )
        return kit.to_bytes(), expires

    def enrol(self, request: EnrolmentRequest, invitation: str) -> EnrolmentGrant:
        """Certify the keys of a site that shows an unused token; the token is spent in the same transaction.

        Args:
            request: The site's, with the token.
            invitation: The name in the certificate that the caller showed; it must be that of the token's kit.

        Raises:
            EnrolmentRefused: The token or the keys are not good; it is logged, and nothing else changed.
            RequestRefused: The certificate request is not one the authority signs; the token stays good.
        """
        now = self.clock()
        token_sha256 = hashlib.sha256(request.token.encode()).hexdigest()
        with self._database.transaction() as connection:
            reason = of_another_kit(invitation, request.token) or self._against(
                connection, token_sha256, request.site, now
            )
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
            if not reason and _taken(connection, keys):
                # A chain of signed entries belongs to one key, so a key that was in use never begins a second one.
                reason = "its keys are in use, or were revoked"
            if not reason:
                legal_entity = _legal_entity(connection, request.site, token_sha256)
                self._admit(connection, request.site, der, {**keys, "legal_entity": legal_entity}, now)
        if reason:
            self._refuse(request, reason)
        self._forget_standing()
        self._witnesses.forget_keys()
        self._recorder.flush()
        return EnrolmentGrant(consortium=self._home.config.name, certificate_pem=pem)

    def _against(self, connection: sa.Connection, token_sha256: str, site: SiteId, now: datetime) -> str:
        """What stands against an enrolment; empty if nothing does."""
        row = connection.execute(sa.select(invitations).where(invitations.c.token_sha256 == token_sha256)).first()
        enrolled = connection.execute(sa.select(sites.c.revoked_at).where(sites.c.site == site)).first()
        if row is None or row.site != site:
            return "the token is not one this consortium gave to this site"
        if over := why_over(row.used_at, row.expires_at, now):
            return over
        if enrolled is not None and enrolled.revoked_at is None:
            return "the site is enrolled already"
        if _other_of(connection, row.legal_entity, site, now) is not None:
            return "its legal entity has a certificate under another name"
        return ""

    def _admit(self, connection: sa.Connection, site: SiteId, der: bytes, said: dict[str, str], now: datetime) -> None:
        _spend_invitations(connection, site, now.timestamp())
        _remember_keys(connection, site)
        connection.execute(sa.delete(sites).where(sites.c.site == site))
        self._witnesses.leave(connection, site)  # with new keys it names a new witness key too
        connection.execute(
            sa.insert(sites).values(
                site=site,
                certificate=der,
                enrolled_at=now.timestamp(),
                last_sequence=0,
                last_event_sha256=entries.NO_ENTRY,
                **said,
            )
        )
        enrolled = entries.SiteEnrolled(
            **now_stamp(),
            site=site,
            certificate_sha256=hashlib.sha256(der).hexdigest(),
            spki_sha256=said["spki_sha256"],
            signing_key=said["signing_key"],
        )
        self._recorder.add(connection, [entries.entry_bytes(enrolled)])

    def _refuse(self, request: EnrolmentRequest, reason: str) -> NoReturn:
        log.warning("enrolment.refused", site=request.site, reason=reason)
        self.access.unproven("enrolment", reason)
        raise EnrolmentRefused(f"{request.site} cannot enrol: {reason}")

    def revoke(self, site: str, reason: str = "revoked by the operator") -> None:
        """Refuse the site's certificates from now on, and any kit that is still out.

        Raises:
            SiteUnknown, SiteConflict: It is not enrolled, or revoked already, and no kit of it is out.
        """
        with self._database.transaction() as connection:
            now = time.time()
            kits = _spend_invitations(connection, SiteId(site), now)
            revoked = connection.execute(
                sa.update(sites).where(sites.c.site == site, sites.c.revoked_at.is_(None)).values(revoked_at=now)
            )
            if revoked.rowcount != 1 and not kits:
                if connection.execute(sa.select(sites.c.site).where(sites.c.site == site)).first() is None:
                    raise SiteUnknown(site)
                raise SiteConflict(f"{site} is revoked already")
            entry = entries.SiteRevoked(**now_stamp(), site=site, reason=reason)
            self._recorder.add(connection, [entries.entry_bytes(entry)])
        self._forget_standing()
        self._recorder.flush()

    def suspend(self, site: str, reason: str) -> None:
        """Refuse the site's calls until it is reinstated; its certificates and its place in studies stay."""
        self._set_suspended(site, entries.SiteSuspended(**now_stamp(), site=site, reason=reason), reason)

    def reinstate(self, site: str) -> None:
        """A suspended site may take part again."""
        self._set_suspended(site, entries.SiteReinstated(**now_stamp(), site=site), None)

    def _set_suspended(self, site: str, entry: entries.Entry, reason: str | None) -> None:
        data = entries.entry_bytes(entry)
        with self._database.transaction() as connection:
            row = connection.execute(sa.select(sites).where(sites.c.site == site)).first()
            if row is None:
                raise SiteUnknown(site)
            if row.revoked_at is not None:
                raise SiteConflict(f"{site} is revoked")
            if (row.suspended_at is not None) is (reason is not None):
                raise SiteConflict(f"{site} is {'suspended already' if reason is not None else 'not suspended'}")
            suspended_at = None if reason is None else self.clock().timestamp()
            connection.execute(
                sa.update(sites).where(sites.c.site == site).values(suspended_at=suspended_at, reason=reason or "")
            )
            self._recorder.add(connection, [data])
        self._forget_standing()
        self._recorder.flush()

    # --- renewal ---------------------------------------------------------------------------------------------------

    def renew(self, peer: PeerIdentity, request_der: bytes) -> EnrolmentGrant:
        """The next certificate of the site that asks: another TLS key, the same signing keys.

        It counts when the site shows it first; the one before goes on for OVERLAP from then. Asked again meanwhile, the
        newest is the next.

        Raises:
            AccessDenied, SiteSuspended: The site may not take part, or shows a certificate that was superseded.
            RequestRefused: Not a request of this very site, or without proof of every key in it.
            RenewalRefused: For other signing keys, or for a TLS key that was in use.
            RenewedTooOften: See RENEWALS_PER_HOUR_MAX.
        """
        now = self.clock()
        pem = certificates.issue_site(
            self._home.authority,
            peer.site,
            request_der,
            now=now,
            valid_for=timedelta(days=self._home.config.certificate_days),
        )
        der = certificates.certificate_der(pem)
        asked = certificates.verify_certificate(der, self._home.ca_certificate, now, role=Role.SITE)
        spki_sha256 = asked.spki_sha256.hex()
        with self._database.transaction() as connection:
            row = connection.execute(sa.select(sites).where(sites.c.site == peer.site)).first()
            # A certificate that was superseded may end what is under way, and no more: it may be why there is another.
            if row is None or peer.spki_sha256.hex() not in (row.spki_sha256, row.next_spki_sha256):
                raise AccessDenied(f"the certificate shown for {peer.name} was superseded")
            _require_standing(_site_row(row))
            assert asked.signing_key is not None  # issue_site copies both into every site's certificate
            assert asked.ecdsa_key is not None
            # Who holds a TLS key alone, off a disk or out of memory, gets no further certificate with it.
            if (asked.signing_key.hex(), asked.ecdsa_key.hex()) != (row.signing_key, row.ecdsa_key):
                raise RenewalRefused(f"{peer.name} asked for a certificate for other signing keys than it enrolled")
            if _taken(connection, {"spki_sha256": spki_sha256}):
                raise RenewalRefused(f"{peer.name} asked for a certificate for a TLS key that was in use")
            self._require_seldom(peer.site, now.timestamp())
            connection.execute(
                sa.update(sites)
                .where(sites.c.site == peer.site)
                .values(next_certificate=der, next_spki_sha256=spki_sha256)
            )
            entry = entries.SiteRenewed(
                **now_stamp(),
                site=peer.site,
                certificate_sha256=hashlib.sha256(der).hexdigest(),
                spki_sha256=spki_sha256,
                valid_until=entries.timestamp(int(asked.not_after.timestamp()) * 1000),
            )
            self._recorder.add(connection, [entries.entry_bytes(entry)])
        self._forget_standing()
        self._recorder.flush_soon()
        return EnrolmentGrant(consortium=self._home.config.name, certificate_pem=pem)

    def _require_seldom(self, site: SiteId, now_s: float) -> None:
        times = self._renewed.setdefault(site, deque(maxlen=RENEWALS_PER_HOUR_MAX))
        if len(times) == times.maxlen and now_s - times[0] < 3600:
            raise RenewedTooOften(f"{site} had {RENEWALS_PER_HOUR_MAX} certificates within an hour")
        times.append(now_s)

    def _take_up(self, row: SiteRow) -> None:
        """The site has shown its next certificate: from now on it is the site's."""
        with self._database.transaction() as connection:
            connection.execute(
                sa.update(sites)
                .where(sites.c.site == row.site, sites.c.next_spki_sha256 == row.next_spki_sha256)
                .values(
                    certificate=sites.c.next_certificate,
                    spki_sha256=sites.c.next_spki_sha256,
                    previous_spki_sha256=sites.c.spki_sha256,
                    previous_until=(self.clock() + OVERLAP).timestamp(),
                    next_certificate=None,
                    next_spki_sha256=None,
                )
            )
        self._forget_standing()

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
        """The enrolled site behind a certificate, asked with every call.

        Raises:
            AccessDenied: A certificate that was replaced, or a site that is revoked.
            SiteSuspended: The site may not take part for now.
        """
        row, shown = self._standing_of(peer.name), peer.spki_sha256.hex()
        known = row is not None and _is_of(row, shown, self.clock())
        against = (
            _against_standing(row)
            if row is not None and known
            else AccessDenied(f"the certificate shown for {peer.name} is not the one enrolled")
        )
        if against is not None:
            log.warning("site.denied", site=peer.name, reason=str(against))
            self.access.denied(f"site:{peer.name}", "connect", _rule(against, peer.name))
            raise against
        assert row is not None  # an unknown site has no certificate of ours
        if shown == row.next_spki_sha256:
            self._take_up(row)
            return self.get(peer.name)
        return row

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
        """A site has changed, and that is committed: what was read before is not used again."""
        with self._standing_lock:
            self._standing.clear()
            self._everybody = None

    def is_current(self, row: SiteRow) -> bool:
        """Whether the site's certificate is good today and for its present keys, so that other sites will accept it."""
        try:
            holder = certificates.verify_certificate(row.certificate, self._home.ca_certificate, self.clock())
        except CertificateRefused:
            return False
        certified = ((holder.signing_key or b"").hex(), (holder.ecdsa_key or b"").hex())
        return row.stands and certified == (row.signing_key, row.ecdsa_key)

    def is_in_sight(self, row: SiteRow) -> bool:
        """Whether the site's last change of keys is in what is held out to witnesses: other hospitals can read why."""
        needed, held = self._in_sight_from.get(row.site, 0), self._witnesses.held()
        return needed == 0 or (held is not None and held.size >= needed)

    # --- what sites sign -------------------------------------------------------------------------------------------

    def submit_events(self, site: SiteId, events: Sequence[bytes]) -> EventReceipt:
        """Put a site's signed events into the log, in its order, once each.

        Events that are in the log already are acknowledged again, so that a site may repeat itself after a crash.

        Raises:
            EventRefused: A signature, counter or hash that does not continue what the site signed before, an event
                about a study this site is no part of, or a change of its keys that whoever has to sign for it did not.
                Nothing of the call is kept.
            DecisionUnsigned: A decision that is not the site's stewards'. Nothing of the call is kept either; that it
                came is shown beside the study, and of an approval that was to be taken back nothing is left.
        """
        try:
            return self._submit_events(site, events)
        except DecisionUnsigned as error:
            self._show_unsigned(site, error)
            raise

    def _show_unsigned(self, site: SiteId, error: DecisionUnsigned) -> None:
        """For whoever runs the study: this hospital was about to decide, and why that does not count."""
        log.warning("decision.unsigned", site=site, study=error.study_digest[:12], reason=str(error))
        key = {"study_digest": error.study_digest, "site": site}
        with self._database.transaction() as connection:
            found = connection.execute(_DECIDED, {f"its_{name}": value for name, value in key.items()}).first()
            # An approval that stands was signed; a no, whoever signed it, is never kept from counting.
            if error.approves and found is not None and found.decision == "approved":
                return
            changed = {approvals: {error.study_digest: {"decision": "unsigned", "reason": error.why}}}
            _write(connection, site, changed)

    def _submit_events(self, site: SiteId, events: Sequence[bytes]) -> EventReceipt:
        if len(events) > EVENTS_MAX:
            raise EventRefused(f"{len(events)} events in one call; at most {EVENTS_MAX} are allowed")
        while True:
            try:
                return self._submit(site, events)
            except _Overtaken:
                continue

    def _submit(self, site: SiteId, events: Sequence[bytes]) -> EventReceipt:
        changes_keys = any(_CHANGES_KEYS in data for data in events)
        read_at = self.get(site).last_sequence if changes_keys else None
        in_log = self._keys_in_log() if changes_keys else None
        with self._database.transaction() as connection:
            row = connection.execute(sa.select(sites).where(sites.c.site == site)).first()
            if row is None:
                raise SiteUnknown(site)
            # Again: it may have been revoked or suspended since the call came in, and then nothing of it counts.
            _require_standing(_site_row(row))
            if read_at is not None and read_at != row.last_sequence:
                raise _Overtaken
            chain = entries.SiteChain(
                site=site, next_seq=row.last_sequence + 1, previous=row.last_event_sha256 or entries.NO_ENTRY
            )
            accepted: list[bytes] = []
            changes = _Changes(connection, site, self._recorder.written.origin)
            keys = _Keys(connection, row, in_log)
            for data in events:
                try:
                    entry = keys.verify(data, chain)
                    if chain.has(entry):
                        _check_known(chain, entry, data)
                        continue
                    chain = chain.admit(data, entry)
                    keys.take(entry, data)
                except AuditError as error:
                    raise EventRefused(f"{site}: {error}") from error
                if isinstance(entry, entries.LogReviewed) and entry.last_leaf >= self._recorder.appended:
                    raise EventRefused(f"{site} reviewed leaf {entry.last_leaf}, which the log does not have")
                changes.take(entry, data)
                accepted.append(data)
            changes.write()
            if changes.witness_key is not None:
                self._witnesses.enrol(connection, site, changes.witness_key)
            if changes.objection is not None:
                self._witnesses.object(connection, site, *changes.objection)
            connection.execute(
                sa.update(sites)
                .where(sites.c.site == site)
                .values(last_sequence=chain.next_seq - 1, last_event_sha256=chain.previous)
            )
            self._recorder.add(connection, accepted)
        if changes.witness_key is not None:
            self._witnesses.forget_keys()
        if changes_keys:
            self._forget_standing()
            self._recorder.flush()
            self._in_sight_from[site] = self._recorder.appended
        else:
            self._recorder.flush_soon()  # they are durable: the receipt need not wait for the log
        return EventReceipt(last_sequence=chain.next_seq - 1)

    def _keys_in_log(self) -> SiteKeys:
        """Whose key is whose by the whole log; what was read before is not read again."""
        with self._keys_lock:
            written = self._recorder.log
            size = written.size
            for data in written.known(self._keys_read, size):
                if data is not None and may_be_about_keys(data):
                    self._keys.take(data)
            self._keys_read = size
            return copy.deepcopy(self._keys)


class _Overtaken(Exception):
    """Another call of the site put entries into the log after it was read for this one: once more."""


_CHANGES_KEYS = b'"type":"%b"' % entries.SiteKeysRotated.TYPE.encode()


class _Keys:
    """Under which key a site's entries of one call stand, and what changes that. Mutable, for one transaction."""

    def __init__(self, connection: sa.Connection, row: sa.Row[tuple[object, ...]], in_log: SiteKeys | None) -> None:
        self._connection = connection
        self._row = row
        self._in_log = in_log  # None: no entry of the call is a change
        self._now = SigningKeys(signing=row.signing_key, ecdsa=row.ecdsa_key)
        self._former: list[str] | None = None

    def verify(self, data: bytes, chain: entries.SiteChain) -> entries.SiteEntry:
        """The entry, by the site's key; one that is in the log already may be by a key that it had before."""
        try:
            return entries.verify_site_entry(data, bytes.fromhex(self._now.signing))
        except VerificationError:
            for key in self._formerly():
                with suppress(VerificationError):
                    entry = entries.verify_site_entry(data, bytes.fromhex(key))
                    if chain.has(entry):
                        return entry
            raise

    def _formerly(self) -> list[str]:
        if self._former is None:
            same = (former_keys.c.site == self._row.site, former_keys.c.enrolled_at == self._row.enrolled_at)
            self._former = list(self._connection.execute(sa.select(former_keys.c.signing_key).where(*same)).scalars())
        return self._former

    def take(self, entry: entries.SiteEntry, data: bytes) -> None:
        """The next entry of the chain, which verified; raises VerificationError for a change that does not hold."""
        if self._in_log is None:
            return
        changed = self._in_log.take(data) if entry.TYPE in READ else None
        if changed is None:
            return
        keys = {"signing_key": changed.new.signing, "ecdsa_key": changed.new.ecdsa}
        if changed.old != self._now or _taken(self._connection, keys):
            raise VerificationError(f"{entry.TYPE} of {entry.actor}", "the keys it has, and unused ones", "others")
        where = sites.c.site == self._row.site
        _remember_keys(self._connection, self._row.site)
        self._connection.execute(sa.update(sites).where(where).values(**keys))
        self._now, self._former = changed.new, None


class _Changes:
    """What the signed events of one call change in the state that studies are run from, written once, at its end.

    Of spends and endorsements the last one of a study counts, and no other is read. Mutable, for one transaction.
    """

    def __init__(self, connection: sa.Connection, site: SiteId, log_origin: str) -> None:
        self._connection = connection
        self._site = site
        self._stewards = SiteStewards(connection, site, log_origin)
        self._studies: dict[str, str] = {}  # name -> digest
        self._approvals: dict[str, dict[str, object]] = {}  # study digest -> columns
        self._spends: dict[str, dict[str, object]] = {}
        self._endorsements: dict[str, dict[str, object]] = {}
        self.witness_key: str | None = None  # the vkey the site cosigns the log with from now on
        self.objection: tuple[int, str] | None = None  # status and words of why it does not

    def take(self, entry: entries.SiteEntry, data: bytes) -> None:
        """The next entry; raises EventRefused for one about a study this site is no part of."""
        if isinstance(entry, entries.WitnessEnrolled):
            self.witness_key = _witness_key(self._site, entry.vkey)
        if isinstance(entry, entries.LogOmission):
            self.objection = (0, f"its entry {entry.missing_seq} is not in the log, which had taken it in")
        if isinstance(entry, entries.WitnessRefused):
            self.objection = (entry.status, entry.rule)
        if isinstance(entry, StewardKeyEntry):
            try:
                self._stewards.take_key(entry)
            except VerificationError as error:
                raise EventRefused(f"{self._site}: {error}") from error
        if isinstance(entry, entries.SiteOwnEntry) or entry.study is None:
            return  # of its own affairs a site may speak whenever it likes
        digest = self._digest_of(entry.study)
        match entry:
            case entries.StudyApproved() | entries.StudyRejected():
                if entry.study_digest != digest:
                    raise EventRefused(
                        f"{self._site} decided on {entry.study!r} with another digest than the one submitted"
                    )
                approved = isinstance(entry, entries.StudyApproved)
                try:
                    self._stewards.take_decision(entry, entry.study)
                except VerificationError as error:
                    why = f"expected {error.expected}, found {error.found}"
                    raise DecisionUnsigned(self._site, entry.study, digest, why, approves=approved) from error
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
        self._stewards.write()
        changed = {approvals: self._approvals, spends: self._spends, endorsements: self._endorsements}
        _write(self._connection, self._site, changed)

    def _digest_of(self, name: str) -> str:
        if name not in self._studies:
            study = self._connection.execute(_STUDY, {"name": name}).first()
            if study is None or self._site not in roster_of(study.document):
                raise EventRefused(f"{self._site} signed an event about {name!r}, a study it is no part of")
            self._studies[name] = study.digest
        return self._studies[name]


def _write(
    connection: sa.Connection, site: SiteId, changed: Mapping[sa.Table, Mapping[str, Mapping[str, object]]]
) -> None:
    """Rows of one site by table and study digest, each in the place of the one before."""
    for table, rows in changed.items():
        for digest, values in rows.items():
            key = {"study_digest": digest, "site": site}
            connection.execute(_FORGET[table], {f"its_{name}": value for name, value in key.items()})
            connection.execute(_KEEP[table], {**key, **values})


def _witness_key(site: SiteId, vkey: str) -> str:
    """A site's witness key; raises EventRefused for one under another's name."""
    try:
        key = WitnessKey.from_vkey(vkey)
    except VerificationError as error:
        raise EventRefused(f"{site}: {error}") from error
    if not key.name.endswith(f"/witness/{site}"):
        raise EventRefused(f"{site} names the witness key {key.name[:80]!r}, which is not under its name")
    return vkey


_STUDY = sa.select(studies.c.digest, studies.c.document).where(studies.c.study == sa.bindparam("name"))
_DECIDED = sa.select(approvals.c.decision).where(
    approvals.c.study_digest == sa.bindparam("its_study_digest"), approvals.c.site == sa.bindparam("its_site")
)
_KEPT = (approvals, spends, endorsements)
_FORGET = {
    table: sa.delete(table).where(
        table.c.study_digest == sa.bindparam("its_study_digest"), table.c.site == sa.bindparam("its_site")
    )
    for table in _KEPT
}
_KEEP = {table: sa.insert(table) for table in _KEPT}


def _check_known(chain: entries.SiteChain, entry: entries.SiteEntry, data: bytes) -> None:
    """An event that is in the log already may come again; another one under the same number may not."""
    newest = chain.next_seq - 1
    if entry.site_seq == newest and hashlib.sha256(data).hexdigest() != chain.previous:
        raise VerificationError(f"chain of site {chain.site}", f"entry {newest} as it is in the log", "another")


def _require_standing(row: SiteRow) -> None:
    """Raise SiteRevoked for a site that is revoked, SiteSuspended for one that is suspended."""
    against = _against_standing(row)
    if against is not None:
        raise against


def _against_standing(row: SiteRow) -> AccessDenied | None:
    if row.revoked:
        return SiteRevoked(row.site)
    return SiteSuspended(row.site, row.reason) if row.suspended else None


def _is_of(row: SiteRow, spki_sha256: str, now: datetime) -> bool:
    """Whether a TLS key is the site's: of its certificate, of the next one, or of the one before while that goes on."""
    if spki_sha256 in (row.spki_sha256, row.next_spki_sha256):
        return True
    return spki_sha256 == row.previous_spki_sha256 and now.timestamp() < row.previous_until


def _rule(error: AccessDenied, site: str) -> str:
    """For the log: what the operator wrote about a suspension stands in `site.suspended` and need not be repeated."""
    return f"{site} is suspended" if isinstance(error, SiteSuspended) else str(error)


def _taken(connection: sa.Connection, keys: dict[str, str]) -> bool:
    """Whether one of these keys is, was or will be a site's."""
    same = [sites.c[name] == value for name, value in keys.items()]
    if (tls := keys.get("spki_sha256")) is not None:
        same += [sites.c.next_spki_sha256 == tls, sites.c.previous_spki_sha256 == tls]
    before = [former_keys.c[name] == value for name, value in keys.items() if name in former_keys.c]
    asked = [sa.select(sites.c.site).where(sa.or_(*same))]
    asked += [sa.select(former_keys.c.site).where(sa.or_(*before))] if before else []
    return any(connection.execute(one).first() is not None for one in asked)


def _remember_keys(connection: sa.Connection, site: str) -> None:
    """The site's signing keys are not its own any more, and will never be anybody's."""
    row = connection.execute(sa.select(sites).where(sites.c.site == site)).first()
    if row is None:
        return
    values = {name: getattr(row, name) for name in ("signing_key", "ecdsa_key", "site", "enrolled_at")}
    connection.execute(sa.insert(former_keys).values(**values))


def _legal_entity(connection: sa.Connection, site: SiteId, token_sha256: str) -> str:
    """Whom a kit's certificate is for, as its invitation says; else as an earlier one of this site did."""
    invited = sa.select(invitations.c.legal_entity).where(invitations.c.token_sha256 == token_sha256)
    before = sa.select(sites.c.legal_entity).where(sites.c.site == site)
    return connection.execute(invited).scalar() or connection.execute(before).scalar() or ""


def _other_of(connection: sa.Connection, legal_entity: str, site: str, now: datetime) -> str | None:
    """Another site that stands, or may be enrolled with a kit that is out, for the same legal entity."""
    if not legal_entity:
        return None
    enrolled = sa.select(sites.c.site, sites.c.legal_entity).where(sites.c.revoked_at.is_(None))
    invited = sa.select(invitations.c.site, invitations.c.legal_entity).where(
        invitations.c.used_at.is_(None), invitations.c.expires_at >= now.timestamp()
    )
    for statement in (enrolled, invited):
        for other, entity in connection.execute(statement):
            if other != site and entity.casefold() == legal_entity.casefold():
                return str(other)
    return None


def _spend_invitations(connection: sa.Connection, site: SiteId, at: float) -> int:
    """No kit made for the site so far is good any more; returns how many were."""
    unused = (invitations.c.site == site, invitations.c.used_at.is_(None))
    good = sa.select(sa.func.count()).select_from(invitations).where(*unused, invitations.c.expires_at >= at)
    were = connection.execute(good).scalar_one()
    connection.execute(sa.update(invitations).where(*unused).values(used_at=at))
    return int(were)


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
        legal_entity=row.legal_entity,
        suspended=row.suspended_at is not None,
        reason=row.reason,
        next_spki_sha256=row.next_spki_sha256 or "",
        previous_spki_sha256=row.previous_spki_sha256 or "",
        previous_until=row.previous_until or 0.0,
    )

"""People's accounts: who was invited to which role, whose certificate is good, and what role each has now.

A person's machine makes its keys itself and gets a certificate against a one-time token, as a hospital's does. The
certificate says who calls; what the caller may do is read from this register with every call, so that a revocation and
a changed role count at the next one (threat G-10). The log has pseudonyms, never the names.
"""

import hashlib
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import sqlalchemy as sa
import structlog

from audit import entries
from consortium.access_record import UNKNOWN_ACCOUNT, AccessRecord
from consortium.contract import certificates
from consortium.contract.account_kit import SCHEMA, AccountKit
from consortium.contract.certificates import PeerIdentity, Role
from consortium.contract.messages import AccountRequest, EnrolmentGrant
from consortium.contract.names import is_name
from consortium.database import Database, account_invitations, accounts
from consortium.errors import AccessDenied, AccountConflict, AccountUnknown, EnrolmentRefused
from consortium.home import CoordinatorHome
from consortium.invitations import made_out, of_another_kit, why_over
from consortium.record import Recorder, now_stamp
from consortium.roles import Caller, PersonRole

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow:
    """An enrolled account."""

    account: str
    role: PersonRole
    spki_sha256: str  # of its TLS key, 64 hexadecimal characters
    signing_key: str  # 64 hexadecimal characters
    enrolled_at: datetime
    not_after: datetime  # of its newest certificate
    revoked: bool


class Accounts:
    """The register of people's accounts. Its methods may be called from any thread."""

    def __init__(self, home: CoordinatorHome, database: Database, recorder: Recorder, access: AccessRecord) -> None:
        self._home = home
        self._database = database
        self._recorder = recorder
        self._access = access

    # --- what the lead does ----------------------------------------------------------------------------------------

    def invite(self, account: str, role: PersonRole, by: Caller) -> tuple[bytes, datetime]:
        """Make a one-time kit; returns its bytes and when it expires. Of what is in it, the token's hash is kept here.

        Raises:
            AccountConflict: The name cannot be one, or is an account's that is not revoked.
        """
        if not is_name(account):
            raise AccountConflict(
                f"{account!r} cannot name an account: 3 to 40 of a-z, 0-9 and '-', starting with a letter"
            )
        token = secrets.token_hex(32)
        invitation, expires = made_out(self._home, token, datetime.now(UTC))
        given = self._role_changed(account, role, "given", by)
        with self._database.transaction() as connection:
            found = connection.execute(sa.select(accounts.c.revoked_at).where(accounts.c.account == account)).first()
            if found is not None and found.revoked_at is None:
                raise AccountConflict(f"{account} has an account; `account role` changes what it may do")
            _spend_invitations(connection, account)  # the newest kit is the only one that is good
            connection.execute(
                sa.insert(account_invitations).values(
                    token_sha256=hashlib.sha256(token.encode()).hexdigest(),
                    account=account,
                    role=role,
                    expires_at=expires.timestamp(),
                )
            )
            self._recorder.add(connection, [given])
        self._recorder.flush()
        kit = AccountKit(
            schema=SCHEMA,
            consortium=self._home.config.name,
            address=self._home.config.address,
            ca_pem=self._home.ca_pem.decode("ascii"),
            account=account,
            role=role,
            token=token,
            invitation_pem=invitation.certificate_pem.decode("ascii"),
            invitation_key_pem=invitation.key_pem.decode("ascii"),
            coordinator_signing_key=self._home.signing_key_hex,
            expires=expires,
        )
        return kit.to_bytes(), expires

    def change_role(self, account: str, role: PersonRole, by: Caller) -> None:
        """Give an account another role, from its next call on; raises AccountUnknown, AccountConflict."""
        with self._database.transaction() as connection:
            row = self._standing(connection, account)
            if row.role == role:
                raise AccountConflict(f"{account} has the role {role} already")
            connection.execute(sa.update(accounts).where(accounts.c.account == account).values(role=role))
            taken = self._role_changed(account, row.role, "taken", by)
            self._recorder.add(connection, [taken, self._role_changed(account, role, "given", by)])
        self._recorder.flush()

    def revoke(self, account: str, by: Caller) -> None:
        """Refuse the account from its next call on, and any kit that is still out; raises AccountUnknown."""
        with self._database.transaction() as connection:
            invited = connection.execute(
                sa.select(account_invitations.c.role).where(
                    account_invitations.c.account == account, account_invitations.c.used_at.is_(None)
                )
            ).first()
            try:
                role = self._standing(connection, account).role
            except AccountUnknown:
                if invited is None:
                    raise
                role = PersonRole(invited.role)  # a kit that nobody has used is taken back
            connection.execute(sa.update(accounts).where(accounts.c.account == account).values(revoked_at=time.time()))
            _spend_invitations(connection, account)
            self._recorder.add(connection, [self._role_changed(account, role, "taken", by)])
        self._recorder.flush()

    def all(self) -> tuple[AccountRow, ...]:
        """Every account, by name."""
        with self._database.reading() as connection:
            return tuple(_row(row) for row in connection.execute(sa.select(accounts).order_by(accounts.c.account)))

    # --- what a person's machine does ------------------------------------------------------------------------------

    def enrol(self, request: AccountRequest, invitation: str) -> EnrolmentGrant:
        """Certify the keys of a machine that shows an unused token; the token is spent in the same transaction.

        Args:
            request: The machine's, with the token.
            invitation: The name in the certificate that the caller showed; it must be that of the token's kit.

        Raises:
            EnrolmentRefused: The token or the keys are not good; it is logged, and nothing else changed.
            RequestRefused: The certificate request is not one the authority signs; the token stays good.
        """
        now = datetime.now(UTC)
        token_sha256 = hashlib.sha256(request.token.encode()).hexdigest()
        with self._database.reading() as connection:
            reason, _ = _against(connection, token_sha256, request.account, now)
        reason = of_another_kit(invitation, request.token) or reason
        if reason:
            self._refuse(reason)
        pem, identity, der = self._certified(request.account, request.request_der, now)
        assert identity.signing_key is not None  # issue_account copies it into every certificate
        keys = {"spki_sha256": identity.spki_sha256.hex(), "signing_key": identity.signing_key.hex()}
        with self._database.transaction() as connection:
            # Asked again: another call may have shown the same token in between.
            reason, role = _against(connection, token_sha256, request.account, now)
            taken = sa.or_(*(accounts.c[name] == value for name, value in keys.items()))
            if not reason and connection.execute(sa.select(accounts.c.account).where(taken)).first() is not None:
                reason = "its keys are in use, or were revoked"
            if not reason:
                _spend_invitations(connection, request.account)
                connection.execute(sa.delete(accounts).where(accounts.c.account == request.account))
                connection.execute(
                    sa.insert(accounts).values(
                        account=request.account,
                        role=role,
                        enrolled_at=now.timestamp(),
                        not_after=identity.not_after.timestamp(),
                        **keys,
                    )
                )
                enrolled = entries.AccountEnrolled(
                    **now_stamp(),
                    person=self._home.pseudonym(request.account),
                    role=role,
                    certificate_sha256=hashlib.sha256(der).hexdigest(),
                    signing_key=keys["signing_key"],
                )
                self._recorder.add(connection, [entries.entry_bytes(enrolled)])
        if reason:
            self._refuse(reason)
        self._recorder.flush()
        return EnrolmentGrant(consortium=self._home.config.name, certificate_pem=pem)

    def renew(self, caller: Caller, request_der: bytes) -> bytes:
        """The next certificate (PEM) of an account, for the keys that it has: renewing is no way to change them.

        Raises:
            AccountConflict: Other keys; or the caller has no account.
            RequestRefused: The request is not one the authority signs.
        """
        now = datetime.now(UTC)
        pem, identity, _ = self._certified(caller.account, request_der, now)
        with self._database.transaction() as connection:
            row = self._standing(connection, caller.account)
            if (row.spki_sha256, row.signing_key) != (identity.spki_sha256.hex(), (identity.signing_key or b"").hex()):
                raise AccountConflict("the request is for other keys than the account has")
            ends = identity.not_after.timestamp()
            connection.execute(sa.update(accounts).where(accounts.c.account == caller.account).values(not_after=ends))
        return pem

    # --- questions -------------------------------------------------------------------------------------------------

    def caller(self, peer: PeerIdentity) -> Caller:
        """Who is behind a certificate, and with which role now; raises AccessDenied for one that may do nothing."""
        with self._database.reading() as connection:
            found = connection.execute(sa.select(accounts).where(accounts.c.account == peer.name)).first()
        subject = self._home.vault.known(peer.name) if found is not None else None
        if found is None or subject is None or found.spki_sha256 != peer.spki_sha256.hex():
            reason = "the certificate is not that of an account"
        elif found.revoked_at is not None:
            reason = "the account is revoked"
        else:
            role = PersonRole(found.role)
            return Caller(role=role, account=found.account, subject=subject, signing_key=found.signing_key)
        log.warning("account.denied", reason=reason)
        self._access.denied(subject or UNKNOWN_ACCOUNT, "connect", reason)
        raise AccessDenied(reason)

    # --- the parts -------------------------------------------------------------------------------------------------

    def _certified(self, account: str, request_der: bytes, now: datetime) -> tuple[bytes, PeerIdentity, bytes]:
        """Certificate in PEM, what it says, and the same in DER."""
        pem = certificates.issue_account(
            self._home.authority,
            account,
            request_der,
            now=now,
            valid_for=timedelta(days=self._home.config.account_certificate_days),
        )
        der = certificates.certificate_der(pem)
        return pem, certificates.verify_certificate(der, self._home.ca_certificate, now, role=Role.ACCOUNT), der

    def _standing(self, connection: sa.Connection, account: str) -> AccountRow:
        """An account that is not revoked; raises AccountUnknown."""
        found = connection.execute(
            sa.select(accounts).where(accounts.c.account == account, accounts.c.revoked_at.is_(None))
        ).first()
        if found is None:
            raise AccountUnknown(account)
        return _row(found)

    def _role_changed(self, account: str, role: PersonRole, change: str, by: Caller) -> bytes:
        entry = entries.RoleChanged(
            **now_stamp(),
            on_behalf=None if by.role is None else by.subject,
            person=self._home.pseudonym(account),
            role=role,
            change=change,
        )
        return entries.entry_bytes(entry)

    def _refuse(self, reason: str) -> NoReturn:
        log.warning("account.enrolment_refused", reason=reason)
        self._access.unproven("account enrolment", reason)
        raise EnrolmentRefused(f"the account cannot enrol: {reason}")


def forget_person(connection: sa.Connection, name: str) -> None:
    """Remove a person's account, and the invitations: then the name stands nowhere here any more."""
    connection.execute(sa.delete(accounts).where(accounts.c.account == name))
    connection.execute(sa.delete(account_invitations).where(account_invitations.c.account == name))


def _against(connection: sa.Connection, token_sha256: str, account: str, now: datetime) -> tuple[str, PersonRole]:
    """What stands against an enrolment, empty if nothing does; and the role that was offered."""
    row = connection.execute(
        sa.select(account_invitations).where(account_invitations.c.token_sha256 == token_sha256)
    ).first()
    enrolled = connection.execute(sa.select(accounts.c.revoked_at).where(accounts.c.account == account)).first()
    if row is None or row.account != account:
        return "the token is not one this consortium gave to this account", PersonRole.AUDITOR
    role = PersonRole(row.role)
    if over := why_over(row.used_at, row.expires_at, now):
        return over, role
    if enrolled is not None and enrolled.revoked_at is None:
        return "the account is enrolled already", role
    return "", role


def _spend_invitations(connection: sa.Connection, account: str) -> None:
    """No kit made for the account so far is good any more."""
    connection.execute(
        sa.update(account_invitations)
        .where(account_invitations.c.account == account, account_invitations.c.used_at.is_(None))
        .values(used_at=time.time())
    )


def _row(row: sa.Row[tuple[object, ...]]) -> AccountRow:
    return AccountRow(
        account=row.account,
        role=PersonRole(row.role),
        spki_sha256=row.spki_sha256,
        signing_key=row.signing_key,
        enrolled_at=datetime.fromtimestamp(row.enrolled_at, UTC),
        not_after=datetime.fromtimestamp(row.not_after, UTC),
        revoked=row.revoked_at is not None,
    )

"""Invitations that are out: what lies in a kit besides its token, and whether it still counts.

A kit has a one-time token, of which only the hash is kept here, and a certificate with its key, of which nothing is
kept: it is named after the token. Whoever enrols shows the certificate in the handshake and the token in the call, and
both must be one kit's. The certificate counts for as long as the token does: until it is used, taken back, or over.
"""

from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog

from consortium.access_record import AccessRecord
from consortium.contract import certificates
from consortium.contract.certificates import INVITATION_DIGITS, Issued, Role, invitation_name
from consortium.database import Database, account_invitations, invitations
from consortium.errors import EnrolmentRefused
from consortium.home import CoordinatorHome

log = structlog.get_logger(__name__)


def made_out(home: CoordinatorHome, token: str, now: datetime) -> tuple[Issued, datetime]:
    """The certificate of a kit with this token, and when both are over: `token_lifetime_hours` from now."""
    lifetime = timedelta(hours=home.config.token_lifetime_hours)
    issued = certificates.issue_invitation(home.authority, token, now=now, valid_for=lifetime)
    der = certificates.certificate_der(issued.certificate_pem)
    holder = certificates.verify_certificate(der, home.ca_certificate, now, role=Role.INVITED)
    return issued, holder.not_after


def of_another_kit(invitation: str, token: str) -> str:
    """What stands against an enrolment with this token by the holder of that certificate; empty if nothing does."""
    if invitation == invitation_name(token):
        return ""
    return "the token is not one of the kit whose certificate was shown"


def why_over(used_at: float | None, expires_at: float, now: datetime) -> str:
    """Why a kit is not good any more; empty if it is."""
    if used_at is not None:
        return "the token was used before, or is not good any more"
    return "the token has expired" if expires_at < now.timestamp() else ""


def require_good(database: Database, access: AccessRecord, invitation: str, now: datetime) -> None:
    """Raise EnrolmentRefused for the certificate of a kit that is not good any more; it is logged.

    Args:
        database: Where hospitals' and people's invitations are.
        access: Who is turned away is written down there.
        invitation: The name in the certificate.
        now: The coordinator's clock.
    """
    wanted, found = invitation[-INVITATION_DIGITS:], None
    with database.reading() as connection:
        for table in (invitations, account_invitations):
            its = sa.func.substr(table.c.token_sha256, 1, INVITATION_DIGITS) == wanted
            found = found or connection.execute(sa.select(table.c.used_at, table.c.expires_at).where(its)).first()
    reason = "no such kit is out" if found is None else why_over(found.used_at, found.expires_at, now)
    if reason:
        log.warning("enrolment.denied", reason=reason)
        access.unproven("enrolment", reason)
        raise EnrolmentRefused(f"this kit enrols nobody: {reason}")

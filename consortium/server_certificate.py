"""The coordinator's own certificate, which it renews from its authority before it ends.

Hospitals trust the authority, so nothing changes for them: the next handshake shows another certificate for the same
names. Key and certificate lie in one file, `keys/serving.pem`, which is replaced as a whole. The authority's own end
is no matter of a renewal, for hospitals have its certificate from their kits; that is said in time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog
from cryptography import x509

from consortium.contract import certificates
from consortium.contract.certificates import CLOCK_SKEW, Issued
from consortium.contract.private_files import write_private
from consortium.errors import ConsortiumError
from consortium.home import SERVER_LIFETIME, CoordinatorHome

log = structlog.get_logger(__name__)

LOOKS_S = 3600.0
AUTHORITY_ENDS = timedelta(days=365)
"""How long before the authority's end the lead is told: every hospital has to enrol anew under another one."""


def is_due(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether two thirds of a certificate's time are over."""
    begins, ends = certificate.not_valid_before_utc + CLOCK_SKEW, certificate.not_valid_after_utc
    return now >= begins + (ends - begins) * 2 / 3


def current(home: CoordinatorHome, now: datetime) -> Issued:
    """The certificate to show, and its key; a new pair, kept durably, if the one that is there is due.

    On a disk that does not take it the old one goes on. Raises HomeInvalid if keys or certificates cannot be read.
    """
    key_pem, certificate_pem = home.server_pem
    old = x509.load_pem_x509_certificate(certificate_pem)
    if not is_due(old, now):
        return Issued(certificate_pem=certificate_pem, key_pem=key_pem)
    new = certificates.issue_server(home.authority, home.dialled_as, now=now, valid_for=SERVER_LIFETIME)
    try:
        write_private(home.serving_path, new.key_pem + new.certificate_pem, replace=True)
    except OSError as error:
        log.warning("certificate.not_renewed", reason=error.strerror)
        return Issued(certificate_pem=certificate_pem, key_pem=key_pem)
    ends = x509.load_pem_x509_certificate(new.certificate_pem).not_valid_after_utc
    log.info("certificate.renewed", until=f"{ends:%Y-%m-%d}")
    return new


@asynccontextmanager
async def watched(
    home: CoordinatorHome,
    show: Callable[[Issued], None],
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AsyncIterator[None]:
    """Renew while the body runs; `show` is told of every new pair."""
    task = asyncio.create_task(_keep(home, show, clock))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _keep(home: CoordinatorHome, show: Callable[[Issued], None], clock: Callable[[], datetime]) -> None:
    shown = home.server_pem[1]
    while True:
        try:
            found = await asyncio.to_thread(current, home, clock())
            if found.certificate_pem != shown:
                show(found)
                shown = found.certificate_pem
        except (ConsortiumError, ValueError) as error:  # the certificate that is there goes on; it is tried again
            log.warning("certificate.not_renewed", reason=str(error))
        _say_when_the_authority_ends(home, clock())
        await asyncio.sleep(LOOKS_S)


def _say_when_the_authority_ends(home: CoordinatorHome, now: datetime) -> None:
    left = home.ca_certificate.not_valid_after_utc - now
    if left < AUTHORITY_ENDS:
        log.warning("authority.ends", days=left.days)

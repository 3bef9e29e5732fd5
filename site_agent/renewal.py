"""The next certificate of this hospital, asked for over the session while the present one is good.

A certificate is for a while only, so that a TLS key that somebody copied is worth little for long. When two thirds of
that are over the agent makes a new TLS key and has it certified; the signing keys stay, and with them all that other
hospitals and the log know this one by. Key and certificate are one file, `keys/connection.pem`, which is replaced as
a whole: a process that is killed at any moment leaves a pair that works. It is used from the next connection on.
When the signing keys were changed (`signing_key_change.py`), it is due at once.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from cryptography import x509

from audit.site_keys import SigningKeys
from consortium.contract import certificates
from consortium.contract.certificates import CLOCK_SKEW, CertificateRefused, Fault, PeerIdentity, Role
from consortium.contract.private_files import write_private
from consortium.wire.client import CoordinatorClient
from consortium.wire.errors import WireError, WireViolation
from site_agent.errors import SiteError
from site_agent.home import AgentHome, Connection
from site_agent.signing_keys import read_next_keys

log = structlog.get_logger(__name__)

LOOKS_S, ASKS_AGAIN_S = 60.0, 3600.0
"""How often an agent looks whether its certificate is due, or was renewed; and after a refusal, asks again."""


class RenewalUnwritable(SiteError):
    """The disk did not take the new key."""

    code = "try_later"

    def advice(self) -> str:
        """What to do next."""
        return "Free some space in the agent's home or mend its permissions; the certificate that is there goes on."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request, and the key that it is for."""

    der: bytes
    key_pem: bytes = field(repr=False)
    spki_sha256: bytes
    signing_keys: SigningKeys


def signing_keys_of(holder: PeerIdentity) -> SigningKeys:
    """The signing keys that a site's certificate names."""
    return SigningKeys(signing=(holder.signing_key or b"").hex(), ecdsa=(holder.ecdsa_key or b"").hex())


def names_former_keys(home: AgentHome, shown: Connection) -> bool:
    """Whether a certificate is for other signing keys than the hospital has now; raises CertificateRefused."""
    der = certificates.certificate_der(shown.certificate_pem)
    return signing_keys_of(certificates.identity_of(x509.load_der_x509_certificate(der))) != home.signing_keys


def due_at(connection: Connection) -> datetime:
    """When a certificate is to be renewed: when two thirds of its time are over."""
    begins = connection.not_before + CLOCK_SKEW  # certificates are dated back by as much
    return begins + (connection.not_after - begins) * 2 / 3


async def renew(home: AgentHome, client: CoordinatorClient, now: datetime) -> Connection:
    """Have a new TLS key certified and keep it; returns what the next connection is made with.

    Raises:
        CertificateRefused: The coordinator answered with a certificate that is not for this site and its keys.
        RenewalUnwritable: The pair that was there goes on.
        WireError: There was no answer, or a refusal.
    """
    asked = await asyncio.to_thread(_request, home)
    grant = await client.renew(asked.der)
    await asyncio.to_thread(_keep, home, asked, grant.certificate_pem, now)
    return home.connection


def _request(home: AgentHome) -> _Asked:
    key, signing_keys = certificates.new_tls_key(), home.signing_keys
    der = certificates.site_request(
        tls_key=key,
        signing_key=home.signing_key,
        ecdsa_key=home.ecdsa_private_key,
        site=home.site,
        consortium=home.identity.consortium,
    )
    spki_sha256 = hashlib.sha256(certificates.spki_of(key.public_key())).digest()
    return _Asked(der=der, key_pem=certificates.private_pem(key), spki_sha256=spki_sha256, signing_keys=signing_keys)


def _keep(home: AgentHome, asked: _Asked, certificate_pem: bytes, now: datetime) -> None:
    holder = certificates.verify_certificate(
        certificates.certificate_der(certificate_pem), home.ca_certificate, now, role=Role.SITE
    )
    if (holder.name, holder.spki_sha256, signing_keys_of(holder)) != (home.site, asked.spki_sha256, asked.signing_keys):
        raise CertificateRefused(
            Fault.FOREIGN, found=f"a certificate for {holder.name} or for other keys", allowed=f"{home.site}, our keys"
        )
    try:
        write_private(home.connection_path, asked.key_pem + certificate_pem, replace=True)
    except OSError as error:
        raise RenewalUnwritable(f"{home.connection_path} could not be written: {error.strerror or error}") from error


async def keep_certified(
    home: AgentHome,
    client: CoordinatorClient,
    shown: Connection,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Return once there is another certificate than the one this connection was made with, `shown`.

    That is when this one was due and renewed, or is for former signing keys and was renewed; or when `site-agent
    rotate-keys` has renewed it meanwhile. Or once there are signing keys that wait to be changed to.
    """
    ask_again_s = 0.0
    while True:
        try:
            found = await asyncio.to_thread(lambda: home.connection)
            waiting = await asyncio.to_thread(read_next_keys, home.folder)
            if found.certificate_pem != shown.certificate_pem or waiting is not None:
                return
            due = clock() >= due_at(found) or await asyncio.to_thread(names_former_keys, home, found)
            if due and time.monotonic() >= ask_again_s:
                ask_again_s = time.monotonic() + ASKS_AGAIN_S
                renewed = await renew(home, client, clock())
                log.info("certificate.renewed", until=f"{renewed.not_after:%Y-%m-%d}")
                return
        except (WireError, WireViolation, SiteError, CertificateRefused) as error:
            log.warning("certificate.not_renewed", reason=str(error), until=f"{shown.not_after:%Y-%m-%d %H:%M}")
        await asyncio.sleep(LOOKS_S)

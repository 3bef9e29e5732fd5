"""Joining a consortium: keys are made here, a request goes out, a certificate comes back.

The home appears whole or not at all: everything is written to a folder beside it, which is renamed at the end. Private
keys are never anywhere else.
"""

import errno
import os
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path

from consortium.contract import certificates
from consortium.contract.certificates import CertificateRefused, Fault, Role
from consortium.contract.kit import Kit, read_kit
from consortium.contract.messages import EnrolmentRequest
from consortium.contract.private_files import write_private
from consortium.wire.client import enrol as request_certificate
from site_agent.errors import SiteError
from site_agent.home import Identity


class HomeExists(SiteError):
    """Enrolling would write over a home."""

    def advice(self) -> str:
        """What to do next."""
        return "Name a folder that does not exist yet with --home; nothing was changed and the kit is unused."


class HomeUnwritable(SiteError):
    """The disk refused a write."""

    code = "try_later"

    def advice(self) -> str:
        """What to do next."""
        return "Free some space or mend the permissions, then ask for a new kit if this one says it was used."


class KitMissing(SiteError):
    """There is no kit at the path that was named."""

    def advice(self) -> str:
        """What to do next."""
        return "Name the kit you got from the consortium lead with --kit."


async def enrol(kit_path: Path, folder: Path) -> Identity:
    """Enrol with a kit and make the home; returns who this site is now.

    Raises:
        KitUnreadable, KitExpired: See `consortium.contract.kit`.
        HomeExists, HomeUnwritable, KitMissing: Nothing was sent, or nothing was kept.
        CallRefused and its kin: The coordinator said no, and why.
    """
    if folder.exists():
        raise HomeExists(f"{folder} exists")
    try:
        kit = read_kit(kit_path)
    except OSError as error:
        raise KitMissing(f"{kit_path} cannot be read: {error.strerror}") from error
    kit.require_fresh(datetime.now(UTC))
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}")
    try:
        identity = await _enrol_into(staging, kit)
        staging.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG, errno.EPERM):
            raise HomeUnwritable(f"{folder} could not be made: {os.strerror(error.errno)}") from error
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return identity


async def _enrol_into(folder: Path, kit: Kit) -> Identity:
    (folder / "keys").mkdir(mode=0o700, parents=True)
    (folder / "certificates").mkdir()
    tls_key, signing_key = certificates.new_tls_key(), certificates.new_signing_key()
    # Written before anything is asked for, so that a full disk is found while the token is still unused.
    write_private(folder / "keys/tls.pem", certificates.private_pem(tls_key))
    write_private(folder / "keys/signing.pem", certificates.private_pem(signing_key))
    write_private(folder / "keys/hedge.key", os.urandom(32))
    (folder / "certificates/ca.pem").write_bytes(kit.ca_pem)
    request = certificates.site_request(
        tls_key=tls_key, signing_key=signing_key, site=kit.site, consortium=kit.consortium
    )
    grant = await request_certificate(
        kit.enrolment_address,
        kit.ca_pem,
        EnrolmentRequest(site=kit.site, token=kit.token, request_der=request),
    )
    holder = certificates.verify_certificate(
        certificates.certificate_der(grant.certificate_pem),
        certificates.load_authority_certificate(kit.ca_pem),
        datetime.now(UTC),
        role=Role.SITE,
    )
    ours = signing_key.public_key().public_bytes_raw()
    if (holder.name, holder.signing_key) != (kit.site, ours):
        raise CertificateRefused(
            Fault.FOREIGN, found=f"a certificate for {holder.name} or for other keys", allowed=f"{kit.site}, our keys"
        )
    identity = Identity(
        consortium=kit.consortium,
        site=kit.site,
        address=kit.address,
        log_vkey=kit.log_vkey,
        coordinator_signing_key=kit.coordinator_signing_key,
        ca_sha256=kit.ca_sha256,
        spki_sha256=holder.spki_sha256.hex(),
        signing_key=ours.hex(),
    )
    (folder / "certificates/site.pem").write_bytes(grant.certificate_pem)
    (folder / "identity.json").write_text(identity.model_dump_json(indent=2))
    return identity

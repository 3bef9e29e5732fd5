"""Joining a consortium: keys are made here, a request goes out, a certificate comes back.

The home appears whole or not at all: everything is written to a folder beside it, which is renamed at the end. Private
keys are never anywhere else.
"""

import asyncio
import hashlib
import os
import secrets
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from consortium.contract import certificates
from consortium.contract.certificates import CertificateRefused, Fault, Role
from consortium.contract.kit import Kit, read_kit
from consortium.contract.messages import EnrolmentRequest
from consortium.contract.private_files import write_private
from consortium.wire.client import SentRecord
from consortium.wire.client import enrol as request_certificate
from privacy.p256 import point_bytes
from site_agent.egress_rows import EgressRecord
from site_agent.errors import SiteError
from site_agent.home import Identity
from site_agent.site_file import example_site_file
from site_agent.store import Store


class HomeExists(SiteError):
    """Enrolling would write over a home."""

    def advice(self) -> str:
        """What to do next."""
        return "Name a folder that does not exist yet with --home; nothing was changed or sent."


class HomeUnwritable(SiteError):
    """The disk refused a write."""

    code = "try_later"

    def advice(self) -> str:
        """What to do next."""
        return "Free some space or mend the permissions, then try again; ask for a new kit if this one was used."


class KitMissing(SiteError):
    """There is no kit at the path that was named."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "Name the kit you got from the consortium lead with --kit."


async def enrol(kit_path: Path, folder: Path) -> Identity:
    """Enrol with a kit and make the home; returns who this site is now.

    Raises:
        KitUnreadable, KitExpired: See `consortium.contract.kit`.
        HomeExists, HomeUnwritable, KitMissing: Nothing was sent, or nothing was kept.
        CertificateRefused: The coordinator answered with a certificate that is not for this site and its keys.
        CallRefused and its kin: The coordinator said no, and why.
    """
    kit, staging = await asyncio.to_thread(_begin, kit_path, folder)
    try:
        identity = await _enrol_into(staging, kit)
        await asyncio.to_thread(staging.rename, folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return identity


def _begin(kit_path: Path, folder: Path) -> tuple[Kit, Path]:
    """The kit, and an empty folder beside the one that is to be, so that the home can appear all at once."""
    if folder.exists() or folder.is_symlink():
        raise HomeExists(f"{folder} exists")
    try:
        kit = read_kit(kit_path)
    except OSError as error:
        raise KitMissing(f"{kit_path} cannot be read: {error.strerror}") from error
    kit.require_fresh(datetime.now(UTC))
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}")
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir(mode=0o700)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return kit, staging


def _unwritable(folder: Path, error: OSError) -> HomeUnwritable:
    return HomeUnwritable(f"{folder} could not be made: {error.strerror or error}")


async def _enrol_into(folder: Path, kit: Kit) -> Identity:
    tls_key, signing_key = certificates.new_tls_key(), certificates.new_signing_key()
    ecdsa_key = certificates.new_ecdsa_key()
    request = certificates.site_request(
        tls_key=tls_key, signing_key=signing_key, ecdsa_key=ecdsa_key, site=kit.site, consortium=kit.consortium
    )

    def write_keys() -> Store:
        for name in ("keys", "certificates"):
            (folder / name).mkdir(mode=0o700)
        write_private(folder / "keys/tls.pem", certificates.private_pem(tls_key))
        write_private(folder / "keys/signing.pem", certificates.private_pem(signing_key))
        write_private(folder / "keys/ecdsa.pem", certificates.private_pem(ecdsa_key))
        write_private(folder / "keys/hedge.key", os.urandom(32))
        write_private(folder / "certificates/ca.pem", kit.ca_pem)
        return Store(folder / "agent.db")

    # Before anything is asked for, so that a full disk is found while the token is still unused.
    store = await asyncio.to_thread(write_keys)

    def record(sent: SentRecord) -> None:
        """The first thing that leaves is in the list of what left, like all that comes after it."""
        store.record_egress(
            EgressRecord(
                at=time.time(), kind=sent.kind, study_digest="", sha256=sent.sha256, size_bytes=sent.size_bytes
            )
        )

    grant = await request_certificate(
        kit.address,
        kit.ca_pem,
        kit.invitation,
        EnrolmentRequest(site=kit.site, token=kit.token, request_der=request),
        on_sent=record,
    )
    holder = certificates.verify_certificate(
        certificates.certificate_der(grant.certificate_pem),
        certificates.load_authority_certificate(kit.ca_pem),
        datetime.now(UTC),
        role=Role.SITE,
    )
    signing, ecdsa = signing_key.public_key().public_bytes_raw(), point_bytes(ecdsa_key.public_key())
    spki_sha256 = hashlib.sha256(certificates.spki_of(tls_key.public_key())).digest()
    certified = (holder.name, holder.spki_sha256, holder.signing_key, holder.ecdsa_key)
    if certified != (kit.site, spki_sha256, signing, ecdsa):
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
        spki_sha256=spki_sha256.hex(),
        signing_key=signing.hex(),
        ecdsa_key=ecdsa.hex(),
    )
    write_private(folder / "certificates/site.pem", grant.certificate_pem)
    write_private(folder / "site.example.yaml", example_site_file())
    write_private(folder / "identity.json", identity.model_dump_json(indent=2).encode())
    return identity

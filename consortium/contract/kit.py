"""The enrolment kit: one zip file that lets one hospital join once.

`kit.json` says whom to dial, as whom to enrol, with which one-time token, and which keys to believe from then on;
`ca.pem` is the authority whose fingerprint kit.json carries. `invitation.pem` is a certificate by that authority and
`invitation-key.pem` its key: with them the hospital is heard at all, for the one call that enrols (see
`certificates.py`). Token and key make the kit a secret until it has been used, so it is written for its owner only and
travels over a channel the two parties trust.
"""

import io
import json
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from consortium.contract.certificates import (
    CONSORTIUM_NAME_MAX,
    CertificateRefused,
    Issued,
    Role,
    certificate_der,
    consortium_of,
    fingerprint,
    invitation_name,
    load_authority_certificate,
    load_tls_key,
    spki_of,
    verify_certificate,
)
from consortium.contract.digest import canonical_bytes, digest_of
from consortium.contract.names import Digest, SiteId, is_digest, is_name
from consortium.contract.private_files import write_private

SCHEMA = "consortium/kit/v2"
FORMER_SCHEMA = "consortium/kit/v1"
"""Of releases that enrolled over a port of its own: such a kit has no certificate, so nobody hears who holds it."""
KIT_BYTES_MAX = 64 * 1024
_MEMBER_BYTES_MAX = 16 * 1024
_MEMBERS = ("kit.json", "ca.pem", "invitation.pem", "invitation-key.pem")
_FORMER_MEMBERS = ("kit.json", "ca.pem")

_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9.-]{1,253})):([0-9]{1,5})")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of the members: the same kit is always the same bytes


class KitUnreadable(Exception):
    """A kit that is damaged, altered or not a kit; the fault is with the file or the way it travelled."""

    code = "invalid"

    def __init__(self, what: str, *, found: str, allowed: str) -> None:
        super().__init__(f"kit refused: {what}: found {found}; allowed: {allowed}")
        self.what = what
        self.found = found
        self.allowed = allowed

    def advice(self) -> str:
        """What to do next."""
        return (
            "Ask the consortium lead for a new kit (`consortium site invite SITE --out kit.zip`; for a person "
            "`consortium account invite`) and copy it whole."
        )


class KitExpired(Exception):
    """A kit that was not used in time; nobody's fault."""

    code = "refused"

    def __init__(self, expires: datetime, now: datetime) -> None:
        super().__init__(f"the kit expired at {expires:%Y-%m-%d %H:%M} UTC; it is now {now:%Y-%m-%d %H:%M} UTC")
        self.expires = expires
        self.now = now

    def advice(self) -> str:
        """What to do next."""
        return "Check this computer's clock; if it is right, ask the consortium lead for a new kit."


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What a hospital needs to enrol, and to know whom it enrolled with."""

    consortium: str
    address: str  # HOST:PORT of the coordinator, mutual TLS
    ca_pem: bytes
    site: SiteId
    token: str = field(repr=False)  # one-time; 16 to 256 characters of URL-safe base64
    invitation: Issued  # for the one call that enrols; its name is the token's
    log_vkey: str  # the log's verifier key, as C2SP signed-note writes it
    coordinator_signing_key: str  # 64 hex characters, Ed25519: round plans are signed with it
    expires: datetime  # UTC

    @property
    def ca_sha256(self) -> Digest:
        """The authority's fingerprint, SHA-256 of its DER."""
        return fingerprint(load_authority_certificate(self.ca_pem))

    def require_fresh(self, now: datetime) -> None:
        """Raises KitExpired once the kit's time is over."""
        if now > self.expires:
            raise KitExpired(self.expires, now)

    def to_bytes(self) -> bytes:
        """The zip; the same kit always gives the same bytes."""
        record = canonical_bytes(
            {
                "schema": SCHEMA,
                "consortium": self.consortium,
                "address": self.address,
                "ca_sha256": self.ca_sha256,
                "site": self.site,
                "token": self.token,
                "log_vkey": self.log_vkey,
                "coordinator_signing_key": self.coordinator_signing_key,
                "expires": self.expires.isoformat(),
            }
        )
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            contents = (record, self.ca_pem, self.invitation.certificate_pem, self.invitation.key_pem)
            for name, data in zip(_MEMBERS, contents, strict=True):
                member = zipfile.ZipInfo(name, date_time=_EPOCH)
                member.external_attr = 0o600 << 16
                archive.writestr(member, data)
        return buffer.getvalue()


def write_kit_bytes(path: Path, data: bytes) -> None:
    """Write a kit for its owner only, once it is known to be one; raises KitUnreadable, FileExistsError."""
    parse_kit(data)
    write_private(path, data)


def read_kit(path: Path) -> Kit:
    """Read a kit; raises KitUnreadable, and OSError if the file is not there."""
    with path.open("rb") as file:
        return parse_kit(file.read(KIT_BYTES_MAX + 1))


def parse_kit(data: bytes) -> Kit:
    """A kit from the bytes of its zip; raises KitUnreadable.

    Nothing is unpacked to disk, and no member takes more memory than its bound, whatever the zip says of itself.
    """
    if len(data) > KIT_BYTES_MAX:
        raise KitUnreadable("file", found=f"more than {KIT_BYTES_MAX} bytes", allowed=f"at most {KIT_BYTES_MAX}")
    record_json, ca_pem, certificate_pem, key_pem = _members(data)
    try:
        record = _Record.model_validate(json.loads(record_json, object_pairs_hook=_no_repeats), strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "kit.json"
        raise KitUnreadable(where, found=first["msg"], allowed=f"a {SCHEMA} record") from None
    except (ValueError, RecursionError) as error:
        raise KitUnreadable("kit.json", found=str(error)[:120], allowed="one JSON object") from None
    try:
        authority = load_authority_certificate(ca_pem)
    except ValueError as error:
        raise KitUnreadable("ca.pem", found=str(error)[:120], allowed="the authority's certificate") from None
    # The fingerprint is what a person may have been told by telephone; the certificate has to be that one.
    if fingerprint(authority) != record.ca_sha256:
        raise KitUnreadable("ca_sha256", found=f"a certificate with {fingerprint(authority)}", allowed=record.ca_sha256)
    if consortium_of(authority) != record.consortium:
        raise KitUnreadable(
            "consortium", found=f"an authority of {consortium_of(authority)}", allowed=record.consortium
        )
    _check_names(record)
    invitation = Issued(certificate_pem=certificate_pem, key_pem=key_pem)
    require_invitation(invitation, ca_pem, token=record.token, expires=record.expires)
    return Kit(
        consortium=record.consortium,
        address=record.address,
        ca_pem=ca_pem,
        site=SiteId(record.site),
        token=record.token,
        invitation=invitation,
        log_vkey=record.log_vkey,
        coordinator_signing_key=record.coordinator_signing_key,
        expires=record.expires,
    )


def require_invitation(invitation: Issued, ca_pem: bytes, *, token: str, expires: datetime) -> None:
    """Raise KitUnreadable unless certificate and key in a kit are those of its token, for as long as it lasts."""
    where = "invitation"
    try:
        authority = load_authority_certificate(ca_pem)
        holder = verify_certificate(certificate_der(invitation.certificate_pem), authority, expires, role=Role.INVITED)
        own = digest_of(spki_of(load_tls_key(invitation.key_pem).public_key()))
    except CertificateRefused as error:
        raise KitUnreadable(where, found=error.found, allowed=error.allowed) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: a key under a passphrase
        raise KitUnreadable(where, found="no such key", allowed="an ECDSA P-256 private key in PEM") from None
    if holder.name != invitation_name(token):
        raise KitUnreadable(where, found="the certificate of another kit", allowed="the one of this kit's token")
    if holder.spki_sha256.hex() != own:
        raise KitUnreadable(where, found="a key that is not the certificate's", allowed="its own")


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT or [IPv6]:PORT in two; raises ValueError."""
    match = _ADDRESS.fullmatch(address)
    port = int(match[3]) if match else -1
    if match is None or not 0 <= port <= 65535:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return match[1] or match[2], port


class _Record(BaseModel):
    """kit.json, outside in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_name: Literal["consortium/kit/v2"] = Field(alias="schema")
    consortium: str = Field(max_length=CONSORTIUM_NAME_MAX)
    address: str = Field(max_length=300)
    ca_sha256: str = Field(max_length=64)
    site: str = Field(max_length=40)
    token: str = Field(pattern=r"^[A-Za-z0-9_-]{16,256}$")
    log_vkey: str = Field(pattern=r"^[!-~]{10,512}$")
    coordinator_signing_key: str = Field(max_length=64)
    expires: AwareDatetime


def _check_names(record: _Record) -> None:
    """The rules that a pattern would say less clearly."""
    if not is_name(record.consortium, longest=CONSORTIUM_NAME_MAX):
        raise KitUnreadable("consortium", found=repr(record.consortium), allowed="a-z, 0-9 and '-'")
    if not is_name(record.site):
        raise KitUnreadable("site", found=repr(record.site), allowed="3 to 40 of a-z, 0-9 and '-'")
    if not is_digest(record.coordinator_signing_key):
        raise KitUnreadable("coordinator_signing_key", found="not a key", allowed="64 hexadecimal characters")
    try:
        split_address(record.address)
    except ValueError as error:
        raise KitUnreadable("address", found=str(error), allowed="HOST:PORT") from None


def _members(data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = sorted(archive.namelist())
            if names == sorted(_FORMER_MEMBERS):
                found = f"a kit that an earlier release made ({FORMER_SCHEMA}), with no certificate to enrol with"
                raise KitUnreadable("schema", found=found, allowed=SCHEMA)
            if names != sorted(_MEMBERS):
                raise KitUnreadable(
                    "file", found=f"a zip of {names}"[:200], allowed=f"{', '.join(_MEMBERS)}, once each"
                )
            # Only these are decompressed within a bound: zipfile reads the other kinds whole.
            if any(one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for one in archive.infolist()):
                raise KitUnreadable("file", found="an unusual compression", allowed="stored or deflated members")
            record, ca_pem, certificate_pem, key_pem = (_member(archive, name) for name in _MEMBERS)
            return record, ca_pem, certificate_pem, key_pem
    # RuntimeError: an encrypted member.
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError) as error:
        raise KitUnreadable(
            "file", found=f"not a readable zip ({error})"[:200], allowed="the kit as it was made"
        ) from None


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        data = file.read(_MEMBER_BYTES_MAX + 1)  # what is read, not what the directory claims
    if len(data) > _MEMBER_BYTES_MAX:
        raise KitUnreadable(name, found=f"more than {_MEMBER_BYTES_MAX} bytes", allowed=f"at most {_MEMBER_BYTES_MAX}")
    return data


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a key appears twice")
    return record

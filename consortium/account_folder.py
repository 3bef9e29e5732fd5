"""An account's folder on its person's own machine: keys made there, a certificate, and whom to dial.

account.json               consortium, account, address, the coordinator's signing key
keys/tls.pem, signing.pem  0600: who calls; what studies are signed with. They never leave
certificates/ca.pem, account.pem
token                      0600, for somebody who has tokens of an identity provider instead of keys and a certificate

The folder appears whole or not at all. The certificate is short-lived and is renewed by whichever command finds a third
of its life left, for the same keys; an account that was not used for that long needs a new kit.
"""

import asyncio
import hashlib
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consortium.contract import certificates
from consortium.contract.account_kit import AccountKit, read_account_kit
from consortium.contract.certificates import CertificateRefused, Fault, Role
from consortium.contract.kit import split_address
from consortium.contract.messages import AccountRequest
from consortium.contract.private_files import read_private, write_private
from consortium.contract.study import StudyFile
from consortium.contract.submission import Destination, sign
from consortium.errors import ConsortiumError, HomeExists, HomeUnwritable
from consortium.wire.client import enrol_account

RECORD = "account.json"
_FILE_BYTES_MAX = 64 * 1024


class AccountUnusable(ConsortiumError):
    """The folder is no account's, or is damaged; or a kit is missing. Whose fault: who named it, or the disk."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "`consortium account enrol --kit FILE --out DIR` makes the folder; the consortium lead makes the kit."


TOKEN_VARIABLE = "CONSORTIUM_TOKEN"  # noqa: S105 - where it is, not what
"""In the environment; else the file `token` of the folder."""


class NothingToSignWith(ConsortiumError):
    """Somebody with a token submits a study, which needs a key. Whose fault: nobody's."""

    def advice(self) -> str:
        """What to do next."""
        return "Studies are signed: ask the consortium lead for an account (`consortium account invite`)."


class _Record(BaseModel):
    """account.json, outside in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    consortium: str = Field(max_length=64)
    account: str | None = Field(max_length=40)  # None: somebody with a token
    address: str = Field(max_length=300)
    coordinator_signing_key: str | None = Field(max_length=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFolder:
    """An opened folder. Keys are read when they are needed, not before."""

    folder: Path
    consortium: str
    account: str | None  # None: somebody with a token, and without keys
    address: str  # HOST:PORT of the coordinator
    coordinator_signing_key: str | None  # 64 hexadecimal characters

    @property
    def ca_pem(self) -> bytes:
        """The authority that this account believes."""
        return self._read("certificates/ca.pem")

    @property
    def tls_key(self) -> EllipticCurvePrivateKey:
        """Answers handshakes, and nothing else."""
        try:
            return certificates.load_tls_key(self._read("keys/tls.pem"))
        except ValueError as error:
            raise AccountUnusable(f"keys/tls.pem in {self.folder}: {error}") from error

    @property
    def credentials(self) -> tuple[bytes, bytes]:
        """TLS private key and certificate."""
        return self._read("keys/tls.pem"), self._read("certificates/account.pem")

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        """Signs studies."""
        try:
            return certificates.load_signing_key(self._read("keys/signing.pem"))
        except ValueError as error:
            raise AccountUnusable(f"keys/signing.pem in {self.folder}: {error}") from error

    @property
    def token(self) -> str:
        """The bearer token, as it is now: it is short-lived, and some other program gets it."""
        token = os.environ.get(TOKEN_VARIABLE) or self._read("token").decode("ascii", "replace")
        if not token.strip().isprintable():
            raise AccountUnusable(f"the token in {self.folder} is none")
        return token.strip()

    def signed(self, document: str, now: datetime) -> dict[str, str]:
        """The arguments of `study.submit` that say whose study this is."""
        if self.coordinator_signing_key is None:
            raise NothingToSignWith(f"{self.folder} has no key to sign a study with")
        here = Destination(consortium=self.consortium, coordinator_signing_key=self.coordinator_signing_key)
        study = StudyFile.from_document(document.encode())
        return asdict(sign(study.digest(), here, self.signing_key, now=now))

    def request(self) -> bytes:
        """For a certificate of this account's keys."""
        assert self.account is not None  # who has keys has an account
        return certificates.account_request(
            tls_key=self.tls_key, signing_key=self.signing_key, account=self.account, consortium=self.consortium
        )

    def renewal(self, now: datetime) -> bytes | None:
        """A request for the next certificate, if it is time; None if it is not."""
        certificate = x509.load_pem_x509_certificate(self.credentials[1])
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        if certificate.not_valid_after_utc - now > life / 3:
            return None
        return self.request()

    def renewed(self, certificate_pem: bytes, now: datetime) -> None:
        """Keep the next certificate; raises CertificateRefused for one that is not this account's and its keys'."""
        _require_own(certificate_pem, self, now)
        write_private(self.folder / "certificates/account.pem", certificate_pem, replace=True)

    def _read(self, name: str) -> bytes:
        try:
            return read_private(self.folder / name, limit_bytes=_FILE_BYTES_MAX)
        except OSError as error:
            raise AccountUnusable(f"{name} in {self.folder}: {os.strerror(error.errno or 0)}") from error


def connect(address: str, ca_path: Path, folder: Path) -> AccountFolder:
    """Make a folder for somebody with tokens; nothing is asked of anybody.

    Args:
        address: HOST:PORT, the `people_address` of coordinator.yaml.
        ca_path: The authority's certificate, whose fingerprint somebody has compared.
        folder: Where; it must not exist.

    Raises:
        AccountUnusable: No such certificate, or no address.
        HomeExists, HomeUnwritable: Nothing was made.
    """
    try:
        ca_pem = ca_path.read_bytes()[:_FILE_BYTES_MAX]
        consortium = certificates.consortium_of(certificates.load_authority_certificate(ca_pem))
        split_address(address)
    except OSError as error:
        raise AccountUnusable(f"{ca_path} cannot be read: {os.strerror(error.errno or 0)}") from error
    except ValueError as error:
        raise AccountUnusable(str(error)) from error
    if folder.exists() or folder.is_symlink():
        raise HomeExists(f"{folder} exists")
    record = _Record(consortium=consortium, account=None, address=address, coordinator_signing_key=None)
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}")
    try:
        (staging / "certificates").mkdir(mode=0o700, parents=True)
        staging.chmod(0o700)
        write_private(staging / "certificates/ca.pem", ca_pem)
        write_private(staging / RECORD, record.model_dump_json(indent=2).encode())
        staging.rename(folder)
    except OSError as error:
        raise HomeUnwritable(f"{folder} could not be made: {os.strerror(error.errno or 0)}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return open_account(folder)


def is_account(folder: Path) -> bool:
    """Whether a folder is an account's, and not a coordinator's home."""
    return (folder / RECORD).is_file()


def open_account(folder: Path) -> AccountFolder:
    """Read the folder of an account; raises AccountUnusable."""
    try:
        with (folder / RECORD).open("rb") as file:
            record = _Record.model_validate_json(file.read(_FILE_BYTES_MAX))
    except OSError as error:
        raise AccountUnusable(f"{folder} is no account's folder: {os.strerror(error.errno or 0)}") from error
    except ValidationError as error:
        raise AccountUnusable(f"{folder / RECORD} is not as `account enrol` made it") from error
    return AccountFolder(folder=folder, **record.model_dump())


async def enrol(kit_path: Path, folder: Path) -> AccountFolder:
    """Make keys here, have them certified against a kit's token, and make the folder.

    Raises:
        KitUnreadable, KitExpired: See `consortium.contract.kit`.
        AccountUnusable: There is no such kit.
        HomeExists, HomeUnwritable: The folder is there, or could not be written; the token is unused then.
        CertificateRefused: The coordinator answered with a certificate that is not for this account and its keys.
        CallRefused and its kin: The coordinator said no, and why.
    """
    kit = _fresh_kit(kit_path, folder)
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}")
    try:
        # The keys first, so that a full disk is found while the token is still unused.
        account = await asyncio.to_thread(_write_keys, staging, kit)
        grant = await enrol_account(
            kit.address,
            kit.ca_pem.encode(),
            kit.invitation,
            AccountRequest(account=kit.account, token=kit.token, request_der=account.request()),
        )
        _require_own(grant.certificate_pem, account, datetime.now(UTC))
        write_private(staging / "certificates/account.pem", grant.certificate_pem)
        await asyncio.to_thread(staging.rename, folder)
    except OSError as error:
        raise HomeUnwritable(f"{folder} could not be made: {os.strerror(error.errno or 0)}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return open_account(folder)


def _fresh_kit(kit_path: Path, folder: Path) -> AccountKit:
    if folder.exists() or folder.is_symlink():
        raise HomeExists(f"{folder} exists")
    try:
        kit = read_account_kit(kit_path)
    except OSError as error:
        raise AccountUnusable(f"the kit {kit_path} cannot be read: {os.strerror(error.errno or 0)}") from error
    kit.require_fresh(datetime.now(UTC))
    return kit


def _write_keys(staging: Path, kit: AccountKit) -> AccountFolder:
    """All of the folder but the certificate."""
    staging.mkdir(mode=0o700, parents=True)
    for name in ("keys", "certificates"):
        (staging / name).mkdir(mode=0o700)
    write_private(staging / "keys/tls.pem", certificates.private_pem(certificates.new_tls_key()))
    write_private(staging / "keys/signing.pem", certificates.private_pem(certificates.new_signing_key()))
    write_private(staging / "certificates/ca.pem", kit.ca_pem.encode())
    record = _Record.model_validate(kit.model_dump(include=set(_Record.model_fields)))
    write_private(staging / RECORD, record.model_dump_json(indent=2).encode())
    return open_account(staging)


def _require_own(certificate_pem: bytes, account: AccountFolder, now: datetime) -> None:
    """Raise CertificateRefused unless a certificate is of this consortium, for this account and its keys."""
    holder = certificates.verify_certificate(
        certificates.certificate_der(certificate_pem),
        certificates.load_authority_certificate(account.ca_pem),
        now,
        role=Role.ACCOUNT,
    )
    own_tls = certificates.spki_of(account.tls_key.public_key())
    own = (account.account, hashlib.sha256(own_tls).digest(), account.signing_key.public_key().public_bytes_raw())
    if (holder.name, holder.spki_sha256, holder.signing_key) != own:
        raise CertificateRefused(
            Fault.FOREIGN, found=f"a certificate for {holder.name} or for other keys", allowed=f"{account.account}, own"
        )

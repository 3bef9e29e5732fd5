"""The coordinator's folder: keys, configuration, database, log, models. Made whole by `init`, or not at all.

coordinator.yaml     what `serve` reads
keys/                0600 each: ca, server (TLS), operator (TLS), signing (plans), log, export, owner (of studies);
                     serving: the coordinator's TLS key and certificate, once they were renewed
certificates/        ca.pem, server.pem, operator.pem
consortium.db        state
log/                 the audit log
vault/               what is kept beside the log and can be erased; names of people, with their pseudonyms' keys
uploads/             masked updates while a round runs
vectors/, models/    aggregates and global models, by digest
evidence/            messages that broke a rule of the protocol, by digest
"""

import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import entries
from audit.checkpoint import parse_checkpoint
from audit.errors import EntryRefused, LogUnwritable, VerificationError
from audit.log import Log
from audit.note import NOTE_BYTES_MAX, NoteSigner
from audit.vault_files import VaultFiles
from consortium.contract import certificates
from consortium.contract.certificates import Authority
from consortium.contract.errors import FileInvalid
from consortium.contract.kit import split_address
from consortium.contract.names import is_name
from consortium.contract.private_files import read_private, write_private
from consortium.coordinator_file import CoordinatorFile, load_coordinator_file, render
from consortium.errors import HomeExists, HomeInvalid, HomeUnwritable
from consortium.record import now_stamp

CA_LIFETIME = timedelta(days=3650)
"""A consortium outlives its studies."""
SERVER_LIFETIME = timedelta(days=397)
"""Of the coordinator's own certificate, which `consortium serve` renews (`server_certificate.py`)."""
KEY_BYTES_MAX = 16_384
OPERATOR = "lead"
HOME_OWNER = "the coordinator's home"
"""Who submits a study from the home itself, for the log to have a pseudonym of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorHome:
    """An opened home. Private keys are read when they are needed, not before."""

    folder: Path
    config: CoordinatorFile
    ca_pem: bytes

    @property
    def authority(self) -> Authority:
        """The certificate authority, with its private key."""
        return certificates.load_authority(self.ca_pem, self._key("ca"))

    @property
    def ca_fingerprint(self) -> str:
        """SHA-256 of the authority's certificate, for comparing by telephone."""
        return certificates.fingerprint(self.ca_certificate)

    @property
    def ca_certificate(self) -> x509.Certificate:
        """The authority's certificate."""
        return certificates.load_authority_certificate(self.ca_pem)

    @property
    def server_pem(self) -> tuple[bytes, bytes]:
        """TLS private key and certificate of the coordinator: renewed, or as `init` made them."""
        if not self.serving_path.exists():
            return self._key("server"), self._certificate("server")
        key, begin, certificate = self._key("serving").partition(b"-----BEGIN CERTIFICATE-----")
        return key, begin + certificate

    @property
    def serving_path(self) -> Path:
        """Where a renewed certificate of the coordinator is, with its key: one file, replaced as a whole."""
        return self.folder / "keys" / "serving.pem"

    @property
    def dialled_as(self) -> tuple[str, ...]:
        """The names and addresses that agents may dial, which the coordinator's certificate is good for."""
        return _dialled_as(split_address(self.config.address)[0])

    @property
    def operator_pem(self) -> tuple[bytes, bytes]:
        """TLS private key and certificate with which the command line reaches a running coordinator."""
        return self._key("operator"), self._certificate("operator")

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        """Signs round plans."""
        return self._ed25519("signing")

    @property
    def signing_key_hex(self) -> str:
        """The public half, 64 hexadecimal characters."""
        return self.signing_key.public_key().public_bytes_raw().hex()

    @property
    def owner_key(self) -> Ed25519PrivateKey:
        """Signs studies that are submitted from the home itself; made when it is first needed."""
        path = self.folder / "keys" / "owner.pem"
        if not path.exists():
            with suppress(FileExistsError):  # another process was as quick
                write_private(path, certificates.private_pem(certificates.new_signing_key()))
        return self._ed25519("owner")

    @property
    def log_signer(self) -> NoteSigner:
        """Signs checkpoints; its name is the log's origin."""
        return NoteSigner(self.config.log_origin, self._ed25519("log"))

    @property
    def next_log_signer(self) -> NoteSigner | None:
        """The key that the log is changing to, if there is one: see `log_keys.py`."""
        if not (self.folder / "keys" / "log-next.pem").exists():
            return None
        return NoteSigner(self.config.log_origin, self._ed25519("log-next"))

    @property
    def export_signer(self) -> NoteSigner:
        """Signs the manifests of evidence bundles."""
        return NoteSigner(f"{self.config.log_origin}/export", self._ed25519("export"))

    @property
    def log_vkey(self) -> str:
        """The public key of `log.pem` as it stands in policy files; of two (`log_keys.py`), the older."""
        return self.log_signer.verifier.vkey()

    @property
    def vault(self) -> VaultFiles:
        """What is kept beside the log and can be erased; whose pseudonym is whose, too."""
        return VaultFiles(self.folder)

    def pseudonym(self, name: str) -> str:
        """How a person at the coordinator appears in the log, until `audit erase` makes that nobody's for good."""
        return self.vault.pseudonym(name)

    def _key(self, name: str) -> bytes:
        try:
            return read_private(self.folder / "keys" / f"{name}.pem", limit_bytes=KEY_BYTES_MAX)
        except OSError as error:
            raise HomeInvalid(
                f"the key {name}.pem in {self.folder / 'keys'}: {os.strerror(error.errno or 0)}"
            ) from error

    def _certificate(self, name: str) -> bytes:
        return _certificate(self.folder, name)

    def _ed25519(self, name: str) -> Ed25519PrivateKey:
        try:
            return certificates.load_signing_key(self._key(name))
        except ValueError as error:
            raise HomeInvalid(f"{name}.pem in {self.folder / 'keys'}: {error}") from error


def create_home(
    folder: Path, *, name: str, address: str, log_entries: str | None = None, continues: bytes | None = None
) -> CoordinatorHome:
    """Make a new home; raises HomeExists, HomeInvalid or HomeUnwritable and then leaves nothing behind.

    Args:
        folder: Where; it must not exist.
        name: The consortium's name.
        address: HOST:PORT that hospitals dial.
        log_entries: The PostgreSQL database for the log's entries; what was written there stays, whatever happens.
        continues: The last checkpoint of a log whose key was lost or stolen; the new log says that it continues that.
    """
    log_origin = None if continues is None else _origin_after(continues)
    if not is_name(name):
        raise HomeInvalid(f"{name!r} cannot name a consortium: 3 to 40 of a-z, 0-9 and '-', starting with a letter")
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}")
    made: list[Path] = []
    try:
        if folder.exists() or folder.is_symlink():
            raise HomeExists(f"{folder} exists")
        made = [parent for parent in folder.absolute().parents if not parent.exists()]
        staging.mkdir(mode=0o700, parents=True)
        (staging / "keys").mkdir(mode=0o700)
        (staging / "certificates").mkdir()
        (staging / "coordinator.yaml").write_text(
            render(name=name, address=address, log_entries=log_entries, log_origin=log_origin)
        )
        _make_keys(staging, _checked(staging / "coordinator.yaml", address))
        home = open_home(staging)
        _open_log(home, continues)
        staging.rename(folder)
    except (OSError, LogUnwritable) as error:
        reason = error.reason if isinstance(error, LogUnwritable) else os.strerror(error.errno or 0)
        raise HomeUnwritable(f"{folder} could not be made: {reason}") from error
    except EntryRefused as error:
        raise HomeInvalid(str(error)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not folder.exists():
            for parent in made:  # the innermost first
                with suppress(OSError):
                    parent.rmdir()
    return open_home(folder)


def _checked(path: Path, address: str) -> CoordinatorFile:
    """The configuration just written: whatever is wrong in it came from the command line, and is said so."""
    try:
        return load_coordinator_file(path)
    except FileInvalid as error:
        allowed = "; ".join(f"{problem.path}: {problem.allowed}" for problem in error.problems)
        if any(problem.path == "log_entries" for problem in error.problems):
            raise HomeInvalid(f"this is no database for the log's entries ({allowed})") from error
        raise HomeInvalid(f"{address!r} is no address for a coordinator ({allowed})") from error


def open_home(folder: Path) -> CoordinatorHome:
    """Read a home's configuration; raises HomeInvalid, or FileInvalid naming what is wrong in coordinator.yaml."""
    if not (folder / "coordinator.yaml").is_file():
        raise HomeInvalid(f"{folder} is not a coordinator's home: it has no coordinator.yaml")
    config = load_coordinator_file(folder / "coordinator.yaml")
    return CoordinatorHome(folder=folder, config=config, ca_pem=_certificate(folder, "ca"))


def _certificate(folder: Path, name: str) -> bytes:
    try:
        return (folder / "certificates" / f"{name}.pem").read_bytes()
    except OSError as error:
        raise HomeInvalid(f"{folder} has no certificates/{name}.pem that can be read") from error


def _make_keys(folder: Path, config: CoordinatorFile) -> None:
    now = datetime.now(UTC)
    authority = certificates.create_authority(config.name, now=now, valid_for=CA_LIFETIME)
    host, _ = split_address(config.address)
    server = certificates.issue_server(authority, _dialled_as(host), now=now, valid_for=SERVER_LIFETIME)
    operator = certificates.issue_operator(authority, OPERATOR, now=now, valid_for=CA_LIFETIME)
    keys = {"ca": authority.key_pem, "server": server.key_pem, "operator": operator.key_pem}
    for role in ("signing", "log", "export"):  # one key per role: a signature made for one means nothing for another
        keys[role] = certificates.private_pem(certificates.new_signing_key())
    for name, pem in keys.items():
        write_private(folder / "keys" / f"{name}.pem", pem)
    for name, pem in {
        "ca": authority.certificate_pem,
        "server": server.certificate_pem,
        "operator": operator.certificate_pem,
    }.items():
        (folder / "certificates" / f"{name}.pem").write_bytes(pem)


def _dialled_as(host: str) -> tuple[str, ...]:
    """The names agents may dial; on one machine, loopback goes by all of its names."""
    return ("localhost", "127.0.0.1", "::1") if host in ("localhost", "127.0.0.1", "::1") else (host,)


def read_checkpoint(path: Path) -> bytes:
    """A checkpoint that somebody brings; raises HomeInvalid."""
    try:
        with path.open("rb") as file:
            return file.read(NOTE_BYTES_MAX)
    except OSError as error:
        raise HomeInvalid(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error


def _origin_after(checkpoint: bytes) -> str:
    """The name of a log that continues another: with `/2` after it, or a number more."""
    try:
        origin = parse_checkpoint(checkpoint).checkpoint.origin
    except VerificationError as error:
        raise HomeInvalid(f"what the new log should continue is no signed checkpoint: {error}") from error
    stem, _, number = origin.rpartition("/")
    counted = number.isdecimal() and number.isascii() and len(number) < 5 and stem
    return f"{stem}/{int(number) + 1}" if counted else f"{origin}/2"


def _open_log(home: CoordinatorHome, continues: bytes | None) -> None:
    """Make the log, with entry 0: whose it is and which keys speak for it."""
    log = Log.create(home.folder / "log", home.log_signer, home.config.log_entries)
    try:
        opened = entries.LogOpened(
            **now_stamp(),
            consortium=home.config.name,
            log_vkey=home.log_vkey,
            export_vkey=home.export_signer.verifier.vkey(),
            coordinator_signing_key=home.signing_key_hex,
            continues=None if continues is None else continues.decode(),
        )
        log.append([entries.entry_bytes(opened)])
    finally:
        log.close()

"""The agent's folder: its keys, its certificate, what it believes about the consortium, and its configuration.

site.yaml            the hospital's own rules and data; written by the hospital
identity.json        consortium, coordinator's address and keys, as the kit had them
keys/                0600 each: tls, signing (Ed25519), ecdsa (P-256, for studies of the suite p256), hedge (a
                     long-term secret mixed into every fresh key); connection.pem once the certificate was renewed: the
                     TLS key and the certificate that are shown from then on; signing-keys.json once the signing keys
                     were changed: both, in the place of signing and ecdsa; next-signing-keys.json while they are
                     being changed (`signing_keys.py`)
certificates/        site.pem (as enrolled), ca.pem
vault/               what is kept beside the log and can be erased; names of people, with their pseudonyms' keys
agent.db, ledger.db  what the agent remembers; what privacy was spent
images/              images as the network sees them, for as long as cache_gib has room for them
models/, results/    global models by digest; this hospital's own figures
progress/            how far the training of a round has come
tensorboard/         curves of its own figures, if site.yaml wants them
overlays/            pictures of test patients, if somebody asked for them
evidence/            messages in which somebody broke a rule of the protocol, by digest
"""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, ValidationError

from audit.site_keys import SigningKeys
from audit.vault_files import VaultFiles
from consortium.contract import certificates
from consortium.contract.kit import split_address
from consortium.contract.names import SiteId
from consortium.contract.private_files import read_private
from privacy.p256 import EcdsaSigner
from privacy.secagg.keys import Signer
from privacy.secagg.suites import SuiteName
from privacy.secret import Secret
from site_agent.errors import SiteError
from site_agent.image_cache import ImageCache
from site_agent.signing_keys import read_next_keys, read_signing_keys
from site_agent.site_file import SiteFile, load_site_file

FILE_BYTES_MAX = 65_536
HEDGE_BYTES = 32


class HomeInvalid(SiteError):
    """The folder is not an agent's home, or something in it is missing or damaged."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "Name the right folder with --home, or make one: site-agent enrol --kit kit.zip --home DIR."


class ConfigurationMissing(HomeInvalid):
    """The home is enrolled, but site.yaml has not been written."""

    def advice(self) -> str:
        """What to do next."""
        return "Write it: site.example.yaml beside it has every key; docs/reference/site-file.md says what they mean."


class Identity(BaseModel):
    """Who this site is and whom it enrolled with."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    consortium: str
    site: str
    address: str
    log_vkey: str
    coordinator_signing_key: str  # 64 hex characters: signs round plans
    ca_sha256: str
    spki_sha256: str
    signing_key: str
    ecdsa_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What this hospital shows when it dials: its TLS key, and a certificate for it."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes
    spki_sha256: str  # of the key, hexadecimal
    not_before: datetime  # UTC
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentHome:
    """An opened home. Private keys are read when they are needed."""

    folder: Path
    identity: Identity
    ca_pem: bytes
    certificate_pem: bytes  # as enrolled; `connection` has the one that is shown

    @property
    def images(self) -> ImageCache:
        """Images as the network sees them, within the quota of site.yaml."""
        return ImageCache(folder=self.folder / "images", quota_bytes=int(self.config.cache_gib * 2**30))

    @property
    def vault(self) -> VaultFiles:
        """What is kept beside the log and can be erased; whose pseudonym is whose, too."""
        return VaultFiles(self.folder)

    @property
    def site(self) -> SiteId:
        """This hospital's name."""
        return SiteId(self.identity.site)

    @property
    def log_origin(self) -> str:
        """The name of the consortium's log, which stays when its key changes."""
        return self.identity.log_vkey.partition("+")[0]

    @property
    def tls_key_pem(self) -> bytes:
        """TLS private key, as enrolled."""
        return self._private("tls.pem")

    @property
    def connection_path(self) -> Path:
        """Where a renewed certificate is, with its key: one file, so that one is never there without the other."""
        return self.folder / "keys" / "connection.pem"

    @property
    def connection(self) -> Connection:
        """What is shown from the next connection on, read afresh: it is renewed while the agent runs."""
        renewed = self.connection_path.exists()
        try:
            pem = self._private("connection.pem") if renewed else b""
            key_pem, certificate_pem = _parted(pem) if pem else (self.tls_key_pem, self.certificate_pem)
            key = certificates.load_tls_key(key_pem)
            certificate = x509.load_pem_x509_certificate(certificate_pem)
        except ValueError as error:
            where = "keys/connection.pem" if renewed else "keys/tls.pem or certificates/site.pem"
            raise HomeInvalid(f"{self.folder}: {where} is damaged: {error}") from error
        return Connection(
            key_pem=key_pem,
            certificate_pem=certificate_pem,
            spki_sha256=hashlib.sha256(certificates.spki_of(key.public_key())).hexdigest(),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )

    @property
    def signing_keys(self) -> SigningKeys:
        """The public halves of the two keys that this site signs with now, read afresh: they may be changed."""
        changed = read_signing_keys(self.folder)
        if changed is not None:
            return changed.public
        return SigningKeys(signing=self.identity.signing_key, ecdsa=self.identity.ecdsa_key)

    def signing_key_of(self, keys: SigningKeys | None) -> Ed25519PrivateKey:
        """The private half of a key that entries stand under, None for that of the enrolment; raises HomeInvalid.

        In between the writes of a change it is in the file of the next ones still.
        """
        if keys is None:
            return self.signing_key
        for found in (read_signing_keys(self.folder), read_next_keys(self.folder)):
            if found is not None and found.public == keys:
                return found.signing
        raise HomeInvalid(f"{self.folder / 'keys'} has no signing key {keys.signing[:16]}, which it changed to")

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        """Signs this site's entries, and its messages of secure aggregation in the suite hybrid-pq."""
        changed = read_signing_keys(self.folder)
        if changed is not None:
            return changed.signing
        try:
            return certificates.load_signing_key(self._private("signing.pem"))
        except ValueError as error:
            raise HomeInvalid(f"{self.folder / 'keys' / 'signing.pem'}: {error}") from error

    @property
    def ecdsa_key(self) -> EcdsaSigner:
        """Signs this site's messages of secure aggregation in the suite p256."""
        return EcdsaSigner(self.ecdsa_private_key)

    @property
    def ecdsa_private_key(self) -> EllipticCurvePrivateKey:
        """The same key, for proving in a certificate request that it is there."""
        changed = read_signing_keys(self.folder)
        if changed is not None:
            return changed.ecdsa
        try:
            return certificates.load_ecdsa_key(self._private("ecdsa.pem"))
        except ValueError as error:
            raise HomeInvalid(f"{self.folder / 'keys' / 'ecdsa.pem'}: {error}") from error

    def signer(self, suite: SuiteName) -> Signer:
        """The key that signs this site's messages of secure aggregation in a suite."""
        return self.ecdsa_key if suite is SuiteName.P256 else self.signing_key

    @property
    def long_term_secret(self) -> Secret[bytes]:
        """32 bytes that are mixed into every fresh key, against a generator that repeats itself."""
        secret = self._private("hedge.key")
        if len(secret) != HEDGE_BYTES:
            raise HomeInvalid(f"{self.folder / 'keys' / 'hedge.key'} has {len(secret)} bytes, not {HEDGE_BYTES}")
        return Secret(secret)

    @property
    def ca_certificate(self) -> x509.Certificate:
        """The authority that certifies every hospital."""
        return certificates.load_authority_certificate(self.ca_pem)

    @property
    def config(self) -> SiteFile:
        """site.yaml, read afresh: the hospital may change its rules while the agent runs."""
        path = self.folder / "site.yaml"
        if not path.is_file():
            raise ConfigurationMissing(f"{path} is missing: it says where the data are and what this hospital allows")
        found = path.stat()
        config = _site_file(path, (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
        if config.site != self.identity.site:
            raise HomeInvalid(f"{path} is for {config.site!r}; this home is enrolled as {self.identity.site!r}")
        return config

    @property
    def address(self) -> str:
        """Where the coordinator is dialled: site.yaml's address where it has one, else the enrolment kit's."""
        config = self.config if (self.folder / "site.yaml").is_file() else None
        return config.coordinator.address if config is not None and config.coordinator else self.identity.address

    @property
    def proxy(self) -> str | None:
        """The proxy to the outside, if site.yaml names one."""
        return self.config.proxy if (self.folder / "site.yaml").is_file() else None

    def _private(self, name: str) -> bytes:
        path = self.folder / "keys" / name
        try:
            return read_private(path, limit_bytes=FILE_BYTES_MAX)
        except FileNotFoundError as error:
            raise HomeInvalid(f"{path} is missing") from error
        except OSError as error:
            raise HomeInvalid(f"{path} cannot be read: {error.strerror}") from error


def open_home(folder: Path) -> AgentHome:
    """Read an enrolled home; raises HomeInvalid."""
    raw = _read(folder, "identity.json")
    ca_pem, certificate_pem = _read(folder, "certificates/ca.pem"), _read(folder, "certificates/site.pem")
    try:
        identity = Identity.model_validate(json.loads(raw))
        split_address(identity.address)
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(identity.coordinator_signing_key))
    except (ValidationError, ValueError, RecursionError) as error:
        raise HomeInvalid(f"{folder / 'identity.json'} is damaged") from error
    try:
        authority = certificates.load_authority_certificate(ca_pem)
    except ValueError as error:
        raise HomeInvalid(f"{folder / 'certificates/ca.pem'} is damaged") from error
    # Whom to believe is what the kit said, and a person may have compared by telephone.
    if certificates.fingerprint(authority) != identity.ca_sha256:
        raise HomeInvalid(f"{folder / 'certificates/ca.pem'} is not the authority this home was enrolled under")
    # Wherever the command was typed: the training process works in a folder of its own.
    return AgentHome(folder=folder.absolute(), identity=identity, ca_pem=ca_pem, certificate_pem=certificate_pem)


def _parted(pem: bytes) -> tuple[bytes, bytes]:
    """Key and certificate of `connection.pem`, in this order."""
    key, begin, certificate = pem.partition(b"-----BEGIN CERTIFICATE-----")
    if not begin:
        raise ValueError("connection.pem has no certificate")
    return key, begin + certificate


def _read(folder: Path, name: str) -> bytes:
    try:
        with (folder / name).open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise HomeInvalid(f"{folder} is not an agent's home: {error.strerror}: {folder / name}") from error
    if len(data) > FILE_BYTES_MAX:
        raise HomeInvalid(f"{folder / name} has more than {FILE_BYTES_MAX} bytes")
    return data


@lru_cache(maxsize=4)
def _site_file(path: Path, _: tuple[int, ...]) -> SiteFile:
    """A site.yaml, as long as its file has this identity, size and time of change: every round asks for it."""
    return load_site_file(path)

"""The agent's folder: its keys, its certificate, what it believes about the consortium, and its configuration.

site.yaml            the hospital's own rules and data; written by the hospital
identity.json        consortium, coordinator's address and keys, as the kit had them
keys/                0600 each: tls, signing, hedge (a long-term secret mixed into every fresh key)
certificates/        site.pem, ca.pem
agent.db, ledger.db  what the agent remembers; what privacy was spent
models/, results/    global models by digest; this hospital's own figures
"""

import json
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, ValidationError

from consortium.contract import certificates
from consortium.contract.names import SiteId
from consortium.contract.private_files import read_private
from privacy.secret import Secret
from site_agent.errors import SiteError
from site_agent.site_file import SiteFile, load_site_file

KEY_BYTES_MAX = 16_384
IDENTITY_BYTES_MAX = 65_536


class HomeInvalid(SiteError):
    """The folder is not an agent's home, or something in it is missing or damaged."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "Name the right folder with --home, or make one: site-agent enrol --kit kit.zip --home DIR."


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


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentHome:
    """An opened home. Private keys are read when they are needed."""

    folder: Path
    identity: Identity
    ca_pem: bytes
    certificate_pem: bytes

    @property
    def site(self) -> SiteId:
        """This hospital's name."""
        return SiteId(self.identity.site)

    @property
    def tls_key_pem(self) -> bytes:
        """TLS private key."""
        return self._private("tls.pem")

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        """Signs this site's entries and secure-aggregation messages."""
        try:
            return certificates.load_signing_key(self._private("signing.pem"))
        except ValueError as error:
            raise HomeInvalid(f"{self.folder / 'keys' / 'signing.pem'}: {error}") from error

    @property
    def long_term_secret(self) -> Secret[bytes]:
        """32 bytes that are mixed into every fresh key, against a generator that repeats itself."""
        return Secret(self._private("hedge.key"))

    @property
    def ca_certificate(self) -> x509.Certificate:
        """The authority that certifies every hospital."""
        return certificates.load_authority_certificate(self.ca_pem)

    @property
    def config(self) -> SiteFile:
        """site.yaml, read afresh: the hospital may change its rules while the agent runs."""
        path = self.folder / "site.yaml"
        if not path.is_file():
            raise HomeInvalid(f"{path} is missing: it says where the data are and what this hospital allows")
        config = load_site_file(path)
        if config.site != self.identity.site:
            raise HomeInvalid(f"{path} is for {config.site!r}; this home is enrolled as {self.identity.site!r}")
        return config

    def _private(self, name: str) -> bytes:
        path = self.folder / "keys" / name
        try:
            return read_private(path, limit_bytes=KEY_BYTES_MAX)
        except FileNotFoundError as error:
            raise HomeInvalid(f"{path} is missing") from error


def open_home(folder: Path) -> AgentHome:
    """Read an enrolled home; raises HomeInvalid."""
    try:
        raw = (folder / "identity.json").read_bytes()
        ca_pem = (folder / "certificates/ca.pem").read_bytes()
        certificate_pem = (folder / "certificates/site.pem").read_bytes()
    except OSError as error:
        raise HomeInvalid(f"{folder} is not an agent's home: {error.strerror}: {error.filename}") from error
    if len(raw) > IDENTITY_BYTES_MAX:
        raise HomeInvalid(f"{folder / 'identity.json'} is {len(raw)} bytes, at most {IDENTITY_BYTES_MAX} are allowed")
    try:
        identity = Identity.model_validate(json.loads(raw))
    except (ValidationError, ValueError) as error:
        raise HomeInvalid(f"{folder / 'identity.json'} is damaged") from error
    return AgentHome(folder=folder, identity=identity, ca_pem=ca_pem, certificate_pem=certificate_pem)

"""The consortium's certificates: who may speak as whom, and which signing keys are theirs.

One authority per consortium, one level deep (path length 0). A certificate names its holder by exactly one URI:

    consortium://<consortium>/coordinator
    consortium://<consortium>/site/<site>
    consortium://<consortium>/operator/<operator>
    consortium://<consortium>/account/<account>
    consortium://<consortium>/invited/<invitation>

The operator's is the coordinator's own; people have accounts. What an account may do is no part of its certificate: the
coordinator keeps its role, so that a change counts at once (`consortium/roles.py`).

The last one lies in a kit, with its key, and is good for the one call that enrols with that kit. It names neither a
hospital nor a person, only the kit, by its one-time token's hash: with another kit's token it does not go together.

TLS keys are ECDSA P-256. A site has two keys more, which sign and do nothing else: an Ed25519 key for its log entries
and for secure aggregation in the suite hybrid-pq, and a second ECDSA P-256 key, never that of TLS, for secure
aggregation in the suite p256. It makes all three itself; its certificate request carries both signing keys, each with
a proof that the site holds it, and the authority copies them into the certificate. Whoever trusts the authority
therefore knows, from one certificate, which TLS key and which signing keys are the same hospital's (protocol section
3: the roster). An account has the TLS key and the Ed25519 key, which signs the studies that it submits. Time is an
argument everywhere; nothing here reads a clock, a file or a socket.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID

from consortium.contract.digest import digest_of
from consortium.contract.names import Digest, SiteId, is_name
from privacy import p256
from privacy.secagg.messages import COORDINATOR, SIGNATURE_BYTES

CERTIFICATE_BYTES_MAX = 4096
"""DER. A certificate of ours has about 800 bytes; a longer one is refused before it is parsed."""
REQUEST_BYTES_MAX = 4096
CONSORTIUM_NAME_MAX = 64
INVITATION_DIGITS = 32
"""Hexadecimal digits in the name of an invitation, after "i-"."""
CLOCK_SKEW = timedelta(minutes=5)
"""Certificates are valid from this long before they are made, for computers whose clocks are a little behind."""

_URI = re.compile(r"consortium://([a-z0-9-]+)/(?:(site|operator|account|invited)/([a-z0-9-]+)|(coordinator))")
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*", re.IGNORECASE)


class Role(StrEnum):
    """What the holder of a certificate is to the consortium."""

    COORDINATOR = "coordinator"
    SITE = "site"
    OPERATOR = "operator"
    ACCOUNT = "account"
    INVITED = "invited"


class Fault(StrEnum):
    """Why a certificate was refused."""

    MALFORMED = "malformed"
    FOREIGN = "foreign"
    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    WRONG_ROLE = "wrong role"


_ADVICE = {
    Fault.MALFORMED: "Enrol again: this certificate was not made by `site-agent enrol` or `consortium init`.",
    Fault.FOREIGN: "Use a certificate this consortium issued; if its authority was made anew, every site enrols again.",
    Fault.EXPIRED: "Check this computer's clock; if it is right, enrol again with a kit from `consortium site invite`.",
    Fault.NOT_YET_VALID: "Set this computer's clock, then try again.",
    Fault.WRONG_ROLE: "Use the certificate of the right role: a site's for the agent, an account's for commands, a "
    "kit's for enrolling with it.",
}


class CertificateRefused(Exception):
    """A certificate that does not prove what it should; the fault is its holder's, or a clock's."""

    code = "refused"

    def __init__(self, fault: Fault, *, found: str, allowed: str) -> None:
        super().__init__(f"certificate refused ({fault}): found {found}; allowed: {allowed}")
        self.fault = fault
        self.found = found
        self.allowed = allowed

    def advice(self) -> str:
        """What to do next."""
        return _ADVICE[self.fault]


class RequestRefused(Exception):
    """A certificate request that the authority will not sign; the fault is the requester's."""

    code = "invalid"

    def __init__(self, *, found: str, allowed: str) -> None:
        super().__init__(f"certificate request refused: found {found}; allowed: {allowed}")
        self.found = found
        self.allowed = allowed

    def advice(self) -> str:
        """What to do next."""
        return "Make the request with `site-agent enrol`, with the kit that names this very site."


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerIdentity:
    """What a certificate says about its holder."""

    role: Role
    name: str  # the site's, operator's, account's or invitation's name; "coordinator" for the coordinator
    consortium: str
    spki_sha256: bytes  # 32 bytes: SHA-256 of the TLS public key (SubjectPublicKeyInfo, DER)
    signing_key: bytes | None  # 32 bytes, Ed25519; every site's and every account's certificate has one
    ecdsa_key: bytes | None  # 65 bytes, an uncompressed P-256 point; every site's certificate has one
    serial: int
    not_after: datetime  # UTC

    @property
    def site(self) -> SiteId:
        """The name, as a site's; raises CertificateRefused for another role."""
        if self.role is not Role.SITE:
            raise CertificateRefused(Fault.WRONG_ROLE, found=f"{self.role} {self.name}", allowed="a site")
        return SiteId(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The consortium's certificate authority: its certificate and, in the coordinator's home only, its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def consortium(self) -> str:
        """The name of the consortium, as the certificate has it."""
        return consortium_of(self.certificate)

    @property
    def certificate_pem(self) -> bytes:
        """What everybody may have."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """What nobody else may have: goes to `write_private` and nowhere else."""
        return private_pem(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate issued together with a new key."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)


# --- keys ----------------------------------------------------------------------------------------------------------


def new_tls_key() -> ec.EllipticCurvePrivateKey:
    """A fresh ECDSA P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def new_signing_key() -> Ed25519PrivateKey:
    """A fresh Ed25519 key."""
    return Ed25519PrivateKey.generate()


def new_ecdsa_key() -> ec.EllipticCurvePrivateKey:
    """A fresh ECDSA P-256 key that signs messages of secure aggregation; never the TLS key."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """PKCS #8 in PEM, without a passphrase: the file's mode and folder protect it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_tls_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The ECDSA P-256 key in `pem`; raises ValueError for anything else."""
    return load_ecdsa_key(pem)


def load_ecdsa_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The ECDSA P-256 key in `pem`; raises ValueError for anything else."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("not an ECDSA P-256 private key")  # noqa: TRY004 - the file's content is wrong, not our call
    return key


def load_signing_key(pem: bytes) -> Ed25519PrivateKey:
    """The Ed25519 key in `pem`; raises ValueError for anything else."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 private key")  # noqa: TRY004 - the same
    return key


# --- bound keys ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _BoundKey:
    """A signing key that a certificate binds to its holder, and how a request proves that the requester has it.

    DER by hand, because both values have one fixed length: OCTET STRING of the key in the certificate, SEQUENCE {it,
    OCTET STRING(64)} in the request.
    """

    name: str
    oid: x509.ObjectIdentifier
    proof_oid: x509.ObjectIdentifier
    size: int  # bytes of the public key
    label: bytes  # of the proof
    parse: Callable[[bytes], object]  # raises ValueError for bytes that are no such key
    verify: Callable[[bytes, bytes, bytes], None]  # key, signature, data; raises InvalidSignature or ValueError

    @property
    def _key_head(self) -> bytes:
        return bytes((0x04, self.size))

    @property
    def _proof_head(self) -> bytes:
        length = 2 + self.size + 2 + SIGNATURE_BYTES
        return b"\x30" + (bytes((length,)) if length < 128 else bytes((0x81, length))) + self._key_head

    def extension(self, key: bytes) -> x509.UnrecognizedExtension:
        """What the certificate carries."""
        return x509.UnrecognizedExtension(self.oid, self._key_head + key)

    def proof(self, key: bytes, signature: bytes) -> x509.UnrecognizedExtension:
        """What the request carries."""
        value = self._proof_head + key + bytes((0x04, SIGNATURE_BYTES)) + signature
        return x509.UnrecognizedExtension(self.proof_oid, value)

    def message(self, uri: str, spki: bytes) -> bytes:
        """What the key signs to prove that it is there."""
        # The URI cannot contain a zero byte, so the three parts cannot be read in two ways.
        return b"\0".join((self.label, uri.encode(), spki))

    def read(self, certificate: x509.Certificate) -> bytes | None:
        """The key in a certificate, None if it has none; raises CertificateRefused for one that is no such key."""
        try:
            value = certificate.extensions.get_extension_for_oid(self.oid).value
        except x509.ExtensionNotFound:
            return None
        raw = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
        key = raw.removeprefix(self._key_head)
        if raw != self._key_head + key or len(key) != self.size:
            raise CertificateRefused(
                Fault.MALFORMED, found=f"a {self.name} of {len(key)} bytes", allowed=f"{self.size} bytes"
            )
        try:
            self.parse(key)
        except ValueError as error:
            raise CertificateRefused(Fault.MALFORMED, found=f"bytes that are no {self.name}", allowed="one") from error
        return key

    def proven(self, extension: x509.ExtensionType, uri: str, spki: bytes) -> bytes:
        """The key in a request, once its proof of possession holds; raises RequestRefused."""
        raw = extension.value if isinstance(extension, x509.UnrecognizedExtension) else b""
        start = len(self._proof_head)
        key, signature = raw[start : start + self.size], raw[start + self.size + 2 :]
        if len(signature) != SIGNATURE_BYTES or raw != self.proof(key, signature).value:
            raise RequestRefused(
                found=f"a proof of {len(raw)} bytes for the {self.name}", allowed="a key and its signature"
            )
        try:
            self.verify(key, signature, self.message(uri, spki))
        except (InvalidSignature, ValueError) as error:
            raise RequestRefused(
                found=f"a proof by another key for the {self.name}",
                allowed="a signature by that key over the TLS key and the name",
            ) from error
        return key


def _verify_ed25519(key: bytes, signature: bytes, data: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(key).verify(signature, data)


# Private arcs under 2.25 (an arc for every UUID, ITU-T X.667), so nobody had to register them.
_SIGNING = _BoundKey(
    name="signing key",
    oid=x509.ObjectIdentifier("2.25.265011600984919496096131262444137398272"),
    proof_oid=x509.ObjectIdentifier("2.25.266412538969954458959461202953903211950"),
    size=32,
    label=b"consortium/enrolment/v1/signing-key-proof",
    parse=Ed25519PublicKey.from_public_bytes,
    verify=_verify_ed25519,
)
_ECDSA = _BoundKey(
    name="ECDSA key",
    oid=x509.ObjectIdentifier("2.25.200673123705566827943006635199353249705"),
    proof_oid=x509.ObjectIdentifier("2.25.183195678803332494820661765431474463278"),
    size=p256.POINT_BYTES,
    label=b"consortium/enrolment/v1/ecdsa-key-proof",
    parse=p256.parse_point,
    verify=p256.verify,
)


# --- the authority -------------------------------------------------------------------------------------------------


def create_authority(consortium: str, *, now: datetime, valid_for: timedelta) -> Authority:
    """A new authority for a consortium of this name; raises ValueError if the name cannot be one."""
    if not is_name(consortium, longest=CONSORTIUM_NAME_MAX):
        raise ValueError(
            f"{consortium!r} cannot name a consortium: 3 to 64 of a-z, 0-9 and '-', starting with a letter"
        )
    key = new_tls_key()
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, consortium),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "Consortium authority"),
        ]
    )
    certificate = (
        _builder(name, name, key.public_key(), now - CLOCK_SKEW, now + valid_for)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate=certificate, key=key)


def load_authority(certificate_pem: bytes, key_pem: bytes) -> Authority:
    """The authority kept in a coordinator's home; raises ValueError if the two do not belong together."""
    authority = Authority(certificate=load_authority_certificate(certificate_pem), key=load_tls_key(key_pem))
    if authority.certificate.public_key() != authority.key.public_key():
        raise ValueError("the authority's key is not the one in its certificate")
    return authority


def load_authority_certificate(pem: bytes) -> x509.Certificate:
    """The authority's certificate, as a kit carries it; raises ValueError for anything else."""
    if len(pem) > 2 * CERTIFICATE_BYTES_MAX:
        raise ValueError(f"{len(pem)} bytes are too many for one certificate")
    if pem.count(b"-----BEGIN") != 1:
        raise ValueError("expected exactly one certificate in PEM")
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension):
        raise ValueError("not the certificate of an authority") from None
    if not constraints.ca or constraints.path_length != 0:
        raise ValueError("not the certificate of an authority of path length 0")
    consortium_of(certificate)
    return certificate


def consortium_of(authority: x509.Certificate) -> str:
    """The consortium an authority's certificate belongs to; raises ValueError if it names none."""
    names = authority.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
    name = names[0].value if len(names) == 1 else None
    if not isinstance(name, str) or not is_name(name, longest=CONSORTIUM_NAME_MAX):
        raise ValueError("the authority's certificate does not name a consortium")
    return name


def fingerprint(certificate: x509.Certificate) -> Digest:
    """SHA-256 of the DER: what a kit carries and a person compares."""
    return digest_of(certificate.public_bytes(serialization.Encoding.DER))


def key_fingerprint(ecdsa_key: str) -> Digest:
    """SHA-256 of an ECDSA public key given in hexadecimal: half as long, for people to compare."""
    return digest_of(bytes.fromhex(ecdsa_key))


# --- issuing -------------------------------------------------------------------------------------------------------


def issue_server(authority: Authority, hosts: Sequence[str], *, now: datetime, valid_for: timedelta) -> Issued:
    """The coordinator's certificate, good for the names and addresses in `hosts` (all that agents may dial).

    Raises:
        ValueError: no host, or one that is neither a DNS name nor an IP address.
    """
    if not hosts:
        raise ValueError("a coordinator needs at least one host name or address")
    key = new_tls_key()
    names = [*(_host_name(host) for host in hosts), x509.UniformResourceIdentifier(_uri(authority, Role.COORDINATOR))]
    certificate = _issue(
        authority,
        key.public_key(),
        name="coordinator",
        names=names,
        purpose=ExtendedKeyUsageOID.SERVER_AUTH,
        lifetime=(now, valid_for),
    )
    return Issued(certificate_pem=certificate.public_bytes(serialization.Encoding.PEM), key_pem=private_pem(key))


def issue_operator(authority: Authority, operator: str, *, now: datetime, valid_for: timedelta) -> Issued:
    """A certificate for a person or service that gives the coordinator commands; raises ValueError for a bad name."""
    if not is_name(operator):
        raise ValueError(f"{operator!r} cannot name an operator: 3 to 40 of a-z, 0-9 and '-', starting with a letter")
    key = new_tls_key()
    names = [x509.UniformResourceIdentifier(_uri(authority, Role.OPERATOR, operator))]
    certificate = _issue(
        authority,
        key.public_key(),
        name=operator,
        names=names,
        purpose=ExtendedKeyUsageOID.CLIENT_AUTH,
        lifetime=(now, valid_for),
    )
    return Issued(certificate_pem=certificate.public_bytes(serialization.Encoding.PEM), key_pem=private_pem(key))


def invitation_name(token: str) -> str:
    """What the certificate in a kit is called: 128 bits of the SHA-256 of the kit's one-time token."""
    return f"i-{digest_of(token.encode())[:INVITATION_DIGITS]}"


def issue_invitation(authority: Authority, token: str, *, now: datetime, valid_for: timedelta) -> Issued:
    """The certificate that lies in the kit with this one-time token, and its key, which is kept nowhere else."""
    key = new_tls_key()
    name = invitation_name(token)
    certificate = _issue(
        authority,
        key.public_key(),
        name=name,
        names=[x509.UniformResourceIdentifier(_uri(authority, Role.INVITED, name))],
        purpose=ExtendedKeyUsageOID.CLIENT_AUTH,
        lifetime=(now, valid_for),
    )
    return Issued(certificate_pem=certificate.public_bytes(serialization.Encoding.PEM), key_pem=private_pem(key))


def site_request(
    *,
    tls_key: ec.EllipticCurvePrivateKey,
    signing_key: Ed25519PrivateKey,
    ecdsa_key: ec.EllipticCurvePrivateKey,
    site: SiteId,
    consortium: str,
) -> bytes:
    """The request a site sends to enrol: PKCS #10, DER.

    It is signed by the TLS key, and carries both signing keys, each with its own signature over the TLS public key and
    the site's name: proof that whoever asks holds all three.
    """
    uri = f"consortium://{consortium}/site/{site}"
    spki = spki_of(tls_key.public_key())
    ecdsa = p256.EcdsaSigner(ecdsa_key)
    proofs = (
        _signing_proof(signing_key, uri, spki),
        _ECDSA.proof(ecdsa.public, ecdsa.sign(_ECDSA.message(uri, spki))),
    )
    return _request(tls_key, uri, name=site, consortium=consortium, proofs=proofs)


def account_request(
    *, tls_key: ec.EllipticCurvePrivateKey, signing_key: Ed25519PrivateKey, account: str, consortium: str
) -> bytes:
    """The request a person's machine sends, to enrol an account or to have its certificate renewed: PKCS #10, DER.

    As a site's, with one signing key.
    """
    uri = f"consortium://{consortium}/account/{account}"
    proof = _signing_proof(signing_key, uri, spki_of(tls_key.public_key()))
    return _request(tls_key, uri, name=account, consortium=consortium, proofs=(proof,))


def _signing_proof(key: Ed25519PrivateKey, uri: str, spki: bytes) -> x509.ExtensionType:
    return _SIGNING.proof(key.public_key().public_bytes_raw(), key.sign(_SIGNING.message(uri, spki)))


def _request(
    tls_key: ec.EllipticCurvePrivateKey,
    uri: str,
    *,
    name: str,
    consortium: str,
    proofs: Sequence[x509.ExtensionType],
) -> bytes:
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_leaf_name(consortium, name))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
    )
    for proof in proofs:
        builder = builder.add_extension(proof, critical=False)
    return builder.sign(tls_key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def issue_site(authority: Authority, site: SiteId, request_der: bytes, *, now: datetime, valid_for: timedelta) -> bytes:
    """The certificate (PEM) for `site`, the name its token was made for, from the request it sent.

    Raises:
        RequestRefused: the request is not one, names another site, does not prove its keys, or has one key for two
            purposes.
    """
    if site == COORDINATOR:
        raise RequestRefused(found=f"the reserved name {site}", allowed="any other name")
    return _certified(authority, Role.SITE, site, request_der, (_SIGNING, _ECDSA), lifetime=(now, valid_for))


def issue_account(
    authority: Authority, account: str, request_der: bytes, *, now: datetime, valid_for: timedelta
) -> bytes:
    """The certificate (PEM) for `account`, the name its token was made for, from the request it sent.

    Raises:
        RequestRefused: the request is not one, names another account, or does not prove its keys.
    """
    return _certified(authority, Role.ACCOUNT, account, request_der, (_SIGNING,), lifetime=(now, valid_for))


def _certified(
    authority: Authority,
    role: Role,
    name: str,
    request_der: bytes,
    bounds: Sequence[_BoundKey],
    *,
    lifetime: tuple[datetime, timedelta],
) -> bytes:
    request = _parsed_request(request_der)
    if not request.is_signature_valid:
        raise RequestRefused(found="a signature that does not verify", allowed="one by the TLS key in the request")
    public = request.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise RequestRefused(found=f"a key of type {type(public).__name__}", allowed="ECDSA P-256")
    try:
        extensions = request.extensions
        alternative = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        proofs = {bound: extensions.get_extension_for_oid(bound.proof_oid).value for bound in bounds}
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise RequestRefused(
            found=f"missing or repeated extensions ({error})", allowed="a name and a proof for each signing key"
        ) from error
    uri = _uri(authority, role, name)
    found = alternative.get_values_for_type(x509.UniformResourceIdentifier)
    if len(list(alternative)) != 1 or found != [uri]:
        raise RequestRefused(found=f"a request for {_shown(found)}", allowed=uri)
    bound_keys = {bound: bound.proven(proof, uri, spki_of(public)) for bound, proof in proofs.items()}
    if bound_keys.get(_ECDSA) == p256.point_bytes(public):
        raise RequestRefused(found="the TLS key as the ECDSA key too", allowed="a key of its own for each purpose")
    certificate = _issue(
        authority,
        public,
        name=name,
        names=[x509.UniformResourceIdentifier(uri)],
        purpose=ExtendedKeyUsageOID.CLIENT_AUTH,
        lifetime=lifetime,
        bound_keys=[bound.extension(key) for bound, key in bound_keys.items()],
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


# --- reading and checking ------------------------------------------------------------------------------------------


def certificate_der(pem: bytes) -> bytes:
    """PEM to DER; raises CertificateRefused."""
    if len(pem) > 2 * CERTIFICATE_BYTES_MAX:
        raise CertificateRefused(
            Fault.MALFORMED, found=f"{len(pem)} bytes", allowed=f"at most {2 * CERTIFICATE_BYTES_MAX} bytes"
        )
    try:
        return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateRefused(Fault.MALFORMED, found=f"bytes that are none ({error})", allowed="PEM") from error


def identity_of(certificate: x509.Certificate) -> PeerIdentity:
    """Who a certificate names. It does not say that the certificate is genuine: `verify_certificate` does.

    Raises:
        CertificateRefused: MALFORMED.
    """
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = alternative.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise CertificateRefused(
            Fault.MALFORMED, found=f"no name ({error})", allowed="one consortium:// URI"
        ) from error
    match = _URI.fullmatch(uris[0]) if len(uris) == 1 else None
    if match is None:
        raise CertificateRefused(Fault.MALFORMED, found=f"named {_shown(uris)}", allowed="one consortium:// URI")
    consortium, role, name = match[1], Role(match[2] or match[4]), match[3] or match[4]
    if not is_name(consortium, longest=CONSORTIUM_NAME_MAX) or not is_name(name):
        raise CertificateRefused(Fault.MALFORMED, found=f"named {_shown(uris)}", allowed="names of 3 to 40 characters")
    keys = {bound: bound.read(certificate) for bound in (_SIGNING, _ECDSA)}
    needed = {Role.SITE: (_SIGNING, _ECDSA), Role.ACCOUNT: (_SIGNING,)}.get(role, ())
    for bound, key in keys.items():
        if bound in needed and key is None:
            allowed = "both signing keys of a site" if role is Role.SITE else "the signing key of an account"
            raise CertificateRefused(Fault.MALFORMED, found=f"no {bound.name}", allowed=allowed)
    spki = _spki_der(certificate)
    # DER puts the point last: a key that also answers TLS handshakes could be made to sign for one as for the other.
    ecdsa_key = keys[_ECDSA]
    if ecdsa_key is not None and spki.endswith(ecdsa_key):
        raise CertificateRefused(Fault.MALFORMED, found="the TLS key as the ECDSA key too", allowed="two keys")
    return PeerIdentity(
        role=role,
        name=name,
        consortium=consortium,
        spki_sha256=bytes.fromhex(digest_of(spki)),
        signing_key=keys[_SIGNING],
        ecdsa_key=ecdsa_key,
        serial=certificate.serial_number,
        not_after=certificate.not_valid_after_utc,
    )


def verify_certificate(
    der: bytes, authority: x509.Certificate, now: datetime, *, role: Role | tuple[Role, ...] | None = None
) -> PeerIdentity:
    """Who holds this certificate, if it is genuine: issued by `authority`, valid `now`, and (if given) of such a role.

    Raises:
        CertificateRefused: with the first fault found, in the order malformed, foreign, expired or not yet valid,
            malformed (in what it says), wrong role.
    """
    certificate = _issued(der, authority)
    for one, whose in ((certificate, "certificate"), (authority, "authority")):
        if now > one.not_valid_after_utc:
            raise CertificateRefused(
                Fault.EXPIRED,
                found=f"the {whose} ended {one.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
                allowed=f"valid at {now:%Y-%m-%d %H:%M} UTC",
            )
        if now < one.not_valid_before_utc:
            raise CertificateRefused(
                Fault.NOT_YET_VALID,
                found=f"the {whose} begins {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
                allowed=f"valid at {now:%Y-%m-%d %H:%M} UTC",
            )
    identity = _holder(certificate, authority)
    roles = (role,) if isinstance(role, Role) else role
    if roles is not None and identity.role not in roles:
        allowed = f"role {' or '.join(roles)}"
        raise CertificateRefused(Fault.WRONG_ROLE, found=f"{identity.role} {identity.name}", allowed=allowed)
    return identity


@lru_cache(maxsize=1024)
def _issued(der: bytes, authority: x509.Certificate) -> x509.Certificate:
    """The certificate, if `authority` signed these bytes. Asked with every call a site makes, so it is remembered.

    What was refused is not: only genuine certificates take up memory.
    """
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise CertificateRefused(
            Fault.MALFORMED, found=f"{len(der)} bytes", allowed=f"at most {CERTIFICATE_BYTES_MAX} bytes"
        )
    try:
        certificate = x509.load_der_x509_certificate(der)
        # One certificate, one byte string: the count of unused bits before the signature is covered by nothing.
        canonical = der.endswith(b"\0" + certificate.signature) and certificate.serial_number > 0
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm, CryptographyDeprecationWarning) as error:
        raise CertificateRefused(Fault.MALFORMED, found=f"bytes that are none ({error})", allowed="DER") from error
    if not canonical:
        raise CertificateRefused(Fault.MALFORMED, found="an unusual encoding", allowed="DER")
    _check_issuer(certificate, authority)
    return certificate


@lru_cache(maxsize=1024)
def _holder(certificate: x509.Certificate, authority: x509.Certificate) -> PeerIdentity:
    """Whom a certificate names, if it says nothing that it must not. It does not depend on the time either."""
    _check_use(certificate)
    identity = identity_of(certificate)
    if identity.consortium != consortium_of(authority):
        raise CertificateRefused(
            Fault.MALFORMED, found=f"consortium {identity.consortium!r}", allowed=consortium_of(authority)
        )
    _check_purpose(certificate, identity.role)
    return identity


def spki_of(public: ec.EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo, DER."""
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


# --- the parts -----------------------------------------------------------------------------------------------------


def _check_issuer(certificate: x509.Certificate, authority: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateRefused(
            Fault.FOREIGN,
            found="one that this consortium's authority did not issue",
            allowed=f"issued by the authority with SHA-256 {fingerprint(authority)[:16]}...",
        ) from error


def _check_use(certificate: x509.Certificate) -> None:
    """A leaf of ours: ECDSA P-256, not an authority, for signing handshakes only."""
    try:
        public = certificate.public_key()
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError, UnsupportedAlgorithm) as error:
        raise CertificateRefused(Fault.MALFORMED, found=str(error), allowed="a key and its uses") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise CertificateRefused(Fault.MALFORMED, found=f"a {type(public).__name__}", allowed="ECDSA P-256")
    if constraints.ca or usage.key_cert_sign:
        raise CertificateRefused(Fault.WRONG_ROLE, found="an authority's certificate", allowed="its holder's own")


def _check_purpose(certificate: x509.Certificate, role: Role) -> None:
    """A hospital's certificate must never serve as the coordinator's, nor the other way round."""
    expected = _purpose(role)
    try:
        purposes = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise CertificateRefused(Fault.MALFORMED, found=str(error), allowed="one extended key usage") from error
    if purposes != [expected]:
        raise CertificateRefused(Fault.WRONG_ROLE, found=f"a {role} with the purposes of another", allowed=str(role))


def _purpose(role: Role) -> x509.ObjectIdentifier:
    if role is Role.COORDINATOR:
        return ExtendedKeyUsageOID.SERVER_AUTH
    return ExtendedKeyUsageOID.CLIENT_AUTH


def _parsed_request(der: bytes) -> x509.CertificateSigningRequest:
    if len(der) > REQUEST_BYTES_MAX:
        raise RequestRefused(found=f"{len(der)} bytes", allowed=f"at most {REQUEST_BYTES_MAX} bytes")
    try:
        request = x509.load_der_x509_csr(der)
        request.public_key()
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise RequestRefused(found=f"bytes that are no request ({error})", allowed="PKCS #10 in DER") from error
    return request


def _spki_der(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _uri(authority: Authority, role: Role, name: str = "") -> str:
    tail = f"{role}/{name}" if name else str(role)
    return f"consortium://{authority.consortium}/{tail}"


def _leaf_name(consortium: str, name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, consortium),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, name),
        ]
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is neither a DNS name nor an IP address") from None
        return x509.DNSName(host.lower())


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _issue(
    authority: Authority,
    public: ec.EllipticCurvePublicKey,
    *,
    name: str,
    names: Sequence[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    lifetime: tuple[datetime, timedelta],
    bound_keys: Sequence[x509.ExtensionType] = (),
) -> x509.Certificate:
    """One leaf certificate. It never outlives the authority."""
    ca = authority.certificate
    now, valid_for = lifetime
    ends = min(now + valid_for, ca.not_valid_after_utc)
    begins = max(now - CLOCK_SKEW, ca.not_valid_before_utc)
    builder = (
        _builder(_leaf_name(authority.consortium, name), ca.subject, public, begins, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    for extension in bound_keys:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _shown(values: Sequence[str]) -> str:
    """A peer's own words, short and harmless enough for a message."""
    return repr(list(values))[:120]

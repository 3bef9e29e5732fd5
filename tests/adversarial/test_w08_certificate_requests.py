"""W-08: a certificate request gets what its token allows and its keys prove; all else in it is ignored or refused.

Tried: rows w08 of `mutations.py`.
"""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from consortium.contract import certificates
from consortium.contract.certificates import (
    RequestRefused,
    Role,
    _BoundKey,
    certificate_der,
    create_authority,
    issue_site,
    new_ecdsa_key,
    new_signing_key,
    new_tls_key,
    site_request,
    spki_of,
    verify_certificate,
)
from consortium.contract.names import SiteId
from privacy.p256 import EcdsaSigner, point_bytes

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
YEAR = timedelta(days=365)
SITE, NAME = SiteId("north-clinic"), "alpine-heart"
AUTHORITY = create_authority(NAME, now=NOW, valid_for=YEAR)
URI = f"consortium://{NAME}/site/{SITE}"
BOUND = {bound.name: bound for bound in (certificates._SIGNING, certificates._ECDSA)}
every_bound_key = pytest.mark.parametrize("name", BOUND)


def _issue(der: bytes) -> bytes:
    return issue_site(AUTHORITY, SITE, der, now=NOW, valid_for=YEAR)


def _refused(der: bytes) -> str:
    with pytest.raises(RequestRefused) as caught:
        _issue(der)
    assert caught.value.advice()
    return str(caught.value)


def _proof(
    name: str, tls_key: ec.EllipticCurvePrivateKey, uri: str = URI, *, claimed: bytes | None = None
) -> x509.UnrecognizedExtension:
    """A fresh key of this kind proven for a TLS key and a name; with `claimed`, another key beside its signature."""
    if name == "signing key":
        ed25519 = new_signing_key()
        public, sign = ed25519.public_key().public_bytes_raw(), ed25519.sign
    else:
        ecdsa = EcdsaSigner(new_ecdsa_key())
        public, sign = ecdsa.public, ecdsa.sign
    bound = BOUND[name]
    return bound.proof(claimed or public, sign(bound.message(uri, spki_of(tls_key.public_key()))))


def _public(name: str) -> bytes:
    """A public key of this kind that somebody else has."""
    if name == "signing key":
        return new_signing_key().public_key().public_bytes_raw()
    return point_bytes(new_ecdsa_key().public_key())


def _with(name: str, proof: x509.ExtensionType, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A request with this proof for one of the keys and a good one for the other."""
    return _request(key, proof, *(_proof(other, key) for other in BOUND if other != name))


def _request(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *extensions: x509.ExtensionType, uri: str = URI
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "coordinator")])
    )
    if uri:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _honest(key: ec.EllipticCurvePrivateKey, *, site: SiteId = SITE, consortium: str = NAME) -> bytes:
    return site_request(
        tls_key=key, signing_key=new_signing_key(), ecdsa_key=new_ecdsa_key(), site=site, consortium=consortium
    )


def test_a_request_for_another_site_than_the_tokens() -> None:
    key = new_tls_key()
    for site, consortium in ((SiteId("south-clinic"), NAME), (SITE, "another-one")):
        der = _honest(key, site=site, consortium=consortium)
        assert "a request for" in _refused(der)


def test_the_reserved_name_is_nobodys() -> None:
    name = SiteId("coordinator")
    der = _honest(new_tls_key(), site=name)
    with pytest.raises(RequestRefused, match="reserved"):
        issue_site(AUTHORITY, name, der, now=NOW, valid_for=YEAR)


@every_bound_key
def test_a_key_the_requester_does_not_hold(name: str) -> None:
    """Without the proof a site could have another's key certified as its own, and claim its signatures."""
    key, victims_tls_key = new_tls_key(), new_tls_key()
    assert "a proof by another key" in _refused(_with(name, _proof(name, victims_tls_key), key))
    assert "a proof by another key" in _refused(_with(name, _proof(name, key, claimed=_public(name)), key))


@every_bound_key
def test_a_proof_made_for_another_name(name: str) -> None:
    key = new_tls_key()
    proof = _proof(name, key, uri="consortium://another-one/site/north-clinic")
    assert "a proof by another key" in _refused(_with(name, proof, key))


def test_a_proof_made_for_the_other_kind_of_key() -> None:
    """Both kinds prove under labels of their own, so that no signature serves twice."""
    key, signer, bound = new_tls_key(), EcdsaSigner(new_ecdsa_key()), BOUND["ECDSA key"]
    message = BOUND["signing key"].message(URI, spki_of(key.public_key()))
    assert message != bound.message(URI, spki_of(key.public_key()))
    proof = bound.proof(signer.public, signer.sign(message))
    assert "a proof by another key" in _refused(_with("ECDSA key", proof, key))


def test_the_tls_key_as_the_ecdsa_key_too() -> None:
    """Fails when `issue_site` does not compare the two; `verify_certificate` would refuse the certificate later."""
    key = new_tls_key()
    der = site_request(tls_key=key, signing_key=new_signing_key(), ecdsa_key=key, site=SITE, consortium=NAME)
    assert "the TLS key as the ECDSA key too" in _refused(der)


def test_a_request_with_a_broken_signature() -> None:
    der = bytearray(_honest(new_tls_key()))
    der[-1] ^= 1
    assert "signature" in _refused(bytes(der))


def _shapes(bound: _BoundKey) -> list[bytes]:
    good = _proof(bound.name, new_tls_key()).value
    return [b"", good[:2], bound.extension(_public(bound.name)).value, good[:-1], good + b"\0", b"\x31" + good[1:]]


@every_bound_key
@pytest.mark.parametrize("number", range(6))
def test_a_proof_of_the_wrong_shape(name: str, number: int) -> None:
    proof = x509.UnrecognizedExtension(BOUND[name].proof_oid, _shapes(BOUND[name])[number])
    assert "a proof of" in _refused(_with(name, proof, new_tls_key()))


def test_a_request_without_a_name_or_without_a_proof() -> None:
    key = new_tls_key()
    assert "missing" in _refused(_request(key))
    assert "missing" in _refused(_request(key, *(_proof(name, key) for name in BOUND), uri=""))
    for name in BOUND:
        assert "missing" in _refused(_request(key, _proof(name, key)))


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)])
def test_a_key_of_another_kind(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    proofs = [_proof(name, new_tls_key()) for name in BOUND]
    assert "P-256" in _refused(_request(key, *proofs))


@pytest.mark.parametrize("der", [b"", b"\x30\x03\x02\x01\x00", b"\x00" * 5000])
def test_bytes_that_are_no_request(der: bytes) -> None:
    assert "request" in _refused(der)


def test_nothing_a_requester_asks_for_beyond_its_name_is_granted() -> None:
    key = new_tls_key()
    der = _request(
        key,
        *(_proof(name, key) for name in BOUND),
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.KeyUsage(True, True, True, True, True, True, True, False, False),
    )
    pem = _issue(der)
    verify_certificate(certificate_der(pem), AUTHORITY.certificate, NOW, role=Role.SITE)
    certificate = x509.load_pem_x509_certificate(pem)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    (name,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert name.value == SITE


def test_a_request_that_also_wants_a_host_name() -> None:
    key = new_tls_key()
    names = [x509.UniformResourceIdentifier(URI), x509.DNSName("coordinator.example.org")]
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_proof("signing key", key), critical=False)
        .add_extension(_proof("ECDSA key", key), critical=False)
        .sign(key, hashes.SHA256())
    )
    assert "a request for" in _refused(request.public_bytes(serialization.Encoding.DER))

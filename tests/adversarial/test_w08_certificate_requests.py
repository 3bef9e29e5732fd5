"""A certificate request gets what its token allows and its keys prove; all else in it is ignored or refused."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from consortium.contract.certificates import (
    RequestRefused,
    Role,
    _proof_message,
    certificate_der,
    create_authority,
    issue_site,
    new_signing_key,
    new_tls_key,
    site_request,
    spki_of,
    verify_certificate,
)
from consortium.contract.names import SiteId

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
YEAR = timedelta(days=365)
SITE, NAME = SiteId("north-clinic"), "alpine-heart"
AUTHORITY = create_authority(NAME, now=NOW, valid_for=YEAR)
URI = f"consortium://{NAME}/site/{SITE}"
PROOF = x509.ObjectIdentifier("2.25.266412538969954458959461202953903211950")


def _issue(der: bytes) -> bytes:
    return issue_site(AUTHORITY, SITE, der, now=NOW, valid_for=YEAR)


def _refused(der: bytes) -> str:
    with pytest.raises(RequestRefused) as caught:
        _issue(der)
    assert caught.value.advice()
    return str(caught.value)


def _proof(signing_key: Ed25519PrivateKey, tls_key: ec.EllipticCurvePrivateKey, uri: str = URI) -> bytes:
    signature = signing_key.sign(_proof_message(uri, spki_of(tls_key.public_key())))
    return b"\x30\x64\x04\x20" + signing_key.public_key().public_bytes_raw() + b"\x04\x40" + signature


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


def test_a_request_for_another_site_than_the_tokens() -> None:
    key = new_tls_key()
    for site, consortium in ((SiteId("south-clinic"), NAME), (SITE, "another-one")):
        der = site_request(tls_key=key, signing_key=new_signing_key(), site=site, consortium=consortium)
        assert "a request for" in _refused(der)


def test_the_reserved_name_is_nobodys() -> None:
    name = SiteId("coordinator")
    der = site_request(tls_key=new_tls_key(), signing_key=new_signing_key(), site=name, consortium=NAME)
    with pytest.raises(RequestRefused, match="reserved"):
        issue_site(AUTHORITY, name, der, now=NOW, valid_for=YEAR)


def test_a_signing_key_the_requester_does_not_hold() -> None:
    """Without the proof a site could have another's key certified as its own, and claim its signatures."""
    key, victim = new_tls_key(), new_signing_key()
    stolen = _proof(victim, new_tls_key())  # made for the victim's own TLS key
    assert "a proof by another key" in _refused(_request(key, x509.UnrecognizedExtension(PROOF, stolen)))
    forged = stolen[:4] + new_signing_key().public_key().public_bytes_raw() + stolen[36:]
    assert "a proof by another key" in _refused(_request(key, x509.UnrecognizedExtension(PROOF, forged)))


def test_a_proof_made_for_another_name() -> None:
    key, signing_key = new_tls_key(), new_signing_key()
    proof = _proof(signing_key, key, uri="consortium://another-one/site/north-clinic")
    assert "a proof by another key" in _refused(_request(key, x509.UnrecognizedExtension(PROOF, proof)))


def test_a_request_with_a_broken_signature() -> None:
    der = bytearray(site_request(tls_key=new_tls_key(), signing_key=new_signing_key(), site=SITE, consortium=NAME))
    der[-1] ^= 1
    assert "signature" in _refused(bytes(der))


@pytest.mark.parametrize("proof", [b"", b"\x30\x64", b"\x04\x20" + b"k" * 32, b"\x30\x64\x04\x20" + b"k" * 98])
def test_a_proof_of_the_wrong_shape(proof: bytes) -> None:
    assert "proof" in _refused(_request(new_tls_key(), x509.UnrecognizedExtension(PROOF, proof)))


def test_a_request_without_a_name_or_without_a_proof() -> None:
    key = new_tls_key()
    assert "missing" in _refused(_request(key))
    proof = x509.UnrecognizedExtension(PROOF, _proof(new_signing_key(), key))
    assert "missing" in _refused(_request(key, proof, uri=""))


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)])
def test_a_key_of_another_kind(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    proof = x509.UnrecognizedExtension(PROOF, _proof(new_signing_key(), new_tls_key()))
    assert "P-256" in _refused(_request(key, proof))


@pytest.mark.parametrize("der", [b"", b"\x30\x03\x02\x01\x00", b"\x00" * 5000])
def test_bytes_that_are_no_request(der: bytes) -> None:
    assert "request" in _refused(der)


def test_nothing_a_requester_asks_for_beyond_its_name_is_granted() -> None:
    key = new_tls_key()
    der = _request(
        key,
        x509.UnrecognizedExtension(PROOF, _proof(new_signing_key(), key)),
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
        .add_extension(x509.UnrecognizedExtension(PROOF, _proof(new_signing_key(), key)), critical=False)
        .sign(key, hashes.SHA256())
    )
    assert "a request for" in _refused(request.public_bytes(serialization.Encoding.DER))

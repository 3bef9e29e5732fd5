"""What a certificate says, and every way in which one is not good enough."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID

from consortium.contract.certificates import (
    CLOCK_SKEW,
    Authority,
    CertificateRefused,
    Fault,
    Role,
    certificate_der,
    consortium_of,
    create_authority,
    fingerprint,
    identity_of,
    issue_operator,
    issue_server,
    issue_site,
    load_authority,
    load_authority_certificate,
    load_ecdsa_key,
    load_signing_key,
    load_tls_key,
    new_ecdsa_key,
    new_signing_key,
    new_tls_key,
    private_pem,
    site_request,
    spki_of,
    verify_certificate,
)
from consortium.contract.digest import digest_of
from consortium.contract.names import SiteId
from privacy.p256 import point_bytes

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SITE = SiteId("north-clinic")
NAME = "alpine-heart"
TLS_KEY, SIGNING_KEY, ECDSA_KEY = new_tls_key(), new_signing_key(), new_ecdsa_key()
ECDSA_POINT = point_bytes(ECDSA_KEY.public_key())
AUTHORITY = create_authority(NAME, now=NOW, valid_for=365 * DAY)
REQUEST = site_request(tls_key=TLS_KEY, signing_key=SIGNING_KEY, ecdsa_key=ECDSA_KEY, site=SITE, consortium=NAME)
SITE_PEM = issue_site(AUTHORITY, SITE, REQUEST, now=NOW, valid_for=30 * DAY)
SITE_DER = certificate_der(SITE_PEM)


def test_a_sites_certificate_binds_its_name_and_its_three_keys() -> None:
    identity = verify_certificate(SITE_DER, AUTHORITY.certificate, NOW, role=Role.SITE)
    assert (identity.role, identity.name, identity.site, identity.consortium) == (Role.SITE, SITE, SITE, NAME)
    assert identity.spki_sha256.hex() == digest_of(spki_of(TLS_KEY.public_key()))
    assert identity.signing_key == SIGNING_KEY.public_key().public_bytes_raw()
    assert identity.ecdsa_key == ECDSA_POINT
    assert not spki_of(TLS_KEY.public_key()).endswith(ECDSA_POINT)
    assert identity.not_after == NOW + 30 * DAY
    assert identity.serial == x509.load_pem_x509_certificate(SITE_PEM).serial_number
    assert identity == identity_of(x509.load_pem_x509_certificate(SITE_PEM))
    assert isinstance(Ed25519PublicKey.from_public_bytes(identity.signing_key or b""), Ed25519PublicKey)


def test_an_operators_certificate() -> None:
    issued = issue_operator(AUTHORITY, "lead", now=NOW, valid_for=DAY)
    identity = verify_certificate(certificate_der(issued.certificate_pem), AUTHORITY.certificate, NOW)
    assert (identity.role, identity.name, identity.signing_key) == (Role.OPERATOR, "lead", None)
    assert identity.ecdsa_key is None
    with pytest.raises(CertificateRefused, match="allowed: a site"):
        _ = identity.site
    assert (
        load_tls_key(issued.key_pem).public_key() == x509.load_pem_x509_certificate(issued.certificate_pem).public_key()
    )


def test_the_coordinators_certificate_names_its_hosts() -> None:
    issued = issue_server(AUTHORITY, ["localhost", "127.0.0.1", "::1", "Hub.Example.org"], now=NOW, valid_for=DAY)
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "hub.example.org"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    identity = verify_certificate(certificate_der(issued.certificate_pem), AUTHORITY.certificate, NOW)
    assert (identity.role, identity.name) == (Role.COORDINATOR, "coordinator")


@pytest.mark.parametrize("host", ["", "a b", "-x", "x..y", "https://x", "*.example.org", "x" * 254])
def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises(ValueError, match="neither a DNS name"):
        issue_server(AUTHORITY, [host], now=NOW, valid_for=DAY)
    with pytest.raises(ValueError, match="at least one"):
        issue_server(AUTHORITY, [], now=NOW, valid_for=DAY)


@pytest.mark.parametrize("name", ["", "ab", "Alpine", "alpine heart", "x" * 65])
def test_a_consortium_or_operator_name_that_is_none(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a consortium"):
        create_authority(name, now=NOW, valid_for=DAY)
    with pytest.raises(ValueError, match="cannot name an operator"):
        issue_operator(AUTHORITY, name, now=NOW, valid_for=DAY)


def test_the_authority_is_one_level_deep_and_for_nothing_else() -> None:
    certificate = AUTHORITY.certificate
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)
    assert isinstance(AUTHORITY.key.curve, ec.SECP256R1)
    assert consortium_of(certificate) == AUTHORITY.consortium == NAME
    assert fingerprint(certificate) == certificate.fingerprint(hashes.SHA256()).hex()


def test_an_authority_is_read_back() -> None:
    again = load_authority(AUTHORITY.certificate_pem, AUTHORITY.key_pem)
    assert again.certificate == AUTHORITY.certificate
    assert "key" not in repr(again).replace("public", "")
    with pytest.raises(ValueError, match="not the one in its certificate"):
        load_authority(AUTHORITY.certificate_pem, private_pem(new_tls_key()))


@pytest.mark.parametrize(
    ("pem", "found"),
    [
        (b"", "exactly one"),
        (AUTHORITY.certificate_pem * 2, "exactly one"),
        (SITE_PEM, "not the certificate of an authority"),
        (AUTHORITY.certificate_pem.replace(b"M", b"!", 3), "(?i)pem|base64|data"),
        (b"x" * 10_000, "too many"),
    ],
)
def test_an_authoritys_certificate_that_is_none(pem: bytes, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        load_authority_certificate(pem)


def test_no_certificate_outlives_the_authority_or_precedes_it() -> None:
    pem = issue_site(AUTHORITY, SITE, REQUEST, now=NOW, valid_for=10_000 * DAY)
    certificate = x509.load_pem_x509_certificate(pem)
    assert certificate.not_valid_after_utc == AUTHORITY.certificate.not_valid_after_utc
    assert certificate.not_valid_before_utc == NOW - CLOCK_SKEW


def test_keys_are_read_back_as_what_they_are() -> None:
    assert load_tls_key(private_pem(TLS_KEY)).private_numbers() == TLS_KEY.private_numbers()
    assert load_signing_key(private_pem(SIGNING_KEY)).private_bytes_raw() == SIGNING_KEY.private_bytes_raw()
    assert load_ecdsa_key(private_pem(ECDSA_KEY)).private_numbers() == ECDSA_KEY.private_numbers()
    with pytest.raises(ValueError, match="P-256"):
        load_tls_key(private_pem(SIGNING_KEY))
    with pytest.raises(ValueError, match="P-256"):
        load_tls_key(private_pem(ec.generate_private_key(ec.SECP384R1())))
    with pytest.raises(ValueError, match="Ed25519"):
        load_signing_key(private_pem(TLS_KEY))


# --- refused -------------------------------------------------------------------------------------------------------


def _fault(der: bytes, now: datetime = NOW, role: Role | None = None, authority: Authority = AUTHORITY) -> Fault:
    with pytest.raises(CertificateRefused) as caught:
        verify_certificate(der, authority.certificate, now, role=role)
    assert caught.value.advice()
    assert caught.value.code == "refused"
    return caught.value.fault


def test_another_authoritys() -> None:
    other = create_authority(NAME, now=NOW, valid_for=DAY)
    assert _fault(SITE_DER, authority=other) is Fault.FOREIGN
    assert _fault(certificate_der(other.certificate_pem)) is Fault.FOREIGN


def test_before_and_after_its_time_to_the_second() -> None:
    second = timedelta(seconds=1)
    begins, ends = NOW - CLOCK_SKEW, NOW + 30 * DAY
    verify_certificate(SITE_DER, AUTHORITY.certificate, begins)
    verify_certificate(SITE_DER, AUTHORITY.certificate, ends)
    assert _fault(SITE_DER, begins - second) is Fault.NOT_YET_VALID
    assert _fault(SITE_DER, ends + second) is Fault.EXPIRED


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.COORDINATOR])
def test_the_wrong_role(role: Role) -> None:
    assert _fault(SITE_DER, role=role) is Fault.WRONG_ROLE


@pytest.mark.parametrize("der", [b"", b"\x30\x80", b"\x00" * 4097, SITE_DER[:-1], SITE_DER + b"\x00", REQUEST])
def test_bytes_that_are_none(der: bytes) -> None:
    assert _fault(der) is Fault.MALFORMED


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_any_mutated_byte(flip: int) -> None:
    for position in range(len(SITE_DER)):
        mutated = bytearray(SITE_DER)
        mutated[position] ^= flip
        with pytest.raises(CertificateRefused):
            verify_certificate(bytes(mutated), AUTHORITY.certificate, NOW, role=Role.SITE)


def test_pem_that_is_none() -> None:
    for pem in (b"", b"-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----", b"x" * 9000):
        with pytest.raises(CertificateRefused) as caught:
            certificate_der(pem)
        assert caught.value.fault is Fault.MALFORMED


SIGNING_KEY_OID = x509.ObjectIdentifier("2.25.265011600984919496096131262444137398272")
ECDSA_KEY_OID = x509.ObjectIdentifier("2.25.200673123705566827943006635199353249705")


def _leaf(
    *uris: str,
    signing_key: bytes | None = b"\x04\x20" + b"k" * 32,
    ecdsa_key: bytes | None = b"\x04\x41" + ECDSA_POINT,
    usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CLIENT_AUTH,
    ca: bool = False,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
) -> bytes:
    """A certificate that our authority would never issue, though genuinely signed."""
    public = (key or TLS_KEY).public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")]))
        .issuer_name(AUTHORITY.certificate.subject)
        .public_key(public)
        .serial_number(7)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(True, False, False, False, False, ca, False, False, False), critical=True)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=False)
    if signing_key is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(SIGNING_KEY_OID, signing_key), critical=False)
    if ecdsa_key is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(ECDSA_KEY_OID, ecdsa_key), critical=False)
    return builder.sign(AUTHORITY.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


GOOD = f"consortium://{NAME}/site/{SITE}"


def test_the_hand_made_certificate_is_good_but_for_what_is_wrong_with_it() -> None:
    identity = verify_certificate(_leaf(GOOD), AUTHORITY.certificate, NOW, role=Role.SITE)
    assert (identity.signing_key, identity.ecdsa_key) == (b"k" * 32, ECDSA_POINT)


@pytest.mark.parametrize(
    "uris",
    [
        (),
        (GOOD, GOOD),
        (GOOD, f"consortium://{NAME}/operator/lead"),
        (f"consortium://{NAME}/site/",),
        (f"consortium://{NAME}/site/{SITE}/x",),
        (f"consortium://{NAME}/site/UPPER",),
        (f"consortium://{NAME}/site/" + "x" * 41,),
        (f"consortium://{NAME}/patient/{SITE}",),
        (f"https://{NAME}/site/{SITE}",),
        ("consortium://another-one/site/north-clinic",),
    ],
)
def test_a_name_that_is_none_or_not_of_this_consortium(uris: tuple[str, ...]) -> None:
    assert _fault(_leaf(*uris)) is Fault.MALFORMED


@pytest.mark.parametrize(
    "value", [None, b"", b"\x04\x20" + b"k" * 31, b"\x04\x20" + b"k" * 33, b"\x03\x20" + b"k" * 32]
)
def test_a_site_without_a_proper_signing_key(value: bytes | None) -> None:
    assert _fault(_leaf(GOOD, signing_key=value)) is Fault.MALFORMED


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\x04\x41" + ECDSA_POINT[:-1],
        b"\x04\x41" + ECDSA_POINT + b"\0",
        b"\x03\x41" + ECDSA_POINT,
        b"\x04\x41" + ECDSA_POINT[:-1] + bytes([ECDSA_POINT[-1] ^ 1]),
        b"\x04\x41" + bytes(65),
        b"\x04\x20" + b"k" * 32,
    ],
    ids=("none", "empty", "short", "long", "another-type", "off-the-curve", "zeros", "an-ed25519-key"),
)
def test_a_site_without_a_proper_ecdsa_key(value: bytes | None) -> None:
    assert _fault(_leaf(GOOD, ecdsa_key=value)) is Fault.MALFORMED


def test_a_site_whose_tls_key_is_its_ecdsa_key() -> None:
    """What a handshake has it sign must not be able to pass for a message of secure aggregation, nor the reverse."""
    with pytest.raises(CertificateRefused, match="the TLS key as the ECDSA key too"):
        verify_certificate(
            _leaf(GOOD, ecdsa_key=b"\x04\x41" + point_bytes(TLS_KEY.public_key())), AUTHORITY.certificate, NOW
        )


@pytest.mark.parametrize(
    ("usage", "fault"), [(ExtendedKeyUsageOID.SERVER_AUTH, Fault.WRONG_ROLE), (None, Fault.MALFORMED)]
)
def test_a_site_that_could_serve(usage: x509.ObjectIdentifier | None, fault: Fault) -> None:
    assert _fault(_leaf(GOOD, usage=usage)) is fault


def test_a_site_that_could_issue() -> None:
    assert _fault(_leaf(GOOD, ca=True)) is Fault.WRONG_ROLE


def test_a_key_of_another_kind() -> None:
    assert _fault(_leaf(GOOD, key=ec.generate_private_key(ec.SECP384R1()))) is Fault.MALFORMED
    assert _fault(_leaf(GOOD, key=rsa.generate_private_key(65537, 2048))) is Fault.MALFORMED

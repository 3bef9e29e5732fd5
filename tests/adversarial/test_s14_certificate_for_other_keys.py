"""S-14: at enrolment the coordinator answers with a certificate that is not for this hospital's own keys.

Held by: `enrolment._enrol_into`, which compares name, TLS key and signing key. Nothing is left behind.
Tried: rows s14 of `mutations.py`.
"""

import pytest

from consortium.contract import certificates
from consortium.contract.certificates import CertificateRefused
from consortium.contract.kit import write_kit_bytes
from consortium.contract.messages import EnrolmentGrant
from consortium.contract.names import SiteId
from site_agent.enrolment import enrol
from tests.fakes.site_wire import StudyService, kit_for
from tests.fakes.site_world import ME, NAME, new_authority
from tests.fakes.wire_world import YEAR, clock, coordinator, pki


class Swapping(StudyService):
    """Certifies something else than was asked."""

    def __init__(self, certify):
        super().__init__()
        self.certify = certify

    async def enrol(self, peer, request):
        return EnrolmentGrant(consortium=NAME, certificate_pem=self.certify(request))


def issued(name, request_der, authority=None):
    return certificates.issue_site(authority or pki().authority, SiteId(name), request_der, now=clock(), valid_for=YEAR)


def request_of(name, signing_key=None, ecdsa_key=None):
    return certificates.site_request(
        tls_key=certificates.new_tls_key(),
        signing_key=signing_key or certificates.new_signing_key(),
        ecdsa_key=ecdsa_key or certificates.new_ecdsa_key(),
        site=SiteId(name),
        consortium=NAME,
    )


LIES = {
    "other keys": lambda request: issued(ME, request_of(ME)),
    "another hospital": lambda request: issued("cedar", request_of("cedar")),
    "another authority": lambda request: issued(ME, request.request_der, new_authority()),
    "an operator": lambda request: pki().operator("lead").certificate_pem,
    "no certificate": lambda request: b"nothing",
}


@pytest.mark.parametrize("lie", LIES)
async def test_it_is_refused_and_nothing_is_left(tmp_path, lie):
    async with coordinator(Swapping(LIES[lie])) as world:
        write_kit_bytes(tmp_path / "kit.zip", kit_for(world).to_bytes())
        with pytest.raises(CertificateRefused):
            await enrol(tmp_path / "kit.zip", tmp_path / "home")
    assert [path.name for path in tmp_path.iterdir()] == ["kit.zip"]


async def test_our_signing_keys_beside_another_tls_key(tmp_path, monkeypatch):
    """Whoever holds that TLS key would speak as this hospital."""
    ours, ecdsa = certificates.new_signing_key(), certificates.new_ecdsa_key()
    monkeypatch.setattr(certificates, "new_signing_key", lambda: ours)
    monkeypatch.setattr(certificates, "new_ecdsa_key", lambda: ecdsa)
    async with coordinator(Swapping(lambda _: issued(ME, request_of(ME, ours, ecdsa)))) as world:
        write_kit_bytes(tmp_path / "kit.zip", kit_for(world).to_bytes())
        with pytest.raises(CertificateRefused):
            await enrol(tmp_path / "kit.zip", tmp_path / "home")
    assert not (tmp_path / "home").exists()


async def test_our_other_keys_beside_another_ecdsa_key(tmp_path, monkeypatch):
    """Whoever holds that key would sign as this hospital in every study of the suite p256.

    Fails when `enrol` compares all but `ecdsa_key`.
    """
    tls, ours = certificates.new_tls_key(), certificates.new_signing_key()
    monkeypatch.setattr(certificates, "new_tls_key", lambda: tls)
    monkeypatch.setattr(certificates, "new_signing_key", lambda: ours)
    async with coordinator(Swapping(lambda _: issued(ME, request_of(ME, ours)))) as world:
        write_kit_bytes(tmp_path / "kit.zip", kit_for(world).to_bytes())
        with pytest.raises(CertificateRefused, match="other keys"):
            await enrol(tmp_path / "kit.zip", tmp_path / "home")
    assert not (tmp_path / "home").exists()

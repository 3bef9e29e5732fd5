"""An agent renews its certificate: when, for which keys, and what is on disk if it dies on the way."""

from datetime import UTC, datetime, timedelta

import pytest

from consortium.contract import certificates
from consortium.contract.certificates import CertificateRefused, certificate_der, verify_certificate
from consortium.contract.messages import EnrolmentGrant
from consortium.wire.errors import CallRefused, RefusalCode
from site_agent import renewal
from site_agent.home import HomeInvalid
from site_agent.renewal import RenewalUnwritable, due_at, keep_certified, renew
from tests.fakes.site_world import ME, NAME, keys, make_home, new_member, small_study


def now():
    return datetime.now(UTC)


class Coordinator:
    """Signs what it is asked for, or something else."""

    def __init__(self, *, answer=None, refusals=0, at=None):
        self.asked = []
        self.refusals = refusals
        self._answer = answer
        self._at = at

    async def renew(self, request_der):
        self.asked.append(request_der)
        if len(self.asked) <= self.refusals:
            raise CallRefused("UNAVAILABLE", "not now", "Wait.", RefusalCode.TRY_LATER)
        pem = self._answer or certificates.issue_site(
            keys().authority, ME, request_der, now=self._at or now(), valid_for=timedelta(days=90)
        )
        return EnrolmentGrant(consortium=NAME, certificate_pem=pem)


@pytest.fixture
def home(tmp_path):
    return make_home(tmp_path, small_study())


async def test_a_new_tls_key_under_the_same_signing_keys(home):
    before, renewed = home.connection, await renew(home, Coordinator(), now())
    assert renewed == home.connection != before
    assert renewed.spki_sha256 != before.spki_sha256
    holder = verify_certificate(certificate_der(renewed.certificate_pem), home.ca_certificate, now())
    assert (holder.name, holder.signing_key.hex(), holder.ecdsa_key.hex()) == (
        ME,
        home.identity.signing_key,
        home.identity.ecdsa_key,
    )
    assert holder.spki_sha256.hex() == renewed.spki_sha256
    assert home.certificate_pem == before.certificate_pem  # as enrolled: what evidence shows
    assert home.connection_path.stat().st_mode & 0o777 == 0o600
    again = await renew(home, Coordinator(), now())
    assert home.connection == again != renewed


async def test_it_is_due_when_two_thirds_are_over(home):
    begun = home.connection.not_before + certificates.CLOCK_SKEW
    whole = home.connection.not_after - begun
    assert due_at(home.connection) == begun + whole * 2 / 3


@pytest.mark.parametrize("whose", ["another hospital's", "for other keys"])
async def test_a_certificate_that_is_not_its_own_changes_nothing(home, whose):
    other = new_member(keys().authority, "alder" if whose.startswith("another") else ME)
    before = home.connection
    with pytest.raises(CertificateRefused):
        await renew(home, Coordinator(answer=other.certificate_pem), now())
    assert home.connection == before
    assert not home.connection_path.exists()


async def test_whoever_dies_on_the_way_has_a_pair_that_works(home, monkeypatch):
    """The file is replaced as a whole: before that the old pair is there, after it the new one, and no third thing."""
    seen = []
    replace = renewal.write_private

    def dying(path, data, **options):
        seen.append(home.connection.spki_sha256)
        replace(path, data, **options)
        seen.append(home.connection.spki_sha256)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(renewal, "write_private", dying)
    before = home.connection.spki_sha256
    with pytest.raises(RenewalUnwritable):
        await renew(home, Coordinator(), now())
    assert seen[0] == before
    assert seen[1] == home.connection.spki_sha256 != before
    left = [path.name for path in (home.folder / "keys").iterdir() if path.name.startswith(".")]
    assert left == []


async def test_a_pair_that_is_damaged_is_named(home):
    await renew(home, Coordinator(), now())
    home.connection_path.write_bytes(home.connection.key_pem)
    with pytest.raises(HomeInvalid, match=r"connection\.pem is damaged"):
        _ = home.connection


async def test_it_asks_when_it_is_due_and_again_after_a_refusal(home, monkeypatch):
    monkeypatch.setattr(renewal, "LOOKS_S", 0.0)
    monkeypatch.setattr(renewal, "ASKS_AGAIN_S", 0.0)
    shown = home.connection
    due = due_at(shown) + timedelta(seconds=1)
    coordinator = Coordinator(refusals=2, at=due)
    await keep_certified(home, coordinator, shown, clock=lambda: due)
    assert len(coordinator.asked) == 3
    assert home.connection.certificate_pem != shown.certificate_pem


async def test_it_notices_a_certificate_that_somebody_renewed(home):
    coordinator, shown = Coordinator(), home.connection
    await renew(home, Coordinator(), now())
    await keep_certified(home, coordinator, shown)
    assert coordinator.asked == []

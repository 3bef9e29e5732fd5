"""W-13: a certificate is renewed for somebody who is not that hospital any more, or never was.

Who copied a TLS key off a disk has a certificate until it ends, and must not get another with it; who was revoked,
suspended or superseded must not come back by a renewal.
Held by: `Sites.renew` signs for the name of the caller's own certificate, for the signing keys that enrolled and with
proof of each, and for a certificate that is still the site's; `Sites.authenticate` knows at most three TLS keys of a
site, the one before for a day.

Tried: rows w13 of `mutations.py`: each test failed with its check taken out.
"""

from datetime import UTC, datetime, timedelta

import pytest

from consortium.contract.certificates import (
    RequestRefused,
    certificate_der,
    new_ecdsa_key,
    new_signing_key,
    new_tls_key,
    site_request,
    verify_certificate,
)
from consortium.errors import AccessDenied, RenewalRefused, SiteSuspended
from consortium.sites import OVERLAP
from tests.fakes.coordinator_home import NAME, coordinator_in

AMBER, BIRCH = "amber-clinic", "birch-clinic"


def request_of(hospital, **changes):
    fields = {
        "tls_key": new_tls_key(),
        "signing_key": hospital.signing_key,
        "ecdsa_key": hospital.ecdsa_key,
        "site": hospital.site,
        "consortium": NAME,
    }
    return site_request(**(fields | changes))


def renewed(world, hospital):
    pem = world.sites.renew(hospital.identity, request_of(hospital)).certificate_pem
    return verify_certificate(certificate_der(pem), world.coordinator.home.ca_certificate, world.sites.clock())


def test_in_the_name_of_another_hospital(tmp_path):
    with coordinator_in(tmp_path) as world:
        amber, birch = world.enrol(AMBER), world.enrol(BIRCH)
        with pytest.raises(RequestRefused, match="birch-clinic"):
            world.sites.renew(amber.identity, request_of(amber, site=BIRCH))
        with pytest.raises(RequestRefused):
            world.sites.renew(amber.identity, request_of(birch))
        assert world.bodies("site.renewed") == []


@pytest.mark.parametrize("key", ["signing_key", "ecdsa_key"])
def test_with_a_stolen_tls_key_and_signing_keys_of_ones_own(tmp_path, key):
    """The thief proves what he has: the TLS key by the connection, and a signing key that he made."""
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        own = {"signing_key": new_signing_key(), "ecdsa_key": new_ecdsa_key()}
        with pytest.raises(RenewalRefused, match="other signing keys"):
            world.sites.renew(amber.identity, request_of(amber, **{key: own[key]}))
        assert world.sites.get(AMBER).next_spki_sha256 == ""
        assert world.bodies("site.renewed") == []


def test_with_a_stolen_certificate_that_was_superseded(tmp_path):
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        world.sites.authenticate(renewed(world, amber))
        world.sites.authenticate(amber.identity)  # it may end what is under way
        with pytest.raises(AccessDenied, match="superseded"):
            renewed(world, amber)
        world.sites.clock = lambda: datetime.now(UTC) + OVERLAP + timedelta(seconds=1)
        with pytest.raises(AccessDenied, match="not the one enrolled"):
            world.sites.authenticate(amber.identity)


@pytest.mark.parametrize("away", ["suspended", "revoked"])
def test_by_somebody_who_may_not_take_part(tmp_path, away):
    """The call was let in a moment before; a certificate that was made and not shown yet does not count either."""
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        following = renewed(world, amber)
        if away == "suspended":
            world.sites.suspend(AMBER, "why")
        else:
            world.sites.revoke(AMBER)
        refusal = SiteSuspended if away == "suspended" else AccessDenied
        with pytest.raises(refusal):
            renewed(world, amber)
        with pytest.raises(refusal):
            world.sites.authenticate(following)
        assert len(world.bodies("site.renewed")) == 1

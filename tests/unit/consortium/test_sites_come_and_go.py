"""Hospitals that are suspended and reinstated, whose certificates are renewed, and one certificate per legal entity."""

from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from audit import entries
from audit.cosignature import WitnessSigner
from consortium.cli import app
from consortium.commands import CommandRefused, execute
from consortium.contract.certificates import (
    certificate_der,
    load_tls_key,
    new_tls_key,
    private_pem,
    site_request,
    verify_certificate,
)
from consortium.contract.digest import canonical_bytes
from consortium.contract.kit import parse_kit
from consortium.errors import AccessDenied, RenewalRefused, RenewedTooOften, SiteConflict, SiteSuspended, SiteUnknown
from consortium.sites import OVERLAP, RENEWALS_PER_HOUR_MAX
from tests.fakes.coordinator_home import NAME, coordinator_in, new_hospital

AMBER, BIRCH = "amber-clinic", "birch-clinic"


def asked(hospital, key=None, *, name=None):
    """A request for a hospital's next certificate, and the key that it is for."""
    key = key or new_tls_key()
    request = site_request(
        tls_key=key,
        signing_key=hospital.signing_key,
        ecdsa_key=hospital.ecdsa_key,
        site=name or hospital.site,
        consortium=NAME,
    )
    return request, key


def renewed(world, hospital):
    """Who the hospital is by its next certificate, and that certificate."""
    request, _ = asked(hospital)
    pem = world.sites.renew(hospital.identity, request).certificate_pem
    return verify_certificate(certificate_der(pem), world.coordinator.home.ca_certificate, world.sites.clock()), pem


def test_a_suspended_hospital_is_refused_until_it_is_reinstated(tmp_path):
    with coordinator_in(tmp_path) as world:
        amber, birch = world.enrol(AMBER), world.enrol(BIRCH)
        world.sites.suspend(AMBER, "audit under way")
        with pytest.raises(SiteSuspended, match="amber-clinic is suspended: audit under way") as caught:
            world.sites.authenticate(amber.identity)
        assert caught.value.code == "suspended"
        assert "reinstated" in caught.value.advice()
        assert not world.sites.is_current(world.sites.get(AMBER))
        assert world.sites.authenticate(birch.identity).site == BIRCH
        with pytest.raises(SiteConflict, match="suspended already"):
            world.sites.suspend(AMBER, "again")
        world.sites.reinstate(AMBER)
        assert world.sites.authenticate(amber.identity).site == AMBER
        assert world.sites.is_current(world.sites.get(AMBER))
        assert world.bodies("site.suspended") == [{"site": AMBER, "reason": "audit under way"}]
        assert world.bodies("site.reinstated") == [{"site": AMBER}]
        assert world.bodies("authz.denied")[-1]["rule"] == "amber-clinic is suspended"


def test_what_cannot_be_suspended_or_reinstated(tmp_path):
    with coordinator_in(tmp_path) as world:
        world.enrol(AMBER)
        with pytest.raises(SiteUnknown):
            world.sites.suspend(BIRCH, "why")
        with pytest.raises(SiteConflict, match="not suspended"):
            world.sites.reinstate(AMBER)
        world.sites.revoke(AMBER, "it left")
        assert world.bodies("site.revoked") == [{"site": AMBER, "reason": "it left"}]
        for change in (lambda: world.sites.suspend(AMBER, "why"), lambda: world.sites.reinstate(AMBER)):
            with pytest.raises(SiteConflict, match="is revoked"):
                change()


async def test_the_commands_say_what_they_refuse(tmp_path):
    with coordinator_in(tmp_path) as world:
        world.enrol(AMBER)

        async def give(command, **arguments):
            return await execute(world.coordinator, command, canonical_bytes(arguments))

        with pytest.raises(CommandRefused, match="reason"):
            await give("site.suspend", site=AMBER, reason="")
        await give("site.suspend", site=AMBER, reason="audit")
        listed = await give("site.list")
        assert b'"state":"suspended"' in listed
        assert b'"reason":"audit"' in listed
        await give("site.reinstate", site=AMBER)
        await give("site.revoke", site=AMBER)
        assert world.bodies("site.revoked")[0]["reason"] == "revoked by the operator"


def test_a_renewed_certificate_counts_from_its_first_use_and_the_old_one_for_a_while(tmp_path):
    with coordinator_in(tmp_path) as world:
        amber, birch = world.enrol(AMBER), world.enrol(BIRCH)
        before = world.sites.get(AMBER)
        following, pem = renewed(world, amber)
        assert world.sites.get(AMBER).certificate == before.certificate  # other hospitals see the one that is in use
        assert world.sites.authenticate(amber.identity).spki_sha256 == before.spki_sha256
        after = world.sites.authenticate(following)
        assert after.certificate == certificate_der(pem)
        assert (after.signing_key, after.ecdsa_key) == (before.signing_key, before.ecdsa_key)
        assert world.sites.authenticate(amber.identity) == after  # what is under way over its connection
        world.sites.clock = lambda: datetime.now(UTC) + OVERLAP + timedelta(minutes=1)
        with pytest.raises(AccessDenied, match="not the one enrolled"):
            world.sites.authenticate(amber.identity)
        assert world.sites.authenticate(following) == after
        assert world.sites.authenticate(birch.identity).site == BIRCH
        (entry,) = world.bodies("site.renewed")
        assert (entry["site"], entry["spki_sha256"]) == (AMBER, following.spki_sha256.hex())
        assert entry["valid_until"] == entries.timestamp(int(following.not_after.timestamp()) * 1000)


def test_its_chain_of_entries_goes_on(tmp_path):
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        world.sites.submit_events(amber.site, [amber.signs(entries.WitnessEnrolled, vkey=vkey_of(world, amber))])
        world.sites.authenticate(renewed(world, amber)[0])
        receipt = world.sites.submit_events(
            amber.site, [amber.signs(entries.WitnessEnrolled, vkey=vkey_of(world, amber))]
        )
        assert receipt.last_sequence == 2


def vkey_of(world, hospital):
    origin = world.coordinator.home.config.log_origin
    return WitnessSigner(f"{origin}/witness/{hospital.site}", hospital.witness_key).key.vkey()


def test_an_answer_that_was_lost_is_asked_for_again(tmp_path):
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        lost, _ = renewed(world, amber)
        following, _ = renewed(world, amber)
        with pytest.raises(AccessDenied):
            world.sites.authenticate(lost)
        assert world.sites.authenticate(following).site == AMBER


def test_nobody_fills_the_log_with_renewals(tmp_path):
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        for _ in range(RENEWALS_PER_HOUR_MAX):
            renewed(world, amber)
        with pytest.raises(RenewedTooOften):
            renewed(world, amber)
        world.sites.clock = lambda: datetime.now(UTC) + timedelta(hours=2)
        renewed(world, amber)


def test_a_legal_entity_has_one_certificate(tmp_path):
    with coordinator_in(tmp_path) as world:
        world.sites.invite(AMBER, " St  Mary's Trust ")
        with pytest.raises(SiteConflict, match="amber-clinic is the certificate of"):
            world.sites.invite(BIRCH, "st mary's trust")
        world.sites.invite(AMBER, "St Mary's Trust")  # a lost kit is made again
        world.sites.invite(BIRCH, "Birch Foundation")
        assert world.bodies("site.invited")[0] == {"site": AMBER, "legal_entity": "St Mary's Trust"}
        world.sites.invite("cedar-clinic")
        assert world.bodies("site.invited")[-1] == {"site": "cedar-clinic"}


def test_also_once_it_is_enrolled_and_no_more_once_it_is_revoked(tmp_path):
    with coordinator_in(tmp_path) as world:
        amber = new_hospital(AMBER)
        token = parse_kit(world.sites.invite(AMBER, "St Mary's Trust")[0]).token
        world.certify(world.request(amber, token))
        assert world.sites.get(AMBER).legal_entity == "St Mary's Trust"
        with pytest.raises(SiteConflict):
            world.sites.invite(BIRCH, "St Mary's Trust")
        world.sites.revoke(AMBER)
        world.sites.invite(BIRCH, "St Mary's Trust")


def test_the_tls_key_of_a_request_is_a_new_one(tmp_path):
    with coordinator_in(tmp_path) as world:
        amber, birch = world.enrol(AMBER), world.enrol(BIRCH)
        for pem in (amber.tls_key_pem, birch.tls_key_pem):
            with pytest.raises(RenewalRefused, match="in use"):
                world.sites.renew(amber.identity, asked(amber, load_tls_key(pem))[0])
        request, key = asked(amber)
        world.sites.renew(amber.identity, request)
        birch.tls_key_pem = private_pem(key)
        with pytest.raises(RenewalRefused, match="in use"):
            world.sites.renew(birch.identity, asked(birch, key)[0])


def test_the_command_line(tmp_path):
    with coordinator_in(tmp_path) as world:
        world.enrol(AMBER)
    home = ["--home", str(tmp_path / "home")]

    def typed(*words):
        shown = CliRunner().invoke(app, [*words, *home])
        assert shown.exit_code == 0, shown.output
        return shown.output

    kit = tmp_path / "kit.zip"
    typed("site", "invite", BIRCH, "--out", str(kit), "--legal-entity", "Birch Foundation")
    assert "rounds go on without it" in typed("site", "suspend", AMBER, "--reason", "an audit")
    assert "suspended" in typed("site", "list")
    assert "may take part again" in typed("site", "reinstate", AMBER)
    typed("site", "revoke", AMBER, "--reason", "it left")
    with coordinator_in(tmp_path) as world:
        assert world.bodies("site.suspended")[0]["reason"] == "an audit"
        assert world.bodies("site.revoked")[0]["reason"] == "it left"
        assert world.bodies("site.invited")[-1]["legal_entity"] == "Birch Foundation"

"""The register of hospitals: invitations, enrolment, and the chain of what each one signs."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from audit import entries
from consortium import sites as sites_module
from consortium.contract.certificates import RequestRefused
from consortium.contract.kit import parse_kit
from consortium.contract.names import SiteId
from consortium.database import invitations
from consortium.database import sites as sites_table
from consortium.errors import AccessDenied, EnrolmentRefused, EventRefused, SiteConflict, SiteUnknown
from tests.fakes.coordinator_home import Home, about, coordinator_in, granted, new_hospital
from tests.fakes.small_study import small_study

AMBER, BIRCH = SiteId("amber-clinic"), SiteId("birch-hospital")
STUDY = small_study()


# --- invitations ---


def test_a_kit_says_everything_and_only_the_tokens_hash_is_kept(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        data, expires = world.sites.invite(AMBER)
        kit = parse_kit(data)
        home = world.coordinator.home
        assert (kit.site, kit.consortium, kit.address) == (AMBER, home.config.name, home.config.address)
        assert (kit.log_vkey, kit.coordinator_signing_key) == (home.log_vkey, home.signing_key_hex)
        assert kit.expires == expires
        assert timedelta(hours=71) < expires - datetime.now(UTC) <= timedelta(hours=72)
        stored = b"".join(path.read_bytes() for path in world.folder.glob("consortium.db*"))
        assert kit.token.encode() not in stored
        assert hashlib.sha256(kit.token.encode()).hexdigest().encode() in stored
        assert world.types() == ["log.opened", "site.invited"]


@pytest.mark.parametrize("name", ["", "x", "Amber", "amber clinic", "amber/clinic", "a" * 41, "coordinator"])
def test_a_name_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    with coordinator_in(tmp_path) as world:
        with pytest.raises(SiteConflict):
            world.sites.invite(name)
        assert world.types() == ["log.opened"]


def test_an_enrolled_site_is_not_invited_again(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        world.enrol(AMBER)
        with pytest.raises(SiteConflict, match="revoke"):
            world.sites.invite(AMBER)


# --- enrolment ---


def test_enrolment_certifies_the_sites_keys_and_is_logged(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        row = world.sites.get(AMBER)
        assert row.spki_sha256 == amber.identity.spki_sha256.hex()
        assert row.signing_key == amber.signing_key.public_key().public_bytes_raw().hex()
        assert row.ecdsa_key == amber.identity.ecdsa_key.hex()
        assert not row.revoked
        assert world.sites.is_current(row)
        assert world.sites.all() == (row,)
        assert world.sites.authenticate(amber.identity) == row
        assert world.bodies("site.enrolled") == [
            {
                "site": AMBER,
                "certificate_sha256": hashlib.sha256(row.certificate).hexdigest(),
                "spki_sha256": row.spki_sha256,
                "signing_key": row.signing_key,
            }
        ]


def assert_refused(world: Home, token: str, *, name: str = AMBER, why: str) -> None:
    before = world.sites.all()
    with pytest.raises(EnrolmentRefused, match=why) as caught:
        world.certify(world.request(new_hospital(name), token))
    assert caught.value.code == "refused"
    assert world.sites.all() == before
    assert why in world.bodies("auth.failed")[-1]["reason"]
    assert token not in str(world.log())


def test_a_wrong_token(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        world.token(AMBER)
        assert_refused(world, "f" * 64, why="not one this consortium gave")


@pytest.mark.parametrize("before", ["never", "revoked"])
def test_a_kit_that_nobody_used_can_be_taken_back(tmp_path: Path, before: str) -> None:
    with coordinator_in(tmp_path) as world:
        if before == "revoked":
            world.enrol(AMBER)
            world.sites.revoke(AMBER)
        token = world.token(AMBER)
        world.sites.revoke(AMBER, "sent to the wrong address")
        assert_refused(world, token, why="not good any more")
        assert world.bodies("site.revoked")[-1] == {"site": AMBER, "reason": "sent to the wrong address"}
        with pytest.raises(SiteConflict if before == "revoked" else SiteUnknown):
            world.sites.revoke(AMBER)
        world.certify(world.request(new_hospital(AMBER), world.token(AMBER)))


def test_another_sites_token_is_not_spent_by_it(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        token = world.token(AMBER)
        assert_refused(world, token, name=BIRCH, why="not one this consortium gave")
        world.certify(world.request(new_hospital(AMBER), token))


def test_a_used_token(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        token = world.token(AMBER)
        world.certify(world.request(new_hospital(AMBER), token))
        assert_refused(world, token, why="used before")


def test_an_expired_token(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        token = world.token(AMBER)
        with world.rooms.sites._database.transaction() as connection:
            connection.execute(sa.update(invitations).values(expires_at=1.0))
        assert_refused(world, token, why="expired")


def test_a_second_kit_does_not_replace_an_enrolled_hospital(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        first, second = world.token(AMBER), world.token(AMBER)
        world.certify(world.request(new_hospital(AMBER), first))
        assert_refused(world, second, why="not good any more")


def test_a_kit_that_was_out_when_the_site_was_revoked_is_not_good_any_more(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        first, second = world.token(AMBER), world.token(AMBER)
        world.certify(world.request(new_hospital(AMBER), first))
        world.sites.revoke(AMBER)
        assert_refused(world, second, why="not good any more")


def test_a_request_that_is_none_leaves_the_token_good(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        token = world.token(AMBER)
        request = world.request(new_hospital(AMBER), token)
        for der in (b"", b"no request", request.request_der[:-3], world.request(new_hospital(BIRCH), "").request_der):
            with pytest.raises(RequestRefused):
                world.certify(replace(request, request_der=der))
        assert world.sites.all() == ()
        world.certify(request)


def test_one_key_under_two_names_is_refused(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        token = world.token(BIRCH)
        with pytest.raises(EnrolmentRefused, match="in use"):
            world.certify(world.request(amber, token, name=BIRCH))
        assert [row.site for row in world.sites.all()] == [AMBER]
        assert "in use" in world.bodies("auth.failed")[0]["reason"]
        world.certify(world.request(new_hospital(BIRCH), token))  # the token is still good


@pytest.mark.parametrize("key", ["tls_key_pem", "signing_key", "ecdsa_key"])
def test_not_one_of_a_sites_keys_serves_another(tmp_path: Path, key: str) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        birch = replace(new_hospital(BIRCH), **{key: getattr(amber, key)})
        with pytest.raises(EnrolmentRefused, match="in use"):
            world.enrol(BIRCH, birch)
        assert [row.site for row in world.sites.all()] == [AMBER]


def test_after_a_revocation_new_keys_enrol_and_the_old_ones_do_not(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        old = world.enrol(AMBER)
        world.submit(STUDY)
        world.sites.submit_events(AMBER, [old.approves(STUDY)])
        world.sites.revoke(AMBER)
        token = world.token(AMBER)
        with pytest.raises(EnrolmentRefused, match="revoked"):
            world.certify(world.request(old, token))
        new = new_hospital(AMBER)
        grant = world.certify(world.request(new, token))
        granted(new, grant.certificate_pem, world.coordinator.home.ca_certificate)
        assert world.sites.authenticate(new.identity).last_sequence == 0
        with pytest.raises(AccessDenied, match="not the one enrolled"):
            world.sites.authenticate(old.identity)
        # Its new chain begins at 1, under its new key, and the whole log verifies.
        assert world.sites.submit_events(AMBER, [new.approves(STUDY)]).last_sequence == 1
        entries.replay_chains(world.rooms.recorder.log.entries())


def test_two_callers_with_one_token_enrol_one_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with coordinator_in(tmp_path) as world:
        token = world.token(AMBER)
        issue = sites_module.certificates.issue_site

        def meanwhile(*args: Any, **kwargs: Any) -> bytes:
            monkeypatch.setattr(sites_module.certificates, "issue_site", issue)
            world.certify(world.request(new_hospital(AMBER), token))
            return issue(*args, **kwargs)

        monkeypatch.setattr(sites_module.certificates, "issue_site", meanwhile)
        with pytest.raises(EnrolmentRefused, match="used before"):
            world.certify(world.request(new_hospital(AMBER), token))
        assert world.types().count("site.enrolled") == 1
        assert world.types().count("auth.failed") == 1


def test_a_review_of_leaves_that_are_not_there_is_not_taken(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        said = {"first_leaf": 0, "findings": 0, "summary": "nothing unusual", "on_behalf": "u:" + "0" * 16}
        before = (amber.sequence, amber.previous)
        with pytest.raises(EventRefused, match="does not have"):
            world.sites.submit_events(AMBER, [amber.signs(entries.LogReviewed, **said, last_leaf=99)])
        amber.sequence, amber.previous = before
        reviewed = amber.signs(entries.LogReviewed, **said, last_leaf=1)
        assert world.sites.submit_events(AMBER, [reviewed]).last_sequence == 1
        assert world.types()[-1] == "log.reviewed"


# --- who may connect ---


def test_a_revoked_site_is_denied_and_it_is_logged(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        world.sites.authenticate(amber.identity)  # a standing that was looked up once is not good for ever
        world.sites.revoke(AMBER)
        assert not world.sites.is_current(world.sites.get(AMBER))
        with pytest.raises(AccessDenied, match="revoked"):
            world.sites.authenticate(amber.identity)
        assert world.bodies("authz.denied") == [
            {"subject": "site:amber-clinic", "action": "connect", "rule": "amber-clinic is revoked"}
        ]


def test_a_certificate_of_a_site_that_never_enrolled_here(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        with world.rooms.sites._database.transaction() as connection:
            connection.execute(sa.delete(sites_table))
        with pytest.raises(AccessDenied):
            world.sites.authenticate(amber.identity)
        with pytest.raises(SiteUnknown) as caught:
            world.sites.get(AMBER)
        assert caught.value.code == "not_found"


def test_revoking_twice_or_a_stranger(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        world.enrol(AMBER)
        world.sites.revoke(AMBER)
        with pytest.raises(SiteConflict, match="already"):
            world.sites.revoke(AMBER)
        with pytest.raises(SiteUnknown):
            world.sites.revoke(BIRCH)
        assert world.types().count("site.revoked") == 1


# --- what sites sign ---


def test_events_reach_the_log_in_order_and_count(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        world.submit(STUDY)
        events = (amber.approves(STUDY), amber.rejects(STUDY, "no ethics vote"), amber.approves(STUDY))
        assert world.sites.submit_events(AMBER, events).last_sequence == 3
        assert list(world.rooms.recorder.log.entries())[-3:] == list(events)
        row = world.sites.get(AMBER)
        assert (row.last_sequence, row.last_event_sha256) == (3, amber.previous)
        assert world.studies.decisions(STUDY.digest()) == {AMBER: ("approved", "")}
        assert world.studies.approving(STUDY.digest()) == {AMBER}


def test_a_withdrawal_is_known_at_once(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        world.submit(STUDY)
        world.sites.submit_events(AMBER, [amber.approves(STUDY), amber.rejects(STUDY, "consent withdrawn")])
        assert world.studies.decisions(STUDY.digest()) == {AMBER: ("rejected", "consent withdrawn")}
        assert world.studies.approving(STUDY.digest()) == frozenset()


def test_a_site_may_repeat_itself_after_a_crash(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        world.submit(STUDY)
        first, second = amber.approves(STUDY), amber.rejects(STUDY)
        world.sites.submit_events(AMBER, [first])
        size = world.rooms.recorder.log.size
        assert world.sites.submit_events(AMBER, [first]).last_sequence == 1
        assert world.rooms.recorder.log.size == size
        assert world.sites.submit_events(AMBER, [first, second]).last_sequence == 2
        assert world.rooms.recorder.log.size == size + 1


def assert_events_refused(world: Home, *events: bytes, why: str) -> None:
    row, size = world.sites.get(AMBER), world.rooms.recorder.log.size
    with pytest.raises(EventRefused, match=why) as caught:
        world.sites.submit_events(AMBER, events)
    assert caught.value.code == "invalid"
    assert world.sites.get(AMBER) == row
    assert world.rooms.recorder.log.size == size
    assert world.studies.decisions(STUDY.digest()) == {}


def test_a_gap_refuses_the_whole_call(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        world.submit(STUDY)
        first = amber.signed_as(entries.StudyApproved, 1, entries.NO_ENTRY, **about(STUDY), statement="yes")
        sha256 = hashlib.sha256(first).hexdigest()
        third = amber.signed_as(entries.StudyApproved, 3, sha256, **about(STUDY), statement="yes")
        assert_events_refused(world, first, third, why="entry 2")


def test_a_fork_is_refused(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        world.submit(STUDY)
        elsewhere = amber.signed_as(entries.StudyApproved, 1, "ab" * 32, **about(STUDY), statement="yes")
        assert_events_refused(world, elsewhere, why="previous entry")


def test_another_entry_under_the_number_of_the_newest_is_refused(tmp_path: Path) -> None:
    """An agent restored from a backup signs its last number again; acknowledging it would hide that."""
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        world.submit(STUDY)
        world.sites.submit_events(AMBER, [amber.approves(STUDY)])
        again = amber.signed_as(entries.StudyRejected, 1, entries.NO_ENTRY, **about(STUDY), reason="no")
        with pytest.raises(EventRefused, match="as it is in the log"):
            world.sites.submit_events(AMBER, [again])
        assert world.studies.approving(STUDY.digest()) == {AMBER}


def test_a_bad_signature_is_refused(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        world.submit(STUDY)
        good = amber.approves(STUDY)
        assert_events_refused(world, good.replace(b"approved", b"APPROVED", 1), why=".")
        stranger = new_hospital(AMBER)
        assert_events_refused(world, stranger.approves(STUDY), why="key")


def test_another_sites_entry_is_refused(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        birch = world.enrol(BIRCH)
        world.submit(STUDY)
        assert_events_refused(world, birch.approves(STUDY), why="key")
        in_its_name = amber.signed_as(
            entries.StudyApproved, 1, entries.NO_ENTRY, **about(STUDY), statement="yes", actor="site:birch-hospital"
        )
        assert_events_refused(world, in_its_name, why="actor")


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff" * 10, b'{"type":"log.opened"}', b"x" * 70_000])
def test_bytes_that_are_no_entry(tmp_path: Path, data: bytes) -> None:
    with coordinator_in(tmp_path) as world:
        world.enrol(AMBER)
        assert_events_refused(world, data, why=AMBER)


def test_an_entry_of_the_coordinators_kind_is_refused(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        world.enrol(AMBER)
        theirs = list(world.rooms.recorder.log.entries())[-1]
        assert_events_refused(world, theirs, why="a site signs")


def test_too_many_at_once(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        world.enrol(AMBER)
        assert_events_refused(world, *[b"{}"] * 65, why="65 events")


def test_events_about_a_study_that_is_not_the_sites(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        assert_events_refused(world, amber.signed_as(
            entries.StudyApproved, 1, entries.NO_ENTRY, **about(STUDY), statement="never submitted"
        ), why="no part of")  # fmt: skip
        outsider = world.enrol("zebra-hospital")
        world.submit(STUDY)
        with pytest.raises(EventRefused, match="no part of"):
            world.sites.submit_events(SiteId("zebra-hospital"), [outsider.approves(STUDY)])


def test_a_decision_on_another_document_is_refused(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        amber = world.enrol(AMBER)
        world.submit(STUDY)
        other = about(STUDY) | {"study_digest": small_study(rounds=7).digest()}
        event = amber.signed_as(entries.StudyApproved, 1, entries.NO_ENTRY, **other, statement="yes")
        assert_events_refused(world, event, why="another digest")


def test_spends_and_endorsements_are_kept_by_site(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world:
        amber, birch = world.enrol(AMBER), world.enrol(BIRCH)
        world.submit(STUDY)
        spent = {
            "study": STUDY.id,
            "round": 1,
            "attempt": 1,
            "dataset": "clinic",
            "event": entries.PoissonSampledGaussian(noise_multiplier=2.0, sampling_rate=0.5, steps=1),
            "delta": 0.001,
            "steps_total": 1,
        }
        verified = {"study": STUDY.id, "round": 1, "attempt": 1, "next_model_digest": "a1" * 32}
        events = [
            amber.signs(entries.DpSpent, **spent, epsilon=0.25),
            amber.signs(entries.DpSpent, **spent, epsilon=0.5),
            amber.signs(entries.ModelVerified, **verified),
        ]
        world.sites.submit_events(AMBER, events)
        theirs = birch.signs(entries.ModelVerified, **verified)
        world.sites.submit_events(BIRCH, [theirs])
        assert world.studies.spent(STUDY.digest()) == {AMBER: 0.5}
        assert world.studies.endorsements(STUDY.digest(), "a1" * 32) == {AMBER: events[2], BIRCH: theirs}
        assert world.studies.endorsements(STUDY.digest(), "b2" * 32) == {}


def test_an_unknown_site_has_no_chain(tmp_path: Path) -> None:
    with coordinator_in(tmp_path) as world, pytest.raises(SiteUnknown):
        world.sites.submit_events(AMBER, [])

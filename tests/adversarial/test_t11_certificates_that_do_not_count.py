"""Threat 11: a roster with a revoked, an expired, an unknown or a doubled certificate.

Whoever held two seats would hold two shares of every secret and two of the t votes; whoever sits there under a
certificate that is not good any more sits there for somebody else. Held by: `Context.check` (privacy/secagg/context.py)
for doubled ones, before any key exists; `plan_check._check_roster` (site_agent) for expired, foreign and unknown ones,
at every hospital; `Sites.authenticate` and `Sites.is_current` (consortium) for revoked ones. A hospital cannot know
that the coordinator keeps silent about a revocation; the audit log shows it to everybody else.
Tried: rows 11 of `mutations.py`.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from consortium.contract.names import SiteId
from consortium.errors import AccessDenied
from privacy.errors import ContextRefused
from privacy.secagg import coordinator, site
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.invited_hospital import invited_hospital
from tests.fakes.memory_round import consortium, deterministic_entropy, site_name
from tests.fakes.site_world import keys, new_authority, new_member, now

GROUP = consortium(4)
A, B, C, D = GROUP.context.roster


@pytest.mark.parametrize(
    "roster",
    [
        (A, B, C, replace(D, spki_sha256=A.spki_sha256)),
        (A, B, C, replace(D, signing_key=A.signing_key)),
        (A, B, C, C),
        (A, B, C, replace(D, site=C.site)),
        (B, A, C, D),
    ],
    ids=["certificate", "signing key", "entry", "name", "order"],
)
def test_doubled_sites_and_coordinator_refuse_the_attempt(roster):
    context = replace(GROUP.context, roster=roster)
    member = GROUP.member(site_name(0))
    with pytest.raises(ContextRefused) as caught:
        site.begin(context, member.site, member.signing_key, deterministic_entropy("e"), member.long_term_secret)
    assert caught.value.field == "roster"
    with pytest.raises(ContextRefused):
        coordinator.begin(context)


def impostors():
    """Who may sit in alder's place: their certificates carry its name."""
    authority, day = keys().authority, timedelta(days=1)
    return {
        "expired": new_member(authority, "alder", at=now() - 30 * day, valid_for=20 * day),
        "not yet valid": new_member(authority, "alder", at=now() + day),
        "of an unknown authority": new_member(new_authority(), "alder"),
    }


@pytest.mark.parametrize("why", ["expired", "not yet valid", "of an unknown authority"])
def test_a_hospital_sits_down_with_nobody_whose_certificate_is_not_good_now(tmp_path, why):
    invited = invited_hospital(tmp_path)
    honest, member = invited.plan(), impostors()[why]
    plan = replace(honest, participants=(member.participant, *honest.participants[1:]))
    shown = (member.certificate_der, *invited.certificates(honest)[1:])
    assert invited.refuses(plan, certificates=shown) == "certificate of alder"
    invited.joins(honest)


def test_nor_with_a_stranger_whose_certificate_is_good(tmp_path):
    invited = invited_hospital(tmp_path)
    honest, stranger = invited.plan(), new_member(keys().authority, "elder-clinic")
    everybody = sorted((*honest.participants, stranger.participant), key=lambda participant: participant.site)
    plan = replace(honest, participants=tuple(everybody))
    shown = (*invited.certificates(honest), stranger.certificate_der)
    assert invited.refuses(plan, certificates=shown) == "participants"


def test_nor_with_one_hospital_under_two_names(tmp_path):
    """Alder's keys, and the certificate that shows them, once more in the place of cedar's."""
    invited = invited_hospital(tmp_path)
    honest = invited.plan()
    alder, birch, cedar, dogwood = honest.participants
    twice = replace(alder, site=cedar.site)
    plan = replace(honest, participants=(alder, birch, twice, dogwood))
    of_alder, of_birch, _, of_dogwood = invited.certificates(honest)
    assert invited.refuses(plan, certificates=(of_alder, of_birch, of_alder, of_dogwood)) == "keys of cedar"
    assert invited.refuses(plan) == "keys of cedar"


def test_a_revoked_site_is_neither_heard_nor_invited(tmp_path):
    with coordinator_in(tmp_path) as home:
        revoked, other = home.enrol("alder-clinic"), home.enrol("birch-clinic")
        assert home.sites.is_current(home.sites.get("alder-clinic"))
        home.sites.revoke("alder-clinic")
        with pytest.raises(AccessDenied, match="alder-clinic is revoked"):
            home.sites.authenticate(revoked.identity)
        assert [home.sites.is_current(row) for row in home.sites.all()] == [False, True]
        assert home.sites.authenticate(other.identity).site == SiteId("birch-clinic")
        assert home.bodies("site.revoked")[0]["site"] == "alder-clinic"

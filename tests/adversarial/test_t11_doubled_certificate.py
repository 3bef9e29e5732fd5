"""Threat 11, the part that secure aggregation sees: one certificate or one key under two names in the roster.

Whoever held two seats would hold two shares of every secret and two of the t votes. Revoked, expired and unknown
certificates are refused where sessions and invitations are checked.
"""

from dataclasses import replace

import pytest

from privacy.errors import ContextRefused
from privacy.secagg import coordinator, site
from tests.fakes.memory_round import consortium, deterministic_entropy, site_name

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
def test_sites_and_coordinator_refuse_the_attempt(roster):
    context = replace(GROUP.context, roster=roster)
    member = GROUP.member(site_name(0))
    with pytest.raises(ContextRefused) as caught:
        site.begin(context, member.site, member.signing_key, deterministic_entropy("e"), member.long_term_secret)
    assert caught.value.field == "roster"
    with pytest.raises(ContextRefused):
        coordinator.begin(context)

"""Every key of `policy` in site.yaml, one after the other: changed alone, it refuses the study by its own name."""

import dataclasses
from datetime import UTC, datetime

import pytest

from consortium.contract.study import StudyFile
from site_agent.policy import Accept, SiteFacts, decide, facts_of, limits_of
from site_agent.preparation import Declined, approved_study
from site_agent.site_file import AllowedHours, Policy
from tests.fakes.site_world import make_world, small_study, write_site_file
from tests.unit.contract.test_algorithms import NO_PRIVACY

STUDY = small_study()
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)  # a Monday
PLAIN = StudyFile.model_validate(
    STUDY.model_dump(mode="python", by_alias=True, exclude_none=True) | {"privacy": NO_PRIVACY}
)
GOOD = SiteFacts(approved=True, patients=45, today=NOON.date(), round_at=NOON)

BY_DECIDE = {
    "max_epsilon_per_study": (0.99, STUDY),
    "max_delta": (9e-4, STUDY),
    "minimum_patients": (46, STUDY),
    "minimum_sites": (4, STUDY),
    "minimum_threshold": (4, STUDY),
    "minimum_witnesses": (4, STUDY),
    "allowed_networks": (("mlp",), STUDY),
    "allowed_mechanisms": (("distributed-dp-sgd",), STUDY),
    "allow_no_privacy": (False, PLAIN),
    "allowed_suites": (("p256",), STUDY),
    "max_egress_bytes_per_round": (1363, STUDY),
    "allowed_hours": (AllowedHours.model_validate({"time_zone": "UTC", "from": "18:00", "until": "06:00"}), STUDY),
}
ELSEWHERE = {
    "require_approval",  # `false` is no value: test_site_file; unapproved studies: test_s07
    "may_approve",  # below, and test_g07
    "approvals_needed",
    "max_epsilon_total",  # by the ledger: below
    "share_exact_metrics",  # refuses nothing: zeros are summed instead (test_s04, test_round_values)
    "allowed_owners",  # asked before an approval is signed: test_owner
}


def answer(policy: Policy, study: StudyFile):
    return decide(policy, facts_of(study, upload_bytes=1364), GOOD)


def test_no_key_is_left_out():
    assert set(Policy.model_fields) == set(BY_DECIDE) | ELSEWHERE


@pytest.mark.parametrize("key", BY_DECIDE)
def test_a_key_changed_alone_refuses_by_its_name(key):
    value, study = BY_DECIDE[key]
    generous = Policy(allow_no_privacy=True)
    assert answer(generous, study) == Accept()
    refused = answer(generous.model_copy(update={key: value}), study)
    assert refused.rule == key
    # The other side hears the rule and the study's own numbers; the hospital's it does not.
    for own in (str(value), "46", "0.99", "18:00", "06:00", "45"):
        assert own not in refused.explanation


def test_the_keys_about_approvals(tmp_path):
    world = make_world(tmp_path, STUDY)
    for policy in ({"may_approve": ["0" * 64]}, {"approvals_needed": 2}):
        write_site_file(tmp_path, STUDY, **policy)
        with pytest.raises(Declined) as caught:
            approved_study(world.home, world.store, world.digest)
        assert [caught.value.refusal.rule] == list(policy)
    write_site_file(tmp_path, STUDY)
    assert approved_study(world.home, world.store, world.digest) == STUDY


def test_the_cap_of_the_dataset_is_the_ledgers():
    caps = [limits_of(Policy(max_epsilon_total=cap), STUDY).total_epsilon for cap in (1.0, 3.0)]
    assert caps == [1.0, 3.0]


@pytest.mark.parametrize(
    ("hours", "within", "outside"),
    [
        ({"from": "09:00", "until": "17:00"}, ["23 09:00", "23 16:59"], ["23 08:59", "23 17:00"]),
        ({"from": "18:00", "until": "06:00"}, ["23 18:00", "24 05:59"], ["23 17:59", "24 06:00"]),
        # Friday night ends on Saturday morning; Saturday has no night of its own.
        ({"from": "18:00", "until": "06:00", "days": ("fri",)}, ["27 18:00", "28 05:00"], ["27 05:00", "28 19:00"]),
        # Where the clock is changed in between, the hours are still those on the wall: 01:30 UTC is 02:30 in Berlin.
        ({"from": "02:00", "until": "03:00", "time_zone": "Europe/Berlin"}, ["23 01:30"], ["23 02:30", "23 00:59"]),
    ],
)
def test_hours_are_by_the_hospitals_clock(hours, within, outside):
    allowed = AllowedHours.model_validate({"time_zone": "UTC"} | hours)
    for when, expected in [(one, True) for one in within] + [(one, False) for one in outside]:
        day, clock = when.split()
        moment = datetime.fromisoformat(f"2026-11-{day}T{clock}:00+00:00")
        assert allowed.include(moment) is expected, when


def test_hours_are_of_rounds_and_not_of_preparing():
    policy = Policy(allowed_hours=BY_DECIDE["allowed_hours"][0])
    site = dataclasses.replace(GOOD, round_at=None)
    assert decide(policy, facts_of(STUDY, upload_bytes=1364), site) == Accept()

"""S-23: where hospitals train by turns, the coordinator invites whom it likes, or measures every round over others.

A hospital that is invited more often than its turn would spend more of its patients' budget than its steward read; one
that others are exchanged for would be in sums over sets that were chosen to be compared. Held by: the schedule, which
follows from the study's digest and is computed again by `plan_check._check_schedule` and by step 16 of verify.py;
`layout.measures`, by which no round of training has figures; and the keys of hospitals that endorse a model and are
not in the plan, which count by their certificates alone. Tried: rows s23 of `mutations.py`.
"""

import dataclasses
import hashlib
import json

import pytest

from audit import entries, verify
from consortium.contract.layout import round_layout
from consortium.contract.plan import RoundKind
from privacy.secagg.messages import KeyBundle
from tests.fakes.sample_study_log import (
    DELTA,
    RATE,
    SIGMA,
    STEPS,
    SampleConsortium,
    evidence,
    failed_steps,
    plausible_epsilon,
)
from tests.fakes.sample_study_log import SITES as ROSTER
from tests.fakes.site_world import ME, SITES, endorsement, hospital, keys, new_authority, new_member, small_study

ROUNDS = 8


def by_turns(seed):
    training = {"rounds": ROUNDS, "participants_per_round": 3, "seed": seed}
    return small_study(training=training, evaluation={"every_rounds": ROUNDS})


# In the first round, which would be measured if any were.
STUDY = next(study for study in map(by_turns, range(100)) if ME in study.sites_of_round(1))
OWN = [number for number in range(1, ROUNDS + 1) if ME in STUDY.sites_of_round(number)]
OTHERS = [number for number in range(1, ROUNDS + 1) if number not in OWN]


@pytest.fixture(autouse=True)
def not_measured(monkeypatch):
    """What an audit at admission measures has tests of its own; here it would be most of the time."""
    monkeypatch.setattr("site_agent.admission_audit.audited_at_admission", lambda *_, **__: None)


def plan_of(world, number, sites=None, **changes):
    return world.plan(round=number, sites=sites or STUDY.sites_of_round(number), **changes)


async def test_nobody_is_invited_out_of_turn(tmp_path):
    """Neither this hospital itself nor another in the place of one whose turn it is."""
    assert OWN
    assert OTHERS
    async with hospital(tmp_path, STUDY) as world:
        for number in (OTHERS[0], OWN[0]):
            for sites in (SITES, tuple(site for site in SITES if site != STUDY.sites_of_round(number)[0])):
                if ME in sites and not set(sites) <= set(STUDY.sites_of_round(number)):
                    assert (await world.ask(plan_of(world, number, sites))).rule == "plan: schedule"
        (row,) = world.ledger.report() or [None]
        assert row is None  # nothing was trained for any of them


async def test_no_round_of_training_is_measured(tmp_path):
    assert OWN[0] == 1
    async with hospital(tmp_path, STUDY, share_exact_metrics=True) as world:
        layout = round_layout(STUDY, parameters=world.model.parameters, kind=RoundKind.TRAIN, measured=True)
        assert (await world.ask(plan_of(world, OWN[0], layout=layout))).rule == "plan: layout"


async def caught_up(world, *, endorsers, shown):
    """The answer of a hospital that met nobody yet to a plan of a later round, with these certificates beside it."""
    number = OWN[-1]
    plan = plan_of(world, number)
    before = dataclasses.replace(plan, round=number - 1)
    signed = tuple(endorsement(one, before, world.model.digest()) for one in endorsers)
    return await world.ask(plan, endorsements=signed, endorser_certificates=tuple(one.certificate_der for one in shown))


async def test_an_endorser_that_is_not_in_the_plan_counts_by_its_certificate(tmp_path):
    number = OWN[-1]
    (absent,) = set(SITES) - set(STUDY.sites_of_round(number))
    present = [keys().members[site] for site in STUDY.sites_of_round(number) if site != ME]
    stranger = new_member(keys().authority, "elm")  # of the consortium, but not of the study
    forger = new_member(new_authority(), absent)  # of no authority that counts
    async with hospital(tmp_path, STUDY) as world:
        member = keys().members[absent]
        for endorsers, shown, rule in (
            ([*present, member], [], "plan: model"),
            ([*present, stranger], [stranger], "plan: model"),
            ([*present, forger], [member], "plan: model"),
            ([*present, forger], [forger], "plan: certificate of an endorser"),
        ):
            assert (await caught_up(world, endorsers=endorsers, shown=shown)).rule == rule
        assert isinstance(await caught_up(world, endorsers=[*present, member], shown=[member]), KeyBundle)


# --- the log --------------------------------------------------------------------------------------------------------


def log() -> tuple[SampleConsortium, dict[int, tuple[str, ...]]]:
    """A study of four rounds of three of four hospitals, and whose turn each is."""
    sample = SampleConsortium(rounds=4)
    document = json.loads(sample.document)
    document["sites"] = {"required": sorted(ROSTER), "minimum": 3}
    document["training"]["participants_per_round"] = 3
    sample.document = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(sample.document)
    sample.study_digest = digest.hexdigest()
    sample.opening()
    sample.agreeing()
    roster = tuple(sorted(ROSTER))
    return sample, {number: verify.sites_in_turn(digest.digest(), roster, 3, number) for number in range(1, 5)}


def spent(sample, site):
    """The site trained in round 2 although it was not its turn."""
    sample.steps[site] += STEPS
    event = entries.PoissonSampledGaussian(noise_multiplier=SIGMA, sampling_rate=RATE, steps=STEPS)
    epsilon, total = plausible_epsilon(sample.steps[site]), sample.steps[site]
    about = {"round": 2, "attempt": 1, "dataset": "heart", "event": event, "delta": DELTA}
    sample.site(site, entries.DpSpent, **about, epsilon=epsilon, steps_total=total)


@pytest.mark.parametrize("lie", ["none", "all of them", "another", "figures", "spent"])
def test_a_round_out_of_schedule_does_not_verify(tmp_path, lie):
    sample, turns = log()
    (absent,) = set(ROSTER) - set(turns[2])
    for number, sites in turns.items():
        here = sites
        if number == 2 and lie == "all of them":
            here = ROSTER
        if number == 2 and lie == "another":
            here = tuple(sorted({*turns[2][1:], absent}))
        sample.one_round(number, participants=here, measured=number == 2 and lie == "figures")
        if number == 2 and lie == "spent":
            spent(sample, absent)
    sample.one_round(5, kind="evaluate")
    archive, policy = evidence(tmp_path, sample)
    failed = failed_steps(verify.check(str(archive), policy))
    assert list(failed) == ([] if lie == "none" else ["survivors and threshold"]), failed
    if lie != "none":
        step = failed["survivors and threshold"]
        assert "round 2" in step["where"]
        assert ("no figures" if lie == "figures" else "whose turn") in step["expected"]

"""G-13: somebody moves a hospital's identity to keys of his own: with the agent's home, with a steward's key, or with
the coordinator and its log, and never with all that it takes.

Held by `audit.site_keys.SiteKeys`, which the coordinator asks before it takes a change in and every hospital as it
reads its copy of the log; by the agent's memory, which follows a change only from the keys that it remembers; and in
evidence by `verify.py`, with code of its own. Tried: the rows g13 of `key_mutations.py`.
"""

import dataclasses
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import entries, verify
from audit.cosignature import WitnessSigner
from audit.errors import AuditError, VerificationError
from audit.site_keys import SiteKeys
from audit.stewards import public_hex
from consortium.contract.certificates import certificate_der, new_tls_key, site_request, verify_certificate
from consortium.errors import EventRefused, RenewalRefused
from privacy.secagg.messages import KeyBundle
from site_agent.followed_log import FORGED, FollowedLog, LogBroken, OwnChain
from site_agent.own_key_rows import OwnChange, StewardGone
from site_agent.plan_check import PlanOutdated
from site_agent.signed_events import SignedEvents
from site_agent.signing_key_change import settle_keys
from site_agent.signing_keys import OwnPair, keep_next_keys
from site_agent.steward_rows import KeyChange, StewardRow
from site_agent.store import PeerChanged, Store
from tests.fakes.changing_site import (
    ADA,
    BEA,
    FORGERIES,
    LOG,
    OTHER,
    PERSON,
    SITE,
    THIEF,
    ChangingLog,
    Pair,
    change_fields,
    steward_fields,
)
from tests.fakes.coordinator_home import NAME, coordinator_in
from tests.fakes.growing_log import SIGNER
from tests.fakes.site_world import endorsement, hospital, keys, make_home, small_study

AMBER, BIRCH = "amber-clinic", "birch-clinic"


def followed(log):
    """As the coordinator and every hospital follow a log: the last entry alone, once all before it were read."""
    keys = SiteKeys(LOG)
    for data in log.lines[:-1]:
        keys.take(data)
    return keys, keys.take(log.lines[-1])


def checked(log):
    """As `verify.py` does, over what the steps before it would have read."""
    case = verify.Case(None, None)
    case.study, case.tree = "any", (LOG, len(log.lines), bytes(32))
    records = log.records()
    case.records = [(leaf, record) for leaf, _, record in records]
    case.signed = [one for one in records if one[2]["actor"].startswith("site:")]
    verify.step_signatures(case)
    verify.step_chains(case)
    return case


# --- a change that holds ------------------------------------------------------------------------------------------


def test_what_everybody_signed_is_followed_and_the_chain_goes_on():
    log = ChangingLog()
    first = log.keys[SITE].public
    second = log.change().public
    third = log.change().public
    keys, changed = followed(log)
    assert (changed.site, changed.old, changed.new, changed.steward) == (SITE, second, third, PERSON)
    assert keys.key_of(SITE) == third.signing != first.signing
    log.steward(Ed25519PrivateKey.from_private_bytes(b"whoever comes after the change.."), by=BEA)
    keys, _ = followed(log)
    assert sum("changed its signing keys" in note for note in checked(log).notes) == 2
    chains = entries.replay_chains(log.lines)
    assert chains[SITE] == log.chains[SITE]
    assert chains[SITE].next_seq == 6


# --- forged -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", FORGERIES)
def test_no_hospital_follows_a_forged_change(how):
    log = ChangingLog()
    log.forge(how)
    keys = SiteKeys(LOG)
    for data in log.lines[:-1]:
        keys.take(data)
    before = keys.key_of(SITE)
    with pytest.raises(VerificationError):
        keys.take(log.lines[-1])
    assert keys.key_of(SITE) == before
    read = FollowedLog(OwnChain(site="alder", signed=lambda _: None), SIGNER.verifier)
    for leaf, data in enumerate(log.lines[:-1]):
        read.take(leaf, data)
    read.key_changes.clear()
    with pytest.raises(LogBroken) as caught:
        read.take(len(log.lines) - 1, log.lines[-1])
    assert caught.value.kind == FORGED
    assert read.key_changes == []


@pytest.mark.parametrize("how", FORGERIES)
@pytest.mark.parametrize("fast", [True, False])
def test_nor_does_evidence_with_one_pass(how, fast, monkeypatch):
    monkeypatch.setattr(verify, "FAST_SIGNATURES", fast)
    log = ChangingLog()
    log.forge(how)
    with pytest.raises(verify.Failure):
        checked(log)


def test_a_change_that_is_missing_or_in_another_place_shows():
    log = ChangingLog()
    log.change()
    changed = len(log.lines) - 1
    log.steward(Ed25519PrivateKey.generate(), by=ADA)
    checked(log)
    right = list(log.lines)
    for lines in (
        [*right[:changed], *right[changed + 1 :]],  # left out
        [*right[:changed], right[changed + 1], right[changed]],  # in the place of the next
        [*right, right[changed]],  # once more
        [right[0], right[1], right[changed], *right[2:changed], *right[changed + 1 :]],  # before the steward came
    ):
        log.lines = lines
        with pytest.raises(verify.Failure):
            checked(log)
        with pytest.raises(AuditError):
            entries.replay_chains(lines)


def test_two_chains_never_come_to_one_key():
    log = ChangingLog()
    log.forge("to a key that it had before")
    with pytest.raises(VerificationError, match="a new key after"):
        entries.replay_chains(log.lines)
    log = ChangingLog()
    log.forge("of a key that it does not have")
    with pytest.raises(VerificationError, match="a new key after"):
        entries.replay_chains(log.lines)


# --- what a hospital remembers ------------------------------------------------------------------------------------


def test_only_the_keys_that_are_remembered_are_moved(tmp_path):
    """A coordinator that certified an ECDSA key of its own may show a true change of other keys: it moves nothing."""
    log, store = ChangingLog(), Store(tmp_path / "agent.db")
    old = log.keys[SITE].public
    log.change()
    _, change = followed(log)
    for signing, ecdsa in ((old.signing, Pair().public.ecdsa), (Pair().public.signing, old.ecdsa)):
        store.pin_peer(SITE, "0" * 64, signing, ecdsa)
        assert not store.follow_peer(change)
        assert store.peers() == ((SITE, "0" * 64, signing, ecdsa),)
        store.forget_peer(SITE)
    store.pin_peer(SITE, "0" * 64, old.signing, old.ecdsa)
    assert store.follow_peer(change)
    assert not store.follow_peer(change)  # said once
    assert store.peers() == ((SITE, "0" * 64, change.new.signing, change.new.ecdsa),)
    with pytest.raises(PeerChanged):
        store.pin_peer(SITE, "0" * 64, old.signing, old.ecdsa)  # there is no way back
    assert [one.change for one in store.followed_changes()] == [change]


def test_a_hospital_that_missed_two_changes_follows_both_and_one_that_missed_the_first_none(tmp_path):
    log, store = ChangingLog(), Store(tmp_path / "agent.db")
    old = log.keys[SITE].public
    log.change()
    second = log.change().public
    read = FollowedLog(OwnChain(site="alder", signed=lambda _: None), SIGNER.verifier)
    for leaf, data in enumerate(log.lines):
        read.take(leaf, data)
    store.pin_peer(SITE, "0" * 64, old.signing, old.ecdsa)
    assert not store.follow_peer(read.key_changes[1])
    assert all(store.follow_peer(change) for change in read.key_changes)
    assert store.peers()[0][2:] == (second.signing, second.ecdsa)


async def test_an_endorsement_by_a_former_key_counts_if_the_log_had_it_before(tmp_path):
    """Whoever finds an old key on a backup endorses nothing with it."""
    former = Pair()
    async with hospital(tmp_path) as world:
        outcome = await world.attempt(result=False)
        world.go_on(outcome)
        world.work.session_ended()
        await world.stop()
        await world.start()
        await world.prepare()
        members = keys().members
        good = [endorsement(members[name], outcome.plan, world.model.digest()) for name in ("alder", "cedar")]
        before = dataclasses.replace(members["dogwood"], signing_key=former.signing)
        real, forged = (endorsement(before, outcome.plan, world.model.digest(), site_seq=n) for n in (1, 2))
        world.line.endorsed = {hashlib.sha256(real).hexdigest(): former.public.signing}
        assert (await world.ask(world.plan(), endorsements=(*good, forged))).rule == "plan: model"
        assert isinstance(await world.ask(world.plan(attempt=2), endorsements=(*good, real)), KeyBundle)


def test_which_endorsements_those_are():
    log = ChangingLog()
    about = {"study": "small-study", "attempt": 1, "next_model_digest": "0" * 64}
    former = log.keys[SITE].public.signing
    for number in (1, 2):
        log.site(entries.ModelVerified, round=number, **about)
    log.site(entries.ModelVerified, OTHER, round=2, **about)
    last = log.lines[-2]
    log.change()
    log.site(entries.ModelVerified, round=3, **about)
    read = FollowedLog(OwnChain(site="alder", signed=lambda _: None), SIGNER.verifier)
    for leaf, data in enumerate(log.lines):
        read.take(leaf, data)
    assert read.endorsed_before == {hashlib.sha256(last).hexdigest(): former}


async def test_a_plan_from_before_its_own_change_is_not_answered(tmp_path):
    """A refusal would stand in the log as this hospital's word, and pause the study."""
    async with hospital(tmp_path) as world:
        own = Pair()
        world.store.add_events([], own_keys=OwnChange(keys=own.public, steward_key=world.store.stewards()[0].key))
        keep_next_keys(world.home.folder, OwnPair(signing=own.signing, ecdsa=own.ecdsa))
        settle_keys(world.home, world.store)
        assert world.home.signing_keys == own.public
        plan = world.plan()
        with pytest.raises(PlanOutdated):
            world.work._check(plan, world.invitation(plan), world.work._prepared)


# --- at the coordinator -------------------------------------------------------------------------------------------


def enrolled_with_steward(world, name=AMBER):
    hospital = world.enrol(name)
    log = world.coordinator.home.config.log_origin
    fields = steward_fields(ADA, ADA, log, name)
    world.sites.submit_events(hospital.site, [hospital.signs(entries.StewardEnrolled, **fields)])
    return hospital, log


def pair_of(hospital):
    return Pair(signing=hospital.signing_key, ecdsa=hospital.ecdsa_key)


def test_the_coordinator_takes_in_only_what_holds(tmp_path):
    with coordinator_in(tmp_path) as world:
        amber, log = enrolled_with_steward(world)
        birch, _ = enrolled_with_steward(world, BIRCH)
        old, new = pair_of(amber), Pair()
        about = {"log": log, "site": AMBER}
        forged = {
            "by nobody's steward": change_fields(old, new, THIEF, **about),
            "in another log": change_fields(old, new, **{**about, "log": LOG}),
            "of another ECDSA key": change_fields(Pair(signing=old.signing), new, **about),
            "to a key in use": change_fields(old, pair_of(birch), **about),
            "to an ECDSA key in use": change_fields(old, Pair(ecdsa=birch.ecdsa_key), **about),
        }
        before = world.sites.get(AMBER)
        for how, fields in forged.items():
            entry = amber.signed_as(entries.SiteKeysRotated, amber.sequence + 1, amber.previous, **fields)
            with pytest.raises(EventRefused):
                world.sites.submit_events(amber.site, [entry])
            assert world.sites.get(AMBER) == before, how
        assert "site.keys_rotated" not in world.types()


def test_from_the_change_on_the_old_keys_are_good_for_nothing(tmp_path):
    with coordinator_in(tmp_path) as world:
        amber, log = enrolled_with_steward(world)
        old, new, row = pair_of(amber), Pair(), world.sites.get(AMBER)
        change = amber.signs(entries.SiteKeysRotated, **change_fields(old, new, log=log, site=AMBER))
        assert world.sites.submit_events(amber.site, [change]).last_sequence == 2
        assert world.sites.submit_events(amber.site, [change]).last_sequence == 2  # the answer was lost
        # Until its certificate names the new keys, no other hospital would accept it, and it is not invited.
        assert not world.sites.is_current(world.sites.get(AMBER))
        assert world.sites.is_current(row)
        vkey = WitnessSigner(f"{log}/witness/{AMBER}", amber.witness_key).key.vkey()
        by_old_key = amber.signed_as(entries.WitnessEnrolled, 3, amber.previous, vkey=vkey)
        with pytest.raises(EventRefused, match="key"):
            world.sites.submit_events(amber.site, [by_old_key])
        with pytest.raises(RenewalRefused, match="other signing keys"):
            world.sites.renew(amber.identity, request_of(amber, old))
        world.sites.authenticate(renewed(world, amber, new))
        assert world.sites.is_current(world.sites.get(AMBER))
        # Nobody comes back to them, nor does anybody else.
        amber.signing_key, amber.ecdsa_key = new.signing, new.ecdsa
        for pair in (old, Pair(signing=old.signing), Pair(ecdsa=old.ecdsa)):
            fields = change_fields(new, pair, log=log, site=AMBER)
            entry = amber.signed_as(entries.SiteKeysRotated, amber.sequence + 1, amber.previous, **fields)
            with pytest.raises(EventRefused):
                world.sites.submit_events(amber.site, [entry])


def request_of(hospital, pair):
    return site_request(
        tls_key=new_tls_key(), signing_key=pair.signing, ecdsa_key=pair.ecdsa, site=hospital.site, consortium=NAME
    )


def renewed(world, hospital, pair):
    pem = world.sites.renew(hospital.identity, request_of(hospital, pair)).certificate_pem
    return verify_certificate(certificate_der(pem), world.coordinator.home.ca_certificate, world.sites.clock())


# --- at the hospital itself ---------------------------------------------------------------------------------------


def test_a_steward_who_was_removed_a_moment_ago_moves_nothing(tmp_path):
    """The look before the entry is signed may have been too early: it is in the transaction, too."""
    home = make_home(tmp_path, small_study())
    store, new = Store(tmp_path / "agent.db"), Pair()
    row = StewardRow(key=public_hex(ADA), steward=PERSON, at="2026-01-01T00:00:00.000Z", standing=False)
    store.add_events([], key_change=KeyChange(row=row))
    old = Pair(signing=home.signing_key, ecdsa=home.ecdsa_private_key)
    fields = change_fields(old, new, log=home.log_origin, site=home.site)
    with pytest.raises(StewardGone):
        SignedEvents(home, store).add(
            entries.SiteKeysRotated, own_keys=OwnChange(keys=new.public, steward_key=public_hex(ADA)), **fields
        )
    assert store.own_keys() is None
    assert store.signed_entries() == ()

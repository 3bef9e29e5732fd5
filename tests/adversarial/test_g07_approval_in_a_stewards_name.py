"""G-07: somebody who has the agent's home, its keys included, approves a study in a steward's name.

The steward's private key is not in the home. Held at the hospital by `steward_approval.objection_to_approval`, asked
before a study is prepared and before anything leaves for it; at the coordinator by `steward_keys.SiteStewards`, asked
before a decision goes into the log; in evidence by step "approvals before the first round" of `verify.py`. The latter
two follow the stewards' keys through the hospital's entries. Tried: rows g07 of `mutations.py`, such as every
signature's key counted, `_holds` not asked, the count of `approvals_needed` left out, and each `raise Failure` of
`Stewards` in `verify.py`.
"""

import dataclasses
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from audit import entries, verify
from audit.stewards import About, key_statement, public_hex, sign, signed_decision
from consortium.database import deployed, steward_keys, steward_signatures
from consortium.errors import DecisionUnsigned, EventRefused
from consortium.status import snapshot
from consortium.wire.errors import CallRefused, RefusalCode
from site_agent.preparation import Declined, approved_study
from site_agent.steward_approval import NOT_SIGNED, objection_to_approval
from site_agent.steward_rows import KeyChange
from tests.fakes import stewards
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.sample_study_log import ORIGIN, STUDY, SampleConsortium, key
from tests.fakes.scripted_site import serving
from tests.fakes.site_world import make_world, small_study, write_site_file
from tests.fakes.small_study import SITES as SMALL_SITES
from tests.fakes.small_study import small_study as consortium_study

AT = "2026-11-23T09:00:00.000Z"
THIEF = Ed25519PrivateKey.from_private_bytes(b"whoever has a copy of the home..")
OTHER = small_study(governance={"purpose": "Something else."})
PERSON = "u:" + "a" * 32
ADA, BEA = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
SMALL = consortium_study()


# --- at the hospital --------------------------------------------------------------------------------------------------


def refusal_of(world):
    with pytest.raises(Declined) as caught:
        approved_study(world.home, world.store, world.digest)
    return caught.value.refusal


def approved_with(world, *signatures, **changes):
    """An approval written straight into agent.db, as whoever has the home can."""
    world.decide()
    made = world.store.decision(world.digest)
    world.store.add_events([], decision=dataclasses.replace(made, signatures=signatures, **changes))
    return made.signatures[0]


def test_what_counts_is_a_stewards_signature_over_exactly_this(tmp_path):
    world = make_world(tmp_path)
    assert approved_study(world.home, world.store, world.digest) == world.study
    (good,) = world.store.decision(world.digest).signatures
    about = stewards.about_study(world.home, world.study.id, world.digest)
    said = {"decision": "approved", "steward": good.steward, "words": good.words, "at": good.at}

    def by(signer, subject=about, **changes):
        return signed_decision(signer, subject, **said | changes)

    forged = {
        "no signature": (),
        "by the agent's own key": (by(world.home.signing_key),),
        "by a stranger": (by(THIEF),),
        "a stranger's under the steward's key": (dataclasses.replace(by(THIEF), key=good.key),),
        "of another study": (by(stewards.KEY, stewards.about_study(world.home, OTHER.id, OTHER.digest())),),
        "at another hospital": (by(stewards.KEY, dataclasses.replace(about, site="elsewhere")),),
        "in another log": (by(stewards.KEY, dataclasses.replace(about, log="log.example.com")),),
        "with other words": (dataclasses.replace(good, words="whatever is asked"),),
        "of a rejection": (by(stewards.KEY, decision="rejected"),),
        "a rejection called one": (dataclasses.replace(by(stewards.KEY, decision="rejected"), decision="approved"),),
    }  # fmt: skip
    for how, signatures in forged.items():
        approved_with(world, *signatures)
        assert refusal_of(world).rule == "require_approval", how
    # agent.db drops it; whoever writes past the store is refused by the rule itself.
    no = by(stewards.KEY, decision="rejected")
    assert objection_to_approval(about, "approved", (no,), {good.key}, world.home.config.policy) == NOT_SIGNED
    approved_with(world, good, document=OTHER.document())  # the bytes beside a true signature are exchanged
    assert refusal_of(world).rule == "require_approval"
    approved_with(world, good)
    assert approved_study(world.home, world.store, world.digest) == world.study


def test_a_key_that_was_removed_or_may_not_approve_counts_no_more(tmp_path):
    world = make_world(tmp_path)
    row = world.store.stewards()[0]
    write_site_file(tmp_path, world.study, may_approve=(public_hex(THIEF),))
    assert refusal_of(world).rule == "may_approve"
    write_site_file(tmp_path, world.study, may_approve=(row.key, public_hex(THIEF)), approvals_needed=2)
    assert refusal_of(world).rule == "approvals_needed"
    (good,) = world.store.decision(world.digest).signatures
    again = stewards.signed(world.home, world.store, world.study)[0]  # one steward's word, twice
    approved_with(world, good, again)
    assert refusal_of(world).rule == "approvals_needed"
    write_site_file(tmp_path, world.study)
    assert approved_study(world.home, world.store, world.digest) == world.study
    world.store.add_events([], key_change=KeyChange(row=dataclasses.replace(row, standing=False)))
    assert refusal_of(world).rule == "require_approval"


# --- at the coordinator -----------------------------------------------------------------------------------------------


class Desk:
    """A hospital that hands signed entries over to a coordinator, as its agent or whoever has its home does."""

    def __init__(self, world):
        self.world = world
        world.submit(SMALL)
        self.own = world.enrol(SMALL_SITES[0])
        self.log = world.coordinator.home.config.log_origin
        self.about = About(log=self.log, site=self.own.site, study=SMALL.id, study_digest=SMALL.digest())

    def hands_over(self, kind, **fields):
        before = (self.own.sequence, self.own.previous)
        data = self.own.signs(kind, **fields)
        try:
            self.world.sites.submit_events(self.own.site, [data])
        except EventRefused:
            self.own.sequence, self.own.previous = before  # it is in no log, so the chain does not go on from it
            raise

    def changes_key(self, kind, change, key, by, signed_for=None):
        said = {"steward": PERSON, "key": public_hex(key), "at": AT}
        statement = {**said, "key": public_hex(signed_for or key)}
        sig = sign(by, key_statement(log=self.log, site=self.own.site, change=change, **statement))
        self.hands_over(kind, **said, signed_by=public_hex(by), sig=sig)

    def enrols(self, key, by=None, signed_for=None):
        self.changes_key(entries.StewardEnrolled, "enrolled", key, by or key, signed_for)

    def removes(self, key, by):
        self.changes_key(entries.StewardRemoved, "removed", key, by)

    def signs(self, key, decision="approved", about=None, at=AT):
        words = {"decision": decision, "steward": PERSON, "words": "I have read it."}
        return signed_decision(key, about or self.about, at=at, **words)

    def approves(self, *signed):
        self.decides(entries.StudyApproved, signed, statement="I have read it.")

    def rejects(self, *signed):
        self.decides(entries.StudyRejected, signed, reason="I have read it.")

    def decides(self, kind, signed, **words):
        about = {"study": SMALL.id, "study_digest": SMALL.digest(), "steward": PERSON}
        self.hands_over(kind, **about, signed=signed or None, **words)

    def refused(self, *signed):
        """What is said about an approval with these signatures, which must change nothing but what is shown."""
        row, size = self.world.sites.get(self.own.site), self.world.rooms.recorder.log.size
        with capture_logs() as logs, pytest.raises(DecisionUnsigned) as caught:
            self.approves(*signed)
        assert (caught.value.code, self.world.sites.get(self.own.site)) == ("invalid", row)
        assert self.world.rooms.recorder.log.size == size
        (said,) = [line for line in logs if line["event"] == "decision.unsigned"]
        assert (said["site"], said["reason"]) == (self.own.site, str(caught.value))
        return caught.value.why

    @property
    def counts(self):
        return self.own.site in self.world.studies.approving(SMALL.digest())

    @property
    def shown(self):
        """What the study's owner sees of this hospital in `consortium status`."""
        (study,) = snapshot(self.world.rooms, {})["studies"]
        return next(one["state"] for one in study["sites"] if one["site"] == self.own.site)


@pytest.fixture
def desk(tmp_path):
    with coordinator_in(tmp_path) as world:
        yield Desk(world)


def test_the_coordinator_takes_what_a_steward_signed(desk):
    desk.enrols(ADA)
    desk.enrols(BEA, by=ADA)
    desk.removes(ADA, by=BEA)
    desk.approves(desk.signs(BEA))
    assert desk.counts
    desk.rejects()  # saying no takes no key
    assert not desk.counts
    desk.approves(desk.signs(BEA, at="2026-11-23T10:00:00.000Z"))
    assert desk.counts


def test_the_coordinator_takes_no_approval_by_the_agents_key_alone(desk):
    desk.enrols(ADA)
    assert "the signature of one of the hospital's stewards" in desk.refused()
    assert not desk.counts
    assert desk.shown == "unsigned: expected the signature of one of the hospital's stewards, found none"
    desk.approves(desk.signs(ADA))
    assert desk.counts
    assert "unsigned" not in desk.shown
    desk.refused()  # what stands, a steward signed
    assert desk.counts


@pytest.mark.parametrize("forged", ["agent", "stranger", "removed", "another study", "elsewhere", "under her name"])
def test_the_coordinator_takes_no_approval_with_a_signature_that_is_none(desk, forged):
    desk.enrols(ADA)
    if forged == "removed":
        desk.enrols(BEA, by=ADA)
        desk.removes(ADA, by=BEA)
    found = {
        "agent": lambda: desk.signs(desk.own.signing_key),
        "stranger": lambda: desk.signs(THIEF),
        "removed": lambda: desk.signs(ADA),
        "another study": lambda: desk.signs(ADA, about=dataclasses.replace(desk.about, study_digest="0" * 64)),
        "elsewhere": lambda: desk.signs(ADA, about=dataclasses.replace(desk.about, site="elsewhere")),
        "under her name": lambda: dataclasses.replace(desk.signs(THIEF), key=public_hex(ADA)),
    }[forged]()
    why = desk.refused(found)
    assert "key of a steward" in why or "a signature by the steward's key" in why
    assert not desk.counts


def test_the_coordinator_takes_a_signature_once(desk):
    desk.enrols(ADA)
    desk.approves(desk.signs(ADA))
    desk.rejects()
    assert "a new signature" in desk.refused(desk.signs(ADA))
    assert not desk.counts


def test_a_no_that_is_not_what_it_says_ends_an_approval_all_the_same(desk):
    desk.enrols(ADA)
    desk.approves(desk.signs(ADA))
    with pytest.raises(DecisionUnsigned):
        desk.rejects(desk.signs(THIEF, "rejected"))
    assert not desk.counts
    assert desk.shown.startswith("unsigned: ")


@pytest.mark.parametrize("how", ["by the agent", "for another key", "again", "removed by a stranger"])
def test_the_coordinator_takes_no_key_that_no_steward_signed_for(desk, how):
    desk.enrols(ADA)
    desk.enrols(BEA, by=ADA)
    desk.removes(BEA, by=ADA)
    with pytest.raises(EventRefused, match="steward"):
        {
            "by the agent": lambda: desk.enrols(THIEF, by=desk.own.signing_key),
            "for another key": lambda: desk.enrols(THIEF, by=ADA, signed_for=key("hungary")),
            "again": lambda: desk.enrols(BEA, by=ADA),
            "removed by a stranger": lambda: desk.removes(ADA, by=THIEF),
        }[how]()
    desk.approves(desk.signs(ADA))
    assert desk.counts


def test_what_a_log_from_before_says_of_keys_is_read_when_it_is_opened(tmp_path):
    with coordinator_in(tmp_path) as world:
        desk = Desk(world)
        desk.enrols(ADA)
        desk.enrols(BEA, by=ADA)
        desk.removes(BEA, by=ADA)
        desk.approves(desk.signs(ADA))
        desk.rejects()
        own = desk.own
        assert world.rooms.recorder.log.size  # all of it is in the log
        with world.rooms.database.transaction() as connection:  # as a program of before left it
            for table in (steward_keys, steward_signatures, deployed):
                connection.execute(table.delete())
    with coordinator_in(tmp_path) as world:
        desk.world, desk.own = world, own
        assert "a new signature" in desk.refused(desk.signs(ADA))
        assert "key of a steward" in desk.refused(desk.signs(BEA))
        assert "the signature of one" in desk.refused()
        desk.approves(desk.signs(ADA, at="2026-11-23T10:00:00.000Z"))
        assert desk.counts


async def test_that_it_came_is_in_the_log_under_a_rule_of_its_own(tmp_path):
    async with serving(tmp_path) as world:
        desk = Desk(world.home)
        desk.enrols(ADA)
        data = desk.own.signs(
            entries.StudyApproved,
            study=SMALL.id,
            study_digest=SMALL.digest(),
            steward=PERSON,
            statement="I have read it.",
        )
        async with world.connect(desk.own) as client:
            with pytest.raises(CallRefused, match="is not its stewards'") as caught:
                await client.submit_events((data,))
        assert caught.value.code is RefusalCode.INVALID  # for good: the agent does not try again
        await world.until(lambda: "authz.denied" in world.home.types())
        (denied,) = world.home.bodies("authz.denied")
        assert denied["subject"] == f"site:{desk.own.site}"
        assert denied["rule"] == "a decision about a study that no steward of the site signed"
        assert "study.approved" not in world.home.types()


# --- in evidence ------------------------------------------------------------------------------------------------------


class Log:
    """A study of four hospitals, of which hungary has stewards with keys of their own."""

    def __init__(self):
        self.sample = SampleConsortium(rounds=1)
        self.sample.opening()
        self.about = About(log=ORIGIN, site="hungary", study=STUDY, study_digest=self.sample.study_digest)

    def enrols(self, own, by=None, **changes):
        self._key(entries.StewardEnrolled, "enrolled", own, by or own, changes)

    def removes(self, own, by, **changes):
        self._key(entries.StewardRemoved, "removed", own, by, changes)

    def _key(self, kind, change, own, by, changes):
        said = {"steward": PERSON, "key": public_hex(own), "at": AT}
        sig = sign(by, key_statement(log=ORIGIN, site="hungary", change=change, **said))
        self.sample.site("hungary", kind, **{**said, "signed_by": public_hex(by), "sig": sig, **changes})

    def signs(self, own, decision="approved", at=AT, about=None):
        words = {"decision": decision, "steward": PERSON, "words": "I have read it."}
        return signed_decision(own, about or self.about, at=at, **words)

    def agrees(self, *signed):
        self.sample.agreeing(without=["hungary"])
        self.approves(*signed)

    def approves(self, *signed):
        about = {"study_digest": self.sample.study_digest, "steward": PERSON, "statement": "I have read it."}
        self.sample.site("hungary", entries.StudyApproved, signed=signed or None, **about)

    def rejects(self, *signed):
        about = {"study_digest": self.sample.study_digest, "steward": PERSON, "reason": "I have read it."}
        self.sample.site("hungary", entries.StudyRejected, signed=signed or None, **about)

    def followed(self):
        """The one step, over the entries that the steps before it would have read."""
        self.sample.one_round(1)
        case = verify.Case(None, None)
        case.study, case.tree = STUDY, (ORIGIN, len(self.sample.lines), bytes(32))
        case.records = [(leaf, json.loads(line)) for leaf, line in enumerate(self.sample.lines)]
        return verify.step_approvals(case), case.notes

    def found(self):
        with pytest.raises(verify.Failure) as caught:
            self.followed()
        return caught.value.expected


def test_an_approval_that_a_steward_signed_passes():
    log = Log()
    log.enrols(ADA)
    log.enrols(BEA, by=ADA)
    log.removes(ADA, by=BEA)
    log.agrees(log.signs(BEA))
    log.rejects(log.signs(BEA, "withdrawn"))
    log.approves(log.signs(BEA, at="2026-11-23T10:00:00.000Z"))
    said, notes = log.followed()
    assert "2 signed by stewards with keys of their own" in said
    assert notes == []


def test_with_the_agents_key_alone():
    log = Log()
    log.enrols(ADA)
    log.agrees()
    assert log.found() == "the signature of one of the hospital's stewards"


@pytest.mark.parametrize("forged", ["agent", "stranger", "removed", "another study", "under her name"])
def test_with_a_signature_that_is_none(forged):
    log = Log()
    log.enrols(ADA)
    if forged == "removed":
        log.enrols(BEA, by=ADA)
        log.removes(ADA, by=BEA)
    about = dataclasses.replace(log.about, study_digest="0" * 64)
    signed = {
        "agent": lambda: log.signs(key("hungary")),
        "stranger": lambda: log.signs(THIEF),
        "removed": lambda: log.signs(ADA),
        "another study": lambda: log.signs(ADA, about=about),
        "under her name": lambda: dataclasses.replace(log.signs(THIEF), key=public_hex(ADA)),
    }[forged]()
    log.agrees(signed)
    found = log.found()
    assert "key of a steward" in found or "a valid signature of the steward's key" in found


def test_with_the_signature_of_an_approval_that_was_taken_back():
    log = Log()
    log.enrols(ADA)
    log.agrees(log.signs(ADA))
    log.rejects()
    log.approves(log.signs(ADA))  # the same bytes once more
    assert log.found() == "a new signature"


def test_with_a_key_that_no_steward_signed_for():
    log = Log()
    log.enrols(ADA)
    log.enrols(THIEF, by=key("hungary"))
    log.agrees(log.signs(THIEF))
    assert log.found() == "a signature of a steward of before"


def test_with_a_stewards_signature_for_another_key():
    log = Log()
    log.enrols(ADA)
    about_bea = {"change": "enrolled", "steward": PERSON, "key": public_hex(BEA), "at": AT}
    log.enrols(THIEF, by=ADA, sig=sign(ADA, key_statement(log=ORIGIN, site="hungary", **about_bea)))
    log.agrees(log.signs(THIEF))
    assert "a valid signature of the steward's key" in log.found()


def test_with_a_removed_key_enrolled_again():
    log = Log()
    log.enrols(ADA)
    log.enrols(BEA, by=ADA)
    log.removes(BEA, by=ADA)
    log.enrols(BEA, by=ADA)  # by the old statement
    log.agrees(log.signs(BEA))
    assert log.found() == "a key that was never a steward's of this hospital"


def test_who_removes_a_steward_is_one():
    log = Log()
    log.enrols(ADA)
    log.removes(ADA, by=THIEF)
    log.agrees()
    assert log.found() == "the key of a steward, signed by a steward"


def test_keys_that_begin_anew_are_seen_by_everybody():
    log = Log()
    log.enrols(ADA)
    log.enrols(THIEF)
    log.agrees(log.signs(THIEF))
    _, notes = log.followed()
    assert any("hungary began its stewards' keys anew" in note for note in notes)

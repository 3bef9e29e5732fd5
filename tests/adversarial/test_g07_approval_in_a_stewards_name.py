"""G-07: somebody who has the agent's home, its keys included, approves a study in a steward's name.

The steward's private key is not in the home. Held at the hospital by `steward_approval.objection_to_approval`, asked
before a study is prepared and before anything leaves for it; in evidence by step "approvals before the first round" of
`verify.py`, which follows the stewards' keys through the log. Tried: rows g07 of `mutations.py`, such as every
signature's key counted, `_holds` not asked, the count of `approvals_needed` left out, and each `raise Failure` of
`Stewards` in `verify.py`.
"""

import dataclasses
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import entries, verify
from audit.stewards import About, key_statement, public_hex, sign, signed_decision
from site_agent.preparation import Declined, approved_study
from site_agent.steward_approval import NOT_SIGNED, objection_to_approval
from site_agent.steward_rows import KeyChange
from tests.fakes import stewards
from tests.fakes.sample_study_log import ORIGIN, STUDY, SampleConsortium, key
from tests.fakes.site_world import make_world, small_study, write_site_file

AT = "2026-11-23T09:00:00.000Z"
THIEF = Ed25519PrivateKey.from_private_bytes(b"whoever has a copy of the home..")
OTHER = small_study(governance={"purpose": "Something else."})


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


# --- in evidence ------------------------------------------------------------------------------------------------------

PERSON = "u:" + "a" * 32
ADA, BEA = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))


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

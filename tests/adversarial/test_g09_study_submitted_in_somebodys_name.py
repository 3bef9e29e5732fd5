"""G-09: a study is submitted in somebody's name.

By another account, with a statement that was stolen or signed elsewhere; or by the coordinator itself, which has every
name but not the owner's key. Held at the coordinator by `commands._signed`, at the hospital by `site_agent/owner.py`
before a steward is shown the study or signs, and in evidence by step "study document" of `verify.py`.

Tried by deleting, one at a time: `verify(submission, ...)`, `require_fresh` and the comparison with the account's key
in `commands._signed`; `verify(...)`, the comparison with the copy of the log and `require_allowed`'s `raise` at the
hospital; the signature and the account's key in `verify.py`. For each of them one test here fails
(g09 of `mutations.py`).
"""

import asyncio
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import entries, verify
from audit.errors import EntryRefused
from consortium.contract.messages import StudyDocument
from consortium.contract.submission import Destination, Submission, SubmissionRefused, sign
from consortium.errors import StudyConflict
from site_agent import calls, deciding, owner
from site_agent.log_copy import CopyMissing
from site_agent.owner import OwnerNotAllowed, owner_of, require_allowed, words
from site_agent.site_file import Policy
from tests.fakes.coordinator_home import coordinator_in
from tests.fakes.people import enrolled
from tests.fakes.sample_study_log import OWNER as PERSON
from tests.fakes.sample_study_log import SampleConsortium, digest, evidence, failed_steps
from tests.fakes.site_world import make_world, small_study
from tests.fakes.small_study import small_study as study_of

NOW = datetime.now(UTC)
OWNER = Ed25519PrivateKey.from_private_bytes(b"the key of whom it is the study.")
THIEF = Ed25519PrivateKey.from_private_bytes(b"the key of whom it is not study.")
STUDY = study_of()


# --- at the coordinator -----------------------------------------------------------------------------------------------


async def test_a_statement_that_is_not_about_this_study_here(tmp_path):
    with coordinator_in(tmp_path) as world:
        ada = enrolled(world, "ada-example", "scientist")
        other = study_of(name="another-study")
        forged = (
            ada.signs(other),
            ada.signs(STUDY, consortium="another-consortium"),
            ada.signs(STUDY, coordinator_signing_key="0" * 64),
            ada.signs(STUDY) | {"signed_at": "2026-01-01T00:00:00.000Z"},
            ada.signs(STUDY) | {"signature": "A" * 86 + "=="},
        )
        for signed in forged:
            with pytest.raises(SubmissionRefused, match="over this study"):
                await ada.runs("study.submit", document=STUDY.document().decode(), **signed)
        assert world.bodies("study.created") == []
        assert {one["rule"] for one in world.bodies("authz.denied")} == {
            "a submission that its owner did not sign for this study here"
        }


async def test_a_statement_of_somebody_else(tmp_path):
    """Ada's own, whole and genuine, handed in by another scientist."""
    with coordinator_in(tmp_path) as world:
        ada, eve = enrolled(world, "ada-example", "scientist"), enrolled(world, "eve-example", "scientist")
        with pytest.raises(SubmissionRefused, match="by another key"):
            await eve.runs("study.submit", document=STUDY.document().decode(), **ada.signs(STUDY))
        await ada.submits(STUDY)
        (created,) = world.bodies("study.created")
        assert created["owner"] == ada.subject
        with pytest.raises(StudyConflict, match="by somebody else"):
            await eve.submits(STUDY)
        assert (await eve.runs("study.list"))["studies"] == []


async def test_a_statement_of_another_time(tmp_path):
    with coordinator_in(tmp_path) as world:
        ada = enrolled(world, "ada-example", "scientist")
        home = world.coordinator.home
        here = Destination(consortium=home.config.name, coordinator_signing_key=home.signing_key_hex)
        old = asdict(sign(STUDY.digest(), here, ada.signing_key, now=NOW - timedelta(days=2)))
        with pytest.raises(SubmissionRefused, match="less than a day ago"):
            await ada.runs("study.submit", document=STUDY.document().decode(), **old)


def test_half_a_statement_is_no_entry():
    about = {"study": "small-study", "study_digest": "0" * 64, "document_sha256": "0" * 64, "title": "t", "sites": ()}
    about |= {"rounds": 1, "threshold": 1, "minimum": 1, "epsilon": 1.0, "delta": 0.1, "unit": "patient"}
    with pytest.raises(EntryRefused, match="all of it, or none"):
        entries.StudyCreated(**entries.stamp(0, bytes(10)), mechanism="none", owner="u:" + "0" * 32, **about)


# --- at the hospital --------------------------------------------------------------------------------------------------


class Copy:
    """This hospital's copy of the log, with one entry about the study."""

    def __init__(self, study, submission):
        self.body = {"study_digest": study.digest()}
        if submission is not None:
            parts = {"owner_key": submission.owner_key, "signed_at": submission.signed_at}
            self.body |= parts | {"owner_signature": submission.signature}

    def known(self):
        yield None
        yield json.dumps({"body": self.body, "type": "study.created"}, separators=(",", ":")).encode()


def no_copy(_home):
    raise CopyMissing("none yet")


def offered(world, submission):
    study = world.study
    return StudyDocument(
        study=study.study_id, study_digest=study.digest(), document=study.document(), state="submitted",
        submission=submission,
    )  # fmt: skip


def signed(world, own=OWNER, **changed):
    identity = world.home.identity
    here = {"consortium": identity.consortium, "coordinator_signing_key": identity.coordinator_signing_key}
    return sign(world.study.digest(), Destination(**(here | changed)), own, now=NOW)


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(owner, "open_copy", no_copy)
    return make_world(tmp_path, small_study(), approved=False)


def test_a_hospital_checks_the_signature_itself(world):
    good = signed(world)
    assert owner_of(world.home, offered(world, good)).fingerprint == good.fingerprint
    forged = (
        replace(good, owner_key=signed(world, THIEF).owner_key),
        signed(world, consortium="another-consortium"),
        signed(world, coordinator_signing_key="0" * 64),
        Submission(owner_key="zz", signed_at=good.signed_at, signature=good.signature),
    )
    for one in forged:
        with pytest.raises(SubmissionRefused):
            owner_of(world.home, offered(world, one))


def test_a_hospital_is_shown_what_the_log_has(world, monkeypatch):
    """The coordinator tells this hospital of another owner than everybody: or of none."""
    good = signed(world)
    monkeypatch.setattr(owner, "open_copy", lambda _home: Copy(world.study, good))
    assert owner_of(world.home, offered(world, good)).in_log
    for one in (signed(world, THIEF), None):
        with pytest.raises(SubmissionRefused, match="the log"):
            owner_of(world.home, offered(world, one))
    monkeypatch.setattr(owner, "open_copy", lambda _home: Copy(world.study, None))
    with pytest.raises(SubmissionRefused, match="the log"):
        owner_of(world.home, offered(world, good))
    assert owner_of(world.home, offered(world, None)) is None


def test_a_hospital_that_names_owners_approves_nobody_elses(world, monkeypatch):
    good, thief = signed(world), signed(world, THIEF)
    pinned = Policy(allowed_owners=(good.fingerprint,))
    require_allowed(pinned, owner_of(world.home, offered(world, good)))
    for one in (thief, None):
        with pytest.raises(OwnerNotAllowed):
            require_allowed(pinned, owner_of(world.home, offered(world, one)))
        require_allowed(Policy(), owner_of(world.home, offered(world, one)))
        assert "cannot be approved here" in words(owner_of(world.home, offered(world, one)), pinned)
    assert "allows this owner" in words(owner_of(world.home, offered(world, good)), pinned)

    async def find(*_):
        return offered(world, replace(good, owner_key=thief.owner_key))

    monkeypatch.setattr(deciding, "find", find)
    with pytest.raises(SubmissionRefused):  # the steward's command asks before anything is signed
        asyncio.run(deciding._about(world.home, world.store, world.study.id, "approved"))
    assert asyncio.run(deciding._about(world.home, world.store, world.study.id, "rejected"))
    assert calls.read(offered(world, good)) == world.study


# --- in evidence ------------------------------------------------------------------------------------------------------


def checked(tmp_path, *, own=OWNER, account=None, changed=(), **said):
    """Evidence of a study that `own` signed, by a person who has an account with the key `account`."""
    sample = SampleConsortium(rounds=1)
    sample.opening()
    if account is not None:
        hexed = account.public_key().public_bytes_raw().hex()
        about = {"person": PERSON, "role": "scientist", "certificate_sha256": digest("certificate")}
        sample.coordinator(entries.AccountEnrolled, signing_key=hexed, **about)
    sample.agreeing(owner=sample.owned(own, **said) | dict(changed))
    sample.one_round(1)
    archive, policy = evidence(tmp_path, sample)
    return verify.check(str(archive), policy)


def detail(result):
    (step,) = [step for step in result["steps"] if "signed by its owner" in step.get("detail", "")]
    return step["detail"]


def test_evidence_says_whose_study_it_is(tmp_path):
    result = checked(tmp_path, account=OWNER)
    assert result["verified"], failed_steps(result)
    assert detail(result).endswith(signed_fingerprint(OWNER))


def signed_fingerprint(own):
    return Submission(owner_key=own.public_key().public_bytes_raw().hex(), signed_at="", signature="").fingerprint


@pytest.mark.parametrize(
    "lie",
    [
        {"changed": (("owner_key", THIEF.public_key().public_bytes_raw().hex()),)},
        {"coordinator_signing_key": "0" * 64},
    ],
)
def test_evidence_with_a_signature_that_does_not_hold(tmp_path, lie):
    (step,) = failed_steps(checked(tmp_path, **lie)).values()
    assert "a valid signature of the owner's key" in step["expected"]


def test_evidence_with_another_key_than_the_accounts(tmp_path):
    (step,) = failed_steps(checked(tmp_path, own=THIEF, account=OWNER)).values()
    assert "the key of the owner's account" in step["expected"]

"""A-03: the coordinator puts words in a site's mouth: with its own key, another site's key, or altered words.

Held by: Ed25519 inside the entry, under the key of the site's site.enrolled entry (step 10).
Tried: rows a03 of `mutations.py`.
"""

import pytest

from audit import entries, verify
from audit.errors import VerificationError
from tests.fakes import sample_study_log
from tests.fakes.sample_study_log import STUDY, SampleConsortium, evidence, failed_steps, key

SIGNATURES = "sites signed their own entries"


def forged_approval(sample: SampleConsortium, signer: str) -> bytes:
    chain = sample.chains["hungary"]
    entry = entries.StudyApproved(
        **sample.stamp(),
        actor="site:hungary",
        site_seq=chain.next_seq,
        site_prev=chain.previous,
        study=STUDY,
        study_digest=sample.study_digest,
        steward="u:" + "0" * 32,
        statement="Certainly.",
    )
    return entries.sign_site_entry(entry, key(signer))


@pytest.mark.parametrize("signer", ["coordinator", "cleveland"])
def test_signed_with_another_key(tmp_path, signer):
    sample = SampleConsortium().whole_study()
    forged = forged_approval(sample, signer)
    with pytest.raises(VerificationError):
        entries.verify_site_entry(forged, key("hungary").public_key())
    sample.lines.append(forged)
    archive, policy = evidence(tmp_path, sample)
    step = failed_steps(verify.check(str(archive), policy))[SIGNATURES]
    assert step["where"] == f"leaf {len(sample.lines) - 1} (study.approved of site:hungary)"


def test_altered_words_under_a_real_signature(tmp_path):
    sample = SampleConsortium().whole_study()
    place = next(n for n, line in enumerate(sample.lines) if b"dp.spent" in line and b"hungary" in line)
    sample.lines[place] = sample.lines[place].replace(b'"steps_total":2', b'"steps_total":1')
    archive, policy = evidence(tmp_path, sample)
    assert failed_steps(verify.check(str(archive), policy))[SIGNATURES]["where"].startswith(f"leaf {place} ")


def test_a_site_that_was_never_enrolled(tmp_path):
    sample = SampleConsortium().whole_study()
    sample.lines = [line for line in sample.lines if not (b"site.enrolled" in line and b"hungary" in line)]
    archive, policy = evidence(tmp_path, sample)
    assert failed_steps(verify.check(str(archive), policy))[SIGNATURES]["expected"] == "a site.enrolled entry before it"


def test_a_site_that_was_revoked(tmp_path):
    sample = SampleConsortium()
    sample.opening()
    sample.agreeing()
    sample.coordinator(entries.SiteRevoked, site="hungary", reason="left the consortium")
    sample.one_round(1)
    sample.rounds = 1
    archive, policy = evidence(tmp_path, sample)
    assert failed_steps(verify.check(str(archive), policy))[SIGNATURES]["expected"] == "a site that is not revoked"


@pytest.mark.parametrize("again", [False, True])
def test_a_site_that_was_suspended(tmp_path, again):
    """Its calls were refused: what stands under its name before it was reinstated was put there otherwise."""
    sample = SampleConsortium()
    sample.opening()
    sample.agreeing()
    sample.coordinator(entries.SiteSuspended, site="hungary", reason="an audit")
    if again:
        sample.coordinator(entries.SiteReinstated, site="hungary")
    sample.one_round(1)
    sample.rounds = 1
    archive, policy = evidence(tmp_path, sample)
    found = failed_steps(verify.check(str(archive), policy)).get(SIGNATURES)
    assert (found and found["expected"]) == (None if again else "a site that is not suspended")


def test_the_bare_python_check_sees_it_too(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "FAST_SIGNATURES", False)
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing()
    sample.lines.append(forged_approval(sample, "coordinator"))
    archive, policy = sample_study_log.evidence(tmp_path, sample)
    assert SIGNATURES in failed_steps(verify.check(str(archive), policy))

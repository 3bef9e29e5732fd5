"""A-11: a hospital takes part before, without, or against its steward's approval, or approved another document.

Held by: step 13, and step 12 for the document itself. Tried: rows a11 of `mutations.py`.
"""

from audit import entries, verify
from tests.fakes.sample_study_log import SITES, SampleConsortium, digest, evidence, failed_steps

APPROVALS = "approvals before the first round"


def failed(tmp_path, sample):
    archive, policy = evidence(tmp_path, sample)
    return failed_steps(verify.check(str(archive), policy))


def test_no_approval(tmp_path):
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing(without=["hungary"])
    sample.one_round(1)
    step = failed(tmp_path, sample)[APPROVALS]
    assert step["expected"] == "an approval by hungary before it"
    assert "round 1" in step["where"]


def approve(sample, study_digest):
    sample.site(
        "hungary", entries.StudyApproved, study_digest=study_digest, steward="u:" + "0" * 16, statement="Approved."
    )


def test_approval_after_the_round(tmp_path):
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing(without=["hungary"])
    sample.one_round(1)
    approve(sample, sample.study_digest)
    assert APPROVALS in failed(tmp_path, sample)


def test_approval_of_another_document(tmp_path):
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing(without=["hungary"])
    approve(sample, digest("another study"))
    sample.one_round(1)
    assert failed(tmp_path, sample)[APPROVALS]["found"] == digest("another study")


def test_approval_withdrawn_before_the_round(tmp_path):
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing()
    sample.site(
        "hungary",
        entries.StudyRejected,
        study_digest=sample.study_digest,
        steward="u:" + "0" * 16,
        reason="second thoughts",
    )
    sample.one_round(1)
    assert failed(tmp_path, sample)[APPROVALS]["found"] == "none, or one withdrawn"


def test_another_document_in_the_evidence(tmp_path):
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing(without=SITES)
    place = next(n for n, line in enumerate(sample.lines) if b"study.created" in line)
    real = sample.study_digest
    sample.document = sample.document.replace(b"coronary heart disease", b"hair colour")
    archive, policy = _exported_with_other_document(tmp_path, sample)
    step = failed_steps(verify.check(str(archive), policy))["study document"]
    assert (step["where"], step["expected"]) == (f"study.json (leaf {place}, study_digest)", real)


def _exported_with_other_document(tmp_path, sample):
    from tests.fakes.sample_study_log import pack, unpack  # noqa: PLC0415

    other, sample.document = sample.document, sample.document.replace(b"hair colour", b"coronary heart disease")
    archive, policy = evidence(tmp_path, sample)
    return pack(tmp_path / "bad.zip", unpack(archive) | {"study.json": other}), policy

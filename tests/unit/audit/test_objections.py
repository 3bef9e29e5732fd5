"""Who objected to the log: what the report and the checker say of it."""

import hashlib
import json

import pytest

from audit import verify
from audit.entries import LogOmission, SiteHeartbeat, WitnessRefused
from tests.fakes.sample_study_log import SITES, SampleConsortium, evidence, unpack

ROOT = "ab" * 32
BEAT = {
    "uptime_s": 0,
    "interval_s": 3600,
    "clock_moved_ms": 0,
    "clock_offset_ms": 2400,
    "agent_version": "0.1.0",
    "log_size": 3,
}


def refused(**changed):
    fields = {
        "witness": "irb.example.org/witness",
        "rule": "says that it has cosigned more entries than this log has",
        "status": 409,
        "checkpoint_size": 3,
        "checkpoint_root": ROOT,
        "witness_size": 9999,
        "basis": "word",
    }
    return fields | changed


@pytest.fixture
def sample():
    return SampleConsortium().whole_study()


def root_of(sample, size):
    return verify.tree_root([verify.leaf_hash(line) for line in sample.lines[:size]]).hex()


def checked(tmp_path, sample):
    archive, policy = evidence(tmp_path, sample)
    result = verify.check(str(archive), policy)
    assert [step for step in result["steps"] if step["status"] != "PASS"] == []
    files = unpack(archive)
    report = json.loads(files["report.json"])
    return result["notes"], {one["number"]: json.dumps(one, ensure_ascii=False) for one in report["sections"]}


def test_an_omission_names_the_entry_and_where_it_stands_now(tmp_path, sample):
    site, size = SITES[0], len(sample.lines)
    left_out = sample.site(site, SiteHeartbeat, state="started", **BEAT)
    at = len(sample.lines) - 1
    sample.site(
        site,
        LogOmission,
        missing_seq=sample.chains[site].next_seq - 1,
        missing_sha256=hashlib.sha256(left_out).hexdigest(),
        checkpoint_size=size,
        checkpoint_root=root_of(sample, size),
    )
    notes, sections = checked(tmp_path, sample)
    (note,) = [one for one in notes if one.startswith("Objection")]
    assert f"leaf {at + 1}: the hospital {site} said" in note
    assert f"stands at leaf {at} now" in note
    assert "another root" not in note
    assert "was not among the first" in sections["R11"]
    assert f"The hospital {site} said that an entry of its own was left out" in sections["R13"]
    assert "1 objection" in sections["R2"]


def test_an_objection_to_another_history_is_said_to_be_one(tmp_path, sample):
    site = SITES[1]
    sample.site(site, LogOmission, missing_seq=1, missing_sha256=ROOT, checkpoint_size=2, checkpoint_root=ROOT)
    sample.site(site, WitnessRefused, study=None, **refused(witness_size=None, basis="checkpoint", status=422))
    sample.coordinator(WitnessRefused, **refused(checkpoint_size=4, checkpoint_root=root_of(sample, 4)))
    notes, sections = checked(tmp_path, sample)
    omitted, fork, outside = [one for one in notes if one.startswith("Objection")]
    assert f"no entry with its SHA-256 {ROOT} is in this log" in omitted
    for note in (omitted, fork):
        assert "another root than it was shown" in note
    assert "did not cosign a checkpoint of 4 entries" in outside
    assert "another root" not in outside
    assert "it had cosigned 9999" in sections["R11"]
    assert f"The hospital {site} did not cosign" in sections["R13"]
    assert "The witness irb.example.org/witness did not cosign" in sections["R13"]


def test_many_objections_are_counted(tmp_path, sample):
    for _ in range(verify.OBJECTIONS_MAX + 2):
        sample.coordinator(WitnessRefused, **refused())
    notes, _ = checked(tmp_path, sample)
    assert len([one for one in notes if one.startswith("Objection")]) == verify.OBJECTIONS_MAX
    assert any(one.startswith("2 more objections") for one in notes)


def test_the_report_shows_each_hospitals_signs_of_life(tmp_path, sample):
    sample.site(SITES[0], SiteHeartbeat, state="started", **BEAT)
    sample.clock_ms += 5 * 3_600_000
    sample.site(SITES[1], SiteHeartbeat, state="started", **BEAT)
    sample.coordinator(WitnessRefused, **refused())
    _, sections = checked(tmp_path, sample)
    assert "nothing since" in sections["R2"]
    assert "2.4 s" in sections["R2"]
    assert f"No sign of life by: {SITES[2]}, {SITES[3]}" in sections["R2"]

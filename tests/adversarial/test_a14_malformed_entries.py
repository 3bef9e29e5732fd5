"""A-14: a log, validly signed, whose entries are no entries, or whose first one belongs to another log.

Held by: step 7; and whatever the entries lack, the checker answers with FAIL and never with a traceback.
Tried: rows a14 of `mutations.py`.
"""

import json

import pytest

from audit import verify
from audit.note import NoteSigner
from tests.fakes.sample_study_log import (
    ORIGIN,
    STUDY,
    SampleConsortium,
    evidence,
    failed_steps,
    key,
    log_files,
    pack,
    unpack,
)

ENTRIES = "entries are well formed"


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    archive, policy = evidence(tmp_path_factory.mktemp("evidence"))
    return {name: data for name, data in unpack(archive).items() if not name.startswith("log/tile/")}, policy


def with_lines(tmp_path, honest, lines):
    """Honest evidence around the validly signed log of a coordinator that writes what it likes."""
    files, policy = honest
    bad = files | log_files(lines, SampleConsortium().log_signer)
    return verify.check(str(pack(tmp_path / "bad.zip", bad)), policy)


@pytest.mark.parametrize(
    "data",
    [
        b"not json",
        b"\xff\xff",
        b"[]",
        b"{}",
        b'{"v":2}',
        b'{"v":1,"v":1}',
        b'{"v":1,"id":"x","ts":"x","type":"x","actor":"coordinator","outcome":"0","body":{"a":1},"body":{}}',
        b"[" * 50_000,
        b'{"v":1,"id":"x","ts":"x","type":"log.opened","actor":"coordinator","outcome":"0","body":[]}',
        b'{"v":1,"id":"x","ts":"x","type":7,"actor":"coordinator","outcome":"0","body":{}}',
    ],
)
def test_what_is_no_entry(tmp_path, honest, data):
    lines = SampleConsortium().whole_study().lines
    lines[5] = data
    assert failed_steps(with_lines(tmp_path, honest, lines))[ENTRIES]["where"] == "leaf 5"


def test_a_log_that_begins_in_the_middle(tmp_path, honest):
    lines = SampleConsortium().whole_study().lines[1:]
    step = failed_steps(with_lines(tmp_path, honest, lines))[ENTRIES]
    assert (step["where"], step["found"]) == ("leaf 0", json.loads(lines[0])["type"])


def test_an_empty_log(tmp_path, honest):
    assert failed_steps(with_lines(tmp_path, honest, []))[ENTRIES]["found"] == "a log of 0 entries"


def test_a_first_entry_that_names_another_key(tmp_path):
    sample = SampleConsortium().whole_study()
    sample.log_signer = NoteSigner(ORIGIN, key("another log"))
    archive, policy = evidence(tmp_path, sample)
    assert failed_steps(verify.check(str(archive), policy))[ENTRIES]["expected"] == "log.opened with the policy's key"


@pytest.mark.parametrize(
    "kind", sorted({*verify.SITE_TYPES, "site.enrolled", "round.started", "round.closed", "study.created"})
)
@pytest.mark.parametrize(
    "body", [{}, {"study_digest": 1, "participants": 1, "site": [], "signing_key": "zz", "event": 0}]
)
def test_entries_without_the_fields_of_their_type(tmp_path, honest, kind, body):
    record = {"v": 1, "id": "x", "ts": "x", "type": kind, "actor": "site:hungary", "outcome": "0", "study": STUDY}
    for extra in ({}, {"round": 1, "attempt": 1}, {"round": [], "attempt": {}}):
        lines = [*SampleConsortium().whole_study().lines[:9], json.dumps({**record, **extra, "body": body}).encode()]
        result = with_lines(tmp_path, honest, lines)
        assert not result["verified"]
        verify.render(result)

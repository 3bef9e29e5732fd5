"""Declared facts in evidence: verify.py knows every type by its own tables, and takes no fact from the wrong mouth."""

import json
from typing import Any

import pytest

from audit import entries, exchange, verify
from tests.fakes.sample_study_log import (
    STUDY,
    SampleConsortium,
    digest,
    evidence,
    failed_steps,
    log_files,
    pack,
    unpack,
)

ENTRIES, SIGNED = "entries are well formed", "sites signed their own entries"
WHO = "u:" + "ab" * 16
CLOSED = {"incident": "2026-07", "summary": "certificate renewed"}


def declared() -> SampleConsortium:
    """A whole study with facts declared by the coordinator, and signed by a site."""
    sample = SampleConsortium().whole_study()
    sample.coordinator(entries.IncidentClosed, on_behalf=WHO, **CLOSED)
    sample.coordinator(
        entries.LogReviewed, on_behalf=WHO, first_leaf=0, last_leaf=9, findings=0, summary="nothing unusual"
    )
    sample.coordinator(entries.AuthOk, site="cleveland", agent_version="0.1.0")
    sample.coordinator(entries.Heartbeat, state="started", uptime_s=0, interval_s=3600, clock_moved_ms=-7)
    sample.site("cleveland", entries.LegalBasisDeclared, article_6="6(1)(e)", article_9="9(2)(j)", on_behalf=WHO)
    sample.site("cleveland", entries.ConfigChanged, file="site.yaml", sha256=digest("a"), previous_sha256=None)
    return sample


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], bytes, dict[str, Any]]:
    archive, policy = evidence(tmp_path_factory.mktemp("declared"), declared())
    return unpack(archive), policy, verify.check(str(archive), policy)


def test_the_tables_are_those_of_the_log() -> None:
    kinds = entries.KINDS.items()
    assert {name for name, kind in kinds if issubclass(kind, entries.SITE_SIGNED)} == verify.SITE_TYPES
    assert {name for name, kind in kinds if issubclass(kind, entries.EitherEntry)} == verify.EITHER_TYPES
    assert {name for name, kind in kinds if issubclass(kind, entries.Declaration)} == verify.DECLARED_TYPES


def test_evidence_with_declared_facts_verifies(honest: Any) -> None:
    files, _, result = honest
    assert result["verified"], failed_steps(result)
    told = [json.loads(line) for line in files["fhir.ndjson"].splitlines()]
    found = {event["subtype"][0]["code"]: event for event in told}
    assert found["incident.closed"]["agent"][0]["altId"] == WHO
    assert found["legal_basis.declared"]["action"] == "C"
    assert found["legal_basis.declared"]["source"]["site"] == "cleveland"
    assert found["log.reviewed"]["type"]["code"] == "110101"
    assert found["auth.ok"]["type"]["code"] == "110114"


def lied(honest: Any, tmp_path: Any, line: dict[str, Any]) -> dict[str, Any]:
    """The result for a validly signed log that ends with such a line."""
    files, policy, _ = honest
    stamp = entries.stamp(1_795_100_000_000, bytes(10))
    record = {"v": 1, **stamp, "actor": "coordinator", "outcome": "0", "study": STUDY} | line
    data = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    kept = {name: content for name, content in files.items() if not name.startswith("log/tile/")}
    sample = declared()
    return failed_steps(
        verify.check(str(pack(tmp_path / "b.zip", kept | log_files([*sample.lines, data], sample.log_signer))), policy)
    )


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ({"type": "incident.closed", "body": {**CLOSED, "summary": "see /srv/patients"}}, ENTRIES),
        ({"type": "incident.closed", "body": {**CLOSED, "summary": "patient 00417923"}}, ENTRIES),
        ({"type": "incident.closed", "body": {**CLOSED, "on_behalf": "Ada Example"}}, ENTRIES),
        ({"type": "incident.closed", "body": {**CLOSED, "document_sha256": "no digest"}}, ENTRIES),
        ({"type": "log.reviewed", "body": {"first_leaf": 0, "last_leaf": 10_000}}, ENTRIES),
        ({"type": "incident.closed", "body": CLOSED, "actor": "site:cleveland"}, SIGNED),
        ({"type": "heartbeat", "body": {}, "actor": "site:cleveland"}, SIGNED),
    ],
)
def test_a_fact_from_the_wrong_mouth_or_with_something_in_it(
    honest: Any, tmp_path: Any, line: dict[str, Any], step: str
) -> None:
    steps = lied(honest, tmp_path, line)
    assert step in steps


def test_every_type_is_told_in_fhir() -> None:
    for name in entries.KINDS:
        record = {"id": "x", "ts": "x", "type": name, "actor": "coordinator", "outcome": "0", "body": {}}
        assert exchange.audit_event(0, record, origin="fl.example.org/x")["type"]["code"].startswith("110")

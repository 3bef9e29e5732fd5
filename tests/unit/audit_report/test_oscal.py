"""audit/report/oscal.py: results that NIST's model takes, that say no more than the clause matrix, and never differ."""

import hashlib
import json
from dataclasses import replace

import pytest

from audit.report import document_of, oscal
from audit.report.as_pdf import render_pdf
from audit.report.clauses import Row, Status, evaluate, matrix
from audit.report.figures import Stated
from audit.report.reader import read_report
from tests.fakes.sample_study_log import STUDY, SampleConsortium, unpack

LIMITS = ("That a patient consented.", "Legal conclusions.")
DIGESTS = {"report.json": "0" * 64, "study.json": "1" * 64}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    sample = SampleConsortium().whole_study()
    log = sample.open_log(tmp_path_factory.mktemp("oscal") / "log")
    try:
        checkpoint = log.checkpoint().checkpoint
        return read_report(
            log.entries(0, checkpoint.size),
            study=STUDY,
            checkpoint=checkpoint,
            document=sample.document,
            stated=Stated(exported_at="2026-11-23T09:00:00.000Z", exported_by="lead", software=()),
        )
    finally:
        log.close()


@pytest.fixture(scope="module")
def rows(report):
    """The matrix that comes with the software, with every status in it."""
    found = list(evaluate(matrix(), report))
    for place, status in enumerate((Status.EVIDENCED, Status.PARTLY, Status.NOT_EVIDENCED, Status.NOT_APPLICABLE)):
        found[place] = replace(found[place], status=status)
    return found


def made(report, rows):
    return oscal.assessment_results(report, rows, limits=LIMITS, digests=DIGESTS)


def content(report, rows):
    return json.loads(made(report, rows))["assessment-results"]


def test_trestle_reads_every_field(report, rows, tmp_path):
    trestle = pytest.importorskip(
        "trestle.oscal.assessment_results", reason="compliance-trestle is not installed (the [dev] extra has it)"
    )
    trestle_errors = pytest.importorskip("trestle.common.err")
    path = tmp_path / "oscal-ar.json"
    path.write_bytes(made(report, rows))
    read = trestle.AssessmentResults.oscal_read(path)
    assert read.metadata.oscal_version.root.root == oscal.OSCAL_VERSION
    assert len(read.results[0].findings) == len([row for row in rows if row.status is not Status.NOT_APPLICABLE])
    # The model has teeth: it refuses a target that is no token, and a field it does not know.
    for broken in (
        made(report, rows).replace(b'"target-id": "', b'"target-id": "(', 1),
        made(report, rows).replace(b'"related-observations"', b'"related-things"', 1),
    ):
        path.write_bytes(broken)
        with pytest.raises(trestle_errors.TrestleError, match="Schema validation failed"):
            trestle.AssessmentResults.oscal_read(path)


def test_satisfied_is_said_of_what_is_evidenced_and_of_nothing_else(report, rows):
    (result,) = content(report, rows)["results"]
    said = {one["target"]["target-id"]: one["target"]["status"] for one in result["findings"]}
    for row in rows:
        if row.status is Status.NOT_APPLICABLE:
            assert row.clause.id not in said
            continue
        state = said[row.clause.id]
        assert state["state"] == ("satisfied" if row.status is Status.EVIDENCED else "not-satisfied")
        assert row.status.value in state["remarks"].lower()
        assert row.clause.beyond in state["remarks"]


def test_what_does_not_apply_is_left_out_by_name_and_with_its_reason(report, rows):
    (selection,) = content(report, rows)["results"][0]["reviewed-controls"]["control-selections"]
    left_out = [row for row in rows if row.status is Status.NOT_APPLICABLE]
    assert [one["control-id"] for one in selection["exclude-controls"]] == [row.clause.id for row in left_out]
    assert all(row.reason in selection["remarks"] for row in left_out)
    included = {one["control-id"] for one in selection["include-controls"]}
    assert included == {row.clause.id for row in rows} - {row.clause.id for row in left_out}


def test_every_leaf_and_every_file_is_one_of_the_evidence(report, rows, tmp_path):
    result = content(report, rows)["results"][0]
    by_id = {row.clause.id: row for row in rows}
    observations = {one["uuid"]: one for one in result["observations"]}
    for finding in result["findings"]:
        observation = observations[finding["related-observations"][0]["observation-uuid"]]
        row = by_id[finding["target"]["target-id"]]
        evidence = observation.get("relevant-evidence", [])
        assert [[int(one["value"]) for one in item["props"] if one["name"] == "leaf-index"] for item in evidence] == [
            list(found.leaves[:100]) for found in row.found
        ]
        for item in evidence:
            assert item["href"].startswith("log/tile/entries/000")
            for link in item.get("links", []):
                assert int(link["href"].removeprefix("proofs/").removesuffix(".tlog-proof")) in report.key_leaves


def test_references_lead_somewhere_and_identifiers_are_used_once(report, rows):
    whole = content(report, rows)
    found = []

    def walk(value):
        match value:
            case dict():
                found.extend([value["uuid"]] if "uuid" in value else [])
                for one in value.values():
                    walk(one)
            case list():
                for one in value:
                    walk(one)

    walk(whole)
    assert len(found) == len(set(found))
    resources = {one["uuid"]: one for one in whole["back-matter"]["resources"]}
    assert resources[whole["import-ap"]["href"].removeprefix("#")]["rlinks"][0]["href"] == "study.json"
    assert all(one["subjects"][0]["subject-uuid"] in resources for one in whole["results"][0]["observations"])
    for responsible in whole["metadata"]["responsible-parties"]:
        assert set(responsible["party-uuids"]) <= {party["uuid"] for party in whole["metadata"]["parties"]}


def test_the_same_evidence_is_the_same_bytes_and_another_log_is_not(report, rows):
    assert made(report, rows) == made(report, rows)
    other = replace(report, checkpoint=replace(report.checkpoint, root=bytes(32)))
    assert content(other, rows)["uuid"] != content(report, rows)["uuid"]


def test_limits_are_printed(report, rows):
    remarks = content(report, rows)["results"][0]["remarks"]
    assert all(limit in remarks for limit in LIMITS)


def test_nothing_that_applies_is_still_a_document(report, rows):
    nothing: list[Row] = [replace(row, status=Status.NOT_APPLICABLE) for row in rows]
    (result,) = content(report, nothing)["results"]
    assert "findings" not in result
    assert "include-all" in result["reviewed-controls"]["control-selections"][0]


def test_many_entries_are_counted_and_the_first_are_named(report, rows):
    found = replace(rows[0].found[0] if rows[0].found else rows[1].found[0], leaves=tuple(range(0, 900, 2)))
    row = replace(rows[1], found=(found,))
    (observation,) = content(report, [row])["results"][0]["observations"]
    (evidence,) = observation["relevant-evidence"]
    assert evidence["description"].startswith(f"450 of type {found.type}: #0 #2")
    assert evidence["description"].endswith("and others up to #898")


def test_an_archive_holds_both_forms_and_what_they_point_to(tmp_path):
    sample = SampleConsortium().whole_study()
    log = sample.open_log(tmp_path / "log")
    done = sample.export(log, tmp_path / "evidence.zip", printed=True)
    log.close()
    files = unpack(done.path)
    assert files["report.pdf"] == render_pdf(document_of(done.report))
    whole = json.loads(files["oscal-ar.json"])["assessment-results"]
    links = [link for one in whole["back-matter"]["resources"] for link in one["rlinks"]]
    assert {link["href"] for link in links} == {"study.json", "report.json", "log/checkpoint"}
    for link in links:
        assert link["hashes"] == [{"algorithm": "SHA-256", "value": hashlib.sha256(files[link["href"]]).hexdigest()}]
    evidence = [item for one in whole["results"][0]["observations"] for item in one.get("relevant-evidence", [])]
    assert evidence
    for item in evidence:
        assert item["href"] in files
        assert all(link["href"] in files for link in item.get("links", []))
    listed = {line.split("  ")[1] for line in files["manifest.sha256"].decode().splitlines()}
    assert {"report.pdf", "oscal-ar.json"} <= listed

"""The sections of the report: what was assessed against what ran, the register, what left, incidents, reviews."""

import hashlib
import json
from dataclasses import replace
from importlib import resources

import pytest
from jsonschema import Draft202012Validator

from audit import entries, verify
from audit.report import LIMITS, document_of, render_document
from audit.report.assessment import compare
from audit.report.document import Facts, Table, leaves_of, plain
from audit.report.register import departures, protocol, register
from tests.fakes.sample_study_log import SITES, STUDY, SampleConsortium, failed_steps, unpack

PERSON, PAPER = "u:" + "1" * 16, "d" * 64
DECLARED = {"study": STUDY, "on_behalf": PERSON, "document_sha256": PAPER}
GOVERNANCE = {
    "sponsor": "Example University Hospital",
    "contact": "lead@example.org",
    "purpose": "Predict coronary heart disease",
    "ethics": {"reference": "EC 2026 17", "authority": "Example board"},
    "legal_basis": {"gdpr_article_6": "6(1)(e)", "gdpr_article_9": "9(2)(j)"},
    "retention_years": 10,
    "expires": "2035-12-31",
}
AGREED = {"governance": GOVERNANCE, "sites": {"required": list(SITES), "minimum": 3}}


def declare(sample):
    """What people may declare, by the coordinator and by a hospital; the leaf of each."""
    leaves = {}

    def put(kind, /, **fields):
        leaves[kind.TYPE] = len(sample.lines)
        sample.coordinator(kind, **(DECLARED | fields))

    put(entries.AgreementRecorded, kind="joint-controller", parties=SITES, valid_from="2026-01-01")
    put(entries.DpiaRecorded, version="2", assessed_epsilon=0.2, assessed_sites=4, assessed_columns=("age", "sex"))
    put(entries.TransferRecorded, origin="DE", destination="US", instrument="SCC", what="masked updates")
    put(entries.DisclosureRecorded, recipient="board", what="a figure", purpose="oversight", disclosed_on="2026-11-18")
    told = "2026-11-19T08:00:00.000Z"
    put(entries.IncidentOpened, incident="I-1", kind="privacy", discovered_at=told, summary="a lost laptop")
    put(entries.IncidentNotified, incident="I-1", recipient="authority", notified_at="2026-11-22T09:00:00.000Z")
    put(entries.LogReviewed, first_leaf=0, last_leaf=20, findings=1, summary="one denied call")
    put(entries.ConsentWithdrawn, patients="1-4", received_on="2026-11-19")
    leaves["legal_basis.declared"] = len(sample.lines)
    sample.site("cleveland", entries.LegalBasisDeclared, article_6="6(1)(e)", article_9="9(2)(j)")
    for seconds, state in ((0, "started"), (10, "alive"), (5000, "alive")):
        sample.clock_ms += 1000 * seconds
        leaves.setdefault("heartbeat", len(sample.lines))
        sample.coordinator(entries.Heartbeat, state=state, uptime_s=seconds, interval_s=60, clock_moved_ms=0)
    return leaves


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    sample = SampleConsortium(rounds=2)
    sample.document = json.dumps(json.loads(sample.document) | AGREED, sort_keys=True, separators=(",", ":")).encode()
    sample.study_digest = hashlib.sha256(sample.document).hexdigest()
    sample.opening()
    sample.agreeing()
    leaves = declare(sample)
    sample.one_round(1)
    sample.one_round(2)
    sample.ending()
    folder = tmp_path_factory.mktemp("sections")
    log = sample.open_log(folder / "log")
    done = sample.export(log, folder / "evidence.zip")
    log.close()
    return done, unpack(done.path), leaves


def section(report, number):
    return next(one for one in document_of(report).sections if one.number == number)


def rows_of(found):
    """The text of every row of every table."""
    return [
        [plain(cell.content) for cell in row]
        for block in found.blocks
        if isinstance(block, Table)
        for row in block.rows
    ]


def test_it_verifies_and_its_json_is_of_its_schema(exported):
    done, files, _ = exported
    assert failed_steps(verify.check(str(done.path))) == {}
    schema = json.loads(files["report.schema.json"])
    assert schema == json.loads(resources.files("audit.report").joinpath("report.schema.json").read_bytes())
    Draft202012Validator.check_schema(schema)
    report = json.loads(files["report.json"])
    Draft202012Validator(schema).validate(report)
    for wrong in ({"clauses": []}, {"limits": []}, {"figures": {}}, {"sections": report["sections"][:13]}, {"more": 1}):
        assert not Draft202012Validator(schema).is_valid(report | wrong), wrong


def test_the_sections_are_all_there_in_order_with_the_limits(exported):
    done, files, _ = exported
    told = document_of(done.report)
    assert [one.number for one in told.sections] == [f"R{number}" for number in range(1, 15)]
    assert [one["number"] for one in json.loads(files["report.json"])["sections"]] == [
        one.number for one in told.sections
    ]
    page = render_document(told).decode()
    assert files["report.html"].decode() == page
    for limit in LIMITS:
        assert limit.replace("'", "&#39;") in page
    assert len(LIMITS) == 10
    assert max(leaves_of(told)) < done.log_size


def test_what_the_assessment_names_is_held_against_what_ran(exported):
    done, _, leaves = exported
    rows = {(row.source, row.what): row for row in compare(done.report)}
    agreed = {row.what for row in rows.values() if row.source == "study document" and row.holds is True}
    assert agreed == {
        "Epsilon of a patient, training", "Delta", "Unit of privacy", "Hospitals", "Hospitals in a round, at least",
        "Hospitals in a sum that is opened, at least", "Data contract", "Training rounds", "Last day",
    }  # fmt: skip
    assert not any(row.holds is False for row in rows.values() if row.source == "study document")
    assessed = "dpia.recorded, version 2"
    assert rows[assessed, "Epsilon of a patient, training"].holds is False
    assert rows[assessed, "Hospitals, how many"].holds is True
    columns = rows[assessed, "Columns of the table"]
    assert (columns.holds, columns.ran, columns.leaves) == (
        False, "also chol, cp, trestbps", (leaves["dpia.recorded"],)
    )  # fmt: skip
    page = render_document(document_of(done.report)).decode()
    assert "2 of 12 rows do not agree." in page
    assert page.count("DOES NOT AGREE") == 2


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"sites": {"required": ["cleveland"], "minimum": 3}}, "Hospitals"),
        ({"sites": {"required": list(SITES), "minimum": 5}}, "Hospitals in a round, at least"),
        ({"privacy": {"epsilon": 0.1, "delta": 1e-3, "unit": "patient"}}, "Epsilon of a patient, training"),
        ({"privacy": {"epsilon": 1.0, "delta": 1e-9, "unit": "patient"}}, "Delta"),
        ({"privacy": {"epsilon": 1.0, "delta": 1e-3, "unit": "visit"}}, "Unit of privacy"),
        ({"privacy": {"epsilon": 1.0, "delta": 1e-3, "unit": "patient", "clip_norm_l2": 0.5}}, "Clip norm (L2)"),
        ({"aggregation": {"threshold": 5}}, "Hospitals in a sum that is opened, at least"),
        ({"training": {"rounds": 1}}, "Training rounds"),
        ({"data": {"features": {"age": {}}}}, "Columns of the table"),
        ({"governance": GOVERNANCE | {"expires": "2026-11-17"}}, "Last day"),
    ],
)
def test_every_row_can_disagree(exported, changed, what):
    done, _, _ = exported
    report = replace(done.report, document=done.report.document | changed)
    wrong = {row.what for row in compare(report) if row.holds is False and row.source == "study document"}
    assert wrong == {what}


def test_what_is_not_in_the_log_is_not_compared(exported):
    done, _, _ = exported
    bare = replace(done.report, rounds=(), sites=(), facts=(), last_round_ts=None)
    assert {row.holds for row in compare(bare) if row.what != "Training rounds"} == {None}


def test_the_register_says_where_each_line_comes_from(exported):
    done, _, leaves = exported
    lines = {line.field: line for line in register(done.report)}
    assert lines["Purposes"].text == "Predict coronary heart disease"
    assert (lines["Purposes"].source, lines["Purposes"].leaves) == ("study document", (done.report.study.leaf,))
    assert "age, chol, cp, sex, trestbps" in lines["Categories of personal data"].text
    assert lines["Transfers to third countries"].text == "DE to US (SCC): masked updates"
    assert lines["Transfers to third countries"].leaves == (leaves["transfer.recorded"],)
    assert lines["Arrangements and processors"].text == "joint-controller"
    assert lines["Time limits for erasure"].text == "10 years; no hospital takes part after 2035-12-31"


def test_what_left_is_listed_as_what_it_is(exported):
    done, _, leaves = exported
    left = departures(done.report)
    assert [one.kind for one in left] == ["recorded disclosure", "model", *["masked updates"] * 4]
    assert left[0].leaves == (leaves["disclosure.recorded"],)
    sent = {one.sender: one for one in left if one.kind == "masked updates"}
    assert set(sent) == set(SITES)
    assert sent["cleveland"].what == "3 masked updates, 3.8 kB in all"
    assert all(entries.parse_entry(lines_at(done, leaf)).TYPE == "update.submitted" for leaf in sent["hungary"].leaves)
    simplified = protocol(done.report)
    assert simplified.sites == SITES
    assert dict(simplified.rows)["Statement"].startswith("Information of a particular patient may or may not")
    few = tuple(
        (leaf, replace(entry, patients="20-49")) if isinstance(entry, entries.CohortSnapshot) else (leaf, entry)
        for leaf, entry in done.report.facts
    )
    assert protocol(replace(done.report, facts=few)) is None


def lines_at(done, leaf):
    """The stored bytes of an entry, from the archive."""
    for line in unpack(done.path)["events.ndjson"].splitlines():
        head, _, rest = line.partition(b',"entry":')
        if head == b'{"leaf":%d' % leaf:
            return rest[:-1]
    raise AssertionError(leaf)


def test_a_late_notice_a_review_and_a_silence_are_told(exported):
    done, _, leaves = exported
    (incident,) = rows_of(section(done.report, "R10"))
    assert incident[0] == "I-1"
    assert incident[3] == "authority after 73.0 hours (more than 72 hours)"
    assert incident[4] == "open"
    review = section(done.report, "R11")
    assert rows_of(review)[0][3:] == ["0 to 20", "1", "one denied call"]
    assert "is 20; " in plain(review.blocks[-1].content)
    assert [gap.after_leaf for gap in done.report.heartbeats.gaps] == [leaves["heartbeat"] + 1]
    assert any("silent" in row[-1] for row in rows_of(section(done.report, "R2")))
    assert any("consent.withdrawn" in row for row in rows_of(section(done.report, "R8")))


def test_what_is_stated_and_what_is_agreed_is_told_apart(exported):
    done, _, _ = exported
    (scope,) = [block for block in section(done.report, "R1").blocks if isinstance(block, Facts)]
    told = {row.name: plain(row.content) for row in scope.rows}
    assert told["Exported"].endswith("by lead (stated, not evidence)")
    assert told["Purpose"] == f"Predict coronary heart disease (study document\u00a0#{done.report.study.leaf})"


def test_text_that_people_declared_is_escaped(tmp_path):
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing()
    sample.coordinator(entries.AuthzDenied, subject="<i>", action="<script>", rule="<b>&")
    sample.one_round(1)
    sample.metrics = {"auc": 0.5}
    log = sample.open_log(tmp_path / "log")
    page = unpack(sample.export(log, tmp_path / "e.zip", exported_by="<img src=x>").path)["report.html"].decode()
    log.close()
    assert "<script>" not in page
    assert "<img" not in page
    assert "&lt;b&gt;&amp;" in page

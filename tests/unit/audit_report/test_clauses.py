"""audit/report/clauses.py: a status says what the entries show, and never more."""

import re
from dataclasses import replace

import pytest

from audit import entries
from audit.fields import rules_of
from audit.report import Stated, read_report
from audit.report.clauses import ClausesInvalid, Status, evaluate, matrix, read_matrix
from tests.fakes.sample_study_log import SITES, STUDY, SampleConsortium

ROW = """
- id: test-1
  law: A law
  clause: A clause
  asks: Something.
  section: R5
  needs:
    - {what: an approval, entries: [study.approved], of_every: site}
    - {what: an agreement, entries: [agreement.recorded], where: {kind: [BAA]}}
  also: [authz.denied]
  at_most: evidenced
  beyond: The rest.
  applies: always
"""
PEOPLE = {"on_behalf": "u:" + "0" * 16, "document_sha256": "a" * 64}


def read(sample, **document):
    """The sample's report, without a log on disk."""
    stated = Stated(exported_at="2026-11-23T09:00:00.000Z", exported_by="lead", software=())
    told = read_report(sample.lines, study=STUDY, checkpoint=None, document=sample.document, stated=stated)
    return replace(told, document=told.document | document)


def opened(*, without=()):
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing(without=without)
    return sample


def agree(sample, kind):
    sample.coordinator(
        entries.AgreementRecorded, study=STUDY, kind=kind, parties=("cleveland",), valid_from="2026-01-01", **PEOPLE
    )
    return len(sample.lines) - 1


def row_of(sample, text=ROW, **document):
    (row,) = evaluate(read_matrix(text), read(sample, **document))
    return row


def test_every_type_that_a_row_names_is_written_by_this_release():
    named = {kind for clause in matrix() for kind in clause.types()}
    assert named - entries.KINDS.keys() == set()
    assert len(matrix()) >= 37
    assert {clause.section for clause in matrix()} <= {f"R{number}" for number in range(1, 15)}


def test_every_field_that_a_row_filters_by_exists_with_those_values():
    for clause in matrix():
        for need in clause.needs:
            for kind in need.entries:
                for field, values in need.where:
                    rule = rules_of(entries.KINDS[kind])[field]
                    assert all(rule.read(field, value) == value for value in values), (clause.id, field)


def test_a_need_is_met_only_by_entries_that_are_really_there():
    sample = opened()
    row = row_of(sample)
    assert row.status is Status.PARTLY
    assert row.missing == ("an agreement (agreement.recorded)",)
    assert [found.type for found in row.found] == ["study.approved"]
    agree(sample, "DUA")
    assert row_of(sample).status is Status.PARTLY, "an agreement of another kind is none"
    leaf = agree(sample, "BAA")
    row = row_of(sample)
    assert (row.status, row.missing) == (Status.EVIDENCED, ())
    assert [found.leaves for found in row.found if found.type == "agreement.recorded"] == [(leaf,)]


def test_what_is_asked_of_every_hospital_is_asked_of_every_hospital():
    sample = opened(without=["hungary"])
    agree(sample, "BAA")
    row = row_of(sample)
    assert row.status is Status.PARTLY
    assert row.missing == ("an approval, of hungary",)


def test_what_is_only_shown_beside_it_changes_no_status():
    text = ROW.replace("study.approved", "log.reviewed").replace(", of_every: site", "")
    sample = opened()
    sample.coordinator(entries.AuthzDenied, subject="site:hungary", action="study abort", rule="only the lead may")
    row = row_of(sample, text)
    assert row.status is Status.NOT_EVIDENCED
    assert [found.type for found in row.found] == ["authz.denied"]
    assert "log.reviewed" in row.reason


def test_a_type_that_no_release_writes_is_never_evidence():
    row = row_of(opened(), ROW.replace("log.reviewed", "x").replace("study.approved", "magic.happened"))
    assert row.status is Status.NOT_EVIDENCED
    assert "magic.happened, which this release does not write" in row.missing[0]


def test_the_ceiling_of_a_row_holds():
    sample = opened()
    agree(sample, "BAA")
    row = row_of(sample, ROW.replace("at_most: evidenced", "at_most: partly"))
    assert (row.status, row.missing) == (Status.PARTLY, ())
    assert "beyond software" in row.reason


@pytest.mark.parametrize(
    ("basis", "law", "applies"),
    [
        ({"gdpr_article_6": "6(1)(e)", "gdpr_article_9": "9(2)(j)"}, "hipaa", False),
        ({"gdpr_article_6": "6(1)(e)", "gdpr_article_9": "9(2)(j)"}, "gdpr", True),
        ({"hipaa": "waiver"}, "gdpr", False),
        ({"hipaa": "waiver"}, "always", True),
        ({}, "hipaa", True),  # a study that names no basis is exempt from nothing
    ],
)
def test_a_law_that_the_study_does_not_name_is_not_applicable(basis, law, applies):
    row = row_of(opened(), ROW.replace("applies: always", f"applies: {law}"), governance={"legal_basis": basis})
    assert (row.status is not Status.NOT_APPLICABLE) == applies
    assert applies or "names its legal bases" in row.reason


def test_a_clause_of_the_future_and_one_that_is_answered_in_words():
    row = row_of(opened(), ROW + "  begins: 2030-01-01\n")
    assert (row.status, row.reason) == (Status.NOT_APPLICABLE, "Begins to apply on 2030-01-01.")
    assert row_of(opened(), ROW + "  begins: 2020-01-01\n").status is Status.PARTLY
    head, _, tail = ROW.partition("  needs:")
    answered = f"{head}  answer: Nobody is decided about.\n  beyond:{tail.partition('beyond:')[2]}"
    assert row_of(opened(), answered).reason == "Nobody is decided about."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("test-1", "164.312(b)"), "row 1, id"),
        (("section: R5", "section: R15"), "row 1, section"),
        (("beyond: The rest.", ""), "missing or unknown keys beyond"),
        (("applies: always", "applies: everywhere"), "row 1, applies"),
        (("at_most: evidenced", "at_most: certified"), "row 1, at_most"),
        (("of_every: site", "of_every: patient"), "need 1, of_every"),
        (("also: [authz.denied]", "also: authz.denied"), "row 1, also"),
        (("applies: always", "applies: always\n  colour: red"), "colour"),
        (("applies: always", "applies: always\n  begins: soon"), "row 1, begins"),
        (("applies: always", f"applies: always\n{ROW}"), "a second time"),
        ((ROW, "a: [b"), "found"),
        ((ROW, "a: b"), "a list of rows"),
    ],
)
def test_a_file_that_counsel_edited_wrongly_says_where(change, message):
    with pytest.raises(ClausesInvalid, match=re.escape(message)) as refused:
        read_matrix(ROW.replace(*change))
    assert "Correct the row" in refused.value.advice()


def test_the_matrix_of_a_study_without_declarations_claims_little():
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing()
    sample.one_round(1)
    sample.ending()
    rows = {row.clause.id: row for row in evaluate(matrix(), read(sample))}
    for absent in ("hipaa-164.308-a-1-ii-D", "hipaa-164.308-b", "hipaa-164.528", "gdpr-33-34", "gdpr-44-49"):
        assert rows[absent].status is Status.NOT_EVIDENCED, absent
    assert rows["gdpr-35"].status is Status.PARTLY, "it ran, and nobody recorded an assessment"
    assert "an assessment on record (dpia.recorded)" in rows["gdpr-35"].missing
    assert rows["nist-sp-800-226"].status is Status.EVIDENCED
    assert all(row.status is not Status.EVIDENCED or not row.missing for row in rows.values())
    assert set(SITES) <= {site.site for site in read(sample).sites}

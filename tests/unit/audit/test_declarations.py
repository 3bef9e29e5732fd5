"""What people may declare: every kind can be, from a command line, and no path, key or patient's number goes along."""

from typing import Any

import pytest

from audit import entries
from audit.declarations import DECLARED, asked, read, refuse_names
from audit.errors import EntryRefused
from tests.fakes.sample_study_log import digest, key

STAMP = entries.stamp(1_795_000_000_000, bytes(10))
WHO = "u:" + "ab" * 16
EXAMPLES: dict[str, list[str]] = {
    "agreement.recorded": ["kind=BAA", "parties=hungary,cleveland", "valid_from=2026-01-01", "valid_until=2028-12-31"],
    "irb.recorded": ["reference=2026-0042", "authority=Ethics board of Example", "decision=approved"],
    "legal_basis.declared": ["article_6=6(1)(e)", "article_9=9(2)(j)"],
    "dpia.recorded": ["version=1.2", "assessed_epsilon=8", "assessed_sites=4", "assessed_columns=age,sex"],
    "minimum_necessary.determined": ["columns=age,sex", "determination=each is a known risk factor"],
    "deid.determined": ["method=expert", f"expert={WHO}", "expires=2027-12-31"],
    "log.reviewed": ["first_leaf=0", "last_leaf=199", "findings=0", "summary=nothing unusual"],
    "incident.opened": [
        "incident=2026-07",
        "kind=availability",
        "discovered_at=2026-11-23T08:00:00.000Z",
        "summary=one agent was offline",
    ],
    "incident.notified": ["incident=2026-07", "recipient=controller", "notified_at=2026-11-23T09:00:00.000Z"],
    "incident.closed": ["incident=2026-07", "summary=certificate renewed"],
    "disclosure.recorded": ["recipient=a regulator", "what=the model", "purpose=review", "disclosed_on=2026-11-23"],
    "consent.withdrawn": ["patients=1-9", "received_on=2026-11-23"],
    "erasure.executed": ["what=pseudonym-key", "executed_on=2026-11-23"],
    "transfer.recorded": ["origin=DE", "destination=CH", "instrument=adequacy", "what=masked updates"],
    "retention.applied": ["years=6", "older_than=2020-11-23", "entries_due=0", "action=kept"],
    "backup.restored": ["what=database", "purpose=test", "result=complete", "taken_on=2026-11-01"],
    "role.changed": [f"person={WHO}", "role=steward", "change=given"],
    "attack.tested": [
        "attack=membership-inference",
        f"model_digest={digest('model')}",
        "figures=auc:0.51,advantage:0.02",
        "tested_on=2026-11-23",
    ],
}


def declared(name: str, words: list[str], **changed: Any) -> entries.Declaration:
    kind, fields = read(name, words)
    return kind(**STAMP, **({"on_behalf": WHO, "document_sha256": digest("document"), **fields} | changed))


def test_there_is_an_example_of_every_fact():
    assert sorted(EXAMPLES) == sorted(DECLARED)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_fact_is_the_coordinators_or_signed_by_a_site_and_survives_its_bytes(name):
    plain = declared(name, EXAMPLES[name])
    assert entries.parse_entry(entries.entry_bytes(plain)) == plain
    own = {"actor": "site:cleveland", "site_seq": 1, "site_prev": entries.NO_ENTRY}
    signed = declared(name, EXAMPLES[name], study="heart-disease", **own)
    data = entries.sign_site_entry(signed, key("cleveland"))
    assert entries.verify_site_entry(data, key("cleveland").public_key()) == signed
    assert entries.SiteChain(site="cleveland").admit(data, signed).next_seq == 2
    with pytest.raises(EntryRefused, match="signed by its site"):
        entries.entry_bytes(signed)  # the coordinator does not speak for a site
    with pytest.raises(EntryRefused, match="a type that a site signs"):
        entries.verify_site_entry(entries.entry_bytes(plain), key("cleveland").public_key())


@pytest.mark.parametrize(
    "changed",
    [
        {"actor": "site:cleveland"},  # in its name, and not in its chain
        {"site_seq": 1, "site_prev": entries.NO_ENTRY},  # in a chain, and nobody's
        {"actor": "site:cleveland", "site_seq": 1},
        {"actor": "site:cleveland", "site_prev": entries.NO_ENTRY},
    ],
)
def test_who_declares_is_one_or_the_other(changed):
    with pytest.raises(EntryRefused):
        declared("incident.closed", EXAMPLES["incident.closed"], **changed)


@pytest.mark.parametrize(
    "words",
    [
        "see /srv/data/patients.csv",
        "C:\\data\\patients",
        "ask ada@example.org",
        "patient 00417923",
        "5d" * 32,
        "MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF",
        "-----BEGIN PRIVATE KEY----- MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQ",
        "two\nlines",
        "",
        "a" * 201,
    ],
)
def test_words_in_which_something_else_would_get_into_the_log(words):
    with pytest.raises(EntryRefused) as caught:
        read("incident.closed", ["incident=2026-07", f"summary={words}"])
    if words.isprintable() and 0 < len(words) <= 200:
        assert words not in str(caught.value)  # an error may be kept somewhere, too


@pytest.mark.parametrize(
    ("name", "words", "match"),
    [
        ("study.created", [], "the fact"),
        ("incident.closed", ["incident=2026-07"], "nothing for summary"),
        ("incident.closed", ["incident=a", "incident=b", "summary=c"], "given twice"),
        ("incident.closed", ["actor=coordinator"], "with a field of incident, summary"),
        ("incident.closed", ["on_behalf=u:0123456789abcdef"], "with a field of incident, summary"),
        ("incident.closed", ["incident"], "FIELD=VALUE"),
        ("log.reviewed", ["first_leaf=-1"], "an integer from 0"),
        ("log.reviewed", ["first_leaf=" + "9" * 5000], "an integer from 0"),
        ("dpia.recorded", ["assessed_epsilon=inf"], "a number from"),
        ("attack.tested", ["figures=auc:many"], "a number from"),
        ("agreement.recorded", ["parties="], "a list of 1 to 50"),
        ("agreement.recorded", ["valid_from=2026-02-30"], "a day such as"),
        ("agreement.recorded", ["kind=handshake"], "one of BAA"),
        ("transfer.recorded", ["origin=Germany"], "two letters"),
        ("consent.withdrawn", ["patients=7"], "a range"),
    ],
)
def test_what_is_no_declaration(name, words, match):
    with pytest.raises(EntryRefused, match=match):
        read(name, words)


@pytest.mark.parametrize(
    ("name", "changed", "match"),
    [
        ("log.reviewed", {"on_behalf": None}, "who read it"),
        ("log.reviewed", {"first_leaf": 200}, "200 or more"),
        ("legal_basis.declared", {"article_6": None, "article_9": None}, "no ground"),
        ("agreement.recorded", {"document_sha256": None}, "the document that says so"),
        ("irb.recorded", {"document_sha256": None}, "the document that says so"),
        ("dpia.recorded", {"document_sha256": None}, "the document that says so"),
        ("deid.determined", {"document_sha256": None}, "the document that says so"),
    ],
)
def test_what_a_fact_must_say(name, changed, match):
    with pytest.raises(EntryRefused, match=match):
        declared(name, EXAMPLES[name], **changed)


def test_every_field_that_is_asked_for_says_what_may_stand_there():
    for kind in DECLARED.values():
        for one in asked(kind):
            assert one.words
            assert one.name not in ("study", "on_behalf", "document_sha256", "site_seq", "actor")


@pytest.mark.parametrize("words", ["Ada found it", "what Example said", "Ada's laptop", "the laptop of Ada-Example"])
def test_nobody_signs_with_his_own_name(words):
    with pytest.raises(EntryRefused, match="your own name") as caught:
        refuse_names("incident.closed", {"incident": "Ada", "summary": words}, "Dr Ada Example")
    assert words not in str(caught.value)


@pytest.mark.parametrize("words", ["an example of a fault", "nothing unusual", "Adam", "Dr X was there"])
def test_other_words_are_no_name(words):
    refuse_names("incident.closed", {"incident": "2026-07", "summary": words}, "Dr Ada Example")


def test_a_payload_is_declared_erased_by_what_erases_it_alone():
    with pytest.raises(EntryRefused, match="audit erase"):
        read("erasure.executed", ["what=payload", "executed_on=2026-11-23"])
    for field in ("commitments", "subject"):
        with pytest.raises(EntryRefused, match="with a field of what, executed_on"):
            read("erasure.executed", [f"{field}=x"])


@pytest.mark.parametrize(
    "changed", [{"what": "model", "commitments": (digest("a"),)}, {"what": "payload", "subject": WHO}]
)
def test_an_erasure_says_of_what(changed):
    with pytest.raises(EntryRefused, match=r"erasure\.executed"):
        declared("erasure.executed", EXAMPLES["erasure.executed"], **changed)


def test_an_entry_of_an_earlier_release_reads_as_it_was_written():
    """What most declarations do not have is not written at all."""
    plain = declared("incident.closed", EXAMPLES["incident.closed"])
    data = entries.entry_bytes(plain)
    assert b"commitment" not in data
    assert entries.parse_entry(data) == plain
    with pytest.raises(EntryRefused, match="canonical"):
        entries.parse_entry(data.replace(b'"body":{', b'"body":{"note_commitment":null,', 1))

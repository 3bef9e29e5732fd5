"""audit/exchange.py: every entry as a line for scripts, and as an AuditEvent that the FHIR library accepts."""

import json

import pytest

from audit import entries, verify
from audit.exchange import audit_event, events, fhir_events
from tests.fakes.sample_study_log import STUDY, SampleConsortium, evidence, failed_steps, pack, unpack

fhir = pytest.importorskip("fhir.resources.R4B.auditevent", reason="fhir.resources is not installed")
ORIGIN = "fl.example.org/log"
CODES = {"110100", "110101", "110106", "110107", "110112", "110113", "110114"}


@pytest.fixture(scope="module")
def lines():
    return SampleConsortium().whole_study().lines


@pytest.fixture(scope="module")
def found(lines):
    return [json.loads(line) for line in fhir_events(lines, study=STUDY, origin=ORIGIN).splitlines()]


def test_events_are_the_stored_bytes(lines):
    rows = events(lines, STUDY).splitlines()
    assert len(rows) == len(lines)
    for leaf, (row, line) in enumerate(zip(rows, lines, strict=True)):
        assert row == b'{"leaf":%d,"entry":%b}' % (leaf, line)
        assert json.loads(row)["leaf"] == leaf


def test_another_study_is_left_out_and_the_consortium_is_not(lines):
    other = [json.loads(row)["entry"]["type"] for row in events(lines, "another-study").splitlines()]
    assert "log.opened" in other
    assert not any(kind.startswith(("study.", "round.", "dp.")) for kind in other)


def test_fhirs_own_model_accepts_every_event(found, lines):
    assert len(found) == len(lines)
    for event in found:
        fhir.AuditEvent.model_validate(event)


def test_what_the_model_does_not_check(found, lines):
    """Its R4B classes take any outcome and any code, and do not know the invariants."""
    for event, line in zip(found, lines, strict=True):
        record = json.loads(line)
        assert event["outcome"] in {"0", "4", "8", "12"}
        assert event["action"] in set("CRUDE")
        assert event["type"]["code"] in CODES
        assert event["recorded"] == record["ts"]
        assert event["subtype"][0]["code"] == record["type"]
        assert sum(agent["requestor"] for agent in event["agent"]) == 1
        for entity in event["entity"]:
            assert not {"name", "query"} <= entity.keys()  # invariant sev-1
            assert all(detail["valueString"] for detail in entity.get("detail", ()))


def test_nobody_is_a_patient_and_nothing_is_called_a_disclosure(found):
    text = json.dumps(found)
    assert "Patient" not in text
    assert '"code": "11"' not in text


def test_an_update_leaves_one_and_comes_to_the_other(found):
    event = next(one for one in found if one["subtype"][0]["code"] == "update.submitted")
    source, receiver = event["agent"]
    assert (source["type"]["coding"][0]["code"], source["requestor"]) == ("110153", True)
    assert (receiver["type"]["coding"][0]["code"], receiver["requestor"]) == ("110152", False)
    assert receiver["who"]["identifier"] == {"system": f"https://{ORIGIN}/fhir/coordinators", "value": "coordinator"}
    assert event["entity"][1]["lifecycle"]["code"] == "8"


def test_a_stewards_pseudonym_goes_with_the_hospital(found):
    event = next(one for one in found if one["subtype"][0]["code"] == "study.approved")
    assert event["agent"][0]["altId"].startswith("u:")


def test_the_details_are_the_whole_entry(found, lines):
    for leaf, (event, line) in enumerate(zip(found, lines, strict=True)):
        record = json.loads(line)
        details = {detail["type"]: detail["valueString"] for detail in event["entity"][-1]["detail"]}
        assert details.pop("tlog-leaf-index") == str(leaf)
        for name, value in record["body"].items():
            if value != "":
                assert details[name] == value or json.loads(details[name]) == value


def test_every_kind_of_entry_has_its_place():
    for name in entries.KINDS:
        record = {"type": name, "id": "x", "ts": "t", "outcome": "0", "actor": "coordinator", "body": {}}
        assert audit_event(0, record, origin=ORIGIN)["type"]["system"].endswith("/DCM")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda data: data.replace(b'"round":1', b'"round":2', 1), "events.ndjson, line"),
        (lambda data: data + b"{}\n", "events.ndjson"),
        (lambda data: data[: data.rindex(b'{"leaf"')], "events.ndjson, line"),
    ],
)
def test_the_checker_compares_events_with_the_log(tmp_path, change, where):
    archive, policy = evidence(tmp_path)
    files = unpack(archive)
    files["events.ndjson"] = change(files["events.ndjson"])
    step = failed_steps(verify.check(str(pack(tmp_path / "changed.zip", files)), policy))["entries are well formed"]
    assert step["where"].startswith(where)

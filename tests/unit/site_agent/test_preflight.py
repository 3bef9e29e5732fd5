"""`site-agent check`: everything a run needs, and what it says when something is not as it must be."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
import structlog
import torch
import yaml

from consortium.contract import certificates
from site_agent import app, check_machine, cli, preflight
from site_agent.check_network import Firewall
from site_agent.check_result import CheckResult, Status
from site_agent.home import HomeInvalid, open_home
from site_agent.preflight import Checked, run_checks
from site_agent.store import Decision, Store
from site_agent.told import Told
from tests.fakes.imaging_study import whole_study, write_folder
from tests.fakes.site_wire import STUDY, dialled, document_of
from tests.fakes.site_world import make_home, new_member, write_patients, write_site_file
from tests.fakes.stewards import registered, signed
from tests.fakes.wire_world import pki

NAMES = [
    *("configuration", "folders", "disk", "memory", "confinement", "keys", "certificate"),
    *(
        "stewards",
        "dns",
        "proxy",
        "port",
        "tls",
        "coordinator",
        "clock",
        "versions",
        "data",
        "gpu",
        "engines",
        "ledger",
    ),
]


@pytest.fixture(autouse=True)
def plenty(monkeypatch):
    """What the machine of the tests happens to have is not what they are about."""
    monkeypatch.setattr(check_machine, "available_bytes", lambda: 2**36)
    monkeypatch.setattr(preflight, "check_confinement", lambda: "enforced: everything")
    monkeypatch.setattr(check_machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**40))


def approve(folder, study=STUDY):
    offered = document_of(study)
    decision = Decision(
        study_digest=study.digest(),
        study=study.study_id,
        document=offered.document,
        decision="approved",
        steward="Dr Somebody",
        statement="I have read it.",
        at=1.0,
        signatures=signed(open_home(folder), Store(folder / "agent.db"), study),
    )
    Store(folder / "agent.db").add_events([], decision=decision)


async def failed(folder):
    """The checks that failed; none of them raises, and each says what to do."""
    checked = await run_checks(folder)
    assert [result.name for result in checked.results] == NAMES
    assert all(bool(result.advice) is (result.status is not Status.OK) for result in checked.results)
    assert checked.ok is (not any(result.status in ("failed", "not checked") for result in checked.results))
    return {result.name: result.found for result in checked.results if result.status is Status.FAILED}


async def found_of(folder):
    return {result.name: result.found for result in (await run_checks(folder)).results}


async def statuses(folder):
    """Of everything that is not simply well."""
    results = (await run_checks(folder)).results
    return {result.name: result.status.value for result in results if result.status is not Status.OK}


async def test_all_is_well(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    async with dialled(tmp_path) as (world, _):
        assert await failed(tmp_path) == {}
        approve(tmp_path)
        results = await found_of(tmp_path)
        assert "small-study" in results["configuration"]
        assert "365 days" in results["certificate"] or "364 days" in results["certificate"]
        assert results["coordinator"].endswith("studies offered: 1")
        assert "45 patients (29 to train, 16 to test)" in results["data"]
        device, engines = results["engines"].splitlines()
        assert device == "device: cpu, float32"
        assert engines.startswith("small-study: bookkeeping (steps of ")
        assert "made-up patients; bookkeeping " in results["engines"]
        assert " ms" in results["engines"]
        assert results["ledger"] == "as new as what this hospital signed; studies that spent something: 0"
        assert world.service.events == []
        with (tmp_path / "site.yaml").open("a") as file:
            file.write("\ndevice: cuda\n")
        missing = "device: found 'cuda', but torch finds no CUDA device on this machine"
        assert await failed(tmp_path) == dict.fromkeys(("gpu", "engines"), missing)
    assert {record.kind for record in Store(tmp_path / "agent.db").egress()} == {"list-studies", "greet"}
    assert world.service.sessions == []  # an agent that runs meanwhile keeps its own


async def test_what_programs_may_rely_on_is_what_the_page_says(tmp_path):
    page = (Path(__file__).parents[3] / "docs/reference/site-check.md").read_text()
    (schema,) = re.findall(r"^```json\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    validator = jsonschema.Draft202012Validator(json.loads(schema))
    async with dialled(tmp_path):
        well = (await run_checks(tmp_path)).to_json()
        (tmp_path / "site.yaml").write_text("nonsense: 1")
        ill = (await run_checks(tmp_path)).to_json()
    for told, ok in ((well, True), (ill, False)):
        validator.validate(told)
        assert told["ok"] is ok
        assert [one["check"] for one in told["checks"]] == NAMES
    assert well["firewall"]["inbound"] == []
    assert ill["firewall"] is None
    assert re.findall(r"^\| `([a-z]+)` \|", page, re.MULTILINE) == NAMES


async def test_nothing_but_the_answer_goes_to_stdout(tmp_path, monkeypatch, capsys):
    """What checks log on their way must not stand before the JSON."""

    async def talks(folder):
        structlog.get_logger().info("device.chosen")
        return folder

    monkeypatch.setattr(app, "run_checks", talks)
    try:
        assert await app.check_home(tmp_path) == tmp_path
    finally:
        structlog.reset_defaults()
    said = capsys.readouterr()
    assert (said.out, "device.chosen" in said.err) == ("", True)


def test_what_is_printed(tmp_path, capsys):
    results = [
        CheckResult(name="disk", status=Status.OK, found="room [enough]"),
        CheckResult(name="memory", status=Status.WARNING, found="little", advice="Give it more."),
        CheckResult(name="port", status=Status.FAILED, found="Connection refused", advice="Open it."),
        CheckResult(name="tls", status=Status.NOT_CHECKED, found="not tried", advice="Mend that first."),
    ]
    firewall = Firewall(host="hub.example.org", port=8443, proxy=None, addresses=("192.0.2.1",))
    checked = Checked(site="birch", at=datetime.now(UTC), results=tuple(results), firewall=firewall)
    assert not checked.ok
    cli._print_checked(checked)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["ok   disk: room [enough]", "WARN memory: little", "       Give it more."]
    assert lines[3:5] == ["FAIL port: Connection refused", "       Open it."]
    assert lines[5] == "--   tls: not tried"
    assert lines[7:9] == [
        "For the firewall team:",
        "  direction   outbound only, from this computer; nothing inbound is needed, the agent listens on no port",
    ]
    assert "hub.example.org, TCP port 8443 (today 192.0.2.1; allow the name, addresses may change)" in lines[9]
    assert "do not intercept TLS to hub.example.org" in "".join(lines)


async def test_no_home(tmp_path):
    with pytest.raises(HomeInvalid):
        await run_checks(tmp_path)


async def test_nobody_there(tmp_path):
    make_home(tmp_path, STUDY, authority=pki().authority, address="127.0.0.1:1")
    assert await failed(tmp_path) == {"port": "Connection refused"}
    behind = ("tls", "coordinator", "clock", "versions")
    found = {"stewards": "warning", "port": "failed", **dict.fromkeys(behind, "not checked")}
    assert await statuses(tmp_path) == found


async def test_whether_anybody_can_approve_a_study(tmp_path):
    async with dialled(tmp_path):
        (warned,) = [one for one in (await run_checks(tmp_path)).to_json()["checks"] if one["check"] == "stewards"]
        assert (warned["status"], warned["ok"]) == ("warning", True)
        assert "site-agent stewards add" in warned["advice"]
        registered(open_home(tmp_path), Store(tmp_path / "agent.db"))
        assert (await found_of(tmp_path))["stewards"] == "1 steward with 1 key; 1 must sign each study"
        write_site_file(tmp_path, STUDY, approvals_needed=2)
        wanted = "1 steward with 1 key; 2 must sign each study: no study can be approved"
        assert await failed(tmp_path) == {"stewards": wanted}


async def test_a_later_check_is_made_although_an_earlier_one_failed(tmp_path, monkeypatch):
    async with dialled(tmp_path):
        (tmp_path / "site.yaml").write_text("nonsense: 1")
        (tmp_path / "keys/hedge.key").chmod(0o640)
        found = await failed(tmp_path)
        assert list(found) == [
            "configuration",
            "disk",
            "memory",
            "keys",
            *("stewards", "data", "gpu", "engines"),
            "ledger",
        ]
        assert "nonsense" in found["configuration"]
        assert (await statuses(tmp_path))["coordinator"] == "not checked"  # where to dial is in the file, too
        assert (await run_checks(tmp_path)).firewall is None


async def test_an_ecdsa_key_that_was_exchanged(tmp_path):
    async with dialled(tmp_path):
        (tmp_path / "keys/ecdsa.pem").write_bytes(certificates.private_pem(certificates.new_ecdsa_key()))
        assert list(await failed(tmp_path)) == ["keys"]
        (tmp_path / "keys/ecdsa.pem").unlink()
        assert "ecdsa.pem is missing" in (await failed(tmp_path))["keys"]


async def test_keys_that_were_exchanged(tmp_path):
    async with dialled(tmp_path):
        (tmp_path / "keys/signing.pem").write_bytes(certificates.private_pem(certificates.new_signing_key()))
        assert list(await failed(tmp_path)) == ["keys"]
        (tmp_path / "keys/hedge.key").chmod(0o640)
        assert "mode 0640" in (await failed(tmp_path))["keys"]


async def test_a_tls_key_that_is_none(tmp_path):
    async with dialled(tmp_path):
        (tmp_path / "keys/tls.pem").write_bytes(b"nothing")
        found = await failed(tmp_path)
        assert "tls.pem" in found["keys"]


async def test_a_certificate_that_ends_soon_or_is_foreign(tmp_path, monkeypatch):
    async with dialled(tmp_path):
        soon = new_member(pki().authority, "birch", valid_for=timedelta(days=2))
        (tmp_path / "certificates/site.pem").write_bytes(soon.certificate_pem)
        found = await failed(tmp_path)
        assert "expires in" in found["certificate"]
        (tmp_path / "certificates/site.pem").write_bytes(b"nothing")
        found = await failed(tmp_path)
        assert {"certificate", "coordinator"} <= set(found)
        low = new_member(pki().authority, "birch", valid_for=timedelta(days=90))
        (tmp_path / "certificates/site.pem").write_bytes(low.certificate_pem)
        monkeypatch.setattr(preflight, "CERTIFICATE_LOW_PART", 0.5)  # of ninety days ninety are left
        assert (await statuses(tmp_path))["certificate"] == "warning"


async def test_data_that_are_missing_or_wrong(tmp_path):
    async with dialled(tmp_path):
        approve(tmp_path)
        write_patients(tmp_path / "patients.csv", count=3)
        assert "3 patients" in (await failed(tmp_path))["data"]
        (tmp_path / "patients.csv").unlink()
        assert "is not a file" in (await failed(tmp_path))["data"]
        write_site_file(tmp_path, STUDY, dataset=None)
        assert list(await failed(tmp_path)) == ["data"]


async def test_images_are_checked_one_line_for_each_reason(tmp_path):
    async with dialled(tmp_path):
        study = whole_study()
        films = tmp_path / "films"
        write_folder(films, [f"SECRET-{number}" for number in range(14)])
        (films / "2.png").write_text("no picture")
        (films / "5.png").unlink()
        (films / "13.png").write_bytes(b"")
        approve(tmp_path, study)
        record = yaml.safe_load((tmp_path / "site.yaml").read_text())
        own = {"path": "films", "format": "image-folder", "table": "list.csv", "declared_patients": 8}
        record |= {"datasets": {"films": own}, "studies": {study.id: "films"}}
        (tmp_path / "site.yaml").write_text(yaml.safe_dump(record))
        assert await failed(tmp_path) == {}
        results = await found_of(tmp_path)
        assert results["data"] == (
            "small-study:\n"
            "  11 patients (8 to train, 3 to test) with 11 records; 3 of 14 records left out\n"
            "  left out: 2 records, cannot be read as PNG or JPEG: truncated or damaged (records 3, 14)\n"
            "  left out: 1 record, the file is not there, or cannot be read (record 6)"
        )
        assert len(list((tmp_path / "images").iterdir())) == 11  # prepared, and ready for training
        (tmp_path / "list.csv").write_text("file,patient,label\n0.png,SECRET-0,1\n")
        told = (await failed(tmp_path))["data"]
        assert "1 patient with complete records; allowed: at least 4" in told
        assert "SECRET" not in told
        record["datasets"]["films"]["path"] = "list.csv"
        (tmp_path / "site.yaml").write_text(yaml.safe_dump(record))
        assert "is not a folder" in (await failed(tmp_path))["data"]


async def test_a_check_that_breaks_is_a_check_that_failed(tmp_path, monkeypatch):
    async def breaks(_home):
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(preflight, "_disk", breaks)
    async with dialled(tmp_path):
        assert await failed(tmp_path) == {"disk": "RuntimeError: nobody thought of this"}


async def test_datasets_with_patients_in_common_and_a_ledger_that_is_too_old(tmp_path):
    async with dialled(tmp_path):
        record = yaml.safe_load((tmp_path / "site.yaml").read_text())
        record["datasets"]["clinic"] = dict(record["datasets"]["ward"])
        (tmp_path / "site.yaml").write_text(yaml.safe_dump(record))
        results = await found_of(tmp_path)
        assert "clinic and ward have 45 patients in common and one budget" in results["ledger"]
        told = Told(study_digest=STUDY.digest(), study=STUDY.id, dataset="ward", round=1, attempt=1, steps=3)
        Store(tmp_path / "agent.db").add_events([], spent=told)
        assert "counts 0 noisy steps" in (await failed(tmp_path))["ledger"]

"""A hospital's own evidence: made from its own copy of the log, signed by its own key, logged in its own log."""

import threading
import time

import pytest

from audit.egress_entries import EvidenceExported, parse_egress
from audit.verify import check
from site_agent.egress_log import EgressLog, read_egress
from site_agent.log_copy import CopyAltered, CopyMissing, EvidenceRefused, open_copy
from site_agent.site_evidence import export_study
from tests.fakes.evidence_home import ME, STUDY, EvidenceHome, whole
from tests.fakes.sample_study_log import failed_steps, unpack


def details(result):
    return {step["title"]: step.get("detail", "") for step in result["steps"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return whole(tmp_path_factory.mktemp("hospital"))


def test_it_verifies_and_says_who_exported_it(made, tmp_path):
    exported = export_study(made.home, made.store, STUDY, tmp_path / "evidence.zip")
    result = check(str(exported.path), made.policy)
    assert (result["verified"], failed_steps(result)) == (True, {})
    said = details(result)
    assert (
        said["manifest is signed by the export key"]
        == "exported by site hungary, with the key that entry 4 of the log names"
    )
    assert said["the export is in the log"].endswith("of sample-consortium/hungary/egress")
    assert "6 masked updates of 7632 bytes" in said["the hospital's own log of what left it"]
    assert result["notes"] == []
    files = unpack(exported.path)
    assert files["egress/certificate.pem"] == made.home.certificate_pem
    assert b'"exported_by": "site:hungary"' in files["report.json"]
    log = EgressLog(made.home, made.store)
    entry = parse_egress(list(log.log.entries())[exported.leaf])
    log.close()
    assert isinstance(entry, EvidenceExported)
    assert (entry.manifest_sha256, entry.study) == (exported.manifest_sha256, STUDY)
    assert len(read_egress(made.home, made.store).lines) == 6  # nothing left the building


def test_a_running_agent_logs_the_export(made, tmp_path):
    """It alone may append; the command line leaves it the entry and waits."""
    agent = EgressLog(made.home, made.store)
    stop = threading.Event()

    def moving():
        while not stop.is_set():
            agent.move()
            time.sleep(0.05)

    thread = threading.Thread(target=moving)
    thread.start()
    try:
        exported = export_study(made.home, made.store, STUDY, tmp_path / "evidence.zip")
    finally:
        stop.set()
        thread.join()
        agent.close()
    assert check(str(exported.path), made.policy)["verified"]


def test_a_model_that_was_not_released_stays_here(tmp_path):
    made = EvidenceHome(tmp_path)
    made.consortium.whole_study()
    made.consortium.lines.pop()  # model.released
    made.build()
    made.leaves("e" * 64, 5)  # left after the copy was made: the study is over, so this is named
    exported = export_study(made.home, made.store, STUDY, tmp_path / "evidence.zip")
    assert "model.safetensors" not in unpack(exported.path)
    assert list(failed_steps(check(str(exported.path), made.policy))) == ["the hospital's own log of what left it"]


def test_in_the_middle_of_a_study_what_is_newer_than_the_copy_is_said(tmp_path):
    made = EvidenceHome(tmp_path)
    made.consortium.opening()
    made.consortium.agreeing()
    made.consortium.one_round(1)
    made.build()
    made.leaves("e" * 64, 5)
    exported = export_study(made.home, made.store, STUDY, tmp_path / "evidence.zip")
    result = check(str(exported.path), made.policy)
    assert result["verified"]
    assert any("1 entries of what left hungary are newer" in note for note in result["notes"])


def test_what_there_is_nothing_to_export_from(tmp_path):
    made = EvidenceHome(tmp_path)
    with pytest.raises(CopyMissing) as missing:
        open_copy(made.home)
    assert "site-agent run" in missing.value.advice()
    made.consortium.opening()
    made.copy_log()
    with pytest.raises(EvidenceRefused) as refused:
        export_study(made.home, made.store, STUDY, tmp_path / "evidence.zip")
    assert "never decided" in str(refused.value)
    made.consortium.agreeing()
    for line in made.consortium.lines[9:]:
        if b"study.approved" in line and ME.encode() in line:
            made.store.add_events([lambda *_, line=line: line], decision=made._decision())
    with pytest.raises(EvidenceRefused) as unknown:
        export_study(made.home, made.store, STUDY, tmp_path / "evidence.zip")
    assert "has no study" in str(unknown.value)
    assert unknown.value.advice()
    (made.folder / "log/public/checkpoint").write_bytes(b"nothing")
    with pytest.raises(CopyAltered) as altered:
        open_copy(made.home)
    assert "log/" in altered.value.advice()
    assert not (tmp_path / "evidence.zip").exists()

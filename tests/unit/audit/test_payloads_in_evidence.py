"""Payloads beside the log, as a stranger's check sees them: disclosed, kept or erased; nobody erases another's."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from audit import entries, verify
from audit.evidence import policy_text
from audit.vault import commit
from tests.fakes.sample_study_log import STUDY, SampleConsortium, failed_steps, log_files, pack, unpack

STEP = "payloads kept beside the log"
SALT, WORDS = bytes(range(32)), b"Dr Ada Example looked at it."
SHOWN, GONE, SITES_OWN, OTHERS = (commit(words, SALT) for words in (WORDS, b"gone", b"a site's", b"another study"))
CLOSED = {"incident": "2026-07", "summary": "over"}
WHO = "u:" + "ab" * 16
ERASED = {"what": "payload", "executed_on": "2026-11-23"}


def declared() -> SampleConsortium:
    """A whole study in which people said things that are kept beside the log."""
    sample = SampleConsortium().whole_study()
    sample.coordinator(entries.IncidentClosed, study=STUDY, note_commitment=SHOWN, **CLOSED)
    sample.coordinator(entries.IncidentClosed, study="other-study", note_commitment=OTHERS, **CLOSED)
    sample.coordinator(
        entries.AgreementRecorded, kind="DUA", parties=("hungary",), valid_from="2026-01-01", document_commitment=GONE
    )
    sample.site("cleveland", entries.IncidentClosed, note_commitment=SITES_OWN, **CLOSED)
    return sample


def erased(sample: SampleConsortium) -> SampleConsortium:
    sample.coordinator(entries.ErasureExecuted, on_behalf=WHO, commitments=(GONE,), **ERASED)
    return sample


@pytest.fixture(scope="module")
def disclosed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], bytes]:
    """Evidence with one payload in it and one erased."""
    folder = tmp_path_factory.mktemp("payloads")
    sample = erased(declared())
    log = sample.open_log(folder / "log")
    made = sample.export(log, folder / "evidence.zip", payloads={SHOWN: SALT + WORDS})
    policy = policy_text(log)
    log.close()
    return unpack(made.path), policy


def checked(tmp_path: Path, files: dict[str, bytes], policy: bytes) -> dict[str, Any]:
    return verify.check(str(pack(tmp_path / "evidence.zip", files)), policy)


def test_what_is_disclosed_agrees_and_what_is_erased_is_no_failure(disclosed: Any, tmp_path: Path) -> None:
    files, policy = disclosed
    result = checked(tmp_path, files, policy)
    assert result["verified"], failed_steps(result)
    (line,) = [step for step in result["steps"] if step["title"] == STEP]
    assert line["detail"] == "3 committed to: 1 in this bundle, 1 kept by who recorded them, 1 erased"
    leaves = {json.loads(line)["leaf"]: json.loads(line)["entry"] for line in files["events.ndjson"].splitlines()}
    where, when = (next(leaf for leaf, e in leaves.items() if f'"{GONE}"' in json.dumps(e) and e["type"] == kind)
                   for kind in ("agreement.recorded", "erasure.executed"))  # fmt: skip
    assert f"The payload of leaf {where} ({GONE[:16]}) was erased: leaf {when}." in result["notes"]


def test_old_checkpoints_and_receipts_stay_valid_after_an_erasure(disclosed: Any, tmp_path: Path) -> None:
    """What was signed before is of the same log; the entry whose document is gone still proves that it was made."""
    files, policy = disclosed
    sample = declared()
    log = sample.open_log(tmp_path / "log")
    agreed = len(sample.lines) - 2
    receipt, head = log.receipt(agreed).to_bytes(), log.checkpoint()
    log.close()
    later = pack(tmp_path / "evidence.zip", files)
    assert verify.check(str(later), policy, head.to_bytes())["verified"]
    index, proof, _ = verify.parse_receipt("receipt", receipt)
    root, leaf = head.checkpoint.root, verify.leaf_hash(sample.lines[agreed])
    assert GONE.encode() in sample.lines[agreed]
    verify.check_inclusion("receipt", leaf, proof, index=index, size=head.checkpoint.size, root=root)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        (SHOWN, SALT + WORDS + b"!", "of 01, salt and payload"),
        (SHOWN, bytes(32) + WORDS, "of 01, salt and payload"),
        (GONE, SALT + b"gone", "says that it was erased"),
        (OTHERS, SALT + b"another study", "in an entry of this study"),
        ("ab" * 32, SALT, "in an entry of this study"),
    ],
    ids=["another-payload", "another-salt", "erased", "another-study", "of-nothing"],
)
def test_a_payload_that_is_another_one_or_should_not_be_there(
    disclosed: Any, tmp_path: Path, name: str, data: bytes, expected: str
) -> None:
    files, policy = disclosed
    result = checked(tmp_path, files | {f"payloads/{name}": data}, policy)
    assert expected in failed_steps(result)[STEP]["expected"]


@pytest.mark.parametrize(
    "body",
    [
        {**ERASED, "commitments": ["cd" * 32]},  # nobody ever committed to it
        {**ERASED, "commitments": [SITES_OWN]},  # a hospital did, and the coordinator erases nothing of its
        {**ERASED, "what": "model", "commitments": [GONE]},
        {**ERASED, "commitments": GONE},
    ],
    ids=["nobodys", "a-hospitals", "of-a-model", "no-list"],
)
def test_an_erasure_of_what_was_never_kept(disclosed: Any, tmp_path: Path, body: dict[str, Any]) -> None:
    files, policy = disclosed
    sample = declared()
    record = {"v": 1, **sample.stamp(), "type": "erasure.executed", "actor": "coordinator", "outcome": "0"}
    data = json.dumps(record | {"body": body}, sort_keys=True, separators=(",", ":")).encode()
    kept = {name: content for name, content in files.items() if not name.startswith("log/tile/")}
    steps = failed_steps(checked(tmp_path, kept | log_files([*sample.lines, data], sample.log_signer), policy))
    assert "leaf" in steps[STEP]["where"]


def test_the_report_lists_what_is_kept_and_what_was_erased(disclosed: Any) -> None:
    files, _ = disclosed
    page = files["report.html"].decode()
    assert "Kept beside the log" in page
    for commitment, state in ((SHOWN, "kept by coordinator"), (SITES_OWN, "kept by cleveland"), (GONE, "erased on")):
        assert re.search(f"{commitment[:16]}.{{0,200}}{state}", page, re.DOTALL), (commitment, state)
    assert OTHERS[:16] not in page  # of another study

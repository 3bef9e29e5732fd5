"""A new log after a key was stolen or lost: its first entry holds the last checkpoint of the one before."""

import json

import pytest
from typer.testing import CliRunner

from audit import entries, verify
from audit.errors import EntryRefused
from audit.log import LogView
from consortium.cli import app
from consortium.errors import HomeInvalid
from consortium.home import create_home, open_home
from tests.fakes.changed_keys import checkpoint
from tests.fakes.sample_study_log import ORIGIN, SITES, SampleConsortium, log_files, pack

SAMPLE = SampleConsortium()
SAMPLE.opening()
LAST = checkpoint(SAMPLE.lines, [SAMPLE.log_signer], SITES[:3])


def test_it_has_the_old_name_and_a_number_and_holds_the_whole_checkpoint(tmp_path):
    (tmp_path / "checkpoint").write_bytes(LAST)
    folder, address = tmp_path / "second", "127.0.0.1:8443"
    made = CliRunner().invoke(
        app,
        ["init", str(folder), "--name", "sample", "--address", address, "--continues", str(tmp_path / "checkpoint")],
    )
    assert made.exit_code == 0, made.output
    home = open_home(folder)
    assert home.config.log_origin == f"{ORIGIN}/2"
    view = LogView.read(folder / "log", home.log_signer.verifier)
    (first,) = view.entries()
    last = view.checkpoint().to_bytes()
    view.close()
    assert json.loads(first)["body"]["continues"] == LAST.decode()
    third = create_home(tmp_path / "third", name="sample", address=address, continues=last)
    assert third.config.log_origin == f"{ORIGIN}/3"


@pytest.mark.parametrize("bad", [b"", b"no checkpoint\n", LAST[:60], b"x" * 100])
def test_what_is_no_checkpoint_makes_no_home(tmp_path, bad):
    with pytest.raises(HomeInvalid, match="no signed checkpoint"):
        create_home(tmp_path / "home", name="sample", address="127.0.0.1:8443", continues=bad)
    assert list(tmp_path.iterdir()) == []


def test_a_log_does_not_continue_itself_and_an_older_entry_has_no_such_field():
    opened = entries.parse_entry(SAMPLE.lines[0])
    assert opened.continues is None
    assert b"continues" not in SAMPLE.lines[0]
    fields = {
        name: getattr(opened, name) for name in ("consortium", "log_vkey", "export_vkey", "coordinator_signing_key")
    }
    for bad in (LAST.decode(), "text\n"):
        with pytest.raises(EntryRefused, match="continues"):
            entries.LogOpened(**SAMPLE.stamp(), **fields, continues=bad)


def test_verify_says_so(tmp_path):
    record = json.loads(SAMPLE.lines[0])
    record["body"]["continues"] = LAST.decode().replace(ORIGIN, "fl.example.org/before")
    first = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    lines = [first, *SAMPLE.lines[1:]]
    policy = f"log {SAMPLE.log_signer.verifier.vkey()}\nquorum none\n".encode()
    files = log_files(lines, SAMPLE.log_signer) | {"log/policy.txt": policy, "manifest.note": b"x\nstudy sample\n"}
    result = verify.check(str(pack(tmp_path / "evidence.zip", files)), policy)
    (note,) = [note for note in result["notes"] if "continues" in note]
    assert f"fl.example.org/before, whose last checkpoint had {len(SAMPLE.lines)} entries" in note
    assert SITES[0] in note

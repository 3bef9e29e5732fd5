"""What people say of people, through both command lines: kept beside the log, shown, erased, found nowhere."""

import asyncio
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from audit import entries
from audit.errors import EntryRefused
from audit.log import LogView
from audit.vault_files import Order
from consortium.cli import app as consortium
from consortium.cli import report_error
from consortium.home import open_home
from site_agent.app import run_until_stopped
from site_agent.cli import app as agent
from tests.fakes.coordinator_home import new_home
from tests.fakes.site_world import make_world

NOTE = "Dr Ada Example looked at the record of Grace Hopper."
DOCUMENT = b"%PDF-1.7 The board heard Dr Ada Example about the patient Grace Hopper.\x00"
PEOPLE = ["Ada Example", "Grace Hopper", "Eve Officer"]
AGREEMENT = ["agreement.recorded", "kind=DUA", "parties=cleveland", "valid_from=2026-01-01"]
INCIDENT = ["incident.closed", "incident=2026-07", "summary=over"]


class Line:
    """One of the two command lines, on its own home."""

    def __init__(self, app: typer.Typer, home: Path) -> None:
        self._app, self.home = app, home

    def run(self, *words: str, exit_code: int = 0, typed: str = "") -> Result:
        done = CliRunner().invoke(self._app, [*words, "--home", str(self.home)], input=typed)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            assert isinstance(done.exception, Exception)
            assert report_error(done.exception) == exit_code, done.exception
        else:
            assert done.exit_code == exit_code, done.output
        return done

    def record(self, *words: str) -> dict[str, Any]:
        entry = json.loads(self.run("record", *words, "--by", "Ada Example").stdout)["entry"]
        assert isinstance(entry, dict)
        return entry

    def payloads(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("audit", "payloads", "--json").stdout)
        return found

    def holds(self, *secrets: bytes) -> list[bytes]:
        """Which of these are in any file of the home: databases, their journals, the log, the vault."""
        data = [path.read_bytes() for path in self.home.rglob("*") if path.is_file()]
        return [secret for secret in secrets if any(secret in one for one in data)]


@pytest.fixture(params=["coordinator", "hospital"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> Line:
    if request.param == "coordinator":
        return Line(consortium, new_home(tmp_path))
    world = make_world(tmp_path)
    world.store.close()
    return Line(agent, tmp_path)


def test_from_the_telling_to_the_forgetting(line: Line, tmp_path: Path) -> None:
    document = tmp_path.parent / f"{tmp_path.name}.pdf"
    document.write_bytes(DOCUMENT)
    agreed = line.record(*AGREEMENT, "--document", str(document), "--keep", "--subject", "Grace Hopper")["body"]
    closed = line.record(*INCIDENT, "--note", NOTE)["body"]
    assert agreed["document_sha256"] is None
    one, other = agreed["document_commitment"], closed["note_commitment"]
    assert line.holds(NOTE.encode(), DOCUMENT) == []  # sealed, even here
    assert [(row["id"], row["part"], row["state"], row["subject_name"]) for row in line.payloads()] == [
        (one[:16], "document", "kept", "Grace Hopper"),
        (other[:16], "note", "kept", "Ada Example"),
    ]

    shown = line.run("audit", "show-payload", other[:16]).stdout
    assert NOTE in shown
    assert f"{other} (agrees)" in shown
    out = tmp_path.parent / f"{tmp_path.name}.out"
    assert "no text" in line.run("audit", "show-payload", one[:16]).stdout
    assert "no text" not in line.run("audit", "show-payload", one[:16], "--out", str(out)).stdout
    assert out.read_bytes() == DOCUMENT
    salt = json.loads(line.run("audit", "show-payload", one[:16], "--json").stdout)["salt"]

    asked = line.run("audit", "erase", one[:16], "--by", "Eve Officer", typed="n\n", exit_code=1)
    assert "Destroy" in asked.stderr
    assert len(line.payloads()) == 2
    assert "Erased 1 payloads" in line.run("audit", "erase", one[:16], "--by", "Eve Officer", "--yes").stdout
    assert (
        "Erased 1 payloads"
        in line.run("audit", "erase", "--subject", "Ada Example", "--by", "Eve Officer", "--yes").stdout
    )
    told = line.run("audit", "show-payload", one[:16]).stdout
    assert re.search(r"erased on 20\d\d-\d\d-\d\d \((leaf \d+|not in the log's copy here yet)\)", told)
    assert [row["state"] for row in line.payloads()] == ["erased", "erased"]
    table = line.run("audit", "payloads").stdout
    assert one[:16] in table
    assert other[:16] in table
    for word in ("--subject", "Ada Example"), (one[:16],):
        line.run("audit", "erase", *word, "--by", "Eve Officer", "--yes", exit_code=2)
    assert line.holds(NOTE.encode(), DOCUMENT, b"Ada Example", salt.encode(), bytes.fromhex(salt)) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((*INCIDENT, "--keep"), 2),  # no document
        (("incident.closed", "incident=2026-07", "summary=Ada was told", "--note", "x"), None),  # her own name
        ((*INCIDENT, "--note", "x", "--study", "no-such-study"), None),
        (("erasure.executed", "what=payload", "executed_on=2026-11-23"), None),  # only `erase` may say so
    ],
)
def test_what_is_refused_leaves_nothing_in_the_vault(line: Line, words: tuple[str, ...], code: int | None) -> None:
    done = CliRunner().invoke(line._app, ["record", *words, "--by", "Ada Example", "--home", str(line.home)])
    assert done.exit_code != 0
    if code is not None and isinstance(done.exception, SystemExit):
        assert done.exit_code == code
    assert line.payloads() == []
    assert not list((line.home / "vault" / "sealed").glob("*"))


def test_the_log_has_pseudonyms_and_commitments_and_no_word_of_it(tmp_path: Path) -> None:
    line = Line(consortium, new_home(tmp_path))
    line.record(*INCIDENT, "--note", NOTE)
    line.run("audit", "erase", "--subject", "Ada Example", "--by", "Eve Officer", "--yes")
    home = open_home(line.home)
    log = list(LogView.read(home.config.log_folder(line.home), home.log_signer.verifier).entries())
    assert not any(name.encode() in data for name in [NOTE, *PEOPLE] for data in log)
    last = [entries.parse_entry(data) for data in log[-3:]]
    closed, *erased = last
    assert isinstance(closed, entries.IncidentClosed)
    assert [one.what for one in erased if isinstance(one, entries.ErasureExecuted)] == ["payload", "pseudonym-key"]
    assert isinstance(erased[0], entries.ErasureExecuted)
    assert erased[0].commitments == (closed.note_commitment,)


def test_the_next_start_finishes_what_was_cut_off(tmp_path: Path) -> None:
    """An order is on the disk and nothing more: the coordinator carries it out before it does anything else."""
    line = Line(consortium, new_home(tmp_path))
    commitment = line.record(*INCIDENT, "--note", NOTE)["body"]["note_commitment"]
    vault = open_home(line.home).vault
    order = Order(id="1" * 16, commitments=(commitment,), on_behalf="u:" + "e" * 32, executed_on="2026-11-23")
    with vault.locked():
        vault.order(order)
    assert vault.has(commitment)
    line.run("study", "list")
    assert not vault.has(commitment)
    assert [row["state"] for row in line.payloads()] == ["erased"]
    assert [one.told for one in vault.orders()] == [True]


def test_an_agent_finishes_it_before_it_connects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(agent, tmp_path)
    world = make_world(tmp_path)
    commitment = line.record(*INCIDENT, "--note", NOTE)["body"]["note_commitment"]
    order = Order(id="1" * 16, commitments=(commitment,), on_behalf="u:" + "e" * 32, executed_on="2026-11-23")
    with world.home.vault.locked():
        world.home.vault.order(order)
    seen: list[bool] = []

    async def run(*_: object, **__: object) -> None:
        seen.append(world.home.vault.has(commitment))

    monkeypatch.setattr("site_agent.app.Agent", lambda *_, **__: SimpleNamespace(run=run))
    asyncio.run(run_until_stopped(tmp_path))
    assert seen == [False]
    last = entries.parse_entry(world.store.signed_entries()[-1])
    assert isinstance(last, entries.ErasureExecuted)
    assert last.commitments == (commitment,)


def test_a_steward_does_not_sign_with_his_own_name(tmp_path: Path) -> None:
    for command, option in (("approve", "--statement"), ("reject", "--reason")):
        words = ["studies", command, "a-study", "--steward", "Dr Ada Example", option, "Ada read it"]
        done = CliRunner().invoke(agent, [*words, "--home", str(tmp_path)])
        assert isinstance(done.exception, EntryRefused)
        assert "your own name" in str(done.exception)

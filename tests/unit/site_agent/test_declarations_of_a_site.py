"""What a hospital declares, and what it says of its own agent: signed, in its chain, with the document left at home."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from audit import entries
from audit.errors import EntryRefused
from consortium.contract.documents import DocumentUnreadable, document_sha256
from site_agent.certification import _signed
from site_agent.declarations import StudyUndecided, declare
from site_agent.deployment import announce_start
from site_agent.log_copy import CopyMissing
from tests.fakes.site_world import World, make_world

PERSON = "Dr Ada Steward"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def last(world: World) -> entries.Entry:
    _, data = world.store.pending_events()[-1]
    return entries.verify_site_entry(data, bytes.fromhex(world.home.identity.signing_key))


def test_a_fact_is_signed_for_a_study_that_was_decided_about(world: World, tmp_path: Path) -> None:
    document = tmp_path / "opinion.pdf"
    document.write_bytes(b"the opinion of Dr Ada Steward")
    made = declare(
        world.home,
        world.store,
        "irb.recorded",
        ["reference=2026-0042", "authority=Ethics board", "decision=approved"],
        study="small-study",
        document_sha256=document_sha256(document),
        person=PERSON,
    )
    entry = last(world)
    assert isinstance(entry, entries.IrbRecorded)
    assert entry.document_sha256 == hashlib.sha256(document.read_bytes()).hexdigest()
    assert (entry.study, entry.actor) == ("small-study", f"site:{world.home.site}")
    assert b"Ada" not in made
    assert b"opinion" not in made
    assert entry in list(_signed(world.store))  # and a certificate can be made beside it


def test_a_fact_about_an_unknown_study_would_stop_the_chain_and_is_not_signed(world: World) -> None:
    before = world.store.last_sequence()
    words = ["incident=2026-07", "summary=over"]
    with pytest.raises(StudyUndecided, match="never decided"):
        declare(
            world.home,
            world.store,
            "incident.closed",
            words,
            study="other-study",
            document_sha256=None,
            person=PERSON,
        )
    with pytest.raises(EntryRefused):
        declare(world.home, world.store, "incident.closed", words[:1], study=None, document_sha256=None, person=PERSON)
    assert world.store.last_sequence() == before


def test_only_what_lies_in_the_copy_here_was_reviewed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["first_leaf=0", "last_leaf=7", "findings=0", "summary=nothing unusual"]

    def reviewed() -> bytes:
        return declare(world.home, world.store, "log.reviewed", words, study=None, document_sha256=None, person=PERSON)

    with pytest.raises(CopyMissing):
        reviewed()
    monkeypatch.setattr("site_agent.declarations.open_copy", lambda _: SimpleNamespace(size=7))
    with pytest.raises(EntryRefused, match="at most 6"):
        reviewed()
    monkeypatch.setattr("site_agent.declarations.open_copy", lambda _: SimpleNamespace(size=8))
    assert entries.parse_entry(reviewed()) == last(world)


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, lambda path: path.write_bytes(b"")])
def test_what_is_no_document(tmp_path: Path, make: object) -> None:
    path = tmp_path / "document"
    assert callable(make)
    make(path)
    with pytest.raises(DocumentUnreadable) as caught:
        document_sha256(path)
    assert "SHA-256" in caught.value.advice()


# --- what is new about the agent ---


def types(world: World) -> list[str]:
    return [json.loads(data)["type"] for data in world.store.signed_entries()]


def test_an_agent_says_once_with_which_rules_and_software_it_works(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert announce_start(world.home, world.store)
    assert types(world)[-2:] == ["software.deployed", "config.changed"]
    first = last(world)
    assert isinstance(first, entries.ConfigChanged)
    rules = world.home.folder / "site.yaml"
    assert (first.previous_sha256, first.sha256) == (None, hashlib.sha256(rules.read_bytes()).hexdigest())
    assert not announce_start(world.home, world.store)
    rules.write_text(rules.read_text() + "# a stricter rule\n")
    assert announce_start(world.home, world.store)
    second = last(world)
    assert isinstance(second, entries.ConfigChanged)
    assert second.previous_sha256 == first.sha256
    monkeypatch.setattr("site_agent.deployment.code_digest", lambda: "0" * 64)
    assert announce_start(world.home, world.store)
    assert isinstance(last(world), entries.SoftwareDeployed)
    assert types(world).count("config.changed") == 2

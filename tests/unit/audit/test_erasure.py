"""Erasing what is kept beside the log: by name, by person, and what the log says of it."""

from pathlib import Path

import pytest

from audit import erasure
from audit.errors import EntryRefused
from audit.vault import PayloadDamaged
from audit.vault_files import PayloadUnknown
from tests.fakes.vault_world import DAY, EVE, VaultWorld


@pytest.fixture
def world(tmp_path: Path) -> VaultWorld:
    return VaultWorld(tmp_path)


def test_a_payload_is_erased_and_the_log_says_which(world: VaultWorld) -> None:
    one, other = world.declared(b"one", study="small-study"), world.declared(b"other")
    assert world.erase(one.id) == (one.commitment,)
    (said,) = world.erasures()
    assert (said.what, said.commitments, said.executed_on) == ("payload", (one.commitment,), DAY)
    assert (said.study, said.on_behalf, said.subject) == ("small-study", EVE, None)
    assert world.vault.kept() == (other,)
    assert world.vault.name_of(one.about.subject) == "Ada Example"  # her words are gone, and she is not


def test_everything_about_a_person_goes_with_her_row(world: VaultWorld) -> None:
    mine = [world.declared(b"one", study="small-study"), world.declared(b"two"), world.declared(b"three")]
    others = world.declared(b"four", subject="Eve Example")
    ada = mine[0].about.subject
    assert set(world.erase(subject="Ada Example")) == {one.commitment for one in mine}
    assert world.vault.kept() == (others,)
    assert world.vault.known("Ada Example") is None
    assert world.forgotten == [(ada, "Ada Example")]
    said = world.erasures()
    assert {one.study: set(one.commitments) for one in said if one.commitments} == {
        "small-study": {mine[0].commitment},
        None: {mine[1].commitment, mine[2].commitment},
    }
    assert [(one.what, one.subject) for one in said if one.subject] == [("pseudonym-key", ada)]


def test_a_person_by_pseudonym_and_a_person_of_whom_nothing_is_kept(world: VaultWorld) -> None:
    ada = world.vault.pseudonym("Ada Example")
    assert world.erase(subject=ada) == ()
    assert [one.what for one in world.erasures()] == ["pseudonym-key"]
    for name in ("Ada Example", ada, "Nobody"):
        with pytest.raises(PayloadUnknown, match="nothing is kept here"):
            world.erase(subject=name)


def test_more_commitments_than_an_entry_holds(world: VaultWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "COMMITMENTS_MAX", 2)
    for number in range(5):
        world.declared(b"%d" % number)
    world.erase(subject="Ada Example")
    assert [len(one.commitments) for one in world.erasures() if one.commitments] == [2, 2, 1]
    assert world.vault.kept() == ()


def test_what_no_entry_names_is_destroyed_and_not_declared(world: VaultWorld) -> None:
    one = world.sealed(b"for an entry that never came")
    world.erase(one.id)
    assert world.vault.kept() == ()
    assert world.erasures() == []


def test_an_entry_that_retention_dropped_may_have_named_it(world: VaultWorld) -> None:
    one = world.declared(b"old")
    world.log[0] = None
    world.erase(one.id)
    assert [said.commitments for said in world.erasures()] == [(one.commitment,)]


@pytest.mark.parametrize(("payloads", "subject"), [((), None), (("0" * 16,), "Ada Example")])
def test_one_or_the_other_is_erased(world: VaultWorld, payloads: tuple[str, ...], subject: str | None) -> None:
    with pytest.raises(EntryRefused, match="payloads by ID, or --subject"):
        world.erase(*payloads, subject=subject)


def test_all_or_nothing_of_what_is_named(world: VaultWorld) -> None:
    one = world.declared(b"one")
    with pytest.raises(PayloadUnknown, match="no payload '0000"):
        world.erase(one.id, "0" * 16)
    assert world.vault.kept() == (one,)
    assert world.erasures() == []


def test_rows_say_what_is_kept_and_where_what_was_erased(world: VaultWorld) -> None:
    one, other, third = world.declared(b"one"), world.declared(b"other"), world.sealed(b"third")
    world.erase(one.id)
    found = {row.id: row.to_json() for row in erasure.rows(world.vault, world)}
    assert (found[one.id]["state"], found[one.id]["leaf"], found[one.id]["erased_leaf"]) == ("erased", 0, 2)
    assert found[one.id]["fact"] == "incident.closed"
    assert (found[other.id]["state"], found[other.id]["leaf"], found[other.id]["erased_at"]) == ("kept", 1, None)
    assert found[other.id]["subject_name"] == "Ada Example"
    assert (found[third.id]["named"], found[third.id]["leaf"]) == (False, None)


def test_a_payload_that_cannot_be_read_is_listed_and_can_be_erased(world: VaultWorld) -> None:
    one, other = world.declared(b"one"), world.declared(b"other")
    (world.home / "vault/sealed" / one.id).write_bytes(b"\0" * 40)
    found = {row.id: row.to_json()["state"] for row in erasure.rows(world.vault, world)}
    assert found == {one.id: "damaged", other.id: "kept"}
    with pytest.raises(PayloadDamaged, match=one.id):
        world.vault.open(one.id)
    assert world.erase(one.id) == (one.commitment,)
    assert world.vault.damaged() == ()
    assert [said.commitments for said in world.erasures()] == [(one.commitment,)]

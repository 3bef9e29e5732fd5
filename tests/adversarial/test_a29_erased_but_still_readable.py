"""A-29: the log says that something was erased, and it can still be read: in a file, a journal, or after a crash.

Held by: the order of things in an erasure (`audit.erasure`): what is wanted is on the disk, then key and salt go, then
the sealed bytes, then the row of the person, and the log is told last; zeros over every byte before a name is gone
(`audit.vault_files`); orders that are finished by whoever looks at the vault next.

Tried, as a29 of `mutations.py`: without the overwriting a second name of the file still has everything; an order that
is carried out after the log was told; an order that nobody finishes; a person's name left in the agent's database.
"""

import os
from pathlib import Path

import pytest

from site_agent import vault
from site_agent.signed_events import SignedEvents
from tests.fakes.site_world import make_world
from tests.fakes.vault_world import Died, VaultWorld

WORDS = b"Dr Ada Example read the record of patient Grace Hopper, born on 9 December."
STEPS = ["order", "destroy", "forget", "write", "told"]


@pytest.fixture
def world(tmp_path: Path) -> VaultWorld:
    return VaultWorld(tmp_path)


def test_nothing_of_it_is_in_any_file_of_the_home(world: VaultWorld) -> None:
    kept = world.declared(WORDS)
    *_, opening = world.vault.open(kept.id)
    sealed = (world.home / "vault/sealed" / kept.id).read_bytes().partition(b"\n")[2]
    secrets = [WORDS, b"Ada Example", opening.expose_key(), opening.expose_salt(), sealed]
    assert sum(secret in world.bytes_on_disk() for secret in secrets) == 4  # all but the words themselves
    world.erase(subject="Ada Example")
    assert [secret for secret in secrets if secret in world.bytes_on_disk()] == []


def test_another_name_of_the_same_file_has_only_zeros(world: VaultWorld, tmp_path: Path) -> None:
    """A hard link stands for whatever still has the blocks of a file whose name is gone."""
    kept = world.declared(WORDS)
    people = next((world.home / "vault/people").iterdir())
    links = [tmp_path / name for name in ("key", "sealed", "person")]
    for path, link in zip(
        [world.home / "vault/keys" / kept.id, world.home / "vault/sealed" / kept.id, people], links, strict=True
    ):
        os.link(path, link)
    world.erase(subject="Ada Example")
    assert [link.read_bytes().strip(b"\0") for link in links] == [b"", b"", b""]


@pytest.mark.parametrize("step", STEPS)
def test_killed_anywhere_the_log_never_says_more_than_was_destroyed(world: VaultWorld, step: str) -> None:
    world.declared(WORDS)
    world.declared(b"other words")
    world.vault.dies = step
    with pytest.raises(Died):
        world.erase(subject="Ada Example")
    assert world.readable_when_told == []
    if world.erasures():
        assert world.vault.kept() == ()
    unfinished = world.again()
    if step == "order":  # nothing was decided yet
        assert (unfinished, len(world.vault.kept()), world.erasures()) == (0, 2, [])
        world.erase(subject="Ada Example")
    assert world.vault.kept() == ()
    assert world.vault.known("Ada Example") is None
    assert world.readable_when_told == []
    assert sorted(said.what for said in world.erasures()) == ["payload", "pseudonym-key"]  # each once
    assert world.again() == 0


def test_a_name_is_nowhere_in_the_agents_database_either(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    name = world.store.decisions()[0].steward
    database = [tmp_path / "agent.db", tmp_path / "agent.db-wal"]

    def holds() -> bool:
        return any(name.encode() in path.read_bytes() for path in database if path.exists())

    ada = SignedEvents(world.home, world.store).pseudonym(name)
    assert holds()
    vault.erase_payloads(world.home, world.store, (), name, person="Eve Officer")
    assert not holds()
    assert {made.steward for made in world.store.decisions()} == {ada}
    assert SignedEvents(world.home, world.store).pseudonym(ada) == ada  # what the agent signs later says the same

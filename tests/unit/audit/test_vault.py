"""Payloads sealed beside the log: what a commitment hides, what opens it, and what is said of one that was changed."""

import hashlib
import json
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import pytest

from audit.errors import EntryRefused
from audit.vault import PAYLOAD_BYTES_MAX, About, Opening, PayloadDamaged, Sealed, commit, open_sealed, seal
from audit.vault_files import PayloadUnknown, VaultFiles, VaultUnusable

WHO = "u:" + "ab" * 16
ABOUT = About(fact="incident.closed", part="note", subject=WHO, study=None, kept_at="2026-11-23T08:00:00.000Z")
WORDS = b"Dr Ada Example looked at the record of Mr Grace Hopper on the 7th."


def sealed(payload: bytes = WORDS) -> Sealed:
    return seal(payload, ABOUT, os.urandom)


def test_a_commitment_is_the_one_of_the_log_format() -> None:
    one = sealed()
    salt = one.opening.expose_salt()
    assert one.kept.commitment == hashlib.sha256(b"\x01" + salt + WORDS).hexdigest()
    assert one.kept.commitment == commit(WORDS, salt)
    assert one.kept.id == one.kept.commitment[:16]


def test_what_is_sealed_opens_and_shows_nothing_before() -> None:
    one = sealed()
    assert WORDS[:12] not in one.data
    assert open_sealed(one.kept.id, one.data, one.opening) == (one.kept, WORDS)


@pytest.mark.parametrize("size", [0, PAYLOAD_BYTES_MAX + 1])
def test_nothing_and_too_much_are_not_kept(size: int) -> None:
    with pytest.raises(EntryRefused, match="1 to 16777216 bytes"):
        sealed(bytes(size))


@pytest.mark.parametrize(
    "changed", [{"fact": "no type"}, {"part": "picture"}, {"subject": "Ada"}, {"study": "A"}, {"kept_at": "now"}]
)
def test_what_is_said_about_a_payload_names_nobody(changed: dict[str, str]) -> None:
    fields: dict[str, Any] = {
        "fact": "x.y",
        "part": "note",
        "subject": WHO,
        "study": None,
        "kept_at": ABOUT.kept_at,
    } | changed
    with pytest.raises(EntryRefused):
        About(**fields)


def test_an_opening_does_not_print_and_is_not_pickled() -> None:
    opening = sealed().opening
    assert repr(opening) == str(opening) == "Opening(64 bytes)"
    assert opening.expose_key().hex() not in repr(sealed())
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(opening)
    with pytest.raises(ValueError, match="32 bytes"):
        Opening(key=b"k", salt=bytes(32))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"{}", "not that of a sealed payload"),
        (b"[]", "not that of a sealed payload"),
        (b"[" * 1500, "not that of a sealed payload"),
        (b"x" * 3000, "not that of a sealed payload"),
        (json.dumps({"commitment": 7, "fact": "a.b", "part": "note", "subject": WHO, "study": None, "kept_at": "x"})
         .encode(), "not that of a sealed payload"),
    ],
    ids=["empty", "a-list", "deep", "long", "a-number"],
)  # fmt: skip
def test_a_first_line_that_is_none(line: bytes, found: str) -> None:
    one = sealed()
    with pytest.raises(PayloadDamaged, match=found):
        open_sealed(one.kept.id, line + b"\n" + one.data.partition(b"\n")[2], one.opening)


def test_one_payload_in_the_place_of_another() -> None:
    one, other = sealed(), sealed()
    with pytest.raises(PayloadDamaged, match="another payload"):
        open_sealed(one.kept.id, other.data, other.opening)


# --- on the disk ---


@pytest.fixture
def vault(tmp_path: Path) -> VaultFiles:
    return VaultFiles(tmp_path)


def kept(vault: VaultFiles, payload: bytes = WORDS) -> Sealed:
    one = sealed(payload)
    with vault.locked():
        vault.keep(one)
    return one


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_key_and_payload_lie_apart_and_are_their_owners_alone(vault: VaultFiles, tmp_path: Path) -> None:
    one = kept(vault)
    paths = [path for path in (tmp_path / "vault").rglob("*") if path.is_file()]
    assert {str(path.relative_to(tmp_path / "vault")) for path in paths} == {
        "lock",
        f"keys/{one.kept.id}",
        f"sealed/{one.kept.id}",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    assert stat.S_IMODE((tmp_path / "vault").stat().st_mode) == 0o700
    assert vault.kept() == (one.kept,)
    assert vault.has(one.kept.commitment)
    assert not vault.has(one.kept.commitment[:-1] + "x")
    found, plain, opening = VaultFiles(tmp_path).open(one.kept.id)
    assert (found, plain, opening.expose_salt()) == (one.kept, WORDS, one.opening.expose_salt())


def test_what_is_destroyed_is_gone_and_destroying_it_again_does_nothing(vault: VaultFiles) -> None:
    one, other = kept(vault), kept(vault, b"others' words")
    for _ in range(2):
        with vault.locked():
            vault.destroy(one.kept.id)
    assert vault.kept() == (other.kept,)
    with pytest.raises(PayloadUnknown, match="no payload") as caught:
        vault.open(one.kept.id)
    assert "audit payloads" in caught.value.advice()


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "0" * 16, "keys"])
def test_names_that_are_no_payload(vault: VaultFiles, name: str) -> None:
    kept(vault)
    with pytest.raises(PayloadUnknown):
        vault.open(name)


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (lambda folder, name: (folder / "keys" / name).unlink(), "its key is missing"),
        (lambda folder, name: (folder / "keys" / name).write_bytes(b"k" * 63), "63 bytes"),
        (lambda folder, name: (folder / "keys" / name).write_bytes(b"k" * 64), "were altered"),
        (lambda folder, name: (folder / "sealed" / name).write_bytes(b"{}\n"), "first line"),
    ],
)
def test_a_damaged_payload_is_named(vault: VaultFiles, tmp_path: Path, harm: Any, found: str) -> None:
    one = kept(vault)
    harm(tmp_path / "vault", one.kept.id)
    with pytest.raises(PayloadDamaged, match=found) as caught:
        vault.open(one.kept.id)
    assert one.kept.id in str(caught.value)
    assert "backup" in caught.value.advice()


def test_a_salt_that_is_another_one_is_found_by_the_commitment(vault: VaultFiles, tmp_path: Path) -> None:
    one = kept(vault)
    path = tmp_path / "vault/keys" / one.kept.id
    path.write_bytes(path.read_bytes()[:32] + bytes(32))
    with pytest.raises(PayloadDamaged, match="another payload or salt"):
        vault.open(one.kept.id)


def test_what_a_process_that_died_left_half_written_is_destroyed(vault: VaultFiles, tmp_path: Path) -> None:
    one = kept(vault)
    folder = tmp_path / "vault"
    (folder / "sealed" / ".0123456789abcdef.tmp").write_bytes(b"half a payload")
    (folder / "keys" / ("0" * 16)).write_bytes(b"k" * 64)  # its payload was never written
    with vault.locked():
        pass
    assert set(files(folder)) == {"lock", f"keys/{one.kept.id}", f"sealed/{one.kept.id}"}


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "vault").write_bytes(b"no folder")
    with pytest.raises(VaultUnusable) as caught:
        VaultFiles(tmp_path).pseudonym("Ada")
    assert "vault/" in caught.value.advice()


def test_an_empty_home_keeps_nothing(vault: VaultFiles, tmp_path: Path) -> None:
    assert (vault.kept(), vault.orders(), vault.known("Ada")) == ((), (), None)
    assert list(tmp_path.iterdir()) == []  # and to look makes nothing


# --- people ---


def test_a_person_has_one_pseudonym_until_it_is_forgotten(vault: VaultFiles, tmp_path: Path) -> None:
    ada = vault.pseudonym("Ada Example")
    assert ada == vault.pseudonym("Ada Example") == VaultFiles(tmp_path).known("Ada Example")
    assert ada == vault.pseudonym(ada) == vault.known(ada)  # a pseudonym stays one
    assert ada != vault.pseudonym("Eve Example")
    assert vault.name_of(ada) == "Ada Example"
    with vault.locked():
        vault.forget(ada)
    assert vault.name_of(ada) is None
    assert vault.known("Ada Example") is None
    assert not any(b"Ada" in data for data in files(tmp_path).values())
    assert vault.pseudonym("Ada Example") != ada  # nobody can make the old one again, not even by guessing the name


def test_a_row_that_was_being_destroyed_is_nobodys(vault: VaultFiles, tmp_path: Path) -> None:
    ada = vault.pseudonym("Ada Example")
    (row,) = (tmp_path / "vault/people").iterdir()
    row.write_bytes(bytes(row.stat().st_size))
    assert vault.name_of(ada) is None


def test_a_row_that_is_damaged_is_said_to_be(vault: VaultFiles, tmp_path: Path) -> None:
    vault.pseudonym("Ada Example")
    (row,) = (tmp_path / "vault/people").iterdir()
    row.write_bytes(b"{")
    with pytest.raises(VaultUnusable, match="damaged"):
        vault.pseudonym("Eve Example")

"""A coordinator's home: made whole or not at all, its keys its owner's alone."""

import errno
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from audit.log import Log
from consortium.contract.certificates import Role, certificate_der, verify_certificate
from consortium.contract.private_files import PrivateFileRefused
from consortium.errors import HomeExists, HomeInvalid, HomeUnwritable
from consortium.home import create_home, open_home
from tests.fakes.coordinator_home import new_home

ADDRESS = "127.0.0.1:8443"


def test_a_new_home_has_everything_and_its_keys_are_private(tmp_path: Path) -> None:
    home = create_home(tmp_path / "home", name="alpine-heart", address=ADDRESS)
    keys = sorted(path.name for path in (home.folder / "keys").iterdir())
    assert keys == ["ca.pem", "export.pem", "log.pem", "operator.pem", "server.pem", "signing.pem"]
    for path in (home.folder / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((home.folder / "keys").stat().st_mode) == 0o700
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert home.config.name == "alpine-heart"
    assert len({home.signing_key_hex, home.log_vkey, home.export_signer.verifier.vkey()}) == 3
    log = Log.open(home.folder / "log", home.log_signer)
    assert log.size == 1
    log.close()


def test_its_certificates_have_their_roles(tmp_path: Path) -> None:
    home = open_home(new_home(tmp_path))
    for pem, role in ((home.server_pem[1], Role.COORDINATOR), (home.operator_pem[1], Role.OPERATOR)):
        assert verify_certificate(certificate_der(pem), home.ca_certificate, datetime.now(UTC)).role is role


@pytest.mark.parametrize("there", ["folder", "file", "broken link"])
def test_nothing_is_written_over_what_is_there(tmp_path: Path, there: str) -> None:
    folder = tmp_path / "home"
    {
        "folder": folder.mkdir,
        "file": lambda: folder.write_text("mine"),
        "broken link": lambda: folder.symlink_to(tmp_path / "nowhere"),
    }[there]()
    with pytest.raises(HomeExists) as caught:
        create_home(folder, name="alpine-heart", address=ADDRESS)
    assert caught.value.code == "conflict"
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert there != "file" or folder.read_text() == "mine"


@pytest.mark.parametrize("name", ["", "x", "Alpine", "alpine heart", "alpine/../heart", "a" * 41, "alpine--heart"])
def test_a_name_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    with pytest.raises(HomeInvalid, match="cannot name"):
        create_home(tmp_path / "home", name=name, address=ADDRESS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["", "127.0.0.1", "127.0.0.1:0", "host:99999", "http://host:1", "a b:1", "h:\n1"])
def test_an_address_that_cannot_be_used_leaves_nothing(tmp_path: Path, address: str) -> None:
    with pytest.raises(HomeInvalid, match="address") as caught:
        create_home(tmp_path / "home", name="alpine-heart", address=address)
    assert ".home." not in str(caught.value)  # not the name of a file that is gone again
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HomeUnwritable):
        create_home(tmp_path / "file" / "home", name="alpine-heart", address=ADDRESS)


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(HomeUnwritable, match="Permission denied") as caught:
        create_home(tmp_path / "home", name="alpine-heart", address=ADDRESS)
    assert caught.value.code == "try_later"


@pytest.mark.parametrize("nth", [1, 3, 6, 7, 10])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    """Whichever fsync fails: of a key, or of the log."""
    fsync, calls = os.fsync, [0]

    def full(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HomeUnwritable):
        create_home(tmp_path / "deep" / "er" / "home", name="alpine-heart", address=ADDRESS)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    create_home(tmp_path / "deep" / "er" / "home", name="alpine-heart", address=ADDRESS)


def test_a_folder_that_is_no_home(tmp_path: Path) -> None:
    with pytest.raises(HomeInvalid, match=r"coordinator\.yaml"):
        open_home(tmp_path)


@pytest.mark.parametrize("missing", ["certificates/ca.pem", "certificates/server.pem", "keys/server.pem"])
def test_a_home_with_a_file_missing(tmp_path: Path, missing: str) -> None:
    folder = new_home(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(HomeInvalid, match=missing.rpartition("/")[2]) as caught:
        _ = open_home(folder).server_pem
    assert caught.value.code == "invalid"


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    folder = new_home(tmp_path)
    (folder / "keys" / "signing.pem").chmod(0o644)
    with pytest.raises(PrivateFileRefused):
        _ = open_home(folder).signing_key


def test_a_key_of_another_kind_is_not_used(tmp_path: Path) -> None:
    folder = new_home(tmp_path)
    (folder / "keys" / "signing.pem").write_bytes((folder / "keys" / "server.pem").read_bytes())
    with pytest.raises(HomeInvalid, match=r"signing\.pem"):
        _ = open_home(folder).signing_key

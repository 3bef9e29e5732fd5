"""Files for their owner only: whole or absent, never readable by others, never written over by accident."""

import errno
import os
import stat
from pathlib import Path

import pytest

from consortium.contract.private_files import PrivateFileRefused, read_private, write_private


def test_written_for_the_owner_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0o000, 0o022, 0o777):
        previous = os.umask(umask)
        try:
            path = tmp_path / f"key-{umask}.pem"
            write_private(path, b"secret")
        finally:
            os.umask(previous)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert read_private(path, limit_bytes=6) == b"secret"


def test_what_is_there_stays_unless_replacing_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    write_private(path, b"first")
    with pytest.raises(FileExistsError):
        write_private(path, b"second")
    assert path.read_bytes() == b"first"
    write_private(path, b"third", replace=True)
    assert read_private(path, limit_bytes=100) == b"third"
    assert [one.name for one in tmp_path.iterdir()] == ["key.pem"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (tmp_path / "key.pem").symlink_to(target)
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "key.pem", b"secret")
    assert not target.exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(tmp_path / "key.pem", b"secret")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_not_private_or_not_files(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    write_private(path, b"secret")
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(PrivateFileRefused, match="readable by others") as caught:
            read_private(path, limit_bytes=100)
        assert "chmod 600" in caught.value.advice()
    path.chmod(0o400)
    with pytest.raises(PrivateFileRefused, match="more than 5 bytes"):
        read_private(path, limit_bytes=5)
    with pytest.raises(PrivateFileRefused, match="not an ordinary file"):
        read_private(Path("/dev/null"), limit_bytes=5)
    with pytest.raises(FileNotFoundError):
        read_private(tmp_path / "none", limit_bytes=5)

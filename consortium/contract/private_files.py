"""Files that only their owner may read: keys, kits and tokens.

A file appears whole or not at all, is never readable by another account, not even for a moment, and never replaces
one that is there unless that is asked for. A full disk leaves nothing behind.
"""

import os
import secrets
import stat
from pathlib import Path


class PrivateFileRefused(Exception):
    """A file that should be private cannot be used as it is; the fault is with whoever placed it there."""

    code = "invalid"

    def __init__(self, path: Path, *, found: str, allowed: str) -> None:
        super().__init__(f"{path}: {found}; allowed: {allowed}")
        self.path = path
        self.found = found
        self.allowed = allowed

    def advice(self) -> str:
        """What to do next."""
        return f"Put the file back as it was made (its owner's alone: chmod 600 {self.path.name}), or make it again."


def write_private(path: Path, data: bytes, *, replace: bool = False) -> None:
    """Write `data` to `path` with mode 0600, durably and all at once.

    Raises:
        FileExistsError: the file is there and `replace` is false; it is left as it was.
        OSError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    # O_EXCL: nobody can have prepared this name as a link to elsewhere. The mode is set by open itself, so the file
    # is never readable by others; fchmod only undoes a umask that would have taken the owner's own bits away.
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            scratch.replace(path)
        else:
            path.hardlink_to(scratch)  # fails if `path` exists; a rename would overwrite it
    finally:
        scratch.unlink(missing_ok=True)
    _sync_folder(path.parent)


def replace_private(path: Path, following: Path) -> None:
    """Put `following` in the place of `path`, durably, then overwrite the bytes of what was there.

    The new file is in place before the old bytes are gone; copies in backups and snapshots stay as they are.

    Raises:
        OSError: The disk refuses; one of the two is whole under `path`.
    """
    with path.open("r+b") as old:
        size = os.fstat(old.fileno()).st_size
        following.replace(path)
        _sync_folder(path.parent)
        old.write(bytes(size))
        old.flush()
        os.fsync(old.fileno())


def destroy_private(path: Path) -> None:
    """Take a private file away, durably, then overwrite its bytes; nothing is done if it is not there.

    Copies in backups and snapshots stay as they are.

    Raises:
        OSError: The disk refuses.
    """
    try:
        old = path.open("r+b")
    except FileNotFoundError:
        return
    with old:
        path.unlink(missing_ok=True)
        _sync_folder(path.parent)
        old.write(bytes(os.fstat(old.fileno()).st_size))
        old.flush()
        os.fsync(old.fileno())


def read_private(path: Path, *, limit_bytes: int) -> bytes:
    """The content of a private file of at most `limit_bytes`.

    Raises:
        PrivateFileRefused: others may read it, it is too large, or it is not an ordinary file.
        OSError: it cannot be read at all.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise PrivateFileRefused(path, found="not an ordinary file", allowed="an ordinary file")
        if stat.S_IMODE(status.st_mode) & 0o077:
            found = f"readable by others (mode {stat.S_IMODE(status.st_mode):04o})"
            raise PrivateFileRefused(path, found=found, allowed="mode 0600")
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise PrivateFileRefused(path, found=f"more than {limit_bytes} bytes", allowed=f"at most {limit_bytes} bytes")
    return data


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

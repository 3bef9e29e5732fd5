"""The SHA-256 of a document that somebody declares, or its bytes to be sealed: it is read here and goes nowhere."""

import hashlib
import os
import stat
from pathlib import Path

DOCUMENT_BYTES_MAX = 1 << 30
_PIECE_BYTES = 1 << 20


class DocumentUnreadable(Exception):
    """A document that cannot be read, or is none. Whose fault: who named it."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "Name the file of the signed document itself; only its SHA-256 is recorded, and the file stays yours."


def read_document(path: Path, bytes_max: int) -> bytes:
    """An ordinary file of 1 to `bytes_max` bytes, whole; raises DocumentUnreadable."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except OSError as error:
        raise DocumentUnreadable(f"{path}: {os.strerror(error.errno or 0)}") from error
    if not 0 < len(data) <= bytes_max:
        raise DocumentUnreadable(f"{path} is not an ordinary file of 1 to {bytes_max} bytes")
    return data


def document_sha256(path: Path) -> str:
    """SHA-256 of an ordinary file of 1 byte to 1 GiB, in hexadecimal; raises DocumentUnreadable."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= DOCUMENT_BYTES_MAX:
                raise DocumentUnreadable(f"{path} is not an ordinary file of 1 byte to 1 GiB")
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
    except OSError as error:
        raise DocumentUnreadable(f"{path}: {os.strerror(error.errno or 0)}") from error
    return digest.hexdigest()

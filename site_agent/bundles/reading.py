"""A bundle on the hospital's disk -> its files, within bounds. The only place that opens one.

A folder and a zip file of the same files are the same bundle and have the same digest. Everything is refused that could
make a reader leave the bundle, take memory it did not mean to take, or run something:

| found | why |
|---|---|
| a link, a device, a name with `..`, `/` in front, a drive or a backslash | it leads out of the bundle |
| a file of a kind that is not listed, above all `.py`, `.ts`, `.pkl`, `.so` | it is a program, or may hold one |
| two names that differ only in case, or a name twice | readers disagree about which one counts |
| too many files, too large, or a zip file that unfolds to more than it says | memory |

Sizes are looked at before anything is read; a zip file's directory before Python's reader sees it.
"""

import hashlib
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from consortium.contract.errors import shown
from consortium.contract.names import Digest
from site_agent.bundles.refusals import BundleRefused, Finding

FILES_MAX = 200
DEPTH_MAX = 6  # folders within folders
CONFIG_BYTES_MAX = 2**20  # of one configuration file
DOCUMENT_BYTES_MAX = 32 * 2**20  # of one picture or page of its documentation
WEIGHTS_BYTES_MAX = 4 * 2**30  # of one file of weights
TOTAL_BYTES_MAX = 8 * 2**30
_DIRECTORY_BYTES_MAX = 2**20  # of a zip file's list of its files
_BLOCK_BYTES = 2**20

CONFIG_SUFFIXES = frozenset({".json", ".yaml", ".yml"})
WEIGHT_SUFFIXES = frozenset({".pt", ".pth", ".safetensors"})
_DOCUMENT_SUFFIXES = frozenset({".md", ".txt", ".conf", ".png", ".jpg", ".jpeg", ".csv"})
_DOCUMENT_NAMES = frozenset({"LICENSE", "NOTICE"})
_KINDS = "configuration (.json, .yaml), weights (.pt, .pth, .safetensors), documents (.md, .txt, .png, .jpg, LICENSE)"

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+ -]{0,99}")
_END_OF_DIRECTORY = b"PK\x05\x06"
_ZIP64_LOCATOR = b"PK\x06\x07"
_END_BYTES, _LOCATOR_BYTES = 22, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFile:
    """One file of a bundle."""

    name: str  # "configs/train.json": parts with / between them, from the bundle's own folder on
    size_bytes: int
    sha256: str
    content: bytes | None  # of a configuration file; the others are only counted in the digest

    @property
    def suffix(self) -> str:
        """Its kind, in lower case: ".json"."""
        return PurePosixPath(self.name).suffix.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFiles:
    """A bundle as it was read, sorted by name."""

    files: tuple[BundleFile, ...]

    @property
    def digest(self) -> Digest:
        """SHA-256 over every file's name, size and bytes; what a hospital approves and a study names."""
        hashed = hashlib.sha256(b"consortium/bundle/v1\n")
        for file in self.files:
            name = file.name.encode()
            hashed.update(len(name).to_bytes(4, "big") + name)
            hashed.update(file.size_bytes.to_bytes(8, "big") + bytes.fromhex(file.sha256))
        return Digest(hashed.hexdigest())

    def find(self, name: str) -> BundleFile | None:
        """The file of that name."""
        return next((file for file in self.files if file.name == name), None)


def read_bundle(path: Path) -> BundleFiles:
    """The files of a bundle: a folder, or a zip file of one.

    Raises:
        BundleRefused: With every file that is not allowed, or the bound that is passed.
    """
    try:
        with _opened(path) as source:
            return BundleFiles(files=tuple(_read(source)))
    except FileNotFoundError:
        raise _refused("", "no such file or folder", "a bundle's folder or zip file", "Check the path.") from None
    except OSError as error:
        found = f"something that cannot be read ({error.strerror or type(error).__name__})"
        raise _refused("", found, "a bundle this user may read", "Check the path and its permissions.") from None


def read_weights(path: Path, file: BundleFile) -> bytes:
    """The bytes of a bundle's weights, if they still are what was looked at.

    Raises:
        BundleRefused: The file is gone, has changed since, or is not a file of weights.
    """
    try:
        with _opened(path) as source:
            for entry in source:
                if entry.name == file.name and entry.size_bytes == file.size_bytes:
                    with entry.open() as opened:
                        content = opened.read(file.size_bytes + 1)
                    if hashlib.sha256(content).hexdigest() == file.sha256:
                        return content
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError):
        pass
    raise _refused(file.name, "other bytes than a moment ago", "the file that was checked", "Check the bundle again.")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file before it is read: its name, the size it claims, and how to open it."""

    name: str
    size_bytes: int
    source: Path | zipfile.ZipInfo
    archive: zipfile.ZipFile | None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Its bytes; a file that became a link in the meantime is not followed."""
        if self.archive is not None:
            assert isinstance(self.source, zipfile.ZipInfo)
            with self.archive.open(self.source) as opened:
                yield opened
        else:
            assert isinstance(self.source, Path)
            descriptor = os.open(self.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise _refused(self.name, "something that is not a file", "ordinary files", "Take it out.")
                yield file


@contextmanager
def _opened(path: Path) -> Iterator[list[_Entry]]:
    """The files a bundle claims to have; names, kinds and sizes are checked, nothing is read."""
    if path.is_dir():
        yield _checked(_of_folder(path))
        return
    with path.open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _refused("", "something that is neither a folder nor a file", "a folder or a zip file", "Check it.")
        _require_small_directory(file)
        try:
            with zipfile.ZipFile(file) as archive:
                yield _checked(_of_archive(archive))
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
            raise _refused("", "a zip file that is damaged", "a folder or a zip file", "Make it again.") from None


def _of_folder(root: Path) -> list[_Entry]:
    found: list[_Entry] = []
    waiting = [(root, "")]
    while waiting:
        folder, prefix = waiting.pop()
        with os.scandir(folder) as children:
            for child in children:
                name = prefix + child.name
                if len(found) + len(waiting) >= FILES_MAX:
                    raise _too_many()
                if child.is_symlink():
                    raise _refused(name, "a link", "files and folders", "A link can lead out of the bundle; copy.")
                if child.is_dir(follow_symlinks=False):
                    waiting.append((Path(child.path), f"{name}/"))
                    if name.count("/") >= DEPTH_MAX:
                        raise _refused(name, "folders nested too deeply", f"at most {DEPTH_MAX}", "Take it out.")
                elif child.is_file(follow_symlinks=False):
                    found.append(_Entry(name, child.stat(follow_symlinks=False).st_size, Path(child.path), None))
                else:
                    raise _refused(name, "something that is not a file", "files and folders", "Take it out.")
    return found


def _of_archive(archive: zipfile.ZipFile) -> list[_Entry]:
    found: list[_Entry] = []
    for info in archive.infolist():
        name = info.orig_filename  # as it stands there, before Python cuts it at a zero byte
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a link" if kind == stat.S_IFLNK else "something that is not a file"
            raise _refused(name, what, "files and folders", "It can lead out of the bundle; put a copy in its place.")
        if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(name, "an encrypted or oddly packed file", "stored or deflated files", "Pack it again.")
        if info.is_dir():
            _require_name(name.rstrip("/"))
            continue
        found.append(_Entry(name, info.file_size, info, archive))
    return _without_top_folder(found)


def _without_top_folder(entries: list[_Entry]) -> list[_Entry]:
    """A zip file of the folder itself is the same bundle as one of what is in it."""
    tops = {entry.name.partition("/")[0] for entry in entries}
    if len(tops) != 1 or "configs" in tops or any("/" not in entry.name for entry in entries):
        return entries
    for entry in entries:
        _require_name(entry.name)
    return [_Entry(entry.name.partition("/")[2], entry.size_bytes, entry.source, entry.archive) for entry in entries]


def _checked(entries: list[_Entry]) -> list[_Entry]:
    """The same, in order of name, if all of them may be read."""
    if len(entries) > FILES_MAX:
        raise _too_many()
    findings = [finding for entry in entries for finding in _findings_of(entry)]
    seen: set[str] = set()
    for entry in entries:
        if entry.name.casefold() in seen:
            findings.append(
                Finding(
                    file=entry.name,
                    found="the same name a second time",
                    allowed="each name once, whatever its case",
                    advice="Take one of them out.",
                )
            )
        seen.add(entry.name.casefold())
    if findings:
        raise BundleRefused(findings)
    if sum(entry.size_bytes for entry in entries) > TOTAL_BYTES_MAX:
        raise _refused("", "more bytes than a bundle has", f"at most {TOTAL_BYTES_MAX} bytes", "Take files out.")
    return sorted(entries, key=lambda entry: entry.name)


def _findings_of(entry: _Entry) -> Iterator[Finding]:
    _require_name(entry.name)
    allowed = _bytes_allowed(entry.name)
    if allowed is None:
        yield Finding(
            file=entry.name,
            found="a file of a kind that no bundle needs here",
            allowed=_KINDS,
            advice="Programs, also compiled or pickled ones, are never run at a hospital; take the file out.",
        )
    elif entry.size_bytes > allowed:
        yield Finding(
            file=entry.name,
            found=f"{entry.size_bytes} bytes",
            allowed=f"at most {allowed} bytes for this kind of file",
            advice="Take the file out or make it smaller.",
        )


def _bytes_allowed(name: str) -> int | None:
    """The most a file may have by its kind; None for a kind that is not allowed."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in CONFIG_SUFFIXES:
        return CONFIG_BYTES_MAX
    if suffix in WEIGHT_SUFFIXES:
        return WEIGHTS_BYTES_MAX
    if suffix in _DOCUMENT_SUFFIXES or PurePosixPath(name).name in _DOCUMENT_NAMES:
        return DOCUMENT_BYTES_MAX
    return None


def _require_name(name: str) -> None:
    """Raises BundleRefused for a name that leads elsewhere or that systems read differently."""
    parts = name.split("/")
    if len(parts) > DEPTH_MAX + 1 or not all(_PART.fullmatch(part) and not part.endswith((".", " ")) for part in parts):
        raise _refused(
            shown(name)[1:-1],
            "a name that leads out of the bundle, or that not every system reads alike",
            "letters, digits, '.', '_', '+', '-' and blanks, in folders within the bundle",
            "Rename the file; files whose names begin with a dot are to be left out.",
        )


def _read(entries: list[_Entry]) -> Iterator[BundleFile]:
    for entry in entries:
        hashed, kept, count = hashlib.sha256(), bytearray(), 0
        keep = PurePosixPath(entry.name).suffix.lower() in CONFIG_SUFFIXES
        with entry.open() as opened:
            while block := opened.read(_BLOCK_BYTES):
                count += len(block)
                if count > entry.size_bytes:
                    break
                hashed.update(block)
                if keep:
                    kept += block
        if count != entry.size_bytes:
            raise _refused(entry.name, "another size than it says", "a file that does not change", "Make it again.")
        yield BundleFile(
            name=entry.name,
            size_bytes=count,
            sha256=hashed.hexdigest(),
            content=bytes(kept) if keep else None,
        )


def _require_small_directory(file: IO[bytes]) -> None:
    """Look at a zip file's end before Python's reader does: it takes the whole list of files into memory."""
    size_bytes = file.seek(0, os.SEEK_END)
    if size_bytes > TOTAL_BYTES_MAX:
        raise _refused("", f"{size_bytes} bytes", f"at most {TOTAL_BYTES_MAX} bytes", "Take files out.")
    file.seek(max(0, size_bytes - _END_BYTES - _LOCATOR_BYTES))
    tail = file.read()
    end = tail[-_END_BYTES:]
    if len(end) < _END_BYTES or not end.startswith(_END_OF_DIRECTORY):
        raise _refused("", "a file that is not a plain zip file", "a folder, or a zip file without comment", "Pack it.")
    if tail[:-_END_BYTES].startswith(_ZIP64_LOCATOR):
        raise _refused("", "a zip file of the 64-bit kind", "a zip file below 4 GiB", "Use the folder itself.")
    entries, directory_bytes = int.from_bytes(end[10:12], "little"), int.from_bytes(end[12:16], "little")
    if entries > 2 * FILES_MAX or directory_bytes > _DIRECTORY_BYTES_MAX:
        raise _too_many()
    file.seek(0)


def _too_many() -> BundleRefused:
    return _refused("", "too many files", f"at most {FILES_MAX} files and folders", "Take out what is not needed.")


def _refused(file: str, found: str, allowed: str, advice: str) -> BundleRefused:
    return BundleRefused([Finding(file=file, found=found, allowed=allowed, advice=advice)])

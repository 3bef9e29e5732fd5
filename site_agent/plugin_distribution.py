"""A hospital's own code as an installed distribution, by a SHA-256 over its files: verified on disk before it is run.

The digest is over one line for each file that the distribution's RECORD lists, sorted by path: the SHA-256 of the bytes
on disk, two blanks, the path. What installers write themselves (RECORD, INSTALLER, REQUESTED, direct_url.json), scripts
outside the packages' folder and compiled caches are left out, so the same wheel has the same digest everywhere. Files
beside the listed ones are refused, since they could be imported; caches are not read when it is run.
"""

import hashlib
import importlib
import sys
import tempfile
import types
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from site_agent.errors import SiteError

FILES_MAX = 20_000
BYTES_MAX = 2**31
"""Of one distribution. One that is larger is no plug-in, or not one that anybody looked at."""
_INSTALLERS = frozenset({"RECORD", "RECORD.jws", "INSTALLER", "REQUESTED", "direct_url.json"})


class DistributionRefused(SiteError):
    """A distribution is not installed, or not as site.yaml says. Whose fault: whoever changed one and not the other."""

    def __init__(self, found: str, allowed: str, advice: str) -> None:
        super().__init__(f"client_algos: found {found}; allowed: {allowed}")
        self._advice = advice

    def advice(self) -> str:
        """What to do next."""
        return self._advice


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A distribution as it is on the disk."""

    name: str
    version: str
    sha256: str  # over its files
    folder: Path  # that its paths start from
    files: frozenset[PurePosixPath]

    @property
    def modules(self) -> tuple[str, ...]:
        """What can be imported of it, by the first part of the name."""
        tops = {path.parts[0] for path in self.files if path.suffix == ".py"}
        return tuple(sorted(top.removesuffix(".py") for top in tops if not top.endswith(".dist-info")))


def installed(name: str) -> Installed:
    """A distribution of this environment, with the digest of its files; raises DistributionRefused."""
    try:
        found = metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError) as error:
        raise DistributionRefused(
            f"no distribution {name!r}", "one that is installed", "Install it into the agent's environment."
        ) from error
    folder = Path(str(found.locate_file(""))).resolve()
    paths = sorted(_listed(name, found), key=str)
    if not any(path.suffix == ".py" and not path.parts[0].endswith(".dist-info") for path in paths):
        raise DistributionRefused(
            f"{name} without a module among its files, as an editable install has none",
            "a distribution installed from a wheel",
            "Build a wheel of it and install that: the digest is of the very files that are run.",
        )
    lines, size = [], 0
    for path in paths:
        digest, length = _digest_of(folder, path)
        size += length
        if size > BYTES_MAX:
            raise DistributionRefused(f"{name} of more than {BYTES_MAX} bytes", "a smaller one", "Divide it.")
        lines.append(f"{digest}  {path}\n")
    files = frozenset(paths)
    for foreign in _beside(folder, files):
        raise DistributionRefused(
            f"{foreign} beside the files of {name}", "the files its RECORD lists and no others", "Install it anew."
        )
    return Installed(
        name=name,
        version=found.version,
        sha256=hashlib.sha256("".join(lines).encode()).hexdigest(),
        folder=folder,
        files=files,
    )


def _listed(name: str, found: metadata.Distribution) -> Iterator[PurePosixPath]:
    listed = found.files
    if not listed:
        raise DistributionRefused(f"{name} without a RECORD", "one installed from a wheel", "Install it from a wheel.")
    if len(listed) > FILES_MAX:
        raise DistributionRefused(f"{name} of {len(listed)} files", f"at most {FILES_MAX}", "Divide it.")
    for one in listed:
        path = PurePosixPath(one)
        outside = path.is_absolute() or ".." in path.parts
        by_installer = path.parts[0].endswith(".dist-info") and path.name in _INSTALLERS
        if not (outside or by_installer or "__pycache__" in path.parts):
            yield path


def _digest_of(folder: Path, path: PurePosixPath) -> tuple[str, int]:
    """SHA-256 and length of a file, which lies where it says and nowhere else."""
    whole = folder / path
    try:
        if whole.resolve() != whole or not whole.is_file():
            raise DistributionRefused(f"{path}, which is no plain file", "the files of a wheel", "Install it anew.")
        with whole.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except OSError as error:
        raise DistributionRefused(
            f"{path}, which cannot be read ({error.strerror})", "the files of a wheel", "Install it anew."
        ) from error


def _beside(folder: Path, files: frozenset[PurePosixPath]) -> Iterator[str]:
    """Files in the distribution's own folders that it does not list; a cache is not one, for none is read."""
    for top in sorted({path.parts[0] for path in files if len(path.parts) > 1}):
        if top.endswith(".dist-info"):
            continue
        for one in sorted((folder / top).rglob("*")):
            path = PurePosixPath(one.relative_to(folder).as_posix())
            if "__pycache__" not in path.parts and (one.is_symlink() or (one.is_file() and path not in files)):
                yield str(path)


def imported(found: Installed, module: str) -> types.ModuleType:
    """A module of a distribution whose digest was compared: from its source alone, and from nowhere else.

    Raises DistributionRefused for a module that is none of its own; and whatever the module raises when it is run.
    """
    if module.partition(".")[0] not in found.modules:
        raise DistributionRefused(
            f"no module {module} in {found.name}", f"one of {', '.join(found.modules)}", "Correct module in site.yaml."
        )
    with tempfile.TemporaryDirectory() as empty:
        before, writes = sys.pycache_prefix, sys.dont_write_bytecode
        sys.pycache_prefix, sys.dont_write_bytecode = empty, True  # a cache beside the source was not looked at
        try:
            made = importlib.import_module(module)
        finally:
            sys.pycache_prefix, sys.dont_write_bytecode = before, writes
    origin = Path(made.__file__ or "").resolve()
    if not origin.is_relative_to(found.folder) or PurePosixPath(origin.relative_to(found.folder)) not in found.files:
        raise DistributionRefused(
            f"module {module} from another place",
            f"the one of {found.name}",
            "Remove what hides it here.",
        )
    return made

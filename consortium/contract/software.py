"""Which software is at work here: names, versions, and one digest over our own files, for certificates and the log."""

import hashlib
import importlib.metadata
import platform
from functools import lru_cache
from pathlib import Path

from consortium import __version__

_PACKAGES = ("audit", "consortium", "privacy", "site_agent")
_LIBRARIES = ("cryptography", "dp-accounting", "numpy", "opacus", "scipy", "torch")


@lru_cache(maxsize=1)
def software() -> tuple[str, ...]:
    """`name version`, ours first; a library that is not installed here is left out."""
    found = [f"hospital-consortium {__version__}", f"python {platform.python_version()}"]
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(found)


@lru_cache(maxsize=1)
def code_digest() -> str:
    """SHA-256 over `<path> <SHA-256 of the file>` lines of our Python files, sorted: what an installation can compare.

    It says which files lie on this disk. It cannot say that they are what ran.
    """
    root = Path(__file__).resolve().parent.parent.parent
    lines = [
        f"{path.relative_to(root).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for package in _PACKAGES
        for path in (root / package).rglob("*.py")
    ]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()

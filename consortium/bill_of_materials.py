"""Which software a deployment consists of, as CycloneDX 1.6: a bill of materials for a hospital's own inventory.

Every component has its name and version, a package URL, the SHA-256 of the files that may be installed for it, and the
licence that its authors declare.

    python -m consortium.bill_of_materials LOCK OUT.cdx.json     # of a lock file; licences of what is installed here
"""

import hashlib
import importlib.util
import re
import sys
import uuid
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from consortium import __version__
from consortium.errors import ConsortiumError
from consortium.own_wheel import NAME

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

_LICENCE_CHARACTERS_MAX = 100
_LOCKED = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class BillNotMade(ConsortiumError):
    """The package that writes bills of materials is not installed. Whose fault: nobody's; it is an extra."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "Install it: pip install 'hospital-consortium[kits]'."


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One package: its name and version, SHA-256 of its files, and what it says of its licence."""

    name: str
    version: str
    sha256: tuple[str, ...]
    licence: str | None = None
    licence_is_spdx: bool = False  # an SPDX expression, as newer packages declare it

    @property
    def requirement(self) -> str:
        """Its line of a requirements file."""
        return " \\\n    ".join([f"{self.name}=={self.version}", *(f"--hash=sha256:{one}" for one in self.sha256)])


def piece_of(wheel: Path) -> Piece:
    """What a wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (about,) = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        words = HeaderParser().parsestr(archive.read(about).decode())
    with wheel.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    licence, is_spdx = _licence(words)
    return Piece(
        name=words["Name"], version=words["Version"], sha256=(sha256,), licence=licence, licence_is_spdx=is_spdx
    )


def pieces_in(lock: str) -> tuple[Piece, ...]:
    """The packages of a lock file, with licences as far as they are installed here."""
    found = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^\s*#.*\n", "", lock, flags=re.MULTILINE).strip()):
        named = _LOCKED.match(block)
        if named is None:
            continue
        try:
            licence, is_spdx = _licence(metadata.metadata(named[1]))
        except metadata.PackageNotFoundError:
            licence, is_spdx = None, False
        sha256 = tuple(_HASH.findall(block))
        found.append(Piece(name=named[1], version=named[2], sha256=sha256, licence=licence, licence_is_spdx=is_spdx))
    return tuple(found)


def _licence(words: "metadata.PackageMetadata | object") -> tuple[str | None, bool]:
    """The declared licence, and whether it is an SPDX expression; a classifier's name where nothing short is said."""
    get = getattr(words, "get_all")  # noqa: B009 - an e-mail message's, which the type of metadata leaves out
    expression = (get("License-Expression") or [None])[0]
    if expression:
        return expression, True
    named = [line.rpartition(" :: ")[2] for line in get("Classifier") or () if line.startswith("License :: ")]
    stated = (get("License") or [""])[0].strip()
    if stated and len(stated) <= _LICENCE_CHARACTERS_MAX and "\n" not in stated:
        return stated, False
    return ("; ".join(named) or None), False


def require_writer() -> None:
    """Raises BillNotMade if a bill could not be written here."""
    if importlib.util.find_spec("cyclonedx") is None:
        raise BillNotMade("a bill of materials is written by cyclonedx-python-lib, which is not installed")


def bill_of_materials(pieces: Iterable[Piece], *, now: datetime) -> str:
    """The bill as JSON; the same pieces at the same time give the same bytes. Raises BillNotMade."""
    require_writer()
    from cyclonedx.model.bom import Bom  # noqa: PLC0415 - installed where kits are made
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415
    from cyclonedx.output.json import JsonV1Dot6  # noqa: PLC0415

    components = [_component(piece) for piece in sorted(pieces, key=lambda piece: piece.name.lower())]
    identity = "\n".join(piece.requirement for piece in pieces)
    bom = Bom(components=components, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{identity}\n{now.isoformat()}"))
    bom.metadata.timestamp = now
    bom.metadata.component = Component(
        name=NAME, version=__version__, type=ComponentType.APPLICATION, bom_ref=f"{NAME}-deployment"
    )
    bom.register_dependency(bom.metadata.component, components)
    return JsonV1Dot6(bom).output_as_string(indent=1)


def _component(piece: Piece) -> "Component":
    from cyclonedx.contrib.license.factories import LicenseFactory  # noqa: PLC0415
    from cyclonedx.model import HashAlgorithm, HashType  # noqa: PLC0415
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415
    from packageurl import PackageURL  # noqa: PLC0415

    licences = []
    if piece.licence is not None:
        make = LicenseFactory()
        licences = [
            make.make_from_string(piece.licence) if piece.licence_is_spdx else make.make_with_name(piece.licence)
        ]
    purl = PackageURL("pypi", None, re.sub(r"[-_.]+", "-", piece.name).lower(), piece.version)
    return Component(
        name=piece.name,
        version=piece.version,
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=str(purl),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=one) for one in piece.sha256],
        licenses=licences,
    )


def main() -> None:
    """The bill of a lock file."""
    lock, out = map(Path, sys.argv[1:])
    out.write_text(bill_of_materials(pieces_in(lock.read_text()), now=datetime.now(UTC)) + "\n")


if __name__ == "__main__":
    main()

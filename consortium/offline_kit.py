"""Everything a hospital without the internet installs, in one archive: kit, wheels, hashes, and how.

    kit.zip              what `site-agent enrol` reads; its token makes the whole archive secret
    install.sh           one command, which uses no network and believes nothing but the hashes
    requirements.txt     every package, its version and the SHA-256 of its wheel
    wheels/              those packages, this program among them
    sbom.cdx.json        what they are, with their licences: CycloneDX 1.6
    README.txt, SHA256SUMS

Wheels are fetched by pip, from wherever it is configured to, and only those whose SHA-256 is in `site.lock`, which came
with this program. Whoever carries the archive is not believed: its own SHA-256 is compared by telephone.
"""

import hashlib
import os
import re
import secrets
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from consortium.assets import deployment_file
from consortium.bill_of_materials import bill_of_materials, piece_of, require_writer
from consortium.contract.names import SiteId
from consortium.errors import ConsortiumError
from consortium.own_wheel import own_wheel

PYTHONS = ("3.11", "3.12")
PROCESSORS = ("x86_64", "aarch64")
_GLIBC = ("2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")
_OLDER_NAMES = ("manylinux2014", "manylinux2010", "manylinux1", "linux")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_WHEELS_BYTES_MAX = 2**33
"""Eight GiB of wheels: ten times what is needed today."""


class WheelsNotFetched(ConsortiumError):
    """pip did not find the wheels, or found others than the lock names."""

    code = "try_later"

    def advice(self) -> str:
        """What to do next."""
        return (
            "Look where pip fetches from (`pip config list`) and whether that has these versions; for PyTorch it must"
            " be an index with builds for processors alone. No kit was made and no token given out."
        )


class KitNotWritten(ConsortiumError):
    """The disk refused the archive."""

    code = "try_later"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where the archive is to be installed: Linux, with glibc 2.28 or newer."""

    python: str  # "3.11"
    processor: str  # "x86_64"

    @property
    def platforms(self) -> Iterator[str]:
        """Tags of wheels that run there."""
        yield from (f"manylinux_{version}_{self.processor}" for version in _GLIBC)
        yield from (f"{name}_{self.processor}" for name in _OLDER_NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheelhouse:
    """Wheels in a folder, each with what it is; this program's among them."""

    folder: Path
    machine: Machine
    extra: str  # of this program: "site"

    def wheels(self) -> list[Path]:
        """In the order of their names."""
        return sorted(self.folder.glob("*.whl"))


def fetch_locked(into: Path, machine: Machine) -> None:
    """Every wheel of `site.lock` for such a machine; raises WheelsNotFetched, and leaves what came to its caller."""
    lock = deployment_file("site.lock")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", machine.python]
    command += [word for platform in machine.platforms for word in ("--platform", platform)]
    command += ["--dest", str(into), "--requirement", str(lock)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - no word of a stranger's
    if done.returncode != 0:
        raise WheelsNotFetched(f"pip: {_last_words(done.stderr)}")


@contextmanager
def wheelhouse(
    machine: Machine, *, extra: str = "site", fetch: Callable[[Path, Machine], None] = fetch_locked
) -> Iterator[Wheelhouse]:
    """A folder with this program's wheel and all that it needs; it is gone afterwards.

    Raises:
        BillNotMade, WheelNotMade, WheelsNotFetched: See there.
        KitNotWritten: The disk.
    """
    require_writer()
    with tempfile.TemporaryDirectory(prefix="consortium-wheels-") as name:
        folder = Path(name)
        try:
            own_wheel(folder)
            fetch(folder, machine)
            size_bytes = sum(path.stat().st_size for path in folder.iterdir())
        except OSError as error:
            raise KitNotWritten(f"the wheels could not be kept: {os.strerror(error.errno or 0)}") from error
        if size_bytes > _WHEELS_BYTES_MAX:
            raise WheelsNotFetched(f"{size_bytes} bytes of wheels; allowed: {_WHEELS_BYTES_MAX}")
        yield Wheelhouse(folder=folder, machine=machine, extra=extra)


def write_offline_kit(out: Path, house: Wheelhouse, *, site: SiteId, kit: bytes) -> str:
    """Write the archive, for its owner alone, whole or not at all; returns its SHA-256.

    Wheels are copied in pieces. Raises KitNotWritten, BillNotMade, FileExistsError.
    """
    if out.exists():
        raise FileExistsError(out)
    pieces = [piece_of(wheel) for wheel in house.wheels()]
    requirements = "\n".join(
        piece.requirement.replace("==", f"[{house.extra}]==", 1)
        if _is_own(piece.name) and house.extra
        else piece.requirement
        for piece in pieces
    )
    small = {
        "README.txt": _template("offline-readme.txt", site=site, python=house.machine.python),
        "install.sh": _template("offline-install.sh", site=site, python=house.machine.python),
        "kit.zip": kit,
        "requirements.txt": (requirements + "\n").encode(),
        "sbom.cdx.json": (bill_of_materials(pieces, now=datetime.now(UTC).replace(microsecond=0)) + "\n").encode(),
    }
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in small.items()}
    sums |= {f"wheels/{wheel.name}": piece.sha256[0] for wheel, piece in zip(house.wheels(), pieces, strict=True)}
    small["SHA256SUMS"] = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(sums.items())).encode()
    beside = out.with_name(f".{out.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w+b") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for name, data in small.items():
                    archive.writestr(_member(f"{site}/{name}", 0o700 if name.endswith(".sh") else 0o600), data)
                for wheel in house.wheels():
                    archive.write(wheel, f"{site}/wheels/{wheel.name}")
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        os.link(beside, out)  # never over something that came meanwhile
    except FileExistsError:
        raise
    except OSError as error:
        raise KitNotWritten(f"{out} could not be written: {os.strerror(error.errno or 0)}") from error
    finally:
        beside.unlink(missing_ok=True)
    return sha256


def _is_own(name: str) -> bool:
    return re.sub(r"[-_.]+", "-", name).lower() == "hospital-consortium"


def _member(name: str, mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, date_time=_EPOCH)
    member.external_attr = (0o100000 | mode) << 16
    return member


def _template(name: str, **values: str) -> bytes:
    text = (resources.files("consortium") / "templates" / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text.encode()


def _last_words(stderr: str) -> str:
    """The error lines of pip, without addresses: a configured index may have a password in it."""
    lines = [line for line in stderr.splitlines() if line.startswith("ERROR:")] or stderr.splitlines()[-1:]
    return re.sub(r"\b[a-z+]+://\S+", "(an address)", " ".join(" ".join(lines).split()))[:400]

"""This program as a wheel again, for machines that cannot fetch it: packed from what pip installed here.

A wheel that was installed is still there, file by file, with the SHA-256 of each in RECORD. Packed again it installs
like the one it came from. From a working copy (`pip install -e`) it is built instead, as `pip wheel` does.
"""

import base64
import hashlib
import importlib.util
import json
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from consortium.errors import ConsortiumError

NAME = "hospital-consortium"
_OF_THIS_INSTALLATION = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of the members: the same installation always gives the same bytes


class WheelNotMade(ConsortiumError):
    """This installation cannot be packed: a file of it was altered, or is gone, or a build failed."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return f"Install the release again (pip install --force-reinstall --no-deps {NAME}), then repeat the command."


def own_wheel(folder: Path) -> Path:
    """Put the wheel of this program into a folder; raises WheelNotMade, OSError."""
    try:
        installed = metadata.distribution(NAME)
    except metadata.PackageNotFoundError as error:
        raise WheelNotMade(f"{NAME} is not installed here, only its source is") from error
    source = _working_copy(installed)
    return packed(installed, folder) if source is None else _built(source, folder)


def packed(installed: metadata.Distribution, folder: Path) -> Path:
    """Any installed distribution as a wheel.

    Raises:
        WheelNotMade: A file differs from its RECORD.
        OSError: A disk.
    """
    about = installed.read_text("WHEEL") or ""
    tags = [line.removeprefix("Tag:").strip() for line in about.splitlines() if line.startswith("Tag:")]
    if not tags or installed.files is None:
        raise WheelNotMade(f"{installed.name} was not installed from a wheel")
    name = f"{installed.name.replace('-', '_')}-{installed.version}"
    parts = zip(*(tag.split("-") for tag in tags), strict=True)
    path = folder / f"{name}-{'-'.join('.'.join(dict.fromkeys(part)) for part in parts)}.whl"
    rows: list[str] = []
    record = ""
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in sorted(installed.files):
            inside = file.as_posix()
            if inside.startswith("..") or inside.endswith(".pyc"):
                continue  # programs that pip made of entry points, and what Python compiled
            if ".dist-info/" in inside and file.name in _OF_THIS_INSTALLATION:
                record = inside if file.name == "RECORD" else record
                continue
            data = Path(str(installed.locate_file(file))).read_bytes()
            found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            if file.hash is not None and (file.hash.mode, file.hash.value) != ("sha256", found):
                raise WheelNotMade(f"{inside} of {installed.name} was altered since it was installed")
            rows.append(f"{_quoted(inside)},sha256={found},{len(data)}\n")
            archive.writestr(zipfile.ZipInfo(inside, _EPOCH), data, compress_type=zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo(record, _EPOCH), "".join([*rows, f"{record},,\n"]))
    return path


def _quoted(path: str) -> str:
    """A field of RECORD, which is CSV."""
    return f'"{path}"' if "," in path else path


def _working_copy(installed: metadata.Distribution) -> Path | None:
    """Where it is edited, if it is installed as `pip install -e` does."""
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable", False):
        return None
    return Path(unquote(urlsplit(origin["url"]).path))


def _built(source: Path, folder: Path) -> Path:
    """By pip, with the build tool that is here, or one that pip fetches from wherever it is configured to."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    if importlib.util.find_spec("hatchling") is not None:
        build.append("--no-build-isolation")
    done = subprocess.run(build, check=False, capture_output=True, text=True)  # noqa: S603 - no word of a stranger's in it
    found = sorted(folder.glob(f"{NAME.replace('-', '_')}-*.whl"))
    if done.returncode != 0 or not found:
        raise WheelNotMade(f"pip could not build the working copy: {' '.join(done.stderr.split())[-300:]}")
    return found[-1]

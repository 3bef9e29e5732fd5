# ruff: noqa: INP001 - a script beside the files it writes, not part of a package
"""Write coordinator.lock and site.lock: every package of a deployment, with the SHA-256 of each wheel that may be it.

    python configs/deploy/make_lock.py         # in an environment with everything of constraints.txt; `make lock` does

Versions are those of constraints.txt. Hashes are what pip, as it is configured, finds for each Python and processor
below. Of PyTorch only builds for processors alone count, whose versions end in `+cpu`: the others need CUDA.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from consortium.offline_kit import PROCESSORS, PYTHONS, Machine

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
LOCKS = {"coordinator.lock": ("postgres", "objects", "kits", "oidc"), "site.lock": ("site",)}
BUILDS = "torch"


def main() -> None:
    """Both files."""
    pinned = dict(_pins((ROOT / "constraints.txt").read_text()))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, extras in LOCKS.items():
        asked = [*project["dependencies"], *(line for one in extras for line in project["optional-dependencies"][one])]
        names = sorted(_closure([Requirement(line) for line in asked]))
        missing = [one for one in names if one not in pinned]
        if missing:
            raise SystemExit(f"constraints.txt has no version of {', '.join(missing)}")
        hashes: dict[str, set[str]] = {one: set() for one in names}
        for python in PYTHONS:
            for processor in PROCESSORS:
                for one, sha256 in _found([f"{one}=={pinned[one]}" for one in names], python, processor):
                    hashes[one].add(sha256)
        (HERE / name).write_text(_written(name, extras, {one: (pinned[one], sorted(hashes[one])) for one in names}))
        print(f"{name}: {len(names)} packages, {sum(map(len, hashes.values()))} wheels")  # noqa: T201 - a script's result


def _pins(constraints: str) -> Iterator[tuple[str, str]]:
    for line in constraints.splitlines():
        if "==" in line and not line.startswith("#"):
            name, _, version = line.partition("==")
            yield canonicalize_name(name), version.strip()


def _closure(wanted: list[Requirement]) -> set[str]:
    """Names of everything they need, as installed here."""
    found: dict[str, set[str]] = {}
    while wanted:
        one = wanted.pop()
        name, extras = canonicalize_name(one.name), {"", *one.extras}
        if extras <= found.get(name, set()):
            continue
        found.setdefault(name, set()).update(extras)
        for line in metadata.requires(name) or ():
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append(need)
    return set(found)


def _found(requirements: list[str], python: str, processor: str) -> Iterator[tuple[str, str]]:
    """Name and SHA-256 of the wheel that pip would take for each on such a machine."""
    platforms = list(Machine(python=python, processor=processor).platforms)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        asked = [one for one in requirements if not one.startswith(f"{BUILDS}==")]
        yield from _reported(asked, python, platforms, report)
        for one in set(requirements) - set(asked):
            try:
                yield from _reported([f"{one}+cpu"], python, platforms, report)
            except subprocess.CalledProcessError:
                print(f"{one}: no build for processors alone, Python {python}, {processor}", file=sys.stderr)  # noqa: T201


def _reported(requirements: list[str], python: str, platforms: list[str], report: Path) -> Iterator[tuple[str, str]]:
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
    command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
    command += [word for platform in platforms for word in ("--platform", platform)]
    command += ["--target", str(report.parent / "nowhere"), "--report", str(report), *requirements]
    subprocess.run(command, check=True)  # noqa: S603 - words of this file and of constraints.txt
    for item in json.loads(report.read_text())["install"]:
        download = item["download_info"]
        sha256 = download.get("archive_info", {}).get("hashes", {}).get("sha256")
        if sha256 is None:  # a file of this machine
            sha256 = hashlib.sha256(Path(unquote(urlsplit(download["url"]).path)).read_bytes()).hexdigest()
        yield canonicalize_name(item["metadata"]["name"]), sha256


def _written(name: str, extras: tuple[str, ...], packages: dict[str, tuple[str, list[str]]]) -> str:
    lines = [
        f"# What hospital-consortium[{','.join(extras)}] is installed with: pip install --require-hashes -r {name}",
        f"# Wheels for Linux, Python {' and '.join(PYTHONS)}, {' and '.join(PROCESSORS)}. Made by `make lock` beside",
        "# constraints.txt, whose versions these are.",
    ]
    for package, (version, hashes) in packages.items():
        lines.append(" \\\n    ".join([f"{package}=={version}", *(f"--hash=sha256:{one}" for one in hashes)]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

"""The archive a hospital installs from without the internet, and what is refused on the way to it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from consortium import offline_kit
from consortium.bill_of_materials import piece_of, pieces_in
from consortium.contract.names import SiteId
from consortium.offline_kit import Machine, Wheelhouse, WheelsNotFetched, wheelhouse, write_offline_kit
from consortium.own_wheel import NAME, WheelNotMade, packed

SITE = SiteId("st-marys")
HERE = Machine(python=f"{sys.version_info.major}.{sys.version_info.minor}", processor=os.uname().machine)


def small_house(folder: Path) -> Wheelhouse:
    folder.mkdir()
    for name in ("h11", "structlog"):
        packed(metadata.distribution(name), folder)
    return Wheelhouse(folder=folder, machine=HERE, extra="site")


def unpacked(archive: Path, into: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(into)
    return into / SITE


def test_what_was_installed_is_packed_as_it_came(tmp_path: Path) -> None:
    wheel = packed(metadata.distribution("h11"), tmp_path)
    piece = piece_of(wheel)
    assert (piece.name, piece.version) == ("h11", metadata.version("h11"))
    assert wheel.name == f"h11-{piece.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as opened:
        record = opened.read(f"h11-{piece.version}.dist-info/RECORD").decode()
        assert sorted(line.split(",")[0] for line in record.splitlines()) == sorted(opened.namelist())
    shutil.copy(wheel, tmp_path / "first")
    assert packed(metadata.distribution("h11"), tmp_path).read_bytes() == (tmp_path / "first").read_bytes()


def test_an_installation_that_was_altered_is_not_handed_on(tmp_path: Path) -> None:
    with zipfile.ZipFile(packed(metadata.distribution("h11"), tmp_path)) as opened:
        opened.extractall(tmp_path / "site")
    altered = metadata.PathDistribution(next((tmp_path / "site").glob("*.dist-info")))
    (tmp_path / "out").mkdir()
    packed(altered, tmp_path / "out")
    (tmp_path / "site/h11/__init__.py").write_text("import os\n")
    with pytest.raises(WheelNotMade, match="altered"):
        packed(altered, tmp_path / "out")


def test_the_archive_has_everything_and_says_what_it_is(tmp_path: Path) -> None:
    house = small_house(tmp_path / "wheels")
    out = tmp_path / "st-marys.zip"
    sha256 = write_offline_kit(out, house, site=SITE, kit=b"a kit")
    assert hashlib.sha256(out.read_bytes()).hexdigest() == sha256
    assert out.stat().st_mode & 0o777 == 0o600
    folder = unpacked(out, tmp_path)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("wheels/")} == {
        "README.txt", "SHA256SUMS", "install.sh", "kit.zip", "requirements.txt", "sbom.cdx.json",
    }  # fmt: skip
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=folder, check=True)
    listed = (folder / "SHA256SUMS").read_text().split()[1::2]
    assert sorted([*listed, "SHA256SUMS"]) == sorted(names)
    locked = pieces_in((folder / "requirements.txt").read_text())
    assert [(one.name, one.sha256) for one in locked] == [
        (piece_of(wheel).name, piece_of(wheel).sha256) for wheel in house.wheels()
    ]
    with pytest.raises(FileExistsError):
        write_offline_kit(out, house, site=SITE, kit=b"a kit")


def test_its_bill_of_materials_is_cyclonedx(tmp_path: Path) -> None:
    house = small_house(tmp_path / "wheels")
    write_offline_kit(tmp_path / "kit.zip", house, site=SITE, kit=b"a kit")
    text = (unpacked(tmp_path / "kit.zip", tmp_path) / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    components = json.loads(text)["components"]
    assert [(one["name"], one["purl"]) for one in components] == [
        (name, f"pkg:pypi/{name}@{metadata.version(name)}") for name in ("h11", "structlog")
    ]
    assert [one["hashes"][0]["content"] for one in components] == [
        hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in house.wheels()
    ]
    assert [one["licenses"][0] for one in components] == [
        {"license": {"name": "MIT"}},
        {"expression": "MIT OR Apache-2.0"},
    ]


def test_nothing_is_left_of_wheels_that_could_not_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline_kit.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(offline_kit, "own_wheel", lambda folder: folder)
    lock = tmp_path / "site.lock"
    lock.write_text(f"h11==0.16.0 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(offline_kit, "deployment_file", lambda _: lock)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_FIND_LINKS", "https://user:SECRET@127.0.0.1:9/wheels")
    with pytest.raises(WheelsNotFetched) as caught, wheelhouse(HERE):
        pass
    assert "SECRET" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["site.lock"]


COMMAND_LINE = ("h11", "pydantic", "rich", "typer")
"""What `site-agent --version` needs, and one small package more."""


def closure(names: tuple[str, ...]) -> set[str]:
    """They and all that they need, as installed here."""
    found: set[str] = set()
    wanted = list(names)
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name not in found:
            found.add(name)
            needs = [Requirement(line) for line in metadata.requires(name) or ()]
            wanted += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def asking_for_less(wheel: Path) -> None:
    """The same wheel, which needs nothing but COMMAND_LINE: the others are hundreds of megabytes."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    (about,) = [name for name in files if name.endswith(".dist-info/METADATA")]
    lines = files[about].decode().split("\n")
    files[about] = "\n".join(
        line for line in lines if not line.startswith("Requires-Dist") or line.split()[1].startswith(COMMAND_LINE)
    ).encode()
    record = about.replace("METADATA", "RECORD")
    rows = [row for row in files[record].decode().splitlines() if not row.startswith(about)]
    files[record] = "\n".join([*rows, f"{about},,", ""]).encode()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def fetched(into: Path, _: Machine) -> None:
    asking_for_less(next(into.glob("hospital_consortium-*")))
    for name in closure(COMMAND_LINE):
        packed(metadata.distribution(name), into)


def ran(command: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True)


def without_network() -> list[str]:
    """What cuts a command off from every network, or a skip that says why not."""
    for way in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if shutil.which("unshare") and ran([*way, "true"]).returncode == 0:
            return way
    pytest.skip("no network namespace can be made here")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hospital_installs_it_with_its_network_cut(tmp_path: Path) -> None:
    """Without the training libraries, whose wheels are too large for a test."""
    cut = without_network()
    assert ran([*cut, sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 1)"]).returncode
    out = tmp_path / "kit.zip"
    with wheelhouse(HERE, extra="", fetch=fetched) as house:
        with zipfile.ZipFile(next(house.folder.glob("hospital_consortium-*"))) as own:
            assert {"consortium/assets/deploy/site.lock", "consortium/templates/offline-install.sh"} <= {
                *own.namelist()
            }
        write_offline_kit(out, house, site=SITE, kit=b"a kit")
    folder = unpacked(out, tmp_path)
    install = [*cut, "sh", str(folder / "install.sh"), str(tmp_path / "agent")]
    environment = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "HOME": str(tmp_path)}

    done = ran(install, environment)
    assert (done.returncode, done.stdout) == (0, f"site-agent {metadata.version(NAME)}\n"), done.stderr
    again = ran(install, environment)
    assert (again.returncode, "exists" in again.stderr) == (1, True)

    # Another wheel under a name of the list: neither the sums nor pip take it, each for itself.
    wheel = next((folder / "wheels").glob("h11-*"))
    wheel.write_bytes(wheel.read_bytes() + b"!")
    shutil.rmtree(tmp_path / "agent")
    refused = ran(install, environment)
    assert (refused.returncode, "Get it again" in refused.stderr) == (1, True)
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(keepends=True) if "h11" not in line))
    refused = ran(install, environment)
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert not (tmp_path / "agent/bin/site-agent").exists()

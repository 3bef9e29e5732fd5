"""What a person gets for a mistake: one clear message, the right exit code, no traceback, nothing half-written.

The details of each check are tested beside the code that makes it; this is the view from the shell. Processes come from
a nursery, but for those on a full disk, which have to start on it.
"""

import json
import resource
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.faulty_world import FaultyWorld, Nursery
from tests.e2e.world import HEART, SITES, STUDY, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[FaultyWorld]:
    """A running coordinator with one enrolled hospital and an approved study that nobody started."""
    world = FaultyWorld(tmp_path_factory.mktemp("consortium"), nursery)
    world.create()
    world.start_coordinator()
    try:
        world.enrol("cleveland")
        world.run("consortium", "study", "submit", HEART / "study.yaml", "--home", world.home)
        yield world
    finally:
        world.stop()


def refused(done: "subprocess.CompletedProcess[str]", code: int, *words: str) -> None:
    """Exit code, the words a person needs, one error, an advice, and no traceback."""
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said, said
    for word in words:
        assert word in said, said
    assert done.stderr.count("error:") == 1, said
    assert done.stderr.strip().count("\n") >= 1, said  # the advice stands below the message


def small_files(limit_bytes: int) -> dict[str, object]:
    """A disk that is full: no file may grow beyond so many bytes."""
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))}


# --- studies -------------------------------------------------------------------------------------------------------


def test_a_study_with_many_mistakes_is_told_all_of_them_with_their_lines(tmp_path: Path) -> None:
    text = (HEART / "study.yaml").read_text()
    for good, bad in (
        ("rounds: 20", 'rounds: "twenty"'),
        ("  unit: patient", "  unitt: patient"),
        ("epsilon: 1.0", "epsilon: 0"),
        ("threshold: 3", "threshold: 9"),
    ):
        assert good in text
        text = text.replace(good, bad, 1)
    (tmp_path / "study.yaml").write_text(text)
    done = run("consortium", "study", "validate", tmp_path / "study.yaml", check=False)
    refused(done, 1, "training.rounds", "privacy.unitt", "did you mean", "privacy.epsilon", "aggregation.threshold")
    lines = {
        name: number for number, line in enumerate(text.splitlines(), 1) for name in ("twenty", "unitt") if name in line
    }
    assert f"line {lines['twenty']}, training.rounds" in done.stderr
    assert f"line {lines['unitt']}, privacy.unitt" in done.stderr


def test_a_study_that_does_not_exist_is_named(world: FaultyWorld) -> None:
    refused(world.run("consortium", "study", "start", "nosuch", "--home", world.home, check=False), 1, "'nosuch'")


def test_a_hospital_that_is_not_in_the_roster_is_offered_nothing(world: FaultyWorld) -> None:
    kit = world.folder / "outsider.zip"
    world.run("consortium", "site", "invite", "outsider", "--home", world.home, "--out", kit)
    world.run("site-agent", "enrol", "--kit", kit, "--home", world.folder / "outsider")
    (world.folder / "outsider/site.yaml").write_text(
        (world.folder / "cleveland/site.yaml").read_text().replace("site: cleveland", "site: outsider")
    )
    refused(world.approve("outsider", STUDY, check=False), 1, "offers no study", STUDY)


# --- enrolment -----------------------------------------------------------------------------------------------------


def test_a_used_kit_is_refused_and_leaves_no_home(world: FaultyWorld) -> None:
    done = world.run(
        "site-agent", "enrol", "--kit", world.folder / "cleveland.zip", "--home", world.folder / "again", check=False
    )
    refused(done, 1, "used before")
    assert not list(world.folder.glob("*again*"))


@pytest.mark.parametrize("what", ["token", "release"])
def test_a_kit_that_was_altered_or_is_of_an_earlier_release_is_not_even_tried(world: FaultyWorld, what: str) -> None:
    kit, entries = world.folder / f"{what}.zip", len(world.entries())
    with zipfile.ZipFile(world.folder / "cleveland.zip") as good, zipfile.ZipFile(kit, "w") as bad:
        record = json.loads(good.read("kit.json")) | {"token": "0" * 64}
        bad.writestr("kit.json", json.dumps(record))
        for name in good.namelist() if what == "token" else ["kit.json", "ca.pem"]:
            if name != "kit.json":
                bad.writestr(name, good.read(name))
    done = world.run("site-agent", "enrol", "--kit", kit, "--home", world.folder / "wrong", check=False)
    refused(done, 2, "another kit" if what == "token" else "earlier release", "site invite")
    assert not (world.folder / "wrong").exists()
    assert len(world.entries()) == entries


def test_a_used_kit_is_refused_and_logged(world: FaultyWorld) -> None:
    kit = world.folder / "cleveland.zip"
    done = world.run("site-agent", "enrol", "--kit", kit, "--home", world.folder / "wrong", check=False)
    refused(done, 1, "token", "used before")
    assert not (world.folder / "wrong").exists()
    assert world.entries()[-1]["type"] == "auth.failed"


def test_a_certificate_of_another_consortium_is_refused(world: FaultyWorld, tmp_path: Path) -> None:
    other = FaultyWorld(tmp_path, world.nursery)
    other.create()
    other.start_coordinator()
    try:
        other.enrol("cleveland")
    finally:
        other.stop()
    home = tmp_path / "cleveland"
    address = json.loads((world.folder / "cleveland/identity.json").read_text())["address"]
    identity = json.loads((home / "identity.json").read_text())
    (home / "identity.json").write_text(json.dumps(identity | {"address": address}))
    done = world.run("site-agent", "studies", "list", "--home", home, check=False)
    refused(done, 1, "certificate")


# --- the hospital's data -------------------------------------------------------------------------------------------


def test_data_that_do_not_fit_are_told_without_a_patient(world: FaultyWorld) -> None:
    home = world.folder / "cleveland"
    world.approve("cleveland", STUDY)
    good = (HEART / "data/cleveland.csv").read_text()
    header, first, rest = good.split("\n", 2)
    broken = world.folder / "broken.csv"
    broken.write_text("\n".join([header.replace("thalach", "pulse"), first.replace(",63,", ",630,", 1), rest]))
    site_yaml = (home / "site.yaml").read_text()
    (home / "site.yaml").write_text(site_yaml.replace(str(HEART / "data/cleveland.csv"), str(broken)))
    try:
        done = world.run("site-agent", "check", "--home", home, check=False)
    finally:
        (home / "site.yaml").write_text(site_yaml)
    assert done.returncode == 1
    assert "thalach" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "cleveland-001" not in done.stdout + done.stderr
    assert world.run("site-agent", "check", "--home", home).returncode == 0


# --- the machine ---------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_named(world: FaultyWorld, tmp_path: Path) -> None:
    address = json.loads((world.folder / "cleveland/identity.json").read_text())["address"]
    world.run("consortium", "init", tmp_path / "second", "--name", "second", "--address", address)
    refused(world.run("consortium", "serve", "--home", tmp_path / "second", check=False), 1, address, "port")


def test_a_second_coordinator_on_one_home_is_refused(world: FaultyWorld) -> None:
    refused(world.run("consortium", "serve", "--home", world.home, check=False), 1, "already open in another process")


def test_an_old_agent_is_told_which_version_is_served(tmp_path: Path, nursery: Nursery) -> None:
    world = FaultyWorld(tmp_path, nursery)
    world.create()
    config = tmp_path / "coordinator/coordinator.yaml"
    config.write_text(config.read_text().replace('minimum_agent_version: "0.1.0"', 'minimum_agent_version: "99.0.0"'))
    world.start_coordinator()
    try:
        world.enrol(SITES[0])
        refused(run("site-agent", "run", "--home", tmp_path / SITES[0], check=False), 1, "99.0.0", "Upgrade")
    finally:
        world.stop()


@pytest.mark.parametrize("limit_bytes", [0, 200, 4096, 30_000])
def test_a_full_disk_leaves_no_coordinator_behind(world: FaultyWorld, tmp_path: Path, limit_bytes: int) -> None:
    command = ("consortium", "init", tmp_path / "home", "--name", "test", "--address", "127.0.0.1:9443")
    done = run(*command, check=False, **small_files(limit_bytes))
    refused(done, 75, "could not be" if limit_bytes < 4096 else "")
    assert list(tmp_path.iterdir()) == []
    assert world.run(*command).returncode == 0


def test_a_full_disk_leaves_no_agent_behind_and_the_kit_unused(world: FaultyWorld) -> None:
    kit, home = world.folder / "full.zip", world.folder / "full"
    world.run("consortium", "site", "invite", "full-disk", "--home", world.home, "--out", kit)
    done = run("site-agent", "enrol", "--kit", kit, "--home", home, check=False, **small_files(100))
    refused(done, 75, "could not be made")
    assert not list(world.folder.glob(".full*"))
    assert world.run("site-agent", "enrol", "--kit", kit, "--home", home).returncode == 0

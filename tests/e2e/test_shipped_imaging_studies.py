"""The studies of images that ship, each by the demo, in real processes and shortened: to evidence that holds.

The phantoms need no data. The others are run where an environment variable says where theirs are:
PNEUMONIAMNIST_NPZ, the file of MedMNIST, and HIPPOCAMPUS, a folder with imagesTr and labelsTr.

The two studies of volumes with differential privacy are run without the demo, with a few volumes at each hospital and
one round: the demo makes hundreds, and trains five more networks to compare with.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from consortium import demo_data
from consortium.assets import study_file
from consortium.contract.study import StudyFile, load_study
from tests.e2e.faulty_world import FaultyWorld, Nursery

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NPZ, HIPPOCAMPUS = "PNEUMONIAMNIST_NPZ", "HIPPOCAMPUS"
HOSPITALS = ("east", "north", "south", "west")


def demo(study: str, folder: Path, *options: str) -> str:
    """What a shortened demo prints; it must have ended well."""
    command = [sys.executable, "-m", "consortium", "demo", "--study", study, "--out", str(folder), "--rounds", "2"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_ends_well(text: str, figure: str) -> None:
    """Verified evidence, and a table with every hospital and every hospital's own model."""
    _, verified, ending = text.partition("\nVERIFIED\n")
    assert verified
    assert f"{figure} on patients set aside for testing, by model" in ending
    for site in HOSPITALS:
        assert re.search(rf"│ {site} +│", ending), ending
        assert f"{site} alone*" in ending
    assert re.search(r"the federated model (beats|does NOT beat) every hospital alone: \d\.\d{3}", ending)


def test_phantoms_need_no_data(tmp_path: Path) -> None:
    text = demo("phantoms", tmp_path / "demo")
    assert_ends_well(text, "Dice")
    assert "round   2 closed: 4 of 4 hospitals" in text
    assert "site-agent certificate phantoms" in text  # there is privacy, and something that states it


@pytest.mark.parametrize("study", ["chest-xray", "chest-xray-distributed"])
def test_chest_radiographs_of_medmnist(study: str, tmp_path: Path) -> None:
    if NPZ not in os.environ:
        pytest.skip(f"{NPZ} does not name pneumoniamnist.npz")
    assert_ends_well(demo(study, tmp_path / "demo", "--data", os.environ[NPZ]), "AUC")


def test_hippocampus_promises_no_privacy_and_says_so(tmp_path: Path) -> None:
    if HIPPOCAMPUS not in os.environ:
        pytest.skip(f"{HIPPOCAMPUS} does not name a folder with imagesTr and labelsTr")
    text = demo("hippocampus", tmp_path / "demo", "--data", os.environ[HIPPOCAMPUS])
    assert_ends_well(text, "Dice")
    assert "No patient has differential privacy in this study" in text
    table = text.partition("\nVERIFIED\n")[2]
    assert table.count("none promised") == len(HOSPITALS)


# --- volumes with differential privacy, few of them ------------------------------------------------------------------

VOLUMES = 8
"""At each hospital; two of them are for testing."""
LOADED = ("monai.losses", "monai.networks.nets", "monai.transforms")
"""What these studies take seconds to load, in every process that is not made from one that has them."""


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery(*LOADED)
    yield nursery
    nursery.close()


def shortened(name: str, path: Path) -> StudyFile:
    """A shipped study of one round, for three hospitals with few patients, written to a file.

    Each hospital also audits its mechanism on made-up records, which takes as long as these are large: so it trains on
    small patches. Volumes are measured whole.
    """
    record = yaml.safe_load(study_file(Path(name)).read_text())
    record["sites"] |= {"required": record["sites"]["required"][:3]}
    record["data"] |= {"minimum_patients": VOLUMES - 2} | {"patch": {"shape": [8] * 3, "per_record": 1}}
    record["training"] |= {"rounds": 1, "spare_rounds": 0}
    record["evaluation"] |= {"every_rounds": 1}
    path.write_text(yaml.safe_dump(record, sort_keys=False))
    return load_study(path)


def run_through(folder: Path, nursery: Nursery, name: str, data: Path | None) -> str:
    """The whole study in real processes, to what `consortium audit verify` prints of its evidence."""
    study = shortened(name, folder / "study.yaml")
    files = demo_data.site_files(study, data, folder / "data")
    world = FaultyWorld(folder, nursery)
    world.study_id = study.id
    at, sites = ("--home", world.home), study.sites.roster
    try:
        world.create()
        world.start_coordinator()
        world.follow()
        for site in sites:
            kit, home = folder / f"{site}.zip", folder / site
            world.run("consortium", "site", "invite", site, *at, "--out", kit)
            world.run("site-agent", "enrol", "--kit", kit, "--home", home)
            (home / "site.yaml").write_text(files[site])
            world.start_agent(site)
        world.run("consortium", "study", "submit", folder / "study.yaml", *at)
        for site in sites:
            world.approve(site)
        world.run("consortium", "study", "start", study.id, *at)
        world.wait_for(lambda s: s["state"] == "completed", "the study to end", timeout_s=300)
        assert [len(r["survivors"]) for r in world.study()["history"]] == [len(sites)] * 2  # one only measures
        assert 0 <= world.study()["history"][-1]["metrics"]["dice"] <= 1
        return world.verified_evidence(sites[0])
    finally:
        world.stop()


def test_phantoms_of_three_dimensions(tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_data, "PHANTOM_VOLUME_PATIENTS", VOLUMES)
    printed = run_through(tmp_path, nursery, "phantoms-3d", None)
    assert printed.rstrip().endswith("\nVERIFIED"), printed


def test_hippocampus_with_differential_privacy(tmp_path: Path, nursery: Nursery) -> None:
    if HIPPOCAMPUS not in os.environ:
        pytest.skip(f"{HIPPOCAMPUS} does not name a folder with imagesTr and labelsTr")
    every = Path(os.environ[HIPPOCAMPUS])
    names = sorted(path.name for path in (every / "labelsTr").glob("[!.]*.nii*"))[: 3 * VOLUMES]
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / "few" / part).mkdir(parents=True)
        for name in names:
            shutil.copy(every / part / name, tmp_path / "few" / part / name)
    printed = run_through(tmp_path, nursery, "hippocampus-dp", tmp_path / "few")
    assert printed.rstrip().endswith("\nVERIFIED"), printed

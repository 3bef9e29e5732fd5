"""The studies of images that ship, each by the demo, in real processes and shortened: to evidence that holds.

The phantoms need no data. The others are run where an environment variable says where theirs are:
PNEUMONIAMNIST_NPZ, the file of MedMNIST, and HIPPOCAMPUS, a folder with imagesTr and labelsTr.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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

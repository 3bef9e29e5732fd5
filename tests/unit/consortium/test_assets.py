"""Studies that ship with the package are found from anywhere, in a working copy and in an installation."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consortium.assets import heart_disease, study_file
from consortium.cli import app
from consortium.contract.study import load_study
from consortium.errors import StudyFileMissing

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("heart-disease", "heart-disease-distributed")


@pytest.mark.parametrize("name", NAMES)
def test_a_study_is_found_by_its_name_from_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = load_study(study_file(Path(name)))
    assert study.id == name
    # The demo finds a site.yaml for every hospital of it.
    for site in study.sites.roster:
        assert f"{name}: heart" in (heart_disease() / "sites" / site / "site.yaml").read_text()


@pytest.mark.parametrize("command", [("study", "validate"), ("study", "plan")])
def test_commands_that_read_a_study_know_the_names_too(
    command: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*command, "heart-disease", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["study"] == "heart-disease"
    missing = CliRunner().invoke(app, [*command, "another"])
    assert isinstance(missing.exception, StudyFileMissing)


def test_a_file_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("heart-disease").write_text("mine")
    assert study_file(Path("heart-disease")) == Path("heart-disease")


def test_neither_a_file_nor_a_name_is_told_the_names(tmp_path: Path) -> None:
    with pytest.raises(StudyFileMissing, match="is not a file") as caught:
        study_file(tmp_path / "study.yaml")
    for name in NAMES:
        assert name in caught.value.advice()


def test_an_installation_has_them(tmp_path: Path) -> None:
    """What the wheel takes along, put where the wheel puts it; the interpreter sees nothing of the working copy."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    installed = tmp_path / "installed"
    for name in ("__init__.py", "assets.py", "errors.py"):
        (installed / "consortium").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "consortium" / name, installed / "consortium" / name)
    for source, target in wheel["force-include"].items():
        if target.startswith("consortium/assets/"):
            (installed / target).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, installed / target)
    script = (
        "import sys; sys.path[0] = sys.argv.pop(1); from pathlib import Path; from consortium.assets import study_file;"
        "print(*(study_file(Path(name)) for name in sys.argv[1:]), sep='\\n')"
    )
    command = [sys.executable, "-S", "-c", script, str(installed), *NAMES]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = [Path(line) for line in done.stdout.splitlines()]
    assert [path.is_relative_to(installed) for path in found] == [True, True]
    assert [path.read_bytes() for path in found] == [study_file(Path(name)).read_bytes() for name in NAMES]


def test_a_shorter_demo_of_a_study_that_measures_seldom_is_a_study(tmp_path: Path) -> None:
    from consortium.demo import _with_settings  # noqa: PLC0415 - torch

    path = tmp_path / "study.yaml"
    path.write_text(_with_settings(study_file(Path(NAMES[1])).read_text(), rounds=3, seed=5))
    study = load_study(path)
    assert (study.training.rounds, study.training.seed, study.evaluation.every_rounds) == (3, 5, 3)
    assert _with_settings("no study", rounds=3, seed=None) == "no study"  # whoever reads it says what is missing
    turns = "\ntraining:\n  rounds: 5\n  participants_per_round: 3\nevaluation:\n  every_rounds: 5\n"
    assert _with_settings(turns, rounds=9, seed=None) == turns.replace("5", "9")

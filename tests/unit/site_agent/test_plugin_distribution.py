"""A hospital's own code as an installed distribution: what its digest covers, and that nothing else of it is run."""

import hashlib
import json
import os
import py_compile
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from site_agent.cli import app
from site_agent.client_algo_file import NOT_THE_FILE, made_client_algo, objection_to_client_algo
from site_agent.plugin_distribution import DistributionRefused, imported, installed
from site_agent.site_file import ClientAlgoFile
from tests.fakes.client_algos import ALGO, SOURCE, study_with_client_algo

NAME, MODULE = "ward-trainer-for-tests", "ward_trainer_for_tests"
INIT, CODE = f"{MODULE}/__init__.py", f"{MODULE}/algo.py"


@pytest.fixture
def site_packages(tmp_path, monkeypatch):
    """A folder of installed packages with the distribution in it, as pip leaves one."""
    files = {INIT: '"""Ours."""\n', CODE: SOURCE, f"{MODULE}/weights.json": "{}"}
    install(tmp_path, files)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(MODULE):
            del sys.modules[name]


def install(folder: Path, files: dict[str, str], version: str = "1.2.0") -> None:
    info = f"{MODULE}-{version}.dist-info"
    files = files | {f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n"}
    for path, text in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    listed = [*files, f"{info}/INSTALLER", f"{info}/RECORD", f"../../bin/{NAME}", f"{MODULE}/__pycache__/algo.pyc"]
    (folder / info / "INSTALLER").write_text("pip\n")
    (folder / info / "RECORD").write_text("".join(f"{path},,\n" for path in listed))


def registered(**changes):
    found = installed(NAME)
    fields = {"distribution": NAME, "version": found.version, "module": f"{MODULE}.algo", "sha256": found.sha256}
    return ClientAlgoFile.model_validate(fields | {"class": "WardTrainer"} | changes)


def test_the_digest_is_over_the_files_and_nothing_of_the_installer(site_packages):
    found = installed(NAME)
    info = f"{MODULE}-1.2.0.dist-info"
    paths = sorted([INIT, CODE, f"{MODULE}/weights.json", f"{info}/METADATA"])
    lines = [f"{hashlib.sha256((site_packages / path).read_bytes()).hexdigest()}  {path}\n" for path in paths]
    assert found.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert (found.version, found.modules) == ("1.2.0", (MODULE,))
    (site_packages / info / "INSTALLER").write_text("uv\n")
    assert installed(NAME).sha256 == found.sha256
    done = CliRunner().invoke(app, ["plugin-digest", NAME, "--json"])
    assert json.loads(done.stdout)["sha256"] == found.sha256
    assert found.sha256 in CliRunner().invoke(app, ["plugin-digest", NAME]).stdout
    assert MODULE not in sys.modules  # looking at it runs nothing


def test_the_class_is_made_of_the_files_that_were_registered(site_packages):
    algo = registered()
    study = study_with_client_algo()
    assert objection_to_client_algo(study, {ALGO: algo}) is None
    assert type(made_client_algo(algo)).__module__ == f"{MODULE}.algo"
    for changes in ({"sha256": "0" * 64}, {"version": "1.2.1"}, {"distribution": "no-such-thing"}):
        other = registered(**changes)
        assert objection_to_client_algo(study, {ALGO: other}) == NOT_THE_FILE
        with pytest.raises(DistributionRefused) as caught:
            made_client_algo(other)
        assert caught.value.advice()


@pytest.mark.parametrize("how", ["changed", "added", "linked", "missing"])
def test_a_file_that_was_swapped_is_not_run(site_packages, how):
    algo, code = registered(), site_packages / CODE
    match how:
        case "changed":
            code.write_text(SOURCE + "\nSWAPPED = True\n")
        case "added":
            (site_packages / MODULE / "torch_helpers.py").write_text("raise SystemExit\n")
        case "linked":
            (site_packages / "elsewhere.py").write_text(SOURCE)
            code.unlink()
            code.symlink_to(site_packages / "elsewhere.py")
        case "missing":
            code.unlink()
    with pytest.raises(DistributionRefused):
        made_client_algo(algo)
    assert MODULE not in sys.modules


def test_a_compiled_cache_beside_the_source_is_not_run(site_packages):
    found, code = installed(NAME), site_packages / CODE
    true, times = code.read_text(), code.stat()
    code.write_text(true.replace("rate=0.5", "rate=9.5"))  # of the same size, and made to look as old
    sys_times = (times.st_atime_ns, times.st_mtime_ns)
    os.utime(code, ns=sys_times)
    py_compile.compile(str(code))
    code.write_text(true)
    os.utime(code, ns=sys_times)
    assert installed(NAME).sha256 == found.sha256
    made = imported(found, f"{MODULE}.algo")
    assert made.WardTrainer().rate == 0.5


def test_what_is_no_wheel_is_refused(tmp_path, monkeypatch):
    install(tmp_path, {f"__editable__.{MODULE}.pth": "/somewhere\n"})
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DistributionRefused, match="editable"):
        installed(NAME)

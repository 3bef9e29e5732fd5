"""A coordinator's installation has no torch: its commands work, and the others say what to install."""

import subprocess
import sys

BLOCKED = ("torch", "opacus", "monai", "sklearn", "pandas")
_SCRIPT = """
import sys

class Absent:  # scipy looks into sys.modules for torch, so that None there would not be an absence
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent)
sys.argv = {argv!r}
from {module}.cli import main
main()
"""


def run(module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    script = _SCRIPT.format(blocked=BLOCKED, argv=[module, *arguments], module=module)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


def test_a_coordinator_needs_none_of_a_hospitals_packages(tmp_path) -> None:
    home = str(tmp_path / "hub")
    for arguments in (
        ("init", home, "--name", "pure", "--address", "127.0.0.1:9443"),
        ("study", "plan", "configs/heart-disease/study.yaml"),
        ("study", "submit", "configs/heart-disease/study.yaml", "--home", home),
        ("status", "--home", home),
    ):
        done = run("consortium", *arguments)
        assert done.returncode == 0, done.stderr


def test_what_needs_them_says_what_to_install(tmp_path) -> None:
    done = run("consortium", "demo", "--out", str(tmp_path / "x"))
    assert done.returncode == 1
    assert "hospital-consortium[site]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x").exists()

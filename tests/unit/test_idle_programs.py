"""What `consortium serve` and `site-agent run` have loaded before there is a study to work on: nothing that is heavy.

Each library here takes several MB and a part of a second, in every hospital, for as long as the agent runs. Whatever
needs one imports it where it is used; numpy, which whole modules are written in, comes from `privacy/lazy_numpy.py`,
and what only a command line needs stays out by `consortium/contract/light_start.py`.
"""

import subprocess
import sys

import pytest

HEAVY = {
    "PIL", "alembic", "dp_accounting", "fsspec", "h11", "jinja2", "mako", "matplotlib", "monai", "nibabel", "numpy",
    "opacus", "pandas", "prometheus_client", "pydicom", "pygments", "reportlab", "rich", "scipy", "sklearn", "torch",
    "typer",
}  # fmt: skip
NOT_AT_A_HOSPITAL = {"sqlalchemy"}
OF_A_ROUND = {
    "consortium.attempt", "consortium.driver", "consortium.training_round", "privacy.dp.mechanism",
    "privacy.secagg.coordinator", "privacy.secagg.masks", "privacy.secagg.site",
}  # fmt: skip
"""Of our own: what a coordinator loads when a study begins, or never."""
_SCRIPT = """
import importlib, sys
from {program} import entry
sys.argv = ["{program}", "{command}", "--home", "nowhere"]
entry.{command} = lambda *_, **__: importlib.import_module("{program}.app")  # all that it would load to work
entry.main()
print(*sorted(sys.modules))
"""


def loaded(program: str, command: str) -> set[str]:
    script = [sys.executable, "-c", _SCRIPT.format(program=program, command=command)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("program", "command", "unwanted"),
    [("consortium", "serve", HEAVY | OF_A_ROUND), ("site_agent", "run", HEAVY | NOT_AT_A_HOSPITAL)],
)
def test_an_idle_program_has_loaded_no_library_it_does_not_need(program, command, unwanted) -> None:
    found = loaded(program, command)
    assert {"grpc", "pydantic", "structlog", f"{program}.app"} <= found  # the script looks at the right thing
    assert found & unwanted == set()


def test_a_study_is_read_and_checked_without_numpy() -> None:
    script = (
        "import sys; from pathlib import Path; from consortium.contract.study import load_study; "
        "load_study(Path('configs/heart-disease/study.yaml')); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert "consortium.contract.study" in done.stdout.split()
    assert "numpy" not in done.stdout.split()

"""What `consortium serve` and `site-agent run` have loaded before there is a study to work on: nothing that is heavy.

Each library here takes several MB and a part of a second, in every hospital, for as long as the agent runs. Whatever
needs one imports it where it is used.
"""

import subprocess
import sys

import pytest

HEAVY = {
    "PIL", "alembic", "dp_accounting", "fsspec", "jinja2", "mako", "matplotlib", "monai", "nibabel", "numpy", "opacus",
    "pandas", "prometheus_client", "pydicom", "reportlab", "scipy", "sklearn", "torch",
}  # fmt: skip
NOT_AT_A_HOSPITAL = {"sqlalchemy"}
_SCRIPT = "import sys; import {}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [("consortium.cli, consortium.app", HEAVY), ("site_agent.cli, site_agent.app", HEAVY | NOT_AT_A_HOSPITAL)],
)
def test_an_idle_program_has_loaded_no_library_it_does_not_need(modules: str, unwanted: set[str]) -> None:
    command = [sys.executable, "-c", _SCRIPT.format(modules)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    loaded = set(done.stdout.split())
    assert {"grpc", "pydantic"} <= loaded  # the script looks at the right thing
    assert loaded & unwanted == set()

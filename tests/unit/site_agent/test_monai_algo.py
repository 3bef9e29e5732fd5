"""MONAI's own `MonaiAlgo`, with a bundle of this hospital's, trains in the place of ours.

It needs pytorch-ignite, which nothing else here does: `pip install -c constraints.txt 'hospital-consortium[monai-fl]'`.
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(find_spec("ignite") is None, reason="MonaiAlgo needs pytorch-ignite")
def test_a_bundle_that_does_gradient_descent_sends_the_update_ours_would(tmp_path):
    command = [sys.executable, "-m", "tests.fakes.monai_algo_run", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    difference, largest = json.loads(done.stdout.splitlines()[-1])
    assert difference < 1e-6
    assert largest > 0.1

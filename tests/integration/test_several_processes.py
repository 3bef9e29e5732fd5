"""A hospital in two processes under torchrun: the same patients, one noise, one count of steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from site_agent.gradients.ddp import dealt
from site_agent.gradients.engine import Batch
from tests.fakes.two_processes import TRAINING, trained, trained_on_views

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "found.json"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "tests.fakes.two_processes", str(out)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_do_what_one_does(found):
    # With the same coins and the same noise, drawn once at rank 0: a helper that draws any ends, and the run with it.
    for engine in ("bookkeeping", "loop"):
        one, update = trained(engine)
        assert np.abs(np.array(found[engine]) - update).max() < 1e-6 * np.abs(update).max()
        assert found[f"{engine} steps"] == sum(event.mechanism.steps for event in one.events) == 2
    # Where nobody was sampled it is noise alone, and all of it: sigma C / divisor for each of two steps.
    noise = np.array(found["nobody"])
    assert (noise == trained(count=0)[1].astype(float)).all()
    privacy = TRAINING.privacy
    expected = privacy.mechanism.noise_multiplier * privacy.mechanism.clip_norm_l2 / privacy.denominator * np.sqrt(2)
    assert noise.std() == pytest.approx(expected, rel=0.1)  # 7 deviations for 2,497 values


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_see_the_views_that_one_sees(found):
    """Views are made at rank 0, from the records' own content: who computes a gradient makes no difference to them."""
    one = trained_on_views()
    assert np.abs(np.array(found["views"]) - one).max() < 1e-6 * np.abs(one).max()
    assert np.abs(trained_on_views(site="south") - one).max() > 1e-2 * np.abs(one).max()  # views are not the noise


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_broken_record_is_counted_once_and_a_share_that_fails_fails_the_step(found):
    assert found["counts"] == [3, 2, 1]
    assert "could not compute their share" in found["refused"]
    assert found["after"] == [True]


@pytest.mark.parametrize(
    ("sizes", "ranks", "expected"),
    [
        ((1,) * 7, 2, [4, 3]),
        ((1,) * 6, 3, [2, 2, 2]),
        ((5, 1, 1, 1, 1, 1), 2, [5, 5]),
        ((1, 9), 2, [1, 9]),
        ((4,), 3, [0, 4, 0]),
        ((), 2, [0, 0]),
    ],
)
def test_patients_are_dealt_out_whole_and_in_order(sizes, ranks, expected):
    records = sum(sizes)
    batch = Batch(features=torch.arange(float(records)).reshape(records, 1), labels=torch.zeros(records), sizes=sizes)
    shares = dealt(batch, ranks)
    assert [len(share.features) for share in shares] == expected
    assert sum((share.sizes for share in shares), ()) == sizes
    assert torch.equal(torch.cat([share.features for share in shares]), batch.features)

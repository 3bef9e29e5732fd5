"""CPU time of a private step over that of a plain torch step of the same batch: one thread, four networks.

A plain step is zero_grad, forward, loss, backward and SGD. A private one is what `DpTrainer` does from the batch on:
the engine's clipped sum, rounding to the grid, noise from the cryptographic generator, Opacus' order of a step, SGD.
The engine is the one that `admission.choose` picks, after its test. Beside each ratio: the noise alone, all that was
tried, and the peak memory of each, measured in processes of their own. A second figure compares with the same step with
Opacus' hooks as the engine.
"""

import json
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from privacy.dp.mechanism import PoissonSampledGaussian, noisy
from privacy.dp.randomness import CryptographicGenerator
from site_agent.errors import EngineUnsuited
from site_agent.gradients.admission import EngineChoice, choose
from site_agent.gradients.engine import Batch
from site_agent.gradients.losses import record_loss
from site_agent.gradients.workload import Workload
from site_agent.networks import build
from site_agent.trainer import PatientOptimizer
from site_agent.update import named_parameters, parameter_count
from tests.benchmarks.figures import Figure, cpu_s, in_turns, ratio, status_bytes

ROOT = Path(__file__).resolve().parents[2]
MECHANISM = PoissonSampledGaussian(noise_multiplier=1.0, sampling_rate=0.1, steps=1000, clip_norm_l2=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One network and its batch."""

    name: str
    reference: float
    batch: int
    shape: tuple[int, ...]
    label_shape: tuple[int, ...] = ()
    network: Callable[[], nn.Module]
    repeats: int
    steps: int = 1  # taken together where one is too short to time

    @property
    def against_hooks(self) -> str:
        """The name of the second figure."""
        return self.name.replace("_vs_nonprivate", "_vs_hooks")


def _unet() -> nn.Module:
    from monai.networks.nets.unet import UNet  # noqa: PLC0415 - seconds

    return UNet(
        spatial_dims=2, in_channels=1, out_channels=1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2),
        num_res_units=2, norm="instance",
    )  # fmt: skip


def _densenet() -> nn.Module:
    from monai.networks.nets.densenet import DenseNet121  # noqa: PLC0415 - seconds

    return DenseNet121(spatial_dims=2, in_channels=1, out_channels=1, norm=("group", {"num_groups": 8}))


CASES = (
    Case(
        name="dp_step_logreg_vs_nonprivate", reference=1.6, batch=32, shape=(13,), repeats=15, steps=50,
        network=lambda: build("logistic", {}, input_shape=(13,), seed=1),
    ),
    Case(
        name="dp_step_cnn28_vs_nonprivate", reference=1.4, batch=128, shape=(1, 28, 28), repeats=11,
        network=lambda: build("cnn", {}, input_shape=(1, 28, 28), seed=1),
    ),
    Case(
        name="dp_step_unet2d_vs_nonprivate", reference=1.9, batch=16, shape=(1, 64, 64), label_shape=(1, 64, 64),
        network=_unet, repeats=9,
    ),
    Case(
        name="dp_step_densenet121_vs_nonprivate", reference=2.0, batch=16, shape=(1, 64, 64), network=_densenet,
        repeats=7,
    ),
)  # fmt: skip


def measure(case: Case) -> list[Figure]:
    """Two figures, ratios of medians of steps taken in turns: over a plain step, and against Opacus' hooks."""
    torch.set_num_threads(1)
    loss = record_loss(nn.BCEWithLogitsLoss())
    workload = Workload(
        input_shape=case.shape, label_shape=case.label_shape, patients=case.batch, records_each=1,
        memory_bytes=2**32,
    )  # fmt: skip
    network = _built(case)
    trial = choose(network, loss, workload)
    private, plain = _private(case, trial.choice), _plain(case)
    times = in_turns(lambda: cpu_s(private), lambda: cpu_s(plain), case.repeats)
    value, spread = ratio(*times)
    noise = _noise_s(parameter_count(network))
    each = [1e3 * statistics.median(found) / case.steps for found in times]
    note = (
        f"{trial.choice.name}: {each[0]:.2f} ms, of which noise {1e3 * noise:.2f}; plain {each[1]:.2f} ms; "
        f"{parameter_count(network):,} parameters, batch {case.batch}; peak memory {_memory(case, trial.choice.name)}; "
        f"tried: {trial.words}"
    )
    over_plain = Figure(
        name=case.name, value=value, unit="CPU time of a private step over a plain one", reference=case.reference,
        better="at most", spread=spread, note=note,
    )  # fmt: skip
    return [over_plain, _against_hooks(case, private)]


def _built(case: Case) -> nn.Module:
    torch.manual_seed(1)
    return case.network()


def _batch(case: Case) -> Batch:
    return Workload(
        input_shape=case.shape, label_shape=case.label_shape, patients=case.batch, records_each=1, memory_bytes=0
    ).batch((1,) * case.batch)


def _plain(case: Case) -> Callable[[], None]:
    network, batch, loss = _built(case), _batch(case), nn.BCEWithLogitsLoss()
    labels = batch.labels if case.label_shape else batch.labels.unsqueeze(1)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def steps() -> None:
        for _ in range(case.steps):
            optimizer.zero_grad()
            loss(network(batch.features), labels).backward()
            optimizer.step()

    return steps


def _private(case: Case, choice: EngineChoice) -> Callable[[], None]:
    network, batch = _built(case), _batch(case)
    engine = choice.build(network, record_loss(nn.BCEWithLogitsLoss()))
    optimizer = PatientOptimizer(
        torch.optim.SGD([parameter for _, parameter in named_parameters(network)], lr=1e-3),
        mechanism=MECHANISM,
        dimension=parameter_count(network),
        denominator=float(case.batch),
        generator=CryptographicGenerator(os.urandom),
    )

    def steps() -> None:
        for _ in range(case.steps):
            optimizer.zero_grad(set_to_none=True)
            optimizer.take(engine.clipped_sum(batch, optimizer.grid.clip_norm_l2))
            optimizer.step()

    return steps


def _noise_s(dimension: int) -> float:
    """CPU seconds of a step's noise."""
    import numpy as np  # noqa: PLC0415

    from privacy.dp.mechanism import Grid  # noqa: PLC0415

    generator, grid = CryptographicGenerator(os.urandom), Grid.of(MECHANISM, dimension)
    clean = np.zeros(dimension, dtype=np.int64)
    return statistics.median(cpu_s(lambda: noisy(clean, MECHANISM.noise_std, grid, generator)) for _ in range(5))


def _against_hooks(case: Case, private: Callable[[], None]) -> Figure:
    """How much faster than the same step with Opacus' hooks as the engine."""
    value, spread, note = None, None, ""
    try:
        theirs = _private(case, EngineChoice(name="hooks"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            times = in_turns(lambda: cpu_s(theirs), lambda: cpu_s(private), max(3, case.repeats // 2))
        value, spread = ratio(*times)
    except (EngineUnsuited, RuntimeError) as error:
        note = f"Opacus' hooks cannot do it ({str(error).partition(':')[0][:60]})"
    return Figure(
        name=case.against_hooks, value=value, unit="times as fast as the same step with Opacus' hooks", reference=1.0,
        better="at least", spread=spread, note=note,
    )  # fmt: skip


def _memory(case: Case, engine: str) -> str:
    """Peak resident memory beyond what loading takes, private over plain, each in a process of its own."""
    found = {}
    for name in ("plain", engine):
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.dp_step", case.name, name],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        if done.returncode:
            return "not measured"
        found[name] = json.loads(done.stdout)
    return f"{found[engine] / 2**20:.0f} MB over {found['plain'] / 2**20:.0f} MB of a plain step"


def _child(name: str, engine: str) -> int:
    """Two steps, and what the peak grew by."""
    torch.set_num_threads(1)
    case = next(case for case in CASES if case.name == name)
    step = _plain(case) if engine == "plain" else _private(case, EngineChoice(name=engine))
    before = status_bytes("VmRSS")
    for _ in range(2):
        step()
    print(json.dumps(max(1, status_bytes("VmHWM") - before)))
    return 0


if __name__ == "__main__":
    sys.exit(_child(*sys.argv[1:]))

"""An epoch of a hospital's agent over one of a bare MONAI loop: the same volumes, network, batches and thread.

The agent's epoch is a round of a study without differential privacy, by the road an agent takes: the cohort as its
preparation reads it, `RoundValues` with its progress file, training, and the update encoded for the upload, all in one
process: what the pipe to a training child costs is not in it. The bare loop is what MONAI's tutorials teach: dictionary
transforms, a `CacheDataset`, MONAI's `DataLoader`, `UNet` and `DiceCELoss`, Adam, and metadata switched off as their
guide to fast training has it. Both have every volume in memory when the epoch begins. Peak memory of each, of reading
and two epochs, is measured in a process of its own.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from consortium.contract.study import StudyFile
from privacy.encoding import encode
from privacy.secret import Secret
from site_agent.home import open_home
from site_agent.networks.private_layers import groups_of
from site_agent.preparation import Prepared, prepare
from site_agent.progress import FOLDER, Progress
from site_agent.room_in_process import RoomInProcess
from site_agent.round_values import RoundValues
from site_agent.signed_events import SignedEvents
from tests.benchmarks.bench_volumes import LIST, PART, Volumes, volume_site_file, volume_study, write_volumes
from tests.benchmarks.figures import Figure, in_turns, ratio, status_bytes
from tests.fakes.site_world import ME, SITES, make_world

ROOT = Path(__file__).resolve().parents[2]
NAME = "agent_overhead_vs_plain_monai"
REFERENCE = 1.10
REPEATS = 9
LEARNING_RATE = 1e-3
ENTROPY = b"\x05" * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What both train."""

    volumes: Volumes
    batches: int  # in an epoch
    channels: tuple[int, ...]  # of the UNet

    @property
    def batch(self) -> int:
        """Volumes in a batch."""
        return -(-self.volumes.training_patients // self.batches)

    @property
    def study(self) -> StudyFile:
        """The study, a round of which is one epoch."""
        return volume_study(
            "volumes", SITES, self.volumes,
            model={"network": "unet", "args": {"channels": self.channels}},
            local_steps=self.batches, sampling_rate=1 / self.batches,
            optimizer={"name": "adam", "learning_rate": LEARNING_RATE},
        )  # fmt: skip


CASE = Case(
    volumes=Volumes(patients=32, shape=(32, 32, 32), stored_shape=(32, 32, 32)), batches=6, channels=(16, 32, 64, 128)
)


# --- the agent -------------------------------------------------------------------------------------------------------


class Agent:
    """A hospital that is enrolled, with its study prepared. Mutable: its optimizer and network are at work."""

    def __init__(self, folder: Path, case: Case) -> None:
        world = make_world(folder / "home", case.study)
        (folder / "home/site.yaml").write_text(
            volume_site_file(ME, case.study, case.volumes, path=str(folder / "volumes" / LIST))
        )
        home = open_home(folder / "home")
        self.prepared: Prepared = prepare(home, world.store, world.ledger, case.study.digest(), RoomInProcess)
        self._policy = home.config.policy
        world.model = self.prepared.first_model
        self._plan = world.plan(measured=False)
        progress = Progress(folder / "home" / FOLDER, case.study.study_id, case.study.training.rounds)
        self._values = RoundValues(
            self.prepared, world.ledger, SignedEvents(home, world.store), progress=progress
        )  # fmt: skip

    def round(self) -> NDArray[np.float32]:
        """A round from the first global model to the encoded update; the update."""
        contribution = asyncio.run(self._values.contribution(self._plan, self.prepared.first_model, self._policy))
        encode(contribution.lanes, self._plan.layout, Secret(ENTROPY))
        self._values.uploading()  # so that the next one is trained anew
        update: NDArray[np.float32] = contribution.lanes["update"]
        return update


# --- the bare loop ---------------------------------------------------------------------------------------------------


class BareLoop:
    """What a user of MONAI writes. Mutable: its network learns, from the agent's first model on."""

    def __init__(self, folder: Path, case: Case) -> None:
        from monai.data.dataloader import DataLoader  # noqa: PLC0415 - seconds
        from monai.data.dataset import CacheDataset  # noqa: PLC0415
        from monai.losses.dice import DiceCELoss  # noqa: PLC0415
        from monai.networks.nets.unet import UNet  # noqa: PLC0415

        torch.set_num_threads(1)
        entries = json.loads((folder / "volumes" / LIST).read_text())["training"]
        files = [
            {key: str(folder / "volumes" / one[key]) for key in ("image", "label")}
            for one in entries
            if one[PART] == "train"
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MONAI, about readers that are not needed
            data = CacheDataset(files, _transforms(case), num_workers=1, progress=False)
        self.loader = DataLoader(data, batch_size=case.batch, shuffle=True, num_workers=0)
        strides = (2,) * (len(case.channels) - 1)
        self.network = UNet(
            spatial_dims=3, in_channels=1, out_channels=2, channels=case.channels, strides=strides,
            num_res_units=2, norm=("group", {"num_groups": 1}),
        )  # fmt: skip
        for layer in self.network.modules():
            if isinstance(layer, nn.GroupNorm):  # as many as the study's network has
                layer.num_groups = groups_of(layer.num_channels)
        self.loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, smooth_nr=1.0, smooth_dr=1.0)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE)

    def epoch(self) -> None:
        """Every volume once."""
        self.network.train()
        for batch in self.loader:
            self.optimizer.zero_grad()
            loss = self.loss(self.network(batch["image"]), batch["label"])
            loss.backward()
            self.optimizer.step()


def _transforms(case: Case) -> Callable[..., Any]:
    from monai.transforms.compose import Compose  # noqa: PLC0415 - seconds
    from monai.transforms.croppad.dictionary import ResizeWithPadOrCropd  # noqa: PLC0415
    from monai.transforms.intensity.dictionary import NormalizeIntensityd  # noqa: PLC0415
    from monai.transforms.io.dictionary import LoadImaged  # noqa: PLC0415
    from monai.transforms.spatial.dictionary import Orientationd, Spacingd  # noqa: PLC0415
    from monai.transforms.utility.dictionary import EnsureTyped  # noqa: PLC0415

    both = ["image", "label"]
    return Compose(
        [
            LoadImaged(both, reader="NibabelReader", ensure_channel_first=True),
            Orientationd(both, axcodes="RAS", labels=None),
            Spacingd(both, pixdim=(1.0, 1.0, 1.0), mode=("bilinear", "nearest")),
            NormalizeIntensityd(["image"]),
            ResizeWithPadOrCropd(both, case.volumes.shape),
            EnsureTyped(both, track_meta=False),
        ]
    )


# --- both ------------------------------------------------------------------------------------------------------------


def measure(case: Case = CASE, repeats: int = REPEATS) -> list[Figure]:
    """One figure: CPU time of the agent's epoch over the bare loop's, taken in turns."""
    with tempfile.TemporaryDirectory(prefix="consortium-bench-") as name:
        folder = Path(name)
        write_volumes(folder / "volumes", case.volumes)
        agent, bare = Agent(folder, case), BareLoop(folder, case)
        clock: list[tuple[float, float]] = []

        def timed(epoch: Callable[[], object]) -> float:
            began, used = time.perf_counter(), time.process_time()
            epoch()
            used, took = time.process_time() - used, time.perf_counter() - began
            clock.append((used, took))
            return used

        above, below = in_turns(lambda: timed(agent.round), lambda: timed(bare.epoch), repeats)
        value, spread = ratio(above, below)
        walls = [took for _, took in clock[-2 * repeats :]]
        by_clock = statistics.median(walls[::2]) / statistics.median(walls[1::2])
        memory = _memory(folder)
    size = agent.prepared.first_model.vector.size
    note = (
        f"agent {statistics.median(above):.2f} s, MONAI {statistics.median(below):.2f} s; by the clock {by_clock:.2f}; "
        f"UNet of {size:,} parameters, {case.volumes.training_patients} volumes of "
        f"{'x'.join(map(str, case.volumes.shape))}, batches of {case.batch}; {memory}"
    )
    figure = Figure(
        name=NAME, value=value, unit="CPU time of the agent's epoch over that of a bare MONAI loop",
        reference=REFERENCE, better="at most", spread=spread, note=note,
    )  # fmt: skip
    return [figure]


def _memory(folder: Path) -> str:
    """Peak resident memory beyond what loading the libraries takes, each in a process of its own."""
    found = {}
    for name in ("agent", "bare"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.agent_overhead", name, str(folder)],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        if done.returncode:
            return "memory not measured"
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return f"peak memory {found['agent'] / 2**20:.0f} MB over {found['bare'] / 2**20:.0f} MB of MONAI's loop"


def _child(name: str, folder: Path) -> int:
    """Reading and two epochs, and what the peak grew by."""
    import site_agent.admission_audit  # noqa: PLC0415 - what either loads is there before memory is looked at
    import site_agent.imaging.cohort  # noqa: F401, PLC0415

    _transforms(CASE)
    before = status_bytes("VmRSS")
    with tempfile.TemporaryDirectory(prefix="consortium-bench-") as home:
        (Path(home) / "volumes").symlink_to(folder / "volumes")
        if name == "agent":
            agent = Agent(Path(home), CASE)
            epoch: Callable[[], object] = agent.round
        else:
            epoch = BareLoop(Path(home), CASE).epoch
        for _ in range(2):
            epoch()
        print(json.dumps(max(1, status_bytes("VmHWM") - before)))
    return 0


if __name__ == "__main__":
    sys.exit(_child(sys.argv[1], Path(sys.argv[2])))

"""The first epoch's reading of NIfTI volumes without the disk cache over the same with it; memory beside.

An agent reads its cohort when a study is prepared and keeps it in memory, so that this is what every start of an agent
costs: opening, unpacking, turning, resampling to the study's spacing, scaling and fitting every volume and its mask, or
reading what came of that the first time. The files are hashed either way, so that a changed one is prepared anew.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from consortium.contract.study import StudyFile
from site_agent.cohort import Cohort, read_cohort
from site_agent.datasets import DatalistDataset
from site_agent.image_cache import ImageCache
from tests.benchmarks.bench_volumes import LIST, Volumes, volume_study, write_volumes
from tests.benchmarks.figures import Figure, cpu_s, in_turns, ratio, status_bytes

ROOT = Path(__file__).resolve().parents[2]
NAME = "cache_epoch_speedup"
REFERENCE = 4.0
REPEATS = 5
SITES = ("site-01", "site-02", "site-03")
VOLUMES = Volumes(patients=8, shape=(96, 96, 96), stored_shape=(88, 88, 64), stored_spacing=1.25)
QUOTA_BYTES = 2**30


def measure(volumes: Volumes = VOLUMES, repeats: int = REPEATS) -> list[Figure]:
    """One figure: CPU time without over with the cache, taken in turns."""
    with tempfile.TemporaryDirectory(prefix="consortium-bench-") as name:
        folder = Path(name)
        write_volumes(folder, volumes)
        study, cache = _study(volumes), _cache(folder)
        filled = cpu_s(lambda: _read(study, folder, cache))
        without, with_cache = in_turns(
            lambda: cpu_s(lambda: _read(study, folder, None)),
            lambda: cpu_s(lambda: _read(study, folder, cache)),
            repeats,
        )
        value, spread = ratio(without, with_cache)
        held, memory = cache.size_bytes(), _memory(folder, volumes)
    each = [1e3 * statistics.median(found) / volumes.patients for found in (without, with_cache)]
    stored, wanted = ("x".join(map(str, shape)) for shape in (volumes.stored_shape, volumes.shape))
    note = (
        f"a volume and its mask {each[0]:.0f} ms without, {each[1]:.0f} ms with, and "
        f"{1e3 * filled / volumes.patients:.0f} ms when they are put there; {volumes.patients} volumes of {stored} in "
        f".nii.gz at {volumes.stored_spacing} mm, to {wanted} at 1 mm; {held / 2**20 / volumes.patients:.1f} MB "
        f"each on disk; {memory}"
    )
    figure = Figure(
        name=NAME, value=value, unit="CPU time of reading a cohort without the cache over that with it",
        reference=REFERENCE, better="at least", spread=spread, note=note,
    )  # fmt: skip
    return [figure]


def _study(volumes: Volumes) -> StudyFile:
    model = {"network": "unet", "args": {"channels": (8, 16)}}
    return volume_study("cached-volumes", SITES, volumes, model=model)


def _cache(folder: Path) -> ImageCache:
    return ImageCache(folder=folder / "cache", quota_bytes=QUOTA_BYTES)


def _read(study: StudyFile, folder: Path, cache: ImageCache | None) -> Cohort:
    dataset = DatalistDataset(path=str(folder / LIST), format="datalist", declared_patients=1)
    return read_cohort(study, dataset, cache)


def _memory(folder: Path, volumes: Volumes) -> str:
    """Peak resident memory beyond what loading the libraries takes, each in a process of its own."""
    found = {}
    for name in ("without", "with"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.cache_epoch", name, str(folder)],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        if done.returncode:
            return "memory not measured"
        found[name] = json.loads(done.stdout)
    cohort = 4 * volumes.patients * 2 * volumes.shape[0] * volumes.shape[1] * volumes.shape[2]
    return (
        f"peak memory {found['without'] / 2**20:.0f} MB without, {found['with'] / 2**20:.0f} MB with; "
        f"the cohort itself {cohort / 2**20:.0f} MB"
    )


def _child(name: str, folder: Path) -> int:
    """Reading once, and what the peak grew by."""
    import nibabel  # noqa: F401, PLC0415 - these are loaded before memory is looked at
    import scipy.ndimage  # noqa: F401, PLC0415

    import site_agent.imaging.cohort  # noqa: F401, PLC0415

    study = _study(VOLUMES)
    before = status_bytes("VmRSS")
    _read(study, folder, _cache(folder) if name == "with" else None)
    print(json.dumps(max(1, status_bytes("VmHWM") - before)))
    return 0


if __name__ == "__main__":
    sys.exit(_child(sys.argv[1], Path(sys.argv[2])))

"""A round with a SwinUNETR of a hundred million parameters: three hospitals that train it, real processes, real TLS.

    python -m tests.benchmarks.swin_round [--feature-size 12 60]

Each hospital reads volumes of its own, takes one step of training without differential privacy, encodes and masks its
update and uploads it; the sum is opened and every hospital computes the next model. The agents of this benchmark write
down what they trained before it is masked, so that the model that comes out is compared with the one that went in plus
the mean of those updates, coordinate by coordinate: they may differ by the encoding's bound and float32's last bit.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consortium.contract.global_model import GlobalModel
from consortium.contract.layout import LaneName, round_layout
from consortium.contract.plan import RoundKind
from consortium.contract.study import StudyFile
from consortium.operator import run_command
from site_agent.networks import layout_of
from site_agent.training_spec import network_spec_of
from tests.benchmarks.bench_consortium import BenchFailed, Field, consortium
from tests.benchmarks.bench_volumes import LIST, Volumes, volume_site_file, volume_study, write_volumes
from tests.benchmarks.figures import Figure
from tests.benchmarks.hundred_million import SITES, Measured, lines_of, measure_one

NAME = "swin_unetr_100M_round_s"
REFERENCE = 300.0
FEATURE_SIZE = 60
DEPTHS = (2, 2, 2, 4)
"""With this width, 102 704 648 parameters for volumes of one channel and two classes."""
VOLUMES = Volumes(patients=8, shape=(32, 32, 32), stored_shape=(32, 32, 32))
MEMORY_WANTED_BYTES = 14 * 2**30
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The model that came out against what the updates say. Absolute differences, in the unit of a weight."""

    largest: float
    of_bound: float  # the largest part of what encoding and float32 allow that coordinate; above 1 the sum is wrong
    step: float  # of the encoding of one hospital's update
    moved: float  # largest absolute value of the mean update: what there was to get wrong
    training_s: float  # of the slowest hospital


def study_of(feature_size: int = FEATURE_SIZE) -> StudyFile:
    """One round of one step, a third of a hospital's training patients in it."""
    model = {"network": "swin-unetr", "args": {"feature_size": feature_size, "depths": DEPTHS}}
    study = volume_study(
        f"swin-{feature_size}", SITES, VOLUMES, model=model,
        sampling_rate=1 / 3, optimizer={"name": "sgd", "learning_rate": 0.1, "momentum": 0.0},
    )  # fmt: skip
    record = study.model_dump(mode="python", by_alias=True, exclude_none=True)
    record["aggregation"] |= {"round_deadline_s": 3600.0, "upload_deadline_s": 3000.0}
    return StudyFile.model_validate(record)


async def measure_round(feature_size: int = FEATURE_SIZE) -> tuple[Measured, Compared]:
    """The round, and whether its sum is right.

    Raises:
        BenchFailed: A process ended, or the sum is not what the hospitals trained.
    """
    study = study_of(feature_size)
    layout = layout_of(network_spec_of(study))
    parameters = sum(int(np.prod(shape)) for _, shape in layout)

    def furnish(folder: Path, site: str) -> None:
        write_volumes(folder / "volumes", VOLUMES, seed=SITES.index(site) + 1)
        (folder / "site.yaml").write_text(volume_site_file(site, study, VOLUMES, path=f"volumes/{LIST}"))

    async with consortium(study, agents=SITES, train=True, keep_update=True, furnish=furnish) as field:
        measured = await measure_one(field, study, parameters=parameters)
        shown = await run_command(field.home, "study.show", {"study": study.id})
        compared = compare(field, study, str(shown["model_digest"]))
    if compared.of_bound > 1:
        raise BenchFailed(f"a weight is off by {compared.of_bound:.3g} times what encoding and float32 allow")
    return measured, compared


def compare(field: Field, study: StudyFile, last_digest: str) -> Compared:
    """The last model against the first one plus the mean of what the hospitals trained, block by block from disk."""
    facts: list[dict[str, Any]] = [json.loads((field.folder / site / "trained.json").read_text()) for site in SITES]
    (first_digest,) = {fact["model"] for fact in facts}
    first, last = (GlobalModel.open(field.home / "models" / digest) for digest in (first_digest, last_digest))
    updates = [np.load(field.folder / site / "update.npy", mmap_mode="r") for site in SITES]
    plan = round_layout(study, parameters=first.parameters, kind=RoundKind.TRAIN, measured=False)
    (lane,) = (one for one in plan.lanes if one.name == LaneName.UPDATE)
    largest = of_bound = moved = 0.0
    for before, after, *parts in _blocks(first.vector, last.vector, *updates):
        mean = np.mean([np.clip(part.astype(np.float64), -lane.clip, lane.clip) for part in parts], axis=0)
        differences = np.abs(after.astype(np.float64) - before - mean)
        # Each hospital's value is rounded to a neighbouring step of the lane; mean and next weight are float32.
        allowed = 1 / lane.scale + (np.abs(mean) + np.abs(after)) * 2.0**-24
        largest, of_bound = max(largest, float(differences.max())), max(of_bound, float((differences / allowed).max()))
        moved = max(moved, float(np.abs(mean).max()))
    training_s = max(float(fact["seconds"]) for fact in facts)
    return Compared(largest=largest, of_bound=of_bound, step=1 / lane.scale, moved=moved, training_s=training_s)


def _blocks(*vectors: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    if len({vector.shape for vector in vectors}) != 1:
        raise BenchFailed("the models and the updates have different lengths")
    for start in range(0, len(vectors[0]), _BLOCK):
        yield tuple(vector[start : start + _BLOCK] for vector in vectors)


def measure() -> list[Figure]:
    """One figure: seconds of the study with its one round, training and measuring the model among them."""
    free = _available_bytes()
    if free < MEMORY_WANTED_BYTES:
        note = f"{free / 2**30:.0f} GiB of memory are free; {MEMORY_WANTED_BYTES / 2**30:.0f} are wanted"
        return [_figure(None, note)]
    measured, compared = asyncio.run(measure_round())
    return [_figure(measured.seconds, "\n".join([*lines_of(measured), words_of(compared)]))]


def _figure(value: float | None, note: str) -> Figure:
    return Figure(
        name=NAME, value=value, unit="s", reference=REFERENCE, better="at most", note=note, binding=False,
    )  # fmt: skip


def words_of(compared: Compared) -> str:
    """As it is printed."""
    return (
        f"  the model that came out is within {compared.largest:.2g} of the first one plus the mean of the updates "
        f"(at most {compared.moved:.2g}), and nowhere further than {compared.of_bound:.2f} of what the encoding's step "
        f"of {compared.step:.2g} and float32 allow there; training took {compared.training_s:.1f} s"
    )


def _available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--feature-size", type=int, nargs="+", default=[FEATURE_SIZE], help="multiples of 12")
    options = parser.parse_args()
    for feature_size in options.feature_size:
        measured, compared = asyncio.run(measure_round(feature_size))
        print("\n".join([*lines_of(measured), words_of(compared)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

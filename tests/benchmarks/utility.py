"""How good a model is under patient-level privacy: hearts and chest radiographs, four hospitals, epsilon 1, 3 and 10.

    python tests/benchmarks/utility.py [--seeds 5] [--only heart-local-1 ...] [--npz FILE] [--json FILE] [--write]

Every figure comes from the product's own code (`utility_runs.py`), in one process and one thread, without network and
masks. A seed is one complete run with fresh noise and fresh patient sampling: noise has no seed, so figures vary from
call to call within the standard deviation shown. In distributed runs the noise is calibrated to the threshold's three
sites and all four add their share, so that sums carry 1.15 times the noise that epsilon needs: nobody drops out here,
and in production nobody has to.

PneumoniaMNIST is a file of MedMNIST (https://medmnist.com, CC BY 4.0) and not part of this repository. Its path is
`--npz` or the environment variable PNEUMONIAMNIST_NPZ; without it those rows say that they were skipped.

`--json` adds the runs to those that the file holds, so that an interrupted measurement can go on; the table is of all
of them. A change of the settings begins again. `--seeds 0` runs nothing and shows what the file holds.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.benchmarks import utility_data, utility_pooled, utility_runs  # noqa: E402 - the path is set above
from tests.benchmarks.utility_data import Hospital  # noqa: E402
from tests.benchmarks.utility_runs import Run  # noqa: E402
from tests.benchmarks.utility_settings import DELTA, SETTINGS, Data, Setting  # noqa: E402

PAGE = ROOT / "docs" / "explanation" / "privacy-and-utility.md"
TABLE_BEGINS, TABLE_ENDS = "<!-- table begins -->", "<!-- table ends -->"
NPZ = "PNEUMONIAMNIST_NPZ"
NAMES: Mapping[Data, str] = {"heart": "heart disease", "pneumonia": "PneumoniaMNIST"}
HEADER = ("data", "training", "epsilon", "AUC", "to reach", "accuracy", "to reach", "accuracy at one half", "runs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The runs of one setting; None for `setting` is the pooled model without privacy."""

    data: Data
    setting: Setting | None
    runs: tuple[Run, ...]

    def mean_sd(self, figure: str) -> tuple[float, float]:
        """Mean over runs, and the standard deviation of one run around it (with n - 1; 0 for a single run)."""
        values = [float(getattr(run, figure)) for run in self.runs]
        return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    @property
    def reached(self) -> bool:
        """Whether the means are at least what was agreed, as they are printed: to three digits."""
        if self.setting is None:
            return True
        wanted = self.setting.reference
        agreed = {"auc": wanted.auc, "accuracy": wanted.accuracy}
        return all(round(self.mean_sd(name)[0], 3) >= least for name, least in agreed.items() if least is not None)

    def row(self) -> tuple[str, ...]:
        """Of the table."""
        figures = {name: self._shown(name) for name in ("auc", "accuracy", "accuracy_at_half")}
        if self.setting is None:
            return (NAMES[self.data], "pooled, no privacy", "none", figures["auc"], "", figures["accuracy"], "",
                    figures["accuracy_at_half"], str(len(self.runs)))  # fmt: skip
        wanted = self.setting.reference
        return (
            NAMES[self.data],
            self.setting.mechanism.partition("-")[0],
            f"{self.setting.epsilon:g} ({self.mean_sd('epsilon')[0]:.2f})",
            figures["auc"],
            _least(wanted.auc),
            figures["accuracy"],
            _least(wanted.accuracy),
            figures["accuracy_at_half"],
            str(len(self.runs)),
        )

    def _shown(self, figure: str) -> str:
        mean, deviation = self.mean_sd(figure)
        return f"{mean:.3f} (sd {deviation:.3f})" if len(self.runs) > 1 else f"{mean:.3f}"


def table(summaries: Sequence[Summary], skipped: Mapping[Data, str]) -> str:
    """Everything measured as a markdown table, and a line for what was not."""
    rows = [HEADER, ("---",) * len(HEADER), *(summary.row() for summary in summaries)]
    lines = [f"| {' | '.join(row)} |\n" for row in rows]
    return "".join([*lines, *(f"\n{NAMES[data]}: skipped, {why}.\n" for data, why in skipped.items())])


def measure(
    settings: Sequence[Setting], seeds: int, npz: Path | None, kept: Path | None
) -> tuple[list[Summary], dict[Data, str]]:
    """Run what is wanted, one run of every setting before a second of any; with 0 seeds, only look at what is kept."""
    skipped: dict[Data, str] = {}
    hospitals: dict[Data, tuple[Hospital, ...]] = {}
    for data in dict.fromkeys(setting.data for setting in settings):
        if data == "heart":
            hospitals[data] = utility_data.heart()
        elif npz is None or not npz.is_file():
            skipped[data] = f"no file {npz}" if npz else f"no path given by --npz or {NPZ}"
            print(f"{NAMES[data]}: skipped, {skipped[data]}", file=sys.stderr)
        else:
            hospitals[data] = utility_data.pneumonia(npz)
    runs = _kept(kept)
    summaries = []
    for data, sites in hospitals.items():
        alone = runs.setdefault(f"{data}-pooled", [])
        if not alone:
            alone.append(utility_pooled.train(data, sites))
            _keep(kept, runs)
        summaries.append(Summary(data=data, setting=None, runs=tuple(alone)))
    wanted = [setting for setting in settings if setting.data in hospitals]
    for seed in range(seeds):
        for setting in wanted:
            done = runs.setdefault(_key(setting), [])
            if len(done) > seed:
                continue
            done.append(utility_runs.train(setting, hospitals[setting.data]))
            print(f"{setting.name}, run {seed + 1}: {done[-1]}", file=sys.stderr, flush=True)
            _keep(kept, runs)
    for setting in wanted:
        done = runs.get(_key(setting), [])
        if done:
            summaries.append(Summary(data=setting.data, setting=setting, runs=tuple(done[: seeds or None])))
    return sorted(summaries, key=lambda summary: list(NAMES).index(summary.data)), skipped


def write(page: Path, text: str) -> None:
    """Put the table between the page's marks."""
    head, found, rest = page.read_text().partition(TABLE_BEGINS)
    _, closed, tail = rest.partition(TABLE_ENDS)
    if not (found and closed):
        sys.exit(f"{page} has lost the marks the table stands between")
    page.write_text(f"{head}{TABLE_BEGINS}\n{text}{TABLE_ENDS}{tail}")


def main() -> int:
    """Measure, print, and say by the exit code whether the figures are reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--seeds", type=int, default=5, help="runs of every study, each with fresh noise; 0: only what --json holds"
    )
    parser.add_argument("--only", nargs="*", default=[], help="names, or beginnings of names, such as heart-local")
    parser.add_argument("--npz", type=Path, default=os.environ.get(NPZ), help=f"pneumoniamnist.npz; or {NPZ}")
    parser.add_argument("--json", type=Path, help="keep every run in this file, and use those that it holds")
    parser.add_argument("--write", action="store_true", help="put the table into docs/explanation")
    options = parser.parse_args()
    settings = [s for s in SETTINGS if not options.only or s.name.startswith(tuple(options.only))]
    if not settings or options.seeds < 0:
        parser.error("nothing to measure: --only takes " + ", ".join(setting.name for setting in SETTINGS))
    npz = None if options.npz is None else Path(options.npz)
    summaries, skipped = measure(settings, options.seeds, npz, options.json)
    text = table(summaries, skipped)
    print(text)
    missed = [summary.setting.name for summary in summaries if summary.setting and not summary.reached]
    print(f"NOT reached: {', '.join(missed)}" if missed else "figures to reach: reached")
    if options.write:
        write(PAGE, text)
    return 1 if missed else 0


def _least(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _key(setting: Setting) -> str:
    """The name and every constant, so that runs under other constants are never mixed in."""
    constants: dict[str, Any] = {one.name: getattr(setting, one.name) for one in fields(setting)}
    del constants["reference"]
    constants["delta"] = DELTA[setting.data]
    return f"{setting.name} {json.dumps(constants, sort_keys=True)}"


def _keep(path: Path | None, runs: Mapping[str, Sequence[Run]]) -> None:
    if path is not None:
        path.write_text(json.dumps({key: [asdict(run) for run in of] for key, of in runs.items()}, indent=1))


def _kept(path: Path | None) -> dict[str, list[Run]]:
    if path is None or not path.exists():
        return {}
    return {key: [Run(**run) for run in of] for key, of in json.loads(path.read_text()).items()}


if __name__ == "__main__":
    sys.exit(main())

"""`make bench`: measure, print, and write one JSON file: name -> {value, unit, reference, target, spread, note}.

    python tests/benchmarks/run.py --out build/benchmarks.json [--only NAME ...] [--seeds 5] [--write]

A reference is the figure the project is held to. Speeds are ratios against something measured in the same run, and CPU
time where that makes sense, so that a slow or busy machine does not change them much; what is in seconds is for
information. docs/reference/benchmarks.md says what each figure means.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.benchmarks import (  # noqa: E402 - the path is set above
    agent_overhead,
    cache_epoch,
    client_cost,
    coordinator_memory,
    coordinator_sum,
    dp_step,
    heart_figures,
    heart_rounds,
    ledger_append,
    mask_stream,
    small_rounds,
    swin_round,
    upload_bytes,
    whole_round,
)
from tests.benchmarks.figures import Figure  # noqa: E402

BENCHMARKS: Mapping[tuple[str, ...], Callable[[], list[Figure]]] = {
    ("mask_stream_vs_openssl",): mask_stream.measure,
    ("client_vs_mt19937",): client_cost.measure,
    ("coordinator_sum_vs_read",): coordinator_sum.measure,
    ("upload_bytes_per_parameter",): upload_bytes.measure,
    ("coordinator_memory_32_vs_4",): coordinator_memory.measure,
    ("secure_vs_plain_round", "secure_round_1M_s", "secure_round_10M_s"): whole_round.measure,
    ("rounds_per_s_small",): small_rounds.measure,
    ("distributed_dp_rounds_per_s_heart",): heart_rounds.measure,
    **{(case.name, case.against_hooks): partial(dp_step.measure, case) for case in dp_step.CASES},
    ("ledger_append_per_s",): ledger_append.measure,
    (agent_overhead.NAME,): agent_overhead.measure,
    (cache_epoch.NAME,): cache_epoch.measure,
    (swin_round.NAME,): swin_round.measure,
}
"""The figures each measurement gives; the heart study's come from `heart_figures`, which takes a number of seeds."""
HEART = ("heart_auc", "heart_mean_site_accuracy")
PAGE = ROOT / "docs" / "reference" / "benchmarks.md"
TABLE_BEGINS, TABLE_ENDS = "<!-- table begins -->", "<!-- table ends -->"


def main() -> int:
    """Measure everything, or what was asked for; the exit code says only whether it ran."""
    names = [*HEART, *(name for given in BENCHMARKS for name in given)]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, help="complete runs of the heart study")
    parser.add_argument("--write", action="store_true", help="put what was measured into docs/reference/benchmarks.md")
    options = parser.parse_args()
    wanted = {HEART: lambda: heart_figures.measure(options.seeds), **BENCHMARKS}
    machine = (
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"load average {os.getloadavg()[0]:.1f} at the start"
    )
    print(machine)
    found: list[Figure] = []
    for given, measure in wanted.items():
        if not set(given) & set(options.only):
            continue
        begun = time.monotonic()
        for figure in measure():
            found.append(figure)
            print(figure.line(), flush=True)
        print(f"{'':<27} took {time.monotonic() - begun:.0f} s", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({figure.name: figure.record() for figure in found}, indent=2) + "\n")
    if options.write:
        PAGE.write_text(with_table(PAGE.read_text(), table(found, machine)))
    return 0


def table(found: Sequence[Figure], machine: str) -> str:
    """What was measured as markdown: a row for each figure, then the notes as they were printed."""
    rows = ["| name | measured | least to greatest | held to |", "|---|---|---|---|"]
    for figure in found:
        value = "not measured" if figure.value is None else f"{figure.value:.3f}"
        spread = "" if figure.spread is None else f"{figure.spread[0]:.3f} to {figure.spread[1]:.3f}"
        rows.append(f"| `{figure.name}` | {value} | {spread} | {figure.record()['target']} |")
    notes = [f"{figure.name}: {figure.note}" for figure in found if figure.note]
    return "\n".join([f"On {machine}.", "", *rows, "", "```", *notes, "```", ""])


def with_table(page: str, text: str) -> str:
    """The page with `text` between its marks."""
    head, begins, rest = page.partition(TABLE_BEGINS)
    _, ends, tail = rest.partition(TABLE_ENDS)
    if not (begins and ends):
        sys.exit(f"{PAGE} has lost the marks the table stands between")
    return f"{head}{TABLE_BEGINS}\n{text}{TABLE_ENDS}{tail}"


def _processor() -> str:
    """What the system calls its processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())

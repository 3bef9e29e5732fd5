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
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.benchmarks import (  # noqa: E402 - the path is set above
    agent_overhead,
    audit_log,
    cache_epoch,
    client_cost,
    coordinator_memory,
    coordinator_sum,
    dp_step,
    fifty_sites,
    heart_figures,
    heart_rounds,
    idle_memory,
    ledger_append,
    mask_stream,
    recovery,
    report_100k,
    resumed_upload,
    small_rounds,
    swin_round,
    table,
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
    ("rounds_per_minute_50_sites",): fifty_sites.measure,
    ("coordinator_idle_mb", "agent_idle_mb"): idle_memory.measure,
    ("distributed_dp_rounds_per_s_heart",): heart_rounds.measure,
    **{(case.name, case.against_hooks): partial(dp_step.measure, case) for case in dp_step.CASES},
    ("ledger_append_per_s",): ledger_append.measure,
    ("append_durable_batched_vs_pymerkle", "append_durable_per_s"): audit_log.measure_appends,
    ("inclusion_proofs_vs_pymerkle",): audit_log.measure_proofs,
    ("verify_1M_entries_s",): audit_log.measure_verification,
    (report_100k.NAME,): report_100k.measure,
    (agent_overhead.NAME,): agent_overhead.measure,
    (cache_epoch.NAME,): cache_epoch.measure,
    (swin_round.NAME,): swin_round.measure,
    ("resumed_upload_saved_fraction",): resumed_upload.measure,
    (recovery.NAME,): recovery.measure,
}
"""The figures each measurement gives; the heart study's come from `heart_figures`, which takes a number of seeds."""
HEART = ("heart_auc", "heart_mean_site_accuracy")
PAGE = ROOT / "docs" / "reference" / "benchmarks.md"


def main() -> int:
    """Measure everything, or what was asked for; the exit code says only whether it ran."""
    names = [*HEART, *(name for given in BENCHMARKS for name in given)]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, help="complete runs of the heart study")
    parser.add_argument(
        "--write", action="store_true", help="put what was measured into docs/reference/benchmarks.md; other rows stay"
    )
    options = parser.parse_args()
    wanted = {HEART: lambda: heart_figures.measure(options.seeds), **BENCHMARKS}
    machine = (
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"load average {os.getloadavg()[0]:.1f} at the start"
    )
    if options.write:
        table.read(PAGE.read_text())  # now, not after half an hour
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
        PAGE.write_text(written(PAGE.read_text(), found, run=_run_now(), machine=machine, order=names))
    return 0


def written(page: str, found: Sequence[Figure], *, run: str, machine: str, order: Sequence[str]) -> str:
    """The page with what was measured in its table; rows of what was not stay as they are."""
    return table.with_table(page, table.merged(table.read(page), found, run=run, machine=machine, order=order))


def _run_now() -> str:
    """Today, and the commit that is measured; a "+" behind it says that the tree has more than the commit."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, check=False).returncode
    found = commit.stdout.strip() + ("+" if changed else "") if commit.returncode == 0 else "no commit"
    return f"{datetime.now(UTC):%Y-%m-%d}, {found}"


def _processor() -> str:
    """What the system calls its processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())

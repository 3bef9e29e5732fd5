"""What a benchmark hands back: values against references, medians, and the names that were agreed."""

import re
from pathlib import Path

import pytest

from tests.benchmarks import run, table
from tests.benchmarks.figures import Figure, cpu_s, in_turns, ratio

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "benchmarks.md"
NAMES = {
    "heart_auc",
    "heart_mean_site_accuracy",
    "mask_stream_vs_openssl",
    "client_vs_mt19937",
    "upload_bytes_per_parameter",
    "coordinator_sum_vs_read",
    "coordinator_memory_32_vs_4",
    "secure_vs_plain_round",
    "secure_round_1M_s",
    "secure_round_10M_s",
    "rounds_per_s_small",
    "rounds_per_minute_50_sites",
    "coordinator_idle_mb",
    "agent_idle_mb",
    "distributed_dp_rounds_per_s_heart",
    "ledger_append_per_s",
    "dp_step_logreg_vs_nonprivate",
    "dp_step_logreg_vs_hooks",
    "dp_step_cnn28_vs_nonprivate",
    "dp_step_cnn28_vs_hooks",
    "dp_step_unet2d_vs_nonprivate",
    "dp_step_unet2d_vs_hooks",
    "dp_step_densenet121_vs_nonprivate",
    "dp_step_densenet121_vs_hooks",
    "agent_overhead_vs_plain_monai",
    "cache_epoch_speedup",
    "swin_unetr_100M_round_s",
    "append_durable_batched_vs_pymerkle",
    "append_durable_per_s",
    "inclusion_proofs_vs_pymerkle",
    "verify_1M_entries_s",
    "report_100k_events_s",
    "resumed_upload_saved_fraction",
    "recovery_after_kill_s",
}


def test_the_names_are_the_agreed_ones() -> None:
    assert {*run.HEART, *(name for given in run.BENCHMARKS for name in given)} == NAMES


def test_the_page_explains_every_figure() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE))
    assert rows == NAMES


@pytest.mark.parametrize(
    ("value", "better", "reached"),
    [(0.6, "at least", True), (0.59, "at least", False), (0.6, "at most", True), (0.61, "at most", False)],
)
def test_a_reference_is_reached_from_one_side(value: float, better: str, reached: bool) -> None:
    figure = Figure(name="x", value=value, unit="times", reference=0.6, better=better)  # type: ignore[arg-type] # one of the two
    assert figure.reached is reached
    assert figure.record()["reached"] is reached
    assert ("NOT reached" in figure.line()) is not reached


def test_what_this_machine_cannot_measure_says_so_and_reaches_nothing() -> None:
    figure = Figure(name="x", value=None, unit="times", reference=0.6, better="at most", note="no such program")
    assert not figure.reached
    assert figure.record()["value"] is None
    assert "not measured" in figure.line()
    assert "no such program" in figure.line()


def test_information_is_marked_as_such() -> None:
    figure = Figure(name="x", value=2.0, unit="s", reference=3.0, better="at most", binding=False)
    assert figure.record()["target"] == "at most 3, for information"


def test_measurements_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []

    def one() -> float:
        calls.append("a")
        return float(len(calls))

    def other() -> float:
        calls.append("b")
        return float(len(calls))

    assert in_turns(one, other, 2) == ([3.0, 5.0], [4.0, 6.0])
    assert "".join(calls) == "ababab"


def test_a_ratio_is_of_medians_with_the_turns_as_its_spread() -> None:
    assert ratio([2.0, 4.0, 100.0], [1.0, 2.0, 4.0]) == (2.0, (2.0, 25.0))


def test_cpu_time_counts_work() -> None:
    assert cpu_s(lambda: sum(range(200_000))) > cpu_s(lambda: None)


def figure(name: str, value: float | None, note: str = "") -> Figure:
    return Figure(name=name, value=value, unit="s", reference=3.0, better="at most", spread=(0.5, 0.7), note=note)


PAGE_BEFORE = """a
<!-- table begins -->
- 2026-01-01, aaaaaaa: an old machine
- 2026-01-02, bbbbbbb: another

| name | measured | least to greatest | held to | run |
|---|---|---|---|---|
| `x` | 1.000 |  | at most 3 | 2026-01-01, aaaaaaa |
| `y` | 2.000 |  | at most 3 | 2026-01-02, bbbbbbb |
| `gone` | 2.000 |  | at most 3 | 2026-01-01, aaaaaaa |

```
x: as it was
y: a note
  of two lines: it has a colon
```
<!-- table ends -->
z
"""


def test_a_few_figures_take_their_rows_and_leave_the_others_with_the_run_they_are_of() -> None:
    found = [figure("x", 0.61234, note="so it is"), figure("z", None)]
    page = run.written(PAGE_BEFORE, found, run="2026-02-03, ccccccc+", machine="a new one", order=("z", "x", "y"))
    assert (
        page
        == """a
<!-- table begins -->
- 2026-01-02, bbbbbbb: another
- 2026-02-03, ccccccc+: a new one

| name | measured | least to greatest | held to | run |
|---|---|---|---|---|
| `z` | not measured | 0.500 to 0.700 | at most 3 | 2026-02-03, ccccccc+ |
| `x` | 0.612 | 0.500 to 0.700 | at most 3 | 2026-02-03, ccccccc+ |
| `y` | 2.000 |  | at most 3 | 2026-01-02, bbbbbbb |

```
x: so it is
y: a note
  of two lines: it has a colon
```
<!-- table ends -->
z
"""
    )


@pytest.mark.parametrize(
    ("find", "put"),
    [
        ("<!-- table ends -->", ""),
        ("| `y` | 2.000 |", "| `x` | 2.000 |"),
        ("| 2026-01-02, bbbbbbb |", ""),
        ("\n```\nx:", "\nx:"),
    ],
)
def test_a_table_that_cannot_be_read_is_not_written_over(find: str, put: str) -> None:
    with pytest.raises(table.TableLost):
        run.written(PAGE_BEFORE.replace(find, put), [], run="r", machine="m", order=())


def test_the_tables_own_page_comes_back_as_it_is() -> None:
    page = PAGE.read_text()
    assert table.with_table(page, table.read(page)) == page
    assert table.read(page).rows

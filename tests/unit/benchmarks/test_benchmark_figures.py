"""What a benchmark hands back: values against references, medians, and the names that were agreed."""

import re
from pathlib import Path

import pytest

from tests.benchmarks import run
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


def test_a_run_becomes_a_table_between_the_marks_of_the_page() -> None:
    figures = [
        Figure(
            name="x", value=0.61234, unit="times", reference=0.6, better="at least", spread=(0.5, 0.7), note="so it is"
        ),
        Figure(name="y", value=None, unit="s", reference=3.0, better="at most", binding=False),
    ]
    page = run.with_table("a\n<!-- table begins -->\nold\n<!-- table ends -->\nz\n", run.table(figures, "a machine"))
    assert page.startswith("a\n<!-- table begins -->\nOn a machine.\n")
    assert (
        "| `x` | 0.612 | 0.500 to 0.700 | at least 0.6 |\n| `y` | not measured |  | at most 3, for information |"
        in page
    )
    assert "x: so it is" in page
    assert "old" not in page
    assert page.endswith("<!-- table ends -->\nz\n")
    with pytest.raises(SystemExit):
        run.with_table("no marks", "")

"""What people see: a hospital's words are shown, never obeyed."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from rich.console import Console
from typer.testing import CliRunner

from consortium import operator
from consortium.cli import app
from consortium.status_view import StatusView


def shown(snapshot: dict[str, Any], now: float | None = None, *, width: int = 160) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    with console.file:
        console.print(StatusView().render({"log_size": 40, **snapshot}, now))
    return console.export_text()


def study(**changes: Any) -> dict[str, Any]:
    return {
        "study": "small-study",
        "state": "running",
        "reason": "",
        "phase": "collecting",
        "round": 2,
        "rounds": 20,
        "attempt": 1,
        "epsilon": 1.0,
        "witnesses_needed": 3,
        "witnessed": 38,
        "sites": [{"site": "amber-clinic", "state": "training", "epsilon": 0.25, "rounds": 1}],
        "history": [
            {
                "round": 1,
                "kind": "train",
                "metrics": {"auc": 0.75, "accuracy": 0.5},
                "survivors": ["a", "b", "c"],
                "participants": 4,
                "seconds": 1.25,
            }
        ],
        **changes,
    }


def test_no_study_yet() -> None:
    assert "nobody" in shown({"studies": [], "connected": []})
    assert "amber-clinic" in shown({"studies": [], "connected": ["amber-clinic"]})


def test_a_running_study() -> None:
    text = shown({"studies": [study()], "connected": []})
    assert "round 2 of 20: training, uploading" in text
    assert "0.250 of 1" in text
    assert "0.750" in text
    assert "3 of 4" in text
    assert "log: 38 of 40 entries cosigned by 3 of its hospitals" in text
    sites = [{"site": "amber-clinic", "state": "training", "epsilon": None, "rounds": 1}]
    assert "none promised" in shown({"studies": [study(epsilon=None, sites=sites)], "connected": []})


def test_what_passes_is_shown_where_a_coordinator_runs() -> None:
    passed = {"sent_bytes": 12_300_000, "received_bytes": 950, "sent_per_s": 0, "received_per_s": 1_500}
    text = shown({"studies": [study()], "connected": [], "traffic": passed})
    assert "since the start: 12.3 MB to hospitals (0 B/s now), 950 B from hospitals (1.5 kB/s now)" in text
    assert "hospitals (" not in shown({"studies": [study()], "connected": [], "traffic": None})


def test_a_second_attempt_the_final_evaluation_and_a_pause() -> None:
    assert "attempt 2" in shown({"studies": [study(attempt=2)], "connected": []})
    assert "final evaluation" in shown({"studies": [study(round=21)], "connected": []})
    paused = study(state="paused", reason="round 2 was attempted 5 times")
    assert "paused: round 2 was attempted 5 times" in shown({"studies": [paused], "connected": []})


def test_markup_in_a_hospitals_words_is_not_obeyed() -> None:
    rude = "refused: [/bold][link=https://example.org]click[/link]"
    sites = [{"site": "amber-clinic", "state": rude, "epsilon": None, "rounds": 0}]
    assert rude in shown({"studies": [study(sites=sites)], "connected": []})


def test_the_last_measured_model_with_its_intervals() -> None:
    quality = {"auc": 0.86, "auc.low": 0.81, "auc.high": 0.9, "brier": 0.14, "group.0.0.auc": 0.777}
    text = shown({"studies": [study(quality=quality)], "connected": []})
    assert "last measured: AUC 0.860 (0.810-0.900), Brier 0.140" in text
    assert "0.777" not in text
    assert "last measured" not in shown({"studies": [study(quality=None)], "connected": []})


def test_for_how_long_a_phase_goes_on_and_the_study_will() -> None:
    rows = [
        {"round": n, "kind": "train", "metrics": {}, "survivors": [], "participants": 4, "seconds": 60.0}
        for n in range(1, 5)
    ]
    running = study(since=1000, round=5, history=rows)
    assert "training, uploading, for 3 min 10 s; about 16 min 0 s left" in shown({"studies": [running]}, 1190.0)
    assert "for" not in shown({"studies": [running]}).splitlines()[0]
    # Nothing is known of how long a round takes, or none is left.
    assert "left" not in shown({"studies": [study(since=1000, history=[])]}, 1010.0)
    assert "left" not in shown({"studies": [study(since=1000, round=21, history=rows)]}, 1010.0)
    assert "for" not in shown({"studies": [study(state="paused", since=1000, history=rows)]}, 1190.0).splitlines()[0]


def test_columns_are_those_of_the_metrics_there_are() -> None:
    (row,) = study()["history"]
    text = shown({"studies": [study(history=[row | {"metrics": {"dice": 0.8123, "loss": 0.25}}])]})
    assert "test Dice" in text
    assert "0.812" in text
    assert "test AUC" not in text


def test_who_does_not_cosign_the_log() -> None:
    objections = [{"witness": "irb.example.org", "said": "[bold]no[/bold]"}]
    for studies in ([], [study()]):
        text = shown({"studies": studies, "connected": [], "objections": objections})
        assert "does not cosign the log: irb.example.org: [bold]no[/bold]" in text


def test_fifty_hospitals_fit_a_terminal_of_80_columns_and_24_lines() -> None:
    sites = [{"site": f"hospital-{n:02}", "state": "training", "epsilon": n / 100, "rounds": 1} for n in range(50)]
    sites[7]["state"] = "dropped out while training: it did not answer in time"
    history = [{**study()["history"][0], "round": n} for n in range(1, 9)]
    many = {"studies": [study(sites=sites, history=history)], "connected": []}
    text = shown(many, now=200.0, width=80)
    assert "hospital-07" in text
    assert "and 46 more" in text
    assert "0.490 of 1" in text
    assert len(text.splitlines()) <= 24
    everybody = shown(many, width=80)  # on paper each has a row of its own
    assert all(site["site"] in everybody for site in sites)


def test_a_long_name_is_not_cut() -> None:
    sites = [
        {"site": "a-hospital-with-a-name-of-40-characters-", "state": "dropped out " * 5, "epsilon": 0.5, "rounds": 1}
    ]
    text = shown({"studies": [study(sites=sites)], "connected": []}, width=80)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "characters-" in text.replace("\n", "")


def test_a_file_gets_each_change_as_it_comes_and_no_line_for_bytes_that_went_by(monkeypatch, tmp_path):
    connected: list[list[str]] = [["amber-clinic"], ["amber-clinic"], ["amber-clinic", "birch-hospital"]]

    async def watched(_: Path) -> AsyncIterator[dict[str, Any]]:
        for number, names in enumerate(connected):
            passed = {"sent_bytes": number, "received_bytes": 0, "sent_per_s": 0, "received_per_s": 0}
            yield {"studies": [], "log_size": 40, "connected": names, "traffic": passed}

    monkeypatch.setattr(operator, "watch_status", watched)
    done = CliRunner().invoke(app, ["status", "--watch", "--home", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert [line for line in done.output.splitlines() if "Connected" in line] == [
        "No study yet. Connected: amber-clinic.",
        "No study yet. Connected: amber-clinic, birch-hospital.",
    ]

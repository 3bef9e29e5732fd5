"""What people see: a hospital's words are shown, never obeyed."""

from typing import Any

from rich.console import Console

from consortium.status_view import StatusView


def shown(snapshot: dict[str, Any], now: float | None = None) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    with console.file:
        console.print(StatusView().render(snapshot, now))
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
    sites = [{"site": "amber-clinic", "state": "training", "epsilon": None, "rounds": 1}]
    assert "none promised" in shown({"studies": [study(epsilon=None, sites=sites)], "connected": []})


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

"""Figures for an MLflow tracking server: what is sent, to whom, and that nobody waits for a server that is down."""

import time
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from consortium.contract import mlflow_run
from consortium.contract.mlflow_run import MlflowRun, Tracking
from tests.fakes.mlflow_server import Server, mlflow_server


@pytest.fixture
def server() -> Iterator[Server]:
    with mlflow_server() as made:
        yield made


def run_on(server: Server, said: list[str]) -> MlflowRun:
    return MlflowRun(
        server.tracking, name="lungs", tags={"consortium.side": "coordinator"}, failed=said.append, retry_s=0.02
    )


def test_a_study_is_one_run_with_its_figures_by_round(server: Server) -> None:
    said: list[str] = []
    run = run_on(server, said)
    run.finish()  # of a study that measured nothing: there is no run
    run.add(1, {"auc": 0.5, "dice.1": 0.25, "group.age.<50": 1.0, "loss": float("nan")})
    run.add(3, {"auc": 0.75})
    run.finish()
    (update,) = server.until("runs/update")
    assert (update["run_id"], update["status"]) == ("r1", "FINISHED")
    assert [path for path, _ in server.heard] == [
        "get-by-name", "experiments/create", "runs/create", "runs/log-batch", "runs/log-batch", "runs/update",
    ]  # fmt: skip
    assert server.heard[0][1] == "experiment_name=lungs%20%26%20hearts"
    made = server.heard[2][1]
    assert (made["experiment_id"], made["run_name"]) == ("7", "lungs")
    assert made["tags"] == [{"key": "consortium.side", "value": "coordinator"}]
    first, second = server.until("runs/log-batch", 2)
    assert [(row["key"], row["value"], row["step"]) for row in first["metrics"]] == [
        ("auc", 0.5, 1), ("dice/1", 0.25, 1), ("group/age/_50", 1.0, 1),
    ]  # fmt: skip
    assert [(row["key"], row["step"]) for row in second["metrics"]] == [("auc", 3)]
    assert said == []


def test_an_experiment_that_is_there_is_used(server: Server) -> None:
    server.experiments["lungs%20%26%20hearts"] = "3"
    run_on(server, []).add(1, {"auc": 0.5})
    (made,) = server.until("runs/create")
    assert made["experiment_id"] == "3"


def test_a_server_that_is_down_holds_nobody_up_is_said_once_and_gets_what_it_missed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.broken = True
    server.answers.clear()
    said: list[str] = []
    run = MlflowRun(server.tracking, name="lungs", tags={}, failed=said.append, retry_s=0.02)
    for number in range(1, mlflow_run.QUEUE_MAX + 11):
        run.add(number, {"auc": 0.5})
    # All of them were added, and not one call has been answered.
    assert (said, server.refused, server.heard) == ([], 0, [])
    server.answers.set()
    for _ in range(6000):
        if server.refused >= 4:  # several attempts
            break
        time.sleep(0.01)
    assert len(said) == 1
    assert said[0] == "TrackingFailed: experiments/create was answered with status 503"
    server.broken = False
    steps = [one["metrics"][0]["step"] for one in server.until("runs/log-batch", 3)]
    assert steps[0] == 11  # the oldest ten had no room
    assert len(said) == 1


@pytest.mark.parametrize(
    "server",
    [
        "http://mlflow.example.org:5000",
        "https://me:secret@mlflow.example.org",
        "mlflow:5000",
        "https://a/b",
        "file:///x",
    ],
)
def test_a_server_that_figures_may_not_go_to(server: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Tracking(server=server)
    assert "secret" not in str(caught.value)

"""A whole round at a real hospital: nothing that is alive in its process prints a secret, an update or a figure.

Looked at after everything that happens in it, while it trains, masks, uploads and reveals its shares.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from numpy.typing import NDArray
from structlog.testing import capture_logs

from consortium.contract.study import Evaluation as Wanted
from consortium.wire.fact_log import log_as_facts
from site_agent.evaluation import Evaluation
from site_agent.tally import Scores
from site_agent.trainer import DpTrainer, TrainedUpdate
from tests.fakes.loose_talk import live_objects, noted_secrets, only_newcomers, said_of, search_for
from tests.fakes.site_world import ObservedWork, hospital


async def test_nothing_alive_in_a_hospital_prints_what_it_must_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: set[str] = set()
    updates: list[NDArray[np.float32]] = []
    handle, train = ObservedWork._handle, DpTrainer.train_round

    async def handle_then_look(self: ObservedWork, event: Any) -> None:
        await handle(self, event)
        texts.update(said_of(live_objects()))

    def train_and_note(self: DpTrainer, *arguments: Any) -> TrainedUpdate:
        trained = train(self, *arguments)
        updates.append(trained.update)
        texts.update(said_of([trained]))
        return trained

    with only_newcomers():
        async with hospital(tmp_path) as world:
            monkeypatch.setattr(ObservedWork, "_handle", handle_then_look)
            monkeypatch.setattr(DpTrainer, "train_round", train_and_note)
            with noted_secrets() as noted, capture_logs() as logs:
                outcome = await world.attempt()
            assert outcome.closed
    texts.update(said_of(live_objects()))  # what was alive before, too
    said = "\n".join([*texts, repr(logs), *(repr(record) for record in world.line.sent)])
    for kind in (
        "Attempt",
        "Participation",
        "Contribution",
        "Evaluation",
        "TrainedUpdate",
        "UnmaskShares",
        "AgentHome",
    ):
        assert f"{kind}(" in said, kind  # it was looked at
    assert len(noted) > 50
    search = search_for(noted)
    (update,) = updates
    search.add_vector("the update", update)
    assert search.in_bytes(said.encode(), "what was said") == set()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_logged_exception_has_no_local_variables(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal, too, where tracebacks are drawn with whatever tools are installed."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)

    def fail(patient: str) -> None:
        raise ValueError("it failed")

    try:
        log_as_facts()
        log = structlog.get_logger("test")
        try:
            fail(str(4000 + 711))  # so that the number is in no line of code
        except ValueError:
            log.exception("study.failed")
    finally:
        structlog.reset_defaults()
    said = capsys.readouterr().err
    assert "it failed" in said
    assert "4711" not in said


def test_a_printed_evaluation_has_no_figures() -> None:
    scores = Scores(
        scores=np.full(4711, 0.7654321), positive=np.arange(4711) < 4001, groups=np.full((4711, 1), 99, dtype=np.int64)
    )
    wanted = Wanted(
        split="site-held-out", metrics=("auc",), every_rounds=1, score_bins=4001, decision_threshold=0.7654321
    )
    said = repr(Evaluation(scores=scores, wanted=wanted)) + repr(scores)
    assert not any(figure in said for figure in ("4711", "4001", "0.765", "99"))

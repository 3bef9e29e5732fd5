"""D-27: the agent dies at the worst moment, so that training is not counted, counted twice, or cannot go on.

Held by: `site_agent/ledger.py` (reserve before training, settle after), `spend_entries.py` and `told.py` (an entry and
the note that it was made in one transaction). Tried: with `reserve` moved behind the training, with the note of `told`
written in a transaction of its own after the entry, and with `sign_spends` signing for the newest attempt alone, this
test fails.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_killed_before_every_statement_of_an_attempt(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.adversarial.dying_agent", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lives) > 15, "there are more writes than that"
    assert [life["killed"] for life in lives] == [True] * (len(lives) - 1) + [False]
    for number, life in enumerate(lives):
        before, now, after = [1, 1], [2, 1], [2, 2]
        # Never under-counted: what was trained counts, and what left was signed for before.
        assert life["counted"] in ([before], [before, now]), number
        assert not life["trained"] or life["counted"] == [before, now], number
        assert not life["left"] or life["signed"] == [before, now], number
        assert set(map(tuple, life["signed"])) <= set(map(tuple, life["counted"])), number
        # Never trained twice on one reservation, and never refused to go on.
        assert not life["trained_twice"], number
        end = life["at_the_end"]
        assert end["counted"] == end["signed"] == [before, now, after], number
        assert end["totals"] == [1, 2, 3], number
        assert end["steps"] == 3, number
        assert end["epsilons"][-1] >= end["epsilon"], number
        assert end["epsilons"] == sorted(end["epsilons"]), number
    # Each of the moments was among them.
    assert {(life["trained"], life["left"], len(life["signed"])) for life in lives} >= {
        (False, False, 1),
        (True, False, 1),
        (True, True, 2),
    }

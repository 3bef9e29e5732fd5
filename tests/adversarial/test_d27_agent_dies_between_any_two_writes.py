"""D-27: the agent dies at the worst moment, so that training is not counted, counted twice, or cannot go on.

Held by: `round_values.py` (reserve before training, settle after it, sign before anything leaves), `spend_entries.py`
and `told.py` (an entry and the note that it was made in one transaction). Tried: rows d27 of `mutations.py`, among them
training before the reservation, a note that is not made with its entry, and signing for the newest attempt alone.
"""

from tests.adversarial.dying import lives


def test_killed_before_every_statement_of_an_attempt(tmp_path):
    every = lives("dying_agent", tmp_path)
    for number, life in enumerate(every):
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
    assert {(life["trained"], life["left"], len(life["signed"])) for life in every} >= {
        (False, False, 1),
        (True, False, 1),
        (True, True, 2),
    }

"""D-28: the agent dies while it draws test figures, so that a draw is not counted, or leaves without being signed for.

Held by: `private_figures.py` (reserve, settle and sign before anything is drawn; an attempt that was charged before is
not drawn again) and `spend_entries.py`. Tried: rows d28 of `mutations.py`; besides, with the draw before the charge.
"""

from tests.adversarial.dying import lives


def test_killed_before_every_statement_of_a_draw(tmp_path):
    every = lives("dying_figures", tmp_path)
    before, now, after = [1, 1], [2, 1], [2, 2]
    for number, life in enumerate(every):
        # Never under-counted: what was drawn counts and was signed for.
        assert life["counted"] in ([before], [before, now]), number
        assert life["signed"] in ([before], [before, now]), number
        assert len(life["signed"]) <= len(life["counted"]), number
        assert not life["drawn"] or life["signed"] == [before, now], number
        # Never drawn a second time on one charge, and never refused to go on.
        assert not life["drawn_again"], number
        end = life["at_the_end"]
        assert end["counted"] == end["signed"] == [before, now, after], number
        assert end["totals"] == [1, 2, 3], number
        assert end["epsilons"] == sorted(end["epsilons"]), number
        assert end["epsilons"][-1] >= end["epsilon"] - 1e-12, number
    # Each of the moments was among them.
    moments = {(life["drawn"], len(life["counted"]), len(life["signed"])) for life in every}
    assert moments >= {(False, 1, 1), (False, 2, 1), (True, 2, 2)}

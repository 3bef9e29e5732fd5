"""S-19: how many of a few patients were taken for what they are not, worked out from a confusion matrix with gaps.

Held by: `consortium.contract.class_metrics.shown_confusion`: small cells are left out, and as many others as it takes.
Tried: rows s19 of `mutations.py`; with the line deleted that leaves out all of a part where the missing cells hold too
few, some missing cell has one possible value only. (Without the line before it more is left out than must be, which the
unit tests notice.)
"""

from collections import defaultdict
from itertools import product

import numpy as np

from consortium.contract.class_metrics import shown_confusion

LEAST, MOST = 3, 6


def test_no_missing_cell_has_one_possible_value_only() -> None:
    """The attacker knows the rule, what is shown, and how many patients were right and wrong (from the accuracy)."""
    possible = defaultdict(list)
    for cells in product(range(MOST + 1), repeat=4):
        counts = np.array(cells).reshape(2, 2)
        shown = shown_confusion(counts, LEAST)
        told = tuple(sorted(shown.items())), int(np.trace(counts)), int(counts.sum())
        possible[told].append(cells)
    with_gaps = {told: found for told, found in possible.items() if len(told[0]) < 4}
    assert len(with_gaps) > 100
    for (shown_cells, right, total), found in with_gaps.items():
        missing = {0, 1, 2, 3} - {2 * row + column for (row, column), _ in shown_cells}
        # Counts above MOST were not tried: of a part of nearly as many, not all possible values are in the list.
        if right > MOST or total - right > MOST:
            continue
        for place in missing:
            assert len({cells[place] for cells in found}) > 1, (shown_cells, right, total)


def test_no_cell_that_is_shown_is_of_few() -> None:
    random = np.random.default_rng(19)
    for _ in range(200):
        counts = random.integers(0, 40, (4, 4)) * random.integers(0, 2, (4, 4))
        assert all(value == 0 or value >= 10 for value in shown_confusion(counts, 10).values())

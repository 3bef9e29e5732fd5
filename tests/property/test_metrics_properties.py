"""Figures follow from sums: hospitals may come in any order and be divided in any way; small cells never show."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from consortium.contract.label_metrics import METRICS_OF_LABEL
from consortium.contract.metrics import metrics_of
from consortium.contract.study import Evaluation
from site_agent.class_tally import ClassScores
from site_agent.dice_tally import Overlaps
from site_agent.tally import Scores, metric_lanes

SUBGROUPS = ({"column": "sex", "values": (0, 1)}, {"column": "age", "bands": (50.0, 60.0)})
WANTED = Evaluation.model_validate(
    {
        "split": "site-held-out", "metrics": METRICS_OF_LABEL["binary"], "every_rounds": 1, "score_bins": 16,
        "specificity": 0.8, "decision_threshold": 0.5, "subgroups": SUBGROUPS, "per_site": "spread", "minimum_cell": 3,
    }
)  # fmt: skip


@st.composite
def hospitals(draw):
    count, random = draw(st.integers(1, 5)), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return [_hospital(random, draw(st.integers(0, 40))) for _ in range(count)]


def _hospital(random, patients):
    # Sixteenths, so that sums are exact and their order cannot show in a last digit.
    return Scores(
        scores=random.integers(0, 17, patients) / 16,
        positive=random.random(patients) < random.random(),
        groups=np.stack([random.integers(-1, 2, patients), random.integers(-1, 3, patients)], axis=1),
    )


def figures(several, wanted=WANTED):
    lanes = [metric_lanes(one, wanted) for one in several]
    return metrics_of({name: np.sum([lane[name] for lane in lanes], axis=0) for name in lanes[0]}, wanted).named()


def rounded(named):
    return {name: round(value, 9) for name, value in named.items()}


@given(several=hospitals(), order=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_hospitals_changes_nothing(several, order):
    shuffled = list(several)
    order.shuffle(shuffled)
    assert rounded(figures(shuffled)) == rounded(figures(several))


@given(several=hospitals())
@settings(max_examples=60, deadline=None)
def test_figures_over_everybody_do_not_depend_on_who_has_which_patient(several):
    parts = {name: np.concatenate([getattr(one, name) for one in several]) for name in ("scores", "positive", "groups")}
    overall = WANTED.model_copy(update={"subgroups": None, "per_site": None})
    apart, together = figures(several, overall), figures([Scores(**parts)], overall)
    for name in ("sites", "mean_site_accuracy"):
        apart.pop(name, None), together.pop(name, None)
    assert rounded(apart) == rounded(together)


@given(several=hospitals())
@settings(max_examples=60, deadline=None)
def test_no_figure_is_of_a_small_cell(several):
    named = figures(several)
    for name, value in named.items():
        if name.startswith(("group.", "calibration.")) and name.endswith(".patients"):
            assert value >= WANTED.smallest_cell


@given(several=hospitals())
@settings(max_examples=100, deadline=None)
def test_who_is_in_no_cell_is_enough_of_every_hospital(several):
    """S-17: everybody minus the cells that are shown."""
    for one in several:
        lanes = metric_lanes(one, WANTED)
        patients = int(lanes["test_patients"][0])
        sizes = lanes["subgroup_patients"]
        for cells in (sizes[:2], sizes[2:]):
            assert ((cells == 0) | (cells >= WANTED.smallest_cell)).all()
            assert patients - cells.sum() >= min(patients, WANTED.smallest_cell)


@st.composite
def classified(draw):
    count, random = draw(st.integers(1, 5)), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = []
    for _ in range(count):
        patients = draw(st.integers(0, 40))
        # Sixteenths, as above.
        powers = random.multinomial(16, [0.5, 0.3, 0.2], size=patients) / 16
        found.append(ClassScores(probabilities=powers, labels=random.integers(0, 3, patients)))
    return found


@st.composite
def segmented(draw):
    count, random = draw(st.integers(1, 5)), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = []
    for _ in range(count):
        patients = draw(st.integers(0, 40))
        dice = random.integers(0, 17, (patients, 3)) / 16
        dice[random.random((patients, 3)) < random.random()] = np.nan
        found.append(Overlaps(dice=dice, losses=random.integers(0, 17, patients) / 16))
    return found


def named(several, wanted):
    lanes = [one.lanes(wanted) for one in several]
    return metrics_of({name: np.sum([lane[name] for lane in lanes], axis=0) for name in lanes[0]}, wanted).named()


OF_CLASSES = WANTED.model_copy(update={"metrics": METRICS_OF_LABEL["classes"], "subgroups": None, "per_site": None})
OF_MASKS = OF_CLASSES.model_copy(update={"metrics": METRICS_OF_LABEL["mask"]})


@given(several=classified() | segmented())
@settings(max_examples=80, deadline=None)
def test_figures_of_classes_do_not_depend_on_who_has_which_patient(several):
    kind = type(several[0])
    parts = {name: np.concatenate([getattr(one, name) for one in several]) for name in kind.__dataclass_fields__}
    wanted = OF_CLASSES if kind is ClassScores else OF_MASKS
    apart, together = named(several, wanted), named([kind(**parts)], wanted)
    for name in ("sites", "mean_site_accuracy"):
        apart.pop(name, None), together.pop(name, None)
    assert rounded(apart) == rounded(together)


@given(several=classified() | segmented())
@settings(max_examples=80, deadline=None)
def test_no_figure_of_a_class_is_of_few_patients(several):
    wanted = OF_CLASSES if isinstance(several[0], ClassScores) else OF_MASKS
    figures_of = named(several, wanted)
    for name, value in figures_of.items():
        if name.startswith("confusion.") or (name.startswith("dice.") and name.count(".") == 2 and "patients" in name):
            assert value == 0 or value >= WANTED.smallest_cell
    cells = {name: value for name, value in figures_of.items() if name.startswith("confusion.")}
    diagonal = [value for name, value in cells.items() if len(set(name.split(".")[1:])) == 1]
    if cells and len(diagonal) < 3:
        correct = round(figures_of["accuracy"] * figures_of["patients"])
        assert correct - sum(diagonal) >= min(correct, WANTED.smallest_cell)

"""Named metrics of an entry become the figures, the curve and the groups of a report."""

import re

from audit.report import charts
from audit.report.document import CalibrationChart, CalibrationPoint
from audit.report.quality import budget_of, quality_of

METRICS = {
    "sites": 4.0, "patients": 254.0, "auc": 0.86, "auc.low": 0.81, "auc.high": 0.9, "sensitivity": 0.64,
    "sensitivity.low": 0.5, "sensitivity.high": 0.76, "loss": 0.47, "score": 0.5, "rate": 0.52,
    "calibration.error": 0.06,
    "calibration.0.patients": 20.0, "calibration.0.score": 0.05, "calibration.0.rate": 0.1,
    "calibration.0.rate.low": 0.03, "calibration.0.rate.high": 0.3,
    "calibration.9.patients": 40.0, "calibration.9.score": 0.95, "calibration.9.rate": 0.9,
    "calibration.9.rate.low": 0.77, "calibration.9.rate.high": 0.96,
    "spread.auc.sites": 3.0, "spread.auc.mean": 0.8, "spread.auc.deviation": 0.05,
    "group.0.0.sites": 2.0, "group.0.0.patients": 53.0, "group.0.0.auc": 0.8, "group.0.0.rate": 0.25,
    "group.1.2.sites": 4.0, "group.1.2.patients": 64.0,
}  # fmt: skip
DOCUMENT = {
    "evaluation": {
        "specificity": 0.9,
        "minimum_cell": 5,
        "subgroups": [
            {"column": "sex", "values": [0, 1], "names": ["women", "men"]},
            {"column": "age", "bands": [50, 60.5]},
            {"column": "cp", "values": [1, 2]},
        ],
    }
}


def test_figures_have_their_intervals_and_names():
    found = quality_of(METRICS, DOCUMENT)
    assert (found.patients, found.sites, found.score, found.rate) == (254, 4, 0.5, 0.52)
    assert [(one.label, one.value, one.low, one.high) for one in found.figures] == [
        ("AUC", 0.86, 0.81, 0.9),
        ("Sensitivity at specificity 0.9", 0.64, 0.5, 0.76),
        ("Loss", 0.47, None, None),
    ]
    assert [(one.label, one.sites, one.mean, one.deviation) for one in found.spread] == [("AUC", 3, 0.8, 0.05)]


def test_every_group_of_the_study_is_named_and_those_without_figures_are_withheld():
    found = quality_of(METRICS, DOCUMENT).groups
    assert [(one.column, one.name, one.patients) for one in found] == [
        ("sex", "women", 53), ("sex", "men", None),
        ("age", "below 50", None), ("age", "50 to below 60.5", None), ("age", "60.5 and above", 64),
        ("cp", "1", None), ("cp", "2", None),
    ]  # fmt: skip
    assert found[0].of("auc").value == 0.8
    assert found[0].of("brier") is None


def test_the_budget_of_the_figures_is_the_studys():
    assert budget_of(DOCUMENT) is None
    assert budget_of({"evaluation": {"privacy": {"epsilon": "much", "delta": 1}}}) is None
    found = budget_of({"evaluation": {"privacy": {"epsilon": 2, "delta": 1e-5}}})
    assert (found.epsilon, found.delta) == (2, 1e-5)


def test_an_older_entry_and_a_strange_document_give_what_there_is():
    older = {"auc": 0.9, "accuracy": 0.8, "loss": None, "patients": 10.0, "sites": 3.0}
    for document in ({}, {"evaluation": 3}, {"evaluation": {"subgroups": [7, {"bands": ["x"]}]}}):
        found = quality_of(older, document)
        assert [one.label for one in found.figures] == ["AUC", "Accuracy"]
        assert (found.curve, found.groups, found.spread) == ((), (), ())


def test_the_calibration_curve_can_be_seen_and_read_out():
    points = tuple(
        CalibrationPoint(score=p.score, rate=p.rate, low=p.low, high=p.high, patients=p.patients)
        for p in quality_of(METRICS, DOCUMENT).curve
    )
    picture = str(charts.draw(CalibrationChart(caption="Calibration", points=points)))
    assert 'role="img"' in picture
    (words,) = re.findall(r'aria-label="([^"]*)"', picture)
    assert "predicted 0.05, observed 0.10, 20 patients; predicted 0.95, observed 0.90, 40 patients" in words
    assert picture.count("<circle") == 2
    assert picture.count("<title>") == 2
    # The diagonal goes from corner to corner, and a point lies where it should: 0.95 across, 0.9 up.
    assert f'x1="{charts.LEFT}.0"' in picture or f'x1="{charts.LEFT}"' in picture
    across = charts.LEFT + 0.95 * (charts.WIDTH - charts.RIGHT - charts.LEFT)
    bottom = charts.HEIGHT - charts.BOTTOM
    up = bottom - 0.9 * (bottom - charts.TOP)
    assert f'<circle cx="{across:.1f}" cy="{up:.1f}"' in picture

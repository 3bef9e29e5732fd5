"""Figures of labels with several classes in the report: Dice as boxes, a confusion matrix, curves over rounds."""

import re
from dataclasses import replace

import pytest

from audit import verify
from audit.report import charts, render_html
from audit.report.as_json import figures
from audit.report.document import BoxChart, BoxRow
from audit.report.figures import RoundFigures
from audit.report.quality import quality_of
from audit.report.training import POINTS_MAX, curves
from tests.fakes.sample_study_log import SampleConsortium

CLASSES = {"data": {"label": {"type": "classes", "values": ["normal", "<b>ill</b>"]}}}
MASK = {"data": {"label": {"type": "mask", "values": [0, 1, 2]}}, "evaluation": {"minimum_cell": 7}}
OF_CLASSES = {
    "auc": 0.9, "auc.low": 0.8, "auc.high": 0.95, "auc.1": 0.85, "auc.1.low": 0.7, "auc.1.high": 0.9,
    "confusion.0.0": 90.0, "confusion.0.1": 10.0, "confusion.1.1": 0.0, "patients": 120.0, "sites": 4.0,
}  # fmt: skip
QUANTILES = {"p10": 0.55, "p25": 0.7, "p50": 0.82, "p75": 0.9, "p90": 0.95}
OF_MASKS = {
    "dice": 0.8, "dice.low": 0.75, "dice.high": 0.85, "dice.patients": 52.0, "dice.deviation": 0.1, "loss": 0.2,
    **{f"dice.{name}": value for name, value in QUANTILES.items()},
    "dice.2": 0.7, "dice.2.low": 0.6, "dice.2.high": 0.8, "dice.2.patients": 9.0, "dice.2.deviation": 0.2,
}  # fmt: skip


def test_areas_of_classes_have_their_names():
    found = quality_of(OF_CLASSES, CLASSES)
    assert [one.label for one in found.figures] == ["AUC, mean over the classes"]
    assert [(one.label, one.low) for one in found.areas] == [("AUC of <b>ill</b> against the others", 0.7)]
    assert [one.label for one in quality_of({"auc": 0.9}, CLASSES).figures] == ["AUC"]


def test_a_confusion_matrix_tells_nobody_from_withheld():
    found = quality_of(OF_CLASSES, CLASSES).confusion
    assert found.names == ("normal", "<b>ill</b>")
    assert [[cell.patients for cell in row] for row in found.rows] == [[90, 10], [None, 0]]
    assert [cell.share for cell in found.rows[0]] == [0.9, 0.1]
    assert found.withheld
    assert quality_of({"auc": 0.9}, CLASSES).confusion is None
    assert quality_of(OF_CLASSES, {}).confusion.rows == ()


def test_dice_is_there_for_the_foreground_and_every_class():
    found = quality_of(OF_MASKS, MASK).dice
    assert [(one.name, one.patients) for one in found] == [("foreground", 52), ("value 1", None), ("value 2", 9)]
    assert found[0].quantiles == tuple(QUANTILES.values())
    assert found[1].mean is None
    assert (found[2].mean.value, found[2].deviation, found[2].quantiles) == (0.7, 0.2, ())
    assert quality_of({"loss": 0.2}, MASK).dice == ()


def test_boxes_stand_where_their_figures_are():
    liver = BoxRow(name="liver <1>", quantiles=(0.1, 0.25, 0.5, 0.75, 1.0), mean=0.5, low=0.4, high=0.6, patients=20)
    picture = str(charts.draw(BoxChart(caption="Dice", rows=(liver,))))
    (words,) = re.findall(r'aria-label="([^"]*)"', picture)
    assert "mean 0.500, median 0.500, 20 patients" in words
    assert "<1>" not in picture
    left, right = 130, charts.WIDTH - 70
    (box,) = re.findall(r'<rect x="([\d.]+)" y="\d+" width="([\d.]+)"', picture)
    assert (float(box[0]), float(box[1])) == pytest.approx(
        (left + 0.25 * (right - left), 0.5 * (right - left)), abs=0.1
    )
    assert f'<circle cx="{left + 0.5 * (right - left):.1f}"' in picture
    alone = replace(liver, quantiles=(), low=None, high=None)
    assert "<rect" not in charts.draw(BoxChart(caption="Dice", rows=(alone,)))


def measured(number: int, metrics: dict[str, float]) -> RoundFigures:
    """A closed round with metrics."""
    return RoundFigures(
        round=number,
        attempt=1,
        kind="train",
        state="closed",
        participants=("north",),
        threshold=1,
        model_digest="0" * 64,
        metrics=tuple(sorted(metrics.items())),
        started_leaf=number,
    )


def test_curves_are_of_the_figures_there_are():
    rows = [measured(number, {"dice": 0.1 * number, "dice.1": 0.2, "dice.2": 0.3, "loss": 1.0}) for number in (1, 2)]
    assert [one.caption for one in curves(rows, ("0", "1", "2"))] == [
        "Dice over all test patients, by round",
        "Dice of each class over all test patients, by round",
        "Loss over all test patients, by round",
    ]
    # One class is the foreground: no second picture of the same. Twenty are too many to tell apart.
    for values in (("0", "1"), tuple(map(str, range(20)))):
        assert len(list(curves(rows, values))) == 2
    both = [measured(1, {"auc": 0.5, "accuracy": 0.4})]
    assert [one.caption for one in curves(both)] == ["AUC and accuracy over all test patients, by round"]
    (many,) = curves([measured(number, {"loss": 1.0}) for number in range(1, 5 * POINTS_MAX)])
    (line,) = many.series
    assert (len(line.points), line.points[0][0], line.points[-1][0]) == (POINTS_MAX, 1, 5 * POINTS_MAX - 1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence")
    sample = SampleConsortium()
    sample.metrics = OF_MASKS
    log = sample.whole_study().open_log(folder / "log")
    done = sample.export(log, folder / "evidence.zip")
    log.close()
    return done


def test_the_page_shows_them(exported):
    page = render_html(replace(exported.report, document={**exported.report.document, **MASK})).decode()
    assert "last mean Dice over test patients" in page
    assert "Dice, mean over the foreground" in page
    assert "A class with fewer than 7 such patients has no figures." in page
    assert "withheld: too few patients" in page
    assert '<th class="n">Dice</th><th class="n">Loss</th>' in page
    measured = [replace(one, metrics=tuple(OF_CLASSES.items())) for one in exported.report.rounds if one.metrics]
    report = replace(exported.report, rounds=tuple(measured), document={**exported.report.document, **CLASSES})
    page = render_html(report).decode()
    assert "&lt;b&gt;ill&lt;/b&gt;" in page
    assert "<b>ill</b>" not in page
    assert ">withheld</td>" in page
    assert "rgba(11, 95, 165, 0.81)" in page


def test_a_stranger_reads_the_same_figures_from_the_log(exported):
    result = verify.check(str(exported.path))
    assert all(step["status"] != "FAIL" for step in result["steps"])
    last = [one for one in figures(exported.report)["rounds"] if one["metrics"] is not None][-1]
    assert last["metrics"] == OF_MASKS

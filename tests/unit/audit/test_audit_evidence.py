"""audit/evidence.py and audit/report/: a whole archive or none, and a report that says no more than the log."""

import errno
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from audit import entries, evidence, verify
from audit.errors import ExportRefused, LogUnwritable
from audit.note import NoteSigner
from audit.report import LIMITS, Stated, charts, read_report, scales
from audit.report.document import LineChart, Series
from audit.report.training import curves
from tests.fakes.sample_study_log import (
    FIGURES_BUDGET,
    FIGURES_DELTA,
    SITES,
    STEPS,
    STUDY,
    SampleConsortium,
    figures_epsilon,
    key,
    plausible_epsilon,
    unpack,
)


@pytest.fixture
def sample():
    return SampleConsortium().whole_study()


@pytest.fixture
def log(sample, tmp_path):
    opened = sample.open_log(tmp_path / "log")
    yield opened
    opened.close()


def test_the_archive(sample, log, tmp_path):
    size = log.size
    done = sample.export(log, tmp_path / "evidence.zip", printed=True)
    files = unpack(done.path)
    assert next(iter(files)) == "README.txt"
    assert list(files)[1:] == sorted(list(files)[1:])
    assert files["study.json"] == sample.document
    assert hashlib.sha256(files["manifest.sha256"]).hexdigest() == done.manifest_sha256
    assert (done.leaf, done.log_size, log.size) == (size, size, size + 1)
    logged = entries.parse_entry(next(log.entries(done.leaf, done.leaf + 1)))
    assert isinstance(logged, entries.ExportCreated)
    assert logged.manifest_sha256 == done.manifest_sha256
    assert files["log/policy.txt"] == evidence.policy_text(log)
    assert done.policy_sha256 == hashlib.sha256(evidence.policy_text(log)).hexdigest()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_same_evidence_is_the_same_bytes(tmp_path):
    archives = []
    for name in ("a", "b"):
        sample = SampleConsortium().whole_study()
        log = sample.open_log(tmp_path / name)
        archives.append(sample.export(log, tmp_path / f"{name}.zip", printed=True).path.read_bytes())
        log.close()
    assert archives[0] == archives[1]


def test_a_second_export_covers_the_first(sample, log, tmp_path):
    sample.export(log, tmp_path / "one.zip")
    done = sample.export(log, tmp_path / "two.zip")
    assert verify.check(str(done.path), evidence.policy_text(log))["verified"]
    assert done.log_size == done.leaf == log.size - 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"study": "other-study"}, "no study 'other-study'"),
        ({"study_document": b"{}"}, "study document"),
        ({"study_document": b"no json"}, "no JSON"),
        ({"study_document": b"[]"}, "no JSON object"),
        ({"signer": NoteSigner("somebody/else", key("other"))}, "export key"),
    ],
)
def test_refused_exports_write_nothing(sample, log, tmp_path, changed, message):
    size = log.size
    with pytest.raises(ExportRefused, match=message) as refused:
        sample.export(log, tmp_path / "evidence.zip", **changed)
    assert "No file was written" in refused.value.advice()
    assert log.size == size
    assert not (tmp_path / "evidence.zip").exists()


def test_a_log_that_nobody_opened(sample):
    stated = Stated(exported_at="now", exported_by="lead", software=())
    with pytest.raises(ExportRefused, match=r"no log\.opened"):
        read_report([], study=STUDY, checkpoint=None, document=b"{}", stated=stated)


def test_a_full_disk_leaves_the_older_archive(sample, log, tmp_path, monkeypatch):
    (tmp_path / "evidence.zip").write_bytes(b"older")
    real = os.fsync

    def full(descriptor: int) -> None:
        if ".evidence.zip." in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LogUnwritable, match="No space left"):
        sample.export(log, tmp_path / "evidence.zip")
    assert (tmp_path / "evidence.zip").read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_folder_that_does_not_exist(sample, log, tmp_path):
    with pytest.raises(LogUnwritable):
        sample.export(log, tmp_path / "nowhere/evidence.zip")


def test_report_json(sample, log, tmp_path):
    report = json.loads(unpack(sample.export(log, tmp_path / "e.zip").path)["report.json"])
    figures = report["figures"]
    assert [site["site"] for site in figures["sites"]] == list(SITES)
    switzerland = figures["sites"][2]
    assert (switzerland["rounds_invited"], switzerland["rounds_survived"]) == (6, 4)
    assert [(one["round"], one["attempt"], one["state"]) for one in figures["rounds"]][:3] == [
        (1, 1, "closed"),
        (2, 1, "aborted"),
        (2, 2, "closed"),
    ]
    assert figures["rounds"][2]["dropouts"][0]["site"] == "switzerland"
    assert figures["refusals"]["authz.denied"] == 1
    assert report["limits"] == list(LIMITS)
    assert report["stated"]["software"] == {"hospital-consortium": "0.1.0"}


class _Outside(HTMLParser):
    """Collects everything a page would load or run, and checks that its tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script" or any(name.startswith("on") for name, _ in attrs):
            self.loads.append(tag)
        self.loads += [str(value) for name, value in attrs if name in {"src", "href", "action", "data"}]
        if tag not in {"meta", "br", "col", "line", "circle", "rect", "path", "polyline"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"line", "circle", "rect", "path", "polyline"}:
            assert self.open.pop() == tag


def test_report_html_loads_and_runs_nothing(sample, log, tmp_path):
    page = unpack(sample.export(log, tmp_path / "e.zip").path)["report.html"].decode()
    parser = _Outside()
    parser.feed(page)
    sections = re.findall(r'<section id="(R\d+)">', page)
    assert len(sections) == 14
    assert parser.loads == [f"#{one}" for one in sections]  # the contents, which lead to places in the page itself
    assert parser.open == []
    assert not re.search(r"url\(|@import|https?://", page)
    for limit in LIMITS:
        assert limit.replace("'", "&#39;") in page
    assert page.count("<svg") == 4
    for site in SITES:
        assert site in page


def test_test_figures_with_a_budget_stand_beside_the_training(tmp_path):
    sample = SampleConsortium(rounds=1, figures=True)
    sample.opening()
    sample.agreeing()
    sample.one_round(1)
    leaf = len(sample.lines)
    sample.draw("cleveland", round=1)
    sample.ending(certified=lambda one: [one.certificate(site) for site in SITES])
    log = sample.open_log(tmp_path / "log")
    files = unpack(sample.export(log, tmp_path / "e.zip").path)
    log.close()
    sites = {site["site"]: site for site in json.loads(files["report.json"])["figures"]["sites"]}
    spent, trained = figures_epsilon(1), plausible_epsilon(STEPS)
    cleveland = sites["cleveland"]
    assert [cleveland[f"figures_{name}"] for name in ("epsilon", "delta", "leaf")] == [spent, FIGURES_DELTA, leaf]
    assert cleveland["epsilon"] == trained
    assert (cleveland["certificate"]["epsilon_figures"], sites["hungary"]["certificate"]["epsilon_figures"]) == (
        spent,
        0,
    )
    assert sites["hungary"]["figures_leaf"] is None
    assert f"proofs/{leaf}.tlog-proof" in files
    page = files["report.html"].decode()
    allowed = f"and epsilon {FIGURES_BUDGET:g} at delta {FIGURES_DELTA:g} for test figures"
    assert f"{allowed}; for one patient the two add up" in page
    assert re.search(rf'<td class="n">{spent:.4f} <span class="leaf"[^>]*>#{leaf}</span></td>', page)
    assert f"{spent:.4f} at delta {FIGURES_DELTA:g}" in page
    row = page.partition("a patient of one hospital, from the model and the test figures</td>")[2]
    assert row.startswith(f'<td class="n">{trained + spent:.4f}</td>')


def test_text_from_the_log_is_escaped(tmp_path):
    sample = SampleConsortium()
    sample.opening()
    sample.agreeing()
    sample.coordinator(entries.AuthFailed, reason="<script>alert(1)</script>")
    sample.one_round(1)
    log = sample.open_log(tmp_path / "log")
    done = sample.export(log, tmp_path / "e.zip", exported_by="<img src=x>")
    log.close()
    page = unpack(done.path)["report.html"].decode()
    assert "<script>" not in page
    assert "<img" not in page


def test_every_entry_of_a_troubled_study_is_told(tmp_path):
    sample = SampleConsortium()
    sample.opening()
    sample.agreeing(without=["hungary"])
    digest = sample.study_digest
    sample.site("hungary", entries.StudyRejected, study_digest=digest, steward="u:" + "0" * 16, reason="not our ethics")
    sample.coordinator(entries.StudyPaused, study=STUDY, reason="a question")
    sample.coordinator(entries.StudyResumed, study=STUDY, reason="answered")
    sample.one_round(1, survivors=(), closed=False)
    at = {"study": STUDY, "round": 1, "attempt": 1}
    sample.coordinator(entries.RoundRefused, **at, site="hungary", rule="approval required")
    broken = {"phase": "unmasking", "evidence_sha256": "e" * 64}
    sample.coordinator(entries.SecaggFailed, **at, blamed=None, rule="a share that does not open", **broken)
    accused = {"accused": "coordinator", "phase": "confirm", "evidence_sha256": None}
    sample.site("cleveland", entries.SecaggAccused, round=1, attempt=1, rule="an unsigned survivor", **accused)
    sample.site("cleveland", entries.DpExhausted, dataset="heart", rule="cap of the dataset")
    sample.coordinator(entries.StudyAborted, study=STUDY, reason="too few hospitals")
    sample.coordinator(entries.SiteRevoked, site="hungary", reason="left")
    log = sample.open_log(tmp_path / "log")
    done = sample.export(log, tmp_path / "e.zip", model=None)
    log.close()
    assert done.report.status == "aborted"
    told = " ".join(line.text for line in done.report.refused)
    for said in (
        "not our ethics",
        "approval required",
        "does not open",
        "unsigned survivor",
        "cap of the dataset",
        "too few hospitals",
    ):
        assert said in told
    page = unpack(done.path)["report.html"].decode()
    assert "No model was released" in page
    failed = verify.check(str(done.path))
    assert [step["title"] for step in failed["steps"] if step["status"] == "FAIL"] == [
        "approvals before the first round"
    ]


def test_charts_of_nothing_of_one_point_and_of_many_sites():
    assert list(curves([])) == []
    only = charts.draw(LineChart(caption="AUC", series=(Series(name="AUC", points=((1.0, 0.5),)),), unit="round"))
    assert "AUC 0.5" in only
    sites = tuple(Series(name=f"site-{number}", points=((1.0, 0.5),)) for number in range(12))
    many = charts.draw(LineChart(caption="Epsilon", series=sites, unit="round", limit=("budget", 1.0), floor=0.0))
    assert many.count("<polyline") == 12


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 0.0001), (0.61, 0.873), (0.0, 12345.0), (-3.0, 4.0)])
def test_ticks_enclose_the_data(low, high):
    ticks = scales.ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert ticks[0] <= low
    assert ticks[-1] >= high - 1e-9


def test_what_another_study_refused_is_not_counted_in_this_one(tmp_path):
    sample = SampleConsortium(rounds=1)
    sample.opening()
    sample.agreeing()
    sample.coordinator(entries.RoundRefused, study="other-study", round=1, attempt=1, site="hungary", rule="not ours")
    sample.one_round(1)
    sample.ending()
    log = sample.open_log(tmp_path / "log")
    done = sample.export(log, tmp_path / "e.zip")
    log.close()
    assert dict(done.report.refusals)["round.refused"] == 0
    assert "round.refused" not in done.report.seen
    assert [step for step in verify.check(str(done.path))["steps"] if step["status"] == "FAIL"] == []

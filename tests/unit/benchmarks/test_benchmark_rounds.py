"""The benchmarks of whole rounds: what is made of the marks, and that nothing but a benchmark can leave masks out."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from privacy.encoding import Lane, Layout
from privacy.secagg import masks
from privacy.secagg.masks import MaskSeeds, RunningSum, apply_masks
from privacy.secret import Secret
from tests.benchmarks import bench_process, coordinator_memory, upload_bytes, whole_round
from tests.benchmarks.bench_consortium import BenchFailed, Mark
from tests.benchmarks.bench_study import HIDDEN, INPUTS, LOGISTIC, bench_study, made_up_records, site_file
from tests.benchmarks.whole_round import Rounds, rounds_of

ROOT = Path(__file__).parents[3]
PRODUCT = ("privacy", "audit", "consortium", "site_agent")


# --- the studies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", [LOGISTIC, *HIDDEN])
def test_a_network_has_exactly_the_parameters_it_is_named_for(parameters: int) -> None:
    layers = (len(INPUTS), *HIDDEN.get(parameters, ()), 1)
    assert sum(below * above + above for below, above in pairwise(layers)) == parameters


def test_a_study_is_one_that_sites_can_take_part_in() -> None:
    names = ["site-01", "site-02", "site-03", "site-04"]
    study = bench_study("rounds", names, parameters=LOGISTIC, rounds=7)
    assert (study.training.rounds, study.aggregation.threshold) == (7, 3)
    assert json.loads(site_file("site-01", ["rounds"]))["studies"] == {"rounds": "rounds"}
    assert made_up_records().splitlines()[0].split(",") == ["patient", *INPUTS, "ill"]


# --- the switch ------------------------------------------------------------------------------------------------------


def test_masks_are_left_out_in_even_rounds_of_that_process_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(masks.MaskStreams, "apply", masks.MaskStreams.apply)  # put back afterwards
    marks = bench_process.Marks(tmp_path / "marks.jsonl")
    bench_process.leave_masks_out_in_even_rounds(marks)
    seeds = MaskSeeds(add=(Secret(b"\x01" * 32),), subtract=())
    for number, masked in ((1, True), (2, False), (3, True)):
        marks.round = number
        vector = np.zeros(100, dtype="<u4")
        apply_masks(vector, seeds)
        total = RunningSum(_layout(100))
        total.remove(seeds)
        assert bool(vector.any()) is masked
        assert bool(total.result.any()) is masked
    assert marks.left_out == 2
    marks.close()


def test_importing_the_switch_changes_nothing() -> None:
    vector = np.zeros(100, dtype="<u4")
    apply_masks(vector, MaskSeeds(add=(Secret(b"\x01" * 32),), subtract=()))
    assert vector.any()
    assert masks.MaskStreams.apply.__module__ == masks.__name__


def test_the_product_does_not_know_the_switch() -> None:
    """No study, file or command can set what no module of the product mentions."""
    sources = [path for package in PRODUCT for path in (ROOT / package).rglob("*.py")]
    assert len(sources) > 100
    for path in sources:
        text = path.read_text()
        assert "plain_even_rounds" not in text, path
        assert "plain-even-rounds" not in text, path
        assert "tests.benchmarks" not in text, path


# --- marks -----------------------------------------------------------------------------------------------------------


def marks_of(seconds: dict[int, float], *, cpu: float = 0.5, skip: tuple[int, ...] = ()) -> list[Mark]:
    """Marks of a process whose rounds take so long and leave masks out when even, but for those in `skip`."""
    found, clock, used, left_out = [], 0.0, 0.0, 0
    for number, length in seconds.items():
        found.append(Mark(round=number, phase="begin", clock_s=clock, cpu_s=used, left_out=left_out))
        found.append(Mark(round=number, phase="Masking", clock_s=clock + 0.1, cpu_s=used, left_out=left_out))
        clock, used = clock + length, used + cpu
        left_out += number % 2 == 0 and number not in skip
    return found


LENGTHS = {1: 9.0, 2: 9.0, 3: 1.5, 4: 1.0, 5: 1.7, 6: 1.1, 7: 0.0}


def test_marks_become_seconds_of_secure_and_plain_rounds() -> None:
    found = rounds_of(10, 6, {"coordinator": marks_of(LENGTHS), "site-01": marks_of(LENGTHS, cpu=0.25)})
    assert [round(value, 6) for value in found.secure_s] == [1.5, 1.7]
    assert [round(value, 6) for value in found.plain_s] == [1.0, 1.1]
    assert math.isclose(found.ratio, 1.6 / 1.05)
    assert math.isclose(found.keys_s, 0.1)
    assert (found.secure_cpu_s, found.plain_cpu_s) == (0.75, 0.75)
    assert "by the clock 1.52" in found.words()


def test_a_switch_that_did_not_work_is_an_error_and_no_figure() -> None:
    with pytest.raises(BenchFailed, match=r"site-01: the switch .* round 4"):
        rounds_of(10, 6, {"coordinator": marks_of(LENGTHS), "site-01": marks_of(LENGTHS, skip=(4,))})


def test_a_round_that_is_missing_is_an_error() -> None:
    with pytest.raises(BenchFailed, match="coordinator has no whole round 6"):
        rounds_of(10, 6, {"coordinator": marks_of({n: s for n, s in LENGTHS.items() if n < 7})})


def test_the_worst_size_gives_the_ratio() -> None:
    one = Rounds(parameters=1_000_000, secure_s=(1.2,), plain_s=(1.0,), secure_cpu_s=1.0, plain_cpu_s=1.0, keys_s=0.1)
    ratio, small, large = whole_round.figures([one, replace(one, parameters=10_000_000, secure_s=(1.4,))])
    assert (ratio.name, ratio.value) == ("secure_vs_plain_round", 1.4)
    assert (small.name, small.value, large.name, large.value) == (
        "secure_round_1M_s",
        1.2,
        "secure_round_10M_s",
        1.4,
    )


def test_a_machine_marks_its_rounds_and_phases(tmp_path: Path) -> None:
    machine = SimpleNamespace(begin=lambda context: (0, context.round), step=lambda state, event: (event, ()))
    marks = bench_process.Marks(tmp_path / "marks.jsonl")
    bench_process.mark_rounds(machine, marks)
    assert machine.begin(SimpleNamespace(round=3)) == (0, 3)
    machine.step(0, 1)  # the same state
    machine.step(0, "next")
    marks.close()
    lines = [json.loads(line) for line in (tmp_path / "marks.jsonl").read_text().splitlines()]
    assert [(line["round"], line["phase"]) for line in lines] == [(3, "begin"), (3, "str")]


# --- bytes -----------------------------------------------------------------------------------------------------------


def test_bytes_are_counted_by_kind_and_round(tmp_path: Path) -> None:
    lines = [(1, "events", 7), (2, "masked-update", 100), (2, "masked-update", 50), (2, "key-bundle", 9)]
    text = "".join(json.dumps({"round": r, "kind": k, "size_bytes": s}) + "\n" for r, k, s in lines)
    (tmp_path / "sent.jsonl").write_text(text + '{"round": 2, "ki')
    assert upload_bytes.totals(upload_bytes.sent_lines(tmp_path), 2) == {"masked-update": 150, "key-bundle": 9}


# --- real processes --------------------------------------------------------------------------------------------------


def test_memory_is_measured_of_a_real_coordinator() -> None:
    (figure,) = coordinator_memory.measure(parameters=1000, few=3, many=4, rounds=1)
    assert figure.value is not None
    assert 0.8 < figure.value < 1.25


@pytest.mark.slow
def test_bytes_are_counted_of_a_real_agent() -> None:
    (figure,) = upload_bytes.measure(parameters=LOGISTIC, sites=4)
    assert figure.value is not None
    assert 1000 < LOGISTIC * figure.value < 10_000
    for kind in ("masked-update", "confirmation", "unmask-shares", "events", "result-verified", "sealed-shares"):
        assert kind in figure.note


def _layout(length: int) -> Layout:
    return Layout(modulus_bits=32, lanes=(Lane(name="update", length=length, clip=1.0, scale=4.0),))

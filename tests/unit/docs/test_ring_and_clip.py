"""The tables on how to choose ring and clip are what the code computes."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from consortium.contract import study
from consortium.contract.errors import FileInvalid
from consortium.contract.precision import precision_line, precision_of
from consortium.contract.study import load_study

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/how-to/choose-ring-and-clip.md"
HEART = ROOT / "configs/heart-disease/study.yaml"


def whole(value: float) -> str:
    return f"{value:,.0f}" if value < 1e10 else f"{value:.1e}"


def rings() -> Iterator[str]:
    for sites in (4, 10, 100):
        for bits in (16, 32, 64):
            precision = precision_of(sites=sites, clip=1.0, modulus_bits=bits)
            # Counts travel at scale 1; the key's own bound is ten million.
            patients = min((2 ** (bits - 1) - 1) // sites - 1, 10_000_000)
            yield (
                f"| {sites} | {bits} | {whole(precision.steps)} | {precision.step:.1e} | "
                f"{precision.error_of_mean(sites):.1e} | {patients:,} | {precision.bytes_per_parameter} |"
            )


def clips() -> Iterator[str]:
    for clip in (0.01, 0.1, 1.0, 10.0):
        for bits in (16, 32):
            precision = precision_of(sites=10, clip=clip, modulus_bits=bits)
            yield f"| {clip:g} | {bits} | {precision.step:.1e} | {precision.error_of_mean(10):.1e} | {clip / 10:g} |"


def weights() -> Iterator[str]:
    precision = precision_of(sites=10, clip=1.0, modulus_bits=32)
    for words, share in (
        ("the whole of `max_patients_per_site`", 1.0),
        ("a tenth of it", 0.1),
        ("a hundredth of it", 0.01),
        ("a ten-thousandth of it", 1e-4),
    ):
        yield f"| {words} | {precision.error_of_mean(10, 10 * share):.1e} |"


@pytest.mark.parametrize(("name", "rows"), [("rings", rings), ("clips", clips), ("weights", weights)])
def test_a_table_is_what_the_code_computes(name: str, rows: Callable[[], Iterator[str]]) -> None:
    text = PAGE.read_text()
    table = re.search(rf"<!-- table of {name} -->\n(.*)\n<!-- end of the table of {name} -->", text, re.DOTALL)
    assert table is not None
    assert table.group(1).splitlines()[2:] == list(rows())


def test_the_line_of_validate_is_what_it_prints() -> None:
    assert precision_line(load_study(HEART)) in PAGE.read_text()
    assert precision_line(load_study(HEART)) in (ROOT / "docs/tutorials/first-study.md").read_text()


def test_how_many_hospitals_16_bits_are_for() -> None:
    text = PAGE.read_text()
    found = [study._sites_most(1 + step / 1000, 16) for step in range(1000)]
    assert f"at most {min(found)} whatever the clip, and up to {max(found)} if the clip is a power of two" in " ".join(
        text.split()
    )
    assert study._sites_most(2.0, 16) == study._sites_most(0.25, 16) == max(found)


def example(tmp_path: Path, *, hospitals: int = 4, bits: int = 32, clips: str = "") -> Path:
    names = ", ".join(f"site-{number:03}" for number in range(hospitals))
    text = re.sub(r"required: \[[^]]*\]|required:\n(?: +- .*\n)+", f"required: [{names}]\n", HEART.read_text())
    text = re.sub(r"threshold: \d+", f"threshold: {hospitals // 2 + 1}", text)
    text = re.sub(r"modulus_bits: \d+", f"modulus_bits: {bits}", text)
    text = re.sub(r"max_patients_per_site: \d+", "max_patients_per_site: 200", text)
    path = tmp_path / "study.yaml"
    path.write_text(re.sub(r"( +)update_clip: 4.*\n", rf"\1update_clip: 4\n{clips}", text))
    return path


def messages(path: Path) -> str:
    with pytest.raises(FileInvalid) as caught:
        load_study(path)
    return "\n".join(re.sub(r"^line \d+", "line 0", str(problem)) for problem in caught.value.problems)


def test_the_refusal_of_a_small_ring_is_the_one_shown(tmp_path: Path) -> None:
    shown = re.search(r"line \d+, aggregation\.modulus_bits: found 16 with 128.*", PAGE.read_text())
    assert shown is not None
    assert re.sub(r"^line \d+", "line 0", shown.group()) in messages(example(tmp_path, hospitals=128, bits=16))


def test_the_refusal_of_a_wrong_name_is_the_one_shown(tmp_path: Path) -> None:
    shown = re.search(r"`line \d+, (aggregation\.tensor_clips\.head.*?), 0\.weight, \.\.\.`", PAGE.read_text())
    assert shown is not None
    assert shown.group(1) in messages(example(tmp_path, clips='  tensor_clips: {"head.*": 1}\n'))


def test_the_example_of_clips_by_parameter_is_one(tmp_path: Path) -> None:
    block = re.search(r"  tensor_clips:\n(?:    .*\n)+", PAGE.read_text())
    assert block is not None
    text = HEART.read_text()
    text = re.sub(
        r"model:\n(?: .*\n|#.*\n)*?\n", "model:\n  network: mlp\n  args: {hidden: [8], activation: tanh}\n\n", text
    )
    path = tmp_path / "study.yaml"
    path.write_text(re.sub(r"( +)update_clip: 4.*\n", lambda m: f"{m.group(1)}update_clip: 4\n{block.group()}", text))
    assert load_study(path).aggregation.tensor_clips == {"0.bias": 0.25, "2.*": 0.5}

"""What is said about the cost of rounding is the arithmetic of protocol section 5."""

import math
from pathlib import Path
from typing import Any

import pytest

from consortium.contract.precision import precision_line, precision_of
from consortium.contract.study import StudyFile, load_study
from privacy.errors import EncodingOverflow

HEART = load_study(Path(__file__).parents[3] / "configs/heart-disease/study.yaml")


def changed(study: StudyFile, section: str, **values: Any) -> StudyFile:
    return study.model_copy(update={section: getattr(study, section).model_copy(update=values)})


@pytest.mark.parametrize(
    ("sites", "clip", "bits", "step"),
    [
        (255, 1.0, 32, 2.0**-23),
        (1000, 1.0, 32, 2.0**-21),
        (10, 1.0, 16, 2.0**-11),
        (10, 1.0, 32, 2.0**-27),
        (3, 1.0, 64, 2.0**-61),
        (4, 4.0, 32, 2.0**-26),
    ],
)
def test_the_step_is_one_over_the_scale(sites: int, clip: float, bits: int, step: float) -> None:
    precision = precision_of(sites=sites, clip=clip, modulus_bits=bits)
    assert precision.step == step
    assert precision.steps == clip / precision.step
    assert precision.bytes_per_parameter == bits // 8


@pytest.mark.parametrize(("bits", "about"), [(16, 1e-4), (32, 1e-9)])
def test_the_figures_of_the_protocol(bits: int, about: float) -> None:
    """Section 5: at C = 1, n = 10 the mean is off by about 1e-4 at 16 bits and 1e-9 at 32 bits."""
    error = precision_of(sites=10, clip=1.0, modulus_bits=bits).error_of_mean(10)
    assert about / 2 < error < about * 2


def test_the_error_of_a_weighted_mean_grows_as_the_weights_shrink() -> None:
    precision = precision_of(sites=4, clip=1.0, modulus_bits=32)
    assert precision.error_of_mean(4) == math.sqrt(4) * precision.step / 8
    assert precision.error_of_mean(4, 0.4) == pytest.approx(10 * precision.error_of_mean(4))


def test_a_ring_without_a_single_step_is_refused() -> None:
    with pytest.raises(EncodingOverflow):
        precision_of(sites=40_000, clip=1.0, modulus_bits=16)


def test_the_line_for_the_author() -> None:
    assert precision_line(HEART) == (
        "updates travel in steps of 1.5e-08 (32 bits, 4 hospitals); "
        "rounding adds at most 4.3e-09 (root mean square) to the mean of 3"
    )


def test_the_line_speaks_of_the_worst_clip_and_the_lightest_hospitals() -> None:
    study = changed(HEART, "aggregation", modulus_bits=16, tensor_clips={"0.bias": 0.25}, max_patients_per_site=8000)
    study = changed(study, "training", weighting="patients")
    step = 2.0**-10
    error = math.sqrt(3) * step / (2 * 3 * HEART.data.minimum_patients / 8000)
    assert precision_line(study) == (
        f"updates travel in steps of {2.0**-13 / 2:.2g} to {step:.2g} (16 bits, 4 hospitals); rounding adds at most "
        f"{error:.2g} (root mean square) to the mean of 3, if each declares {HEART.data.minimum_patients} patients"
    )

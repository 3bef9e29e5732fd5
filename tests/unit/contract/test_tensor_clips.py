"""Clips by parameter: which patterns fit which parameters, and how neighbours with one clip share a stretch."""

import numpy as np
import pytest

from consortium.contract.tensor_clips import (
    STRETCHES_MAX,
    ClippedStretch,
    TensorClipsRefused,
    clipped_stretches,
    misfits_of,
)

MLP = (("0.bias", (8,)), ("0.weight", (8, 5)), ("2.bias", (1,)), ("2.weight", (1, 8)))


def cut(clips, parameters=MLP):
    return [(stretch.length, stretch.clip) for stretch in clipped_stretches(parameters, 4.0, clips)]


@pytest.mark.parametrize(
    ("clips", "expected"),
    [
        ({}, [(57, 4.0)]),
        ({"0.weight": 0.5}, [(8, 4.0), (40, 0.5), (9, 4.0)]),
        ({"0.*": 0.5}, [(48, 0.5), (9, 4.0)]),
        ({"*.bias": 0.5}, [(8, 0.5), (40, 4.0), (1, 0.5), (8, 4.0)]),
        ({"*.bias": 0.5, "*.weight": 0.5}, [(57, 0.5)]),
        ({"*": 4.0}, [(57, 4.0)]),
        ({"0.weight": 0.5, "2.bias": 0.5}, [(8, 4.0), (41, 0.5), (8, 4.0)]),
        ({"*": 1e-9}, [(57, 1e-9)]),
    ],
)
def test_neighbours_with_one_clip_share_a_stretch(clips, expected):
    assert cut(clips) == expected


def test_every_value_lies_in_the_stretch_with_its_clip():
    clips = {"*.bias": 0.5, "2.weight": 2.0}
    by_value = np.concatenate([np.full(length, clip) for length, clip in cut(clips)])
    start = 0
    for name, shape in MLP:
        stop = start + int(np.prod(shape))
        expected = 0.5 if name.endswith(".bias") else clips.get(name, 4.0)
        assert (by_value[start:stop] == expected).all(), name
        start = stop
    assert start == len(by_value)


def test_the_order_of_the_patterns_means_nothing():
    assert cut({"2.*": 1.0, "0.*": 2.0}) == cut({"0.*": 2.0, "2.*": 1.0}) == [(48, 2.0), (9, 1.0)]


def test_a_parameter_without_values_makes_no_stretch():
    parameters = (("a", (2,)), ("b", (0, 3)), ("c", (4,)))
    assert cut({"b": 1.0}, parameters) == [(6, 4.0)]


def test_only_the_star_is_special():
    parameters = (("a.b", (1,)), ("axb", (1,)))
    assert cut({"a.b": 1.0}, parameters) == [(1, 1.0), (1, 4.0)]
    assert cut({"a*b": 1.0}, parameters) == [(2, 1.0)]
    assert cut({"A*": 1.0, "a*": 2.0}, (*parameters, ("A", (1,)))) == [(2, 2.0), (1, 1.0)]


def test_a_pattern_that_names_nothing_is_refused_with_the_names_there_are():
    (misfit,) = misfits_of(MLP, 4.0, {"0.*": 1.0, "clasifier.*": 1.0})
    assert misfit.pattern == "clasifier.*"
    assert misfit.found == "a name that no parameter of the network has"
    assert misfit.allowed == "one of 0.bias, 0.weight, 2.bias, 2.weight"


def test_a_long_list_of_names_is_cut_short():
    parameters = tuple((f"layer{number:03}", (1,)) for number in range(100))
    (misfit,) = misfits_of(parameters, 4.0, {"none": 1.0})
    assert misfit.allowed.endswith("layer005 and 94 more")


def test_a_parameter_named_twice_is_refused_and_says_by_whom():
    (misfit,) = misfits_of(MLP, 4.0, {"0.*": 1.0, "*.weight": 1.0, "2.bias": 1.0})
    # Patterns are looked at in their sorted order; `*` comes before digits.
    assert misfit.pattern == "0.*"
    assert misfit.found == 'the parameter "0.weight", which "*.weight" names too'
    assert misfit.allowed == "every parameter under one name or pattern"


def test_too_many_stretches_are_refused():
    def alternating(pairs):
        return tuple((f"{number:04}.{kind}", (1,)) for number in range(pairs) for kind in ("bias", "weight"))

    assert len(cut({"*.bias": 1.0}, alternating(STRETCHES_MAX // 2))) == STRETCHES_MAX
    (misfit,) = misfits_of(alternating(STRETCHES_MAX // 2 + 1), 4.0, {"*.bias": 1.0})
    assert misfit.pattern == ""
    assert str(STRETCHES_MAX + 2) in misfit.found


def test_the_error_names_every_place_and_says_what_to_do():
    with pytest.raises(TensorClipsRefused) as caught:
        clipped_stretches(MLP, 4.0, {"*": 1.0, "0.weight": 1.0, "head": 1.0})
    lines = str(caught.value).splitlines()
    assert lines[0] == "the study's clips do not fit its network:"
    assert [problem.path for problem in caught.value.problems] == [
        "aggregation.tensor_clips.0.weight",
        "aggregation.tensor_clips.head",
    ]
    assert "aggregation.tensor_clips" in caught.value.advice()


def test_a_stretch_is_a_plain_value():
    assert ClippedStretch(length=3, clip=1.0) == ClippedStretch(length=3, clip=1.0)

"""What a section allows, in words; and rules that also run when other parts are wrong."""

import pickle
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Annotated, Any, ClassVar, Literal

import pytest
from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import Field, ValidationError

from consortium.contract.errors import DocumentInvalid, FileInvalid, Problem, shown
from consortium.contract.schema import (
    Finding,
    NotYet,
    Path,
    Rule,
    RulesBroken,
    Section,
    Words,
    describe,
    dotted,
    problems_of,
)


class Circle(Section):
    shape: Literal["circle"]
    radius: Annotated[float, Gt(0)]


class Box(Section):
    shape: Literal["box"]
    sides: tuple[float, float]


Shape = Annotated[Circle | Box, Field(discriminator="shape")]


def ordered(low: int, high: int) -> Iterator[Finding]:
    if low >= high:
        yield Finding("low", str(low), f"less than {high}")


class Bounds(Section):
    low: int
    high: int = 10
    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("low", "high"), check=ordered),)


def small(shape: Circle | Box, high: int) -> Iterator[Finding]:
    if isinstance(shape, Circle) and shape.radius > high:
        yield Finding("shape.radius", str(shape.radius), f"at most {high}")


class Drawing(Section):
    name: str
    shape: Shape
    bounds: Bounds
    more: Mapping[Annotated[str, Words("a short name")], Shape] = {}
    when: date | None = None
    rules: ClassVar[tuple[Rule, ...]] = (Rule(reads=("shape", "bounds.high"), check=small),)


GOOD: dict[str, Any] = {"name": "x", "shape": {"shape": "circle", "radius": 1}, "bounds": {"low": 1}}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Annotated[float, Gt(0), Le(1)], "a number greater than 0 and at most 1"),
        (Annotated[float, Ge(0), Lt(1)], "a number at least 0 and less than 1"),
        (Annotated[int, Ge(1), Le(9)], "a whole number from 1 to 9"),
        (Annotated[int, Ge(1)], "a whole number at least 1"),
        (int, "a whole number"),
        (bool, "true or false"),
        (str, "text"),
        (date | None, "a date such as 2027-12-31, without quotes"),
        (Literal["a"], "a"),
        (Literal["a", "b"], "one of a, b"),
        (Annotated[Literal["a"], NotYet(("b", "c"))], "a (b and c: not available in this version)"),
        (tuple[float, float], "a list of 2, each a number"),
        (Annotated[tuple[int, ...], Len(3, 9)], "a list of 3 to 9, each a whole number"),
        (Annotated[tuple[int, ...], Len(3)], "a list of at least 3, each a whole number"),
        (Annotated[str, Words("outer"), Words("outermost")], "outermost"),
        (Circle, "a section with the keys shape, radius"),
        (Shape, "a section whose shape is one of circle, box"),
        (Mapping[str, int], "a section of your own names, for each a whole number"),
    ],
)
def test_types_in_words(kind: object, words: str) -> None:
    assert describe(kind) == words


@pytest.mark.parametrize(
    ("change", "path", "found", "allowed"),
    [
        ({"name": None}, "name", "nothing", "text"),
        ({"name": 1}, "name", "1", "text"),
        ({"name": True}, "name", "true", "text"),
        ({"when": "2027-01-01"}, "when", '"2027-01-01"', "a date such as 2027-12-31, without quotes"),
        ({"shape": {"shape": "ball"}}, "shape.shape", '"ball"', "one of circle, box"),
        ({"shape": {}}, "shape.shape", "nothing", "one of circle, box"),
        ({"shape": {"shape": 3}}, "shape.shape", "3", "one of circle, box"),
        ({"shape": "circle"}, "shape", '"circle"', "a section whose shape is one of circle, box"),
        ({"shape": {"shape": "circle", "radius": -1}}, "shape.radius", "-1", "a number greater than 0"),
        ({"shape": {"shape": "circle"}}, "shape.radius", "nothing", "a number greater than 0"),
        ({"shape": {"shape": "box", "sides": (1,)}}, "shape.sides", "a list of 1", "a list of 2, each a number"),
        ({"shape": {"shape": "box", "sides": (1, "b")}}, "shape.sides[1]", '"b"', "a number"),
        ({"shape": {"shape": "box", "sides": (1, 2), "radius": 1}}, "shape.radius", "an unknown key", "shape, sides"),
        ({"bounds": ()}, "bounds", "a list of 0", "a section with the keys low, high"),
        ({"bounds": {"low": 10}}, "bounds.low", "10", "less than 10"),
        ({"more": {"a": {"shape": "circle", "radius": 0}}}, "more.a.radius", "0", "a number greater than 0"),
        (
            {"more": {"a": {"shape": "circle", "radios": 1, "radius": 1}}},
            "more.a.radios",
            "an unknown key",
            "radius (did",
        ),
        ({"nmae": "x"}, "nmae", "an unknown key", "name (did you mean that?); the keys here are name, shape"),
        ({"shape": {"shape": "circle", "radius": 11}}, "shape.radius", "11.0", "at most 10"),
    ],
)
def test_one_wrong_thing(change: dict[str, Any], path: str, found: str, allowed: str) -> None:
    (problem,) = problems_of(Drawing, GOOD | change)
    assert (problem.path, problem.found) == (path, found)
    assert allowed in problem.allowed


def test_nothing_wrong() -> None:
    assert problems_of(Drawing, GOOD) == []


def test_rules_run_on_what_is_right_while_other_parts_are_wrong() -> None:
    wrong = GOOD | {"name": 1, "shape": {"shape": "circle", "radius": 11}, "bounds": {"low": 12, "hihg": 3}}
    assert {problem.path for problem in problems_of(Drawing, wrong)} == {
        "name", "bounds.low", "bounds.hihg", "shape.radius",
    }  # fmt: skip


def test_a_rule_says_nothing_about_values_that_are_themselves_wrong() -> None:
    wrong = GOOD | {"shape": {"shape": "circle", "radius": 11}, "bounds": {"low": "a", "high": "b"}}
    assert {problem.path for problem in problems_of(Drawing, wrong)} == {"bounds.low", "bounds.high"}


def test_rules_hold_for_sections_built_in_code() -> None:
    with pytest.raises(ValidationError) as caught:
        Bounds(low=10, high=1)
    (error,) = caught.value.errors()
    assert isinstance(error["ctx"]["error"], RulesBroken)


def test_sections_are_frozen() -> None:
    bounds = Bounds(low=1)
    with pytest.raises(ValidationError):
        bounds.low = 2  # type: ignore[misc]


def test_lines_of_keys_that_are_not_there_are_those_of_the_section_around_them() -> None:
    lines: dict[Path, int] = {(): 1, ("name",): 1, ("shape",): 4, ("shape", "shape"): 5}
    found = problems_of(Drawing, {"name": "x", "shape": {"shape": "circle"}}, lines)
    assert [(problem.path, problem.line) for problem in found] == [("bounds", 1), ("shape.radius", 4)]


def test_paths_as_people_write_them() -> None:
    assert dotted(("sites", "required", 2)) == "sites.required[2]"
    assert dotted(()) == ""
    assert dotted(("a", "x\x1b[2J")) == "a.x\\x1b[2J"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"), (True, "true"), (False, "false"), (-1, "-1"), (120.0, "120"), (0.1, "0.1"),
        (1e300, "1e+300"),
        (float("nan"), "nan"), ("abc", '"abc"'), ((1, 2), "a list of 2"), ({}, "an empty section"),
        ({"a": 1, "b": 2}, "a section with the keys a, b"), (date(2027, 1, 2), "2027-01-02"),
        (10**200, "a whole number of more than 80 digits"), ("a\x1b\u202e", '"a\\x1b\\u202e"'),
    ],
)  # fmt: skip
def test_values_as_people_see_them(value: object, text: str) -> None:
    assert shown(value) == text


def test_long_values_are_cut() -> None:
    assert len(shown("x" * 10_000)) == 80


def test_errors_say_everything_and_survive_a_trip_between_processes(tmp_path: Any) -> None:
    problem = Problem(path="privacy.epsilon", line=31, found="-1", allowed="a number greater than 0")
    assert str(problem) == "line 31, privacy.epsilon: found -1; allowed: a number greater than 0"
    for error in (FileInvalid(tmp_path, [problem]), DocumentInvalid("round plan", [problem])):
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.problems) == (str(error), (problem,))
        assert str(problem) in str(error)
        assert error.advice()

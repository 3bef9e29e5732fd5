"""Reading YAML: the subset we mean, where everything stands, and what is refused."""

import os
from datetime import date
from pathlib import Path
from typing import Annotated

import pytest
from annotated_types import Gt

from consortium.contract import yaml_file
from consortium.contract.errors import FileInvalid, Problem
from consortium.contract.schema import Section


class Inner(Section):
    number: Annotated[float, Gt(0)]
    whole: int = 1


class Outer(Section):
    name: str
    inner: Inner


def problems(tmp_path: Path, raw: bytes | str) -> list[Problem]:
    file = tmp_path / "file.yaml"
    file.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    with pytest.raises(FileInvalid) as caught:
        yaml_file.load(file, Outer)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("true", True), ("False", False),
        ("yes", "yes"), ("no", "no"), ("on", "on"),
        ("12", 12), ("-3", -3), ("010", 10), ("0x1f", "0x1f"), ("1_000", "1_000"), ("12:30", "12:30"),
        ("0.5", 0.5), (".5", 0.5), ("1.", 1.0), ("1e-3", 1e-3), ("1.0e-3", 1e-3), ("-2E+4", -2e4),
        (".inf", ".inf"), (".nan", ".nan"), ("nan", "nan"), ("1e", "1e"), ("9" * 500, "9" * 500),
        ("2027-12-31", date(2027, 12, 31)), ("2027-02-31", "2027-02-31"), ("2027-12-31 10:00", "2027-12-31 10:00"),
    ],
)  # fmt: skip
def test_plain_words_follow_yaml_1_2(text: str, value: object) -> None:
    found = yaml_file.plain(text)
    assert found == value
    assert type(found) is type(value)


def test_quoted_words_are_text() -> None:
    parsed = yaml_file.parse(b"a: \"1\"\nb: 'true'\nc: |\n  2027-12-31\nd: 2\n")
    assert parsed.data == {"a": "1", "b": "true", "c": "2027-12-31\n", "d": 2}


def test_every_key_and_item_has_its_line() -> None:
    parsed = yaml_file.parse(b"# comment\na: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n")
    assert parsed.data == {"a": 1, "b": ("x", {"c": 2, "d": 3})}
    assert parsed.lines[("a",)] == 2
    assert parsed.lines[("b",)] == 3
    assert parsed.lines[("b", 0)] == 4
    assert parsed.lines[("b", 1, "c")] == 5
    assert parsed.lines[("b", 1, "d")] == 6


def test_a_good_file_loads_and_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    file.write_bytes(b"\xef\xbb\xbfinner: {number: 2}\nname: x\n")
    assert yaml_file.load(file, Outer) == Outer(name="x", inner=Inner(number=2.0))


@pytest.mark.parametrize(
    "case",
    [
        ("name: a\nname: b\ninner: {number: 1}\n", "name", 2, "the same key a second time", "stands on line 1"),
        ("name: a\ninner: {number: 1, number: 2}\n", "inner.number", 2, "the same key a second time", "once"),
        ("name: &a x\ninner: {number: 1}\n", "name", 1, "the anchor or alias &a", "written out"),
        ("name: x\ninner: &i {number: 1}\n", "inner", 2, "the anchor or alias &i", "written out"),
        ("name: !!python/name:os.system x\ninner: {number: 1}\n", "name", 1, "python/name:os.system", "without a tag"),
        ("name: !secret x\ninner: {number: 1}\n", "name", 1, "the tag !secret", "without a tag"),
        ("1: x\nname: x\ninner: {number: 1}\n", "1", 1, "the key 1", "a name as key"),
        ("null: x\nname: x\ninner: {number: 1}\n", "null", 1, "the key nothing", "a name as key"),
        ("[a]: x\nname: x\ninner: {number: 1}\n", "", 1, "a key that is not a name", "a name as key"),
    ],
)
def test_what_plain_yaml_would_hide_is_reported(tmp_path: Path, case: tuple[str, str, int, str, str]) -> None:
    text, path, line, found, allowed = case
    first = problems(tmp_path, text)[0]
    assert (first.path, first.line) == (path, line)
    assert found in first.found
    assert allowed in first.allowed


@pytest.mark.parametrize(
    ("raw", "line", "found"),
    [
        (b"", 1, "nothing"),
        (b"# only a comment\n", 1, "nothing"),
        (b"- a\n- b\n", 1, "a list of 2"),
        (b"just words\n", 1, '"just words"'),
        (b"a: 1\nb: [1, 2\nc: 3\n", 3, "YAML that cannot be read"),
        (b"a: 1\n\tb: 2\n", 2, "YAML that cannot be read"),
        (b"a: b: c\n", 1, "YAML that cannot be read"),
        (b"inner: *nowhere\n", 1, "the anchor or alias *nowhere"),
        (b"a: 1\n--- \nb: 2\n", 2, "a second document"),
        (b"a: 1\nb: \xff\xfe\n", 2, "bytes that are not UTF-8"),
        (b"a: \x1b[2J\n", None, "a control character"),
        (b"[" * 100 + b"]" * 100, 1, "nested too deeply"),
        (b"a: [" + b"1," * 60_000 + b"1]", 1, "too many entries"),
        (b"#" * (yaml_file.FILE_BYTES_MAX + 1), None, "more than 1048576 bytes"),
    ],
)
def test_unreadable_files_are_one_clear_problem(tmp_path: Path, raw: bytes, line: int | None, found: str) -> None:
    first = problems(tmp_path, raw)[0]
    assert found in first.found
    assert first.line == line


def test_a_billion_laughs_is_refused_before_it_is_expanded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert all(
        "anchor or alias" in p.found for p in problems(tmp_path, "\n".join(lines)) if p.allowed.startswith("the v")
    )


def test_problems_of_structure_and_of_values_come_together_sorted_by_line(tmp_path: Path) -> None:
    found = problems(tmp_path, "inner:\n  number: -1\n  whole: 1.5\n  wole: 2\nname: a\nname: b\n")
    assert [(p.line, p.path) for p in found] == [
        (2, "inner.number"), (3, "inner.whole"), (4, "inner.wole"), (6, "name"),
    ]  # fmt: skip
    assert found[2].allowed.startswith("whole (did you mean that?)")


def test_a_spoiled_value_is_reported_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "name: x\ninner: !t\n  number: -1\n")
    assert [(p.path, p.found) for p in found] == [("inner", "the tag !t")]


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_what_is_not_a_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(FileInvalid) as caught:
        yaml_file.load(path, Outer)
    assert caught.value.problems[0].found == ("no such file" if kind == "missing" else "something that is not a file")
    assert str(path) in caught.value.advice()


def test_a_path_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(FileInvalid) as caught:
        yaml_file.load(tmp_path / ("x" * 5000), Outer)
    assert caught.value.problems[0].found == "a file that cannot be opened (File name too long)"


def test_messages_never_carry_terminal_controls(tmp_path: Path) -> None:
    found = problems(tmp_path, 'name: 1\ninner: {number: "\\e[2Jx\\u202e"}\n"\\e]0;x": 1\n')
    assert all(str(problem).isprintable() for problem in found)


def test_quoted_text_reads_back() -> None:
    for text in ("plain", 'a "quoted" b', "back\\slash", "true", "ünïcode", "line\nbreak", "tab\t"):
        assert yaml_file.parse(f"a: {yaml_file.quoted(text)}".encode()).data == {"a": text}

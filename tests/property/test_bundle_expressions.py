"""`$` expressions: whatever text comes, nothing is called that is not on the list, and sums are Python's sums."""

import ast
import builtins
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from consortium.contract import errors
from site_agent.bundles import documents, expressions, references
from site_agent.bundles.checking import check_bundle
from site_agent.bundles.expressions import Checked, ExpressionRefused, check, compute
from site_agent.bundles.reading import BundleFile, BundleFiles
from site_agent.bundles.refusals import BundleRefused
from site_agent.bundles.targets import Kind
from tests.fakes.bundle_folder import METADATA, TRAIN

NOTHING_CALLED = frozenset({*expressions.FUNCTIONS, *expressions.LEFT_OUT_CALLS, "setattr"})

numbers = st.one_of(st.integers(-50, 50), st.floats(-50, 50).map(lambda x: round(x, 3)), st.booleans())
leaves = numbers.map(repr)


def _joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.tuples(
        inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "<", "<=", "==", "!=", "and", "or"])
    )
    return st.one_of(
        st.tuples(binary, inner).map(lambda t: f"({t[0][0]} {t[0][1]} {t[1]})"),
        inner.map(lambda x: f"(-{x})"),
        inner.map(lambda x: f"(not {x})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})"),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"max([{', '.join(parts)}])"),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"[{', '.join(parts)}][0]"),
        st.tuples(inner, st.integers(0, 4)).map(lambda t: f"sum([i * {t[0]} for i in range({t[1]})])"),
        inner.map(lambda x: f"round(abs({x}), 2)"),
    )


arithmetic = st.recursive(leaves, _joined, max_leaves=10)


def nowhere(reference: str) -> Any:
    raise AssertionError(reference)


@given(arithmetic)
@settings(max_examples=200, deadline=None)
def test_it_agrees_with_python(text: str) -> None:
    try:
        found = compute(check(text), nowhere)
    except ExpressionRefused:
        found = None
    try:
        expected = eval(text, {}, {})
    except (ArithmeticError, TypeError, ValueError):
        assert found is None
        return
    if found is not None:
        assert (type(found), repr(found)) == (type(expected), repr(expected))
    else:
        # Refused though Python has a value: only for a bound that some part of it passes.
        assert isinstance(expected, (int, float, bool, complex))
        assert any(sign in text for sign in "*/")


words = st.sampled_from(
    [
        "__import__",
        "os",
        "system",
        "eval",
        "exec",
        "getattr",
        "open",
        "torch",
        "np",
        "monai",
        "glob",
        "lambda",
        "__class__",
        "__globals__",
        "load",
        "device",
        "x",
        "i",
        "for",
        "in",
        "if",
        "else",
        "import",
        "await",
        "yield",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ".",
        ",",
        ":",
        ":=",
        "*",
        "**",
        "+",
        "-",
        "'a'",
        "f'{x}'",
        "@a",
        "@a#0",
        "@",
        "%",
        "1",
        "0",
        "2.5",
        "range",
        "len",
        "sum",
        "list",
        "zip",
        "sorted",
        "setattr",
        "print",
        "=",
        "\\",
        "#",
    ]
)
rubbish = st.one_of(
    st.lists(words, max_size=14).map("".join), st.lists(words, max_size=9).map(" ".join), st.text(max_size=30)
)
calls = st.builds(
    lambda name, args: f"{name}({', '.join(args)})",
    st.one_of(st.sampled_from(sorted(NOTHING_CALLED | set(dir(builtins)))), st.text("abc._@", min_size=1, max_size=8)),
    st.lists(leaves | st.just("@a") | st.just("'os'"), max_size=3),
)


def called(checked: Checked) -> set[str]:
    return {
        expressions.dotted(node.func) or "?"
        for node in ast.walk(checked.body)
        if isinstance(node, ast.Call)
        and not (
            isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.attr in expressions.LEFT_OUT_METHODS
        )
    }


def calls_while(run: Callable[[], object]) -> tuple[set[str], set[str]]:
    """The files of all Python code, and the names of all built-in functions, that run while `run` does."""
    files: set[str] = set()
    functions: set[str] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)
        elif event == "c_call":
            functions.add(argument.__name__)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(before)
    return files, functions


OURS = {expressions.__file__, documents.__file__, __file__, errors.__file__, "<string>"}  # <string>: of dataclasses
NEVER = {"eval", "exec", "compile", "open", "__import__", "import_module", "getattr", "setattr", "system", "loads"}


@given(st.one_of(rubbish, calls, st.tuples(calls, rubbish).map(" + ".join), arithmetic))
@settings(max_examples=300, deadline=None)
def test_nothing_is_called_that_is_not_on_the_list(text: str) -> None:
    with suppress(ExpressionRefused):
        checked = check(text)
        assert called(checked) <= NOTHING_CALLED
        assert not any(
            isinstance(node, (ast.Lambda, ast.JoinedStr, ast.NamedExpr, ast.Await, ast.Yield, ast.Starred))
            for node in ast.walk(checked.body)
        )
        values: list[Any] = []

        def run() -> None:
            with suppress(ExpressionRefused):
                values.append(compute(checked, lambda _: [1, 2]))

        files, functions = calls_while(run)
        others = {file for file in files if "/hypothesis/" in file or file.endswith("/contextlib.py")}
        assert files - others <= OURS  # Hypothesis watches the garbage collector
        assert not functions & NEVER
        assert not (values and checked.left_out)
        assert json.dumps(values, default=lambda part: part.name)


documents_of = st.recursive(
    st.one_of(
        st.none(),
        st.integers(),
        st.floats(),
        st.sampled_from(
            ["$@a", "@a", "%a", "$1+1", "@a#b", "%#x", "@##x", "UNet", "$glob.glob('x')", "%x.json#a", "$"]
        ),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["a", "b", "_target_", "_mode_", "network_def", "loss", "train", "preprocessing", "a#b", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def _file(name: str, value: object) -> BundleFile:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return BundleFile(name=name, size_bytes=len(raw), sha256="0" * 64, content=raw)


def _files(train: object) -> BundleFiles:
    return BundleFiles(files=(_file("configs/metadata.json", METADATA), _file("configs/train.json", train)))


@given(st.one_of(documents_of, st.dictionaries(st.sampled_from(sorted(TRAIN)), documents_of).map(TRAIN.__or__)))
@settings(max_examples=60, deadline=None)
def test_any_configuration_is_taken_or_refused_with_places(train: object) -> None:
    refused: BundleRefused | None = None
    try:
        assert check_bundle(_files(train)).network.target.kind is Kind.NETWORK
    except BundleRefused as error:
        refused = error
    assert refused is None or (refused.findings and all(str(finding) for finding in refused.findings))


@given(st.binary(max_size=60) | st.text('{}[]":,0ab$@%#\n ', max_size=60).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for name in ("configs/train.json", "configs/train.yaml"):
        try:
            found = documents.parse(_file(name, raw))
        except BundleRefused:
            continue
        assert isinstance(found, dict)


@given(documents_of)
@settings(max_examples=80, deadline=None)
def test_macros_end(config: object) -> None:
    try:
        resolved = references.resolve("configs/train.json", {"a": config, "x": 1})
    except BundleRefused:
        return
    assert not any(isinstance(value, str) and value.startswith("%") for _, value in documents.walk(resolved))

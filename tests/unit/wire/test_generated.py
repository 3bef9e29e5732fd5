"""The committed modules are what the schema says, and every field of the schema states its bound."""

import re
from pathlib import Path

import pytest

from consortium.wire import generate


def test_the_generated_modules_match_the_schema(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="only developers have the compiler")
    generate.generate(tmp_path)
    for name in generate.GENERATED:
        committed = generate.ROOT / "consortium/wire" / name
        message = f"{name} is stale: run `python -m consortium.wire.generate`"
        assert (tmp_path / "consortium/wire" / name).read_bytes() == committed.read_bytes(), message


def test_a_schema_that_does_not_compile_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc_tools", reason="only developers have the compiler")
    monkeypatch.setattr(generate, "SCHEMA", "consortium/wire/none.proto")
    with pytest.raises(RuntimeError, match="does not compile"):
        generate.generate(tmp_path)


def test_every_scalar_field_has_a_comment() -> None:
    schema = (generate.ROOT / generate.SCHEMA).read_text(encoding="utf-8")
    fields = re.findall(r"^  (?:repeated )?(?:string|bytes|u?int\d+) \w+ = \d+;(.*)$", schema, re.MULTILINE)
    assert len(fields) > 60
    assert all(comment.strip().startswith("//") for comment in fields)

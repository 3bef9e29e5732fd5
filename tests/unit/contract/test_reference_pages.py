"""The reference pages say what the models enforce: one row for every key, with the same words and defaults."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest

from consortium.contract import schema
from consortium.contract.errors import shown
from consortium.contract.schema import Section
from consortium.contract.study import StudyFile
from consortium.coordinator_file import CoordinatorFile, load_coordinator_file, render
from site_agent.site_file import SiteFile, load_site_file

ROOT = Path(__file__).parents[3]


def rows(model: type[Section], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, what is allowed, default: one row for every key that takes a value, sections opened up.

    Entries of a section of the author's own names stand under `*`; a union of sections gives the keys of each member,
    its own tag first. A member that several tags name stands without them.
    """
    for key, field in schema.keys_of(model).items():
        yield from _rows(f"{prefix}{key}", *schema._field_type(field), _default(field))


def _rows(path: str, kind: Any, metadata: tuple[object, ...], default: str) -> Iterator[tuple[str, str, str]]:
    union = schema._tagged(kind, metadata)
    if union is not None:
        tag, members = union
        yield f"{path}.{tag}", schema._choice(list(members)), "required"
        sections = list(members.values())
        for value, member in members.items():
            if sections.count(member) > 1 and value != next(v for v, m in members.items() if m is member):
                continue
            prefix = f"{path}." if sections.count(member) > 1 else f"{path}[{value}]."
            for row in rows(member, prefix):
                if row[0] != f"{prefix}{tag}":
                    yield row
    elif isinstance(kind, type) and issubclass(kind, Section):
        yield from rows(kind, f"{path}.")
    elif get_origin(kind) is Mapping or (isinstance(get_origin(kind), type) and issubclass(get_origin(kind), Mapping)):
        yield from _rows(f"{path}.*", *schema._unwrap(get_args(kind)[1], ()), default)
    else:
        yield path, schema.describe(kind, metadata), default


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    return "[" + ", ".join(map(str, value)) + "]" if isinstance(value, tuple) else shown(value)


@pytest.mark.parametrize(
    ("page", "model"), [("study", StudyFile), ("site", SiteFile), ("coordinator", CoordinatorFile)]
)
def test_every_key_has_its_row(page: str, model: type[Section]) -> None:
    text = (ROOT / f"docs/reference/{page}-file.md").read_text()
    expected = [f"| `{path}` | {allowed} | {default} | " for path, allowed, default in rows(model)]
    assert [row for row in expected if row not in text] == []
    assert text.count("\n| `") >= len(expected)


def test_coordinator_example_is_what_init_writes() -> None:
    example = ROOT / "configs/coordinator.example.yaml"
    assert example.read_text() == render(name="cardio", address="hub.example.org:8443")
    assert load_coordinator_file(example).name == "cardio"


def test_coordinator_example_states_every_option_with_its_default() -> None:
    file = load_coordinator_file(ROOT / "configs/coordinator.example.yaml")
    assert file.model_fields_set == set(CoordinatorFile.model_fields)
    for name, field in CoordinatorFile.model_fields.items():
        assert field.is_required() or getattr(file, name) == field.default, name


def test_site_example_states_every_option_with_its_default() -> None:
    file = load_site_file(ROOT / "configs/site.example.yaml")
    sections = [file, file.policy, file.datasets["cardiology"]]
    for section in sections:
        assert section.model_fields_set == set(type(section).model_fields)
        for name, field in type(section).model_fields.items():
            if not field.is_required() and name not in ("policy", "coordinator"):
                assert getattr(section, name) == field.default, name

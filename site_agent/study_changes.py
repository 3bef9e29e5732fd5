"""What is different between two documents of one study, by YAML path: for who knows the earlier one (pure)."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

VALUE_MAX = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One value that is not what it was; None where there is none."""

    path: str
    before: str | None
    now: str | None


def changes(before: bytes, now: bytes) -> tuple[Change, ...]:
    """Every path whose value differs between two canonical documents, in the order of the later one.

    | before | now | path | says |
    |---|---|---|---|
    | `privacy: {epsilon: 1}` | `privacy: {epsilon: 2}` | privacy.epsilon | 1 -> 2 |
    | `sites: {minimum: 3}` | `sites: {}` | sites.minimum | 3 -> nothing |
    """
    old, new = dict(_values(json.loads(before))), dict(_values(json.loads(now)))
    paths = [*new, *(path for path in old if path not in new)]
    return tuple(
        Change(path=path, before=old.get(path), now=new.get(path)) for path in paths if old.get(path) != new.get(path)
    )


def _values(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each value with its path; a list of plain values is one value, for its items have no names."""
    if isinstance(value, dict) and value:
        for key, one in value.items():
            yield from _values(one, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
        for index, one in enumerate(value):
            yield from _values(one, f"{path}[{index}]")
    else:
        text = json.dumps(value, ensure_ascii=False)
        yield path, text if len(text) <= VALUE_MAX else f"{text[: VALUE_MAX - 3]}..."

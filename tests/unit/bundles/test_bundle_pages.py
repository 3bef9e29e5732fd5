"""The reference page of bundles lists what the allow-lists hold, and no more."""

import re
from pathlib import Path

from site_agent.bundles import expressions, targets

PAGE = (Path(__file__).parents[3] / "docs/reference/bundles.md").read_text()


def test_every_target_has_its_row_with_its_arguments() -> None:
    lists, _, left_out = PAGE.partition("### Networks")[2].partition("## Left out")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", lists, re.MULTILINE))
    known = {target.name: target for target in targets.TARGETS.values()}
    assert sorted(rows) == sorted(known)
    for name, target in known.items():
        assert rows[name] == (", ".join(f"`{argument}`" for argument in target.arguments) or "none")
    shown = set(re.findall(r"`([\w.]+)`", left_out.partition("## In a study")[0]))
    short = {name for name in targets.LEFT_OUT if "." not in name or name.startswith("ignite")}
    assert shown == short


def test_every_function_and_call_of_an_expression_is_named() -> None:
    text = PAGE.partition("## Expressions")[2].partition("## What is used")[0]
    assert [name for name in expressions.FUNCTIONS if f"`{name}`" not in text] == []
    calls = {*expressions.LEFT_OUT_CALLS, *(f"@x.{name}()" for name in expressions.LEFT_OUT_METHODS)}
    rows = text.partition("| call |")[2]
    assert sorted(name for name in calls if f"`{name}`" not in rows) == []
    assert len(re.findall(r"`[\w.@]+(?:\(\))?`", rows.partition("| `setattr")[0])) == len(calls)

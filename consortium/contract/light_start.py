"""How a program that runs for months starts: without what only a command line, or a person at a terminal, needs.

`consortium serve` and `site-agent run` would otherwise keep typer, rich, pygments and every other command in memory for
as long as they run, six megabytes of each. So a line that is spelled plainly is read here. Whatever else a line says,
and whatever is wrong with it, is for `cli.py`, which knows all of it and how to explain it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DRAIN_S, DRAIN_MAX_S = 30.0, 86_400
"""How long a round may take to its end, once its program is told to stop: unless somebody says, and at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainLine:
    """What a plain command line asks for."""

    home: Path
    drain_s: float
    switched: bool


def plain_line(words: Sequence[str], command: str, switch: str) -> PlainLine | None:
    """Read `COMMAND --home FOLDER [--drain SECONDS] [SWITCH]`, options in any order, each once, `--home=FOLDER` too.

    Args:
        words: Of the command line, without the program's name.
        command: The command that may be meant.
        switch: Its one option without a value, such as `--standby`.

    Returns:
        None for every other line, right or wrong.
    """
    if not words or words[0] != command:
        return None
    found: dict[str, str] = {}
    rest = iter(words[1:])
    for word in rest:
        name, equals, value = word.partition("=")
        if name not in {"--home", "--drain", switch} or name in found or (name == switch and equals):
            return None
        if name != switch and not equals:
            value = next(rest, "")
        if name != switch and (not value or value.startswith("-")):
            return None
        found[name] = value
    try:
        drain_s = float(found.get("--drain", DRAIN_S))
    except ValueError:
        return None
    if "--home" not in found or not 0 <= drain_s <= DRAIN_MAX_S:
        return None
    return PlainLine(home=Path(found["--home"]), drain_s=drain_s, switched=switch in found)


def load_structlog_alone() -> None:
    """Load structlog without rich, which it takes where it finds it; to be called before anything logs.

    structlog would draw tracebacks with it. Ours are text by then, on a terminal too (`wire/fact_log.py`), so rich
    and the pygments behind it, four megabytes, would never be used. A None in `sys.modules` is how Python is told that
    a module is not to be had; afterwards rich can be imported as ever, and `cli.py` does, to say an error.
    """
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401, PLC0415
    finally:
        del sys.modules["rich"]

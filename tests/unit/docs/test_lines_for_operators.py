"""The page for operators names lines that the programs really say."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/how-to/when-something-fails.md"
ROWS = [line.split("|")[1] for line in PAGE.read_text().splitlines() if re.match(r"\| `", line)]
LINES = sorted({span for row in ROWS for span in re.findall(r"`([^`]+)`", row)})
BY_THE_SYSTEM = {"No space left on device", "database or disk is full"}  # libc's words, and SQLite's


def said() -> str:
    """What our sources say: f-strings' braces as the page's dots, literals that are split over lines as one."""
    source = "\n".join(
        path.read_text() for room in ("audit", "consortium", "site_agent") for path in (ROOT / room).rglob("*.py")
    )
    return re.sub(r'"\s*\n\s*f?"', "", source)


SAID = said()


@pytest.mark.parametrize("line", LINES)
def test_every_line_of_the_page_is_said_by_a_program(line: str) -> None:
    for words in BY_THE_SYSTEM:
        line = line.replace(words, "...")
    for part in filter(None, (part.strip(" ()") for part in line.split("..."))):
        assert part in SAID or re.sub(r"^(agent|ledger|consortium)\.db ", "", part) in SAID, part


def test_there_are_lines() -> None:
    assert len(LINES) >= 40

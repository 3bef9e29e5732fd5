"""Text for a page: what the fonts can set, how wide it is, and paragraphs of it for reportlab.

The fonts lie in `audit/report/fonts/` with their licence, so that the same report is the same bytes on every machine.
They cover Latin, Greek, Cyrillic, Armenian and Georgian letters. What they do not have, and what is written from right
to left (its order on a line is beyond this module), is shown by its number, as [U+4E2D]: never as an empty box, never
in an order that its writer did not mean. A character that could reorder or hide others is shown the same way.

A paragraph is made of fragments, not of reportlab's mark-up: whatever an entry holds is text, and nothing reads it as
anything else.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from importlib import resources
from io import BytesIO
from typing import cast

from reportlab.lib.colors import HexColor
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Paragraph
from reportlab.platypus.paraparser import ParaFrag

from audit.report.document import Align, Content, Inline, LeafRef, Span, Tone, leaf_words

PAGE_WIDTH, PAGE_HEIGHT = 595.28, 841.89  # ISO 216 A4, in points (1/72 inch)
LEFT, RIGHT, TOP, BOTTOM = 50.0, 50.0, 58.0, 54.0
WIDTH, ROOM = PAGE_WIDTH - LEFT - RIGHT, PAGE_HEIGHT - TOP - BOTTOM

INK, SOFT, HAIR, WASH = "#1b2430", "#5a6675", "#d5dbe2", "#f5f7f9"
BLUE, GOOD, WARNING, BAD = "#0b5fa5", "#2e6b32", "#8a4b00", "#b3261e"
CREAM, LIMIT = "#fdf8f1", "#444444"
TONES: dict[Tone, str] = {"plain": INK, "soft": SOFT, "good": GOOD, "warning": WARNING, "bad": BAD}

BODY, TABLE, SMALL, FURNITURE = 9.0, 7.8, 7.2, 7.0
"""Sizes of letters, in points."""

_ALIGNMENTS: dict[Align, int] = {"left": 0, "centre": 1, "right": 2}
SPACES = re.compile(r"[ \t\n]+")
"""Where a line may break; a no-break space is none of them."""

_LAST = "\uffff"
"""Beyond it reportlab draws what a font has, but who copies it gets another character."""

_RIGHT_TO_LEFT = {"R", "AL", "AN"}


class Face(StrEnum):
    """A typeface, by the name of its file."""

    REGULAR = "DejaVuSans"
    BOLD = "DejaVuSans-Bold"
    MONO = "DejaVuSansMono"


@lru_cache(maxsize=1)
def fonts() -> Mapping[Face, TTFont]:
    """The fonts, made known to reportlab."""
    folder = resources.files("audit.report").joinpath("fonts")
    found = {face: TTFont(face.value, BytesIO(folder.joinpath(f"{face.value}.ttf").read_bytes())) for face in Face}
    for font in found.values():
        pdfmetrics.registerFont(font)
    return found


@lru_cache(maxsize=len(Face))
def _widths(face: Face) -> Mapping[int, float]:
    return cast("Mapping[int, float]", fonts()[face].face.charWidths)


@lru_cache(maxsize=256)
def colour_of(colour: str) -> HexColor:
    """A colour written #rrggbb."""
    return HexColor(colour)


@lru_cache(maxsize=65_536)
def settable(text: str, face: Face) -> str:
    """The text with every character that the face cannot set, or that a reader could not trust, by its number.

    Spaces and ends of lines stay as they are. Letters and their marks are composed first, since few fonts place marks.
    """
    if text.isascii() and text.isprintable():
        return text
    known = _widths(face)
    return "".join(
        one if one in " \t\n" or (ord(one) in known and one <= _LAST and _plain(one)) else f"[U+{ord(one):04X}]"
        for one in unicodedata.normalize("NFC", text)
    )


def _plain(character: str) -> bool:
    """Whether it stands for itself and nothing else: printed, from left to right, beside the one before."""
    return (
        unicodedata.category(character)[0] not in "CM"
        and unicodedata.category(character) not in ("Zl", "Zp")
        and unicodedata.bidirectional(character) not in _RIGHT_TO_LEFT
    )


@lru_cache(maxsize=65_536)
def width_of(text: str, face: Face, size: float) -> float:
    """Points."""
    known = _widths(face)
    return sum(known[ord(one)] for one in text) * size / 1000


def fitting(text: str, face: Face, size: float, width: float) -> str:
    """The text on one line, cut with an ellipsis where it is wider than `width`."""
    text = settable(SPACES.sub(" ", text.strip()), face)
    if width_of(text, face, size) <= width:
        return text
    known, room, count = _widths(face), (width * 1000 / size) - _widths(face)[0x2026], 0
    for one in text:
        room -= known[ord(one)]
        if room < 0:
            break
        count += 1
    return f"{text[:count]}\u2026"


def piece(text: str, face: Face, size: float, colour: str) -> ParaFrag:
    """Text in one style."""
    return ParaFrag(
        text=settable(text, face),
        fontName=face.value,
        fontSize=size,
        textColor=colour_of(colour),
        rise=0,
        link=[],
        us_lines=[],
    )


def pieces(
    content: Content, size: float, colour: str = INK, face: Face = Face.REGULAR, leaves: tuple[int, ...] = ()
) -> list[ParaFrag]:
    """A text in the report's styles, its leaves after it."""
    found = [_piece(one, size, colour, face) for one in content]
    if leaves:
        words = leaf_words(leaves)
        found.append(piece(f" {words}" if found else words, Face.MONO, size * 0.86, SOFT))
    return found


def _piece(one: Inline, size: float, colour: str, face: Face) -> ParaFrag:
    match one:
        case str():
            return piece(one, face, size, colour)
        case LeafRef():
            return piece(f"#{one.index}", Face.MONO, size * 0.88, SOFT)
        case Span(kind="strong"):
            return piece(one.text, Face.BOLD, size, colour)
        case Span(kind="soft"):
            return piece(one.text, face, size, SOFT)
        case Span(kind="code"):
            return piece(one.text, Face.MONO, size * 0.9, colour)
        case Span(kind="bad"):
            return piece(one.text, Face.BOLD, size, BAD)
        case _:
            raise AssertionError("unreachable")


def paragraph(  # noqa: D417  # the names say the rest
    made_of: Sequence[ParaFrag],
    size: float,
    *,
    leading: float = 1.4,
    align: Align = "left",
    before: float = 0.0,
    after: float = 0.0,
    sign: str | None = None,
    loose: bool = False,
) -> Paragraph:
    """A paragraph: it breaks at spaces, and a word wider than a line (a digest) anywhere.

    Args:
        made_of: its pieces.
        size: of most letters, points.
        leading: from line to line, in sizes.
        before: space above it, points.
        after: space below it.
        sign: a bullet or a number, which stands left of it.
        loose: it may be cut anywhere, as in a cell that is higher than a page.
    """
    style = _style(
        size=size, leading=leading, align=align, before=before, after=after, signed=sign is not None, loose=loose
    )
    return Paragraph("", style, frags=list(made_of) or [piece(" ", Face.REGULAR, size, INK)], bulletText=sign)


@lru_cache(maxsize=256)
def _style(
    *, size: float, leading: float, align: Align, before: float, after: float, signed: bool, loose: bool
) -> ParagraphStyle:
    fonts()
    return ParagraphStyle(
        "report",
        fontName=Face.REGULAR.value,
        fontSize=size,
        leading=size * leading,
        alignment=_ALIGNMENTS[align],
        spaceBefore=before,
        spaceAfter=after,
        leftIndent=18 if signed else 0,
        bulletIndent=2,
        bulletFontName=Face.REGULAR.value,
        bulletFontSize=size,
        bulletColor=colour_of(SOFT),
        allowOrphans=int(loose),
        allowWidows=int(loose),
    )

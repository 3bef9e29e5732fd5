"""A PDF read back by another library than the one that wrote it: what stands where, bookmarks and links."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pdfminer.high_level import extract_pages
from pdfminer.layout import LTChar
from pdfminer.pdfdocument import PDFDocument
from pdfminer.pdfpage import PDFPage
from pdfminer.pdfparser import PDFParser
from pdfminer.pdftypes import resolve1

HEAD, FOOT = 800.0, 45.0
"""Above and below these heights (points from the lower edge) stands what every page has."""


@dataclass(frozen=True)
class Letter:
    """One character and its box, in points from the lower left corner."""

    text: str
    left: float
    bottom: float
    right: float
    top: float


@dataclass(frozen=True)
class PrintedPage:
    """The letters of a page in the order in which they were drawn."""

    letters: tuple[Letter, ...]

    def body(self) -> list[Letter]:
        """Without head and foot."""
        return [one for one in self.letters if FOOT < one.bottom < HEAD]

    def text(self) -> str:
        """All of it, without spaces."""
        return "".join(one.text for one in self.letters).replace(" ", "")

    def lines(self) -> list[str]:
        """From top to bottom, each from left to right, without spaces: what stands at one height is one line."""
        rows: dict[float, list[Letter]] = {}
        for one in self.letters:
            near = next((height for height in rows if abs(height - one.bottom) < 2.5), one.bottom)
            rows.setdefault(near, []).append(one)
        return [
            "".join(one.text for one in sorted(rows[height], key=lambda one: one.left)).replace(" ", "")
            for height in sorted(rows, reverse=True)
        ]


def read(data: bytes) -> list[PrintedPage]:
    """Every page of a PDF."""
    return [
        PrintedPage(tuple(Letter(one.get_text(), one.x0, one.y0, one.x1, one.y1) for one in _letters(page)))
        for page in extract_pages(io.BytesIO(data), laparams=None)
    ]


def _letters(thing: Iterable[Any]) -> Iterator[LTChar]:
    for one in thing:
        if isinstance(one, LTChar):
            yield one
        elif isinstance(one, Iterable):
            yield from _letters(one)


def bookmarks(data: bytes) -> dict[str, int]:
    """Titles of the outline, and the numbers of the pages they lead to."""
    document = PDFDocument(PDFParser(io.BytesIO(data)))
    numbers = {page.pageid: number for number, page in enumerate(PDFPage.create_pages(document), 1)}
    return {title: numbers[resolve1(place)[0].objid] for _, title, place, *_ in document.get_outlines()}


def annotations(data: bytes) -> list[dict[str, Any]]:
    """Everything that a reader of the file can click on."""
    document = PDFDocument(PDFParser(io.BytesIO(data)))
    return [resolve1(one) for page in PDFPage.create_pages(document) for one in resolve1(page.annots) or []]

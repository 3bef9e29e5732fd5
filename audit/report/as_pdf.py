"""A document -> PDF, byte for byte the same whenever it is made from the same document by the same software.

reportlab lays the pages out and writes them (docs/adr/0024). The fonts are embedded, the text can be searched and
copied, sections are bookmarks and the table of contents links to them; charts are vectors. The file has no date but the
document's own, and no identity but a digest of the document. The file is not tagged (PDF/UA): report.html is the form
for screen readers.
"""

import hashlib
import io

from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Flowable, Frame, PageTemplate

from audit.report.document import Document
from audit.report.pdf_blocks import story
from audit.report.pdf_text import (
    BOTTOM,
    FURNITURE,
    HAIR,
    LEFT,
    PAGE_HEIGHT,
    PAGE_WIDTH,
    ROOM,
    SOFT,
    WIDTH,
    Face,
    colour_of,
    fitting,
    fonts,
    settable,
)


def render_pdf(document: Document) -> bytes:
    """report.pdf: A4, for print and for the file.

    Any text of any length can be printed; see `pdf_text` for characters that the fonts lack.
    """
    fonts()
    out = io.BytesIO()
    _Paper(out, document).build([*story(document), _Feet()])
    return out.getvalue()


class _Paper(BaseDocTemplate):  # type: ignore[misc]  # reportlab has no types
    """Pages with a head and a foot, in a file that says what it is."""

    def __init__(self, out: io.BytesIO, document: Document) -> None:
        super().__init__(
            out,
            pagesize=(PAGE_WIDTH, PAGE_HEIGHT),
            pageCompression=1,
            invariant=1,
            lang=document.language,
            title=settable(document.title, Face.REGULAR),
            author=settable(document.kicker, Face.REGULAR),
            subject=settable(document.subject, Face.REGULAR),
            creator="consortium",
            displayDocTitle=1,
        )
        self._document = document
        room = Frame(LEFT, BOTTOM, WIDTH, ROOM, leftPadding=0, rightPadding=0, topPadding=0, bottomPadding=0, id="text")
        self.addPageTemplates(PageTemplate(frames=[room], onPage=self._furniture))

    def beforeDocument(self) -> None:  # noqa: N802  # reportlab's name
        """Neither a clock nor the environment has a say in the file's dates and identity."""
        dated = "".join(one for one in self._document.dated[:19] if one.isdigit())
        self.canv.setDateFormatter(lambda *_: f"D:{dated}Z")
        self.canv._doc.signature = hashlib.md5(repr(self._document).encode(), usedforsecurity=False)  # noqa: SLF001
        self.canv.showOutline()

    def _furniture(self, canvas: Canvas, _: BaseDocTemplate) -> None:
        number, end, base = canvas.getPageNumber(), LEFT + WIDTH, 30
        canvas.saveState()
        canvas.setFont(Face.REGULAR.value, FURNITURE)
        canvas.setFillColor(colour_of(SOFT))
        canvas.setStrokeColor(colour_of(HAIR))
        canvas.setLineWidth(0.5)
        if number > 1:
            canvas.drawString(LEFT, PAGE_HEIGHT - 36, fitting(self._document.subject, Face.REGULAR, FURNITURE, WIDTH))
            canvas.line(LEFT, PAGE_HEIGHT - 43, end, PAGE_HEIGHT - 43)
        canvas.line(LEFT, base + 11, end, base + 11)
        canvas.drawString(LEFT, base, fitting(self._document.footer, Face.REGULAR, FURNITURE, WIDTH - 90))
        canvas.translate(end, base)
        canvas.doForm(_foot(number))
        canvas.restoreState()


class _Feet(Flowable):  # type: ignore[misc]  # reportlab has no types
    """The last thing of all: it knows how many pages there are, and draws what their feet show of it."""

    def wrap(self, *_: float) -> tuple[float, float]:
        """It takes no room."""
        return 0.0, 0.0

    def draw(self) -> None:
        """Called by reportlab on the last page."""
        count = self.canv.getPageNumber()
        for number in range(1, count + 1):
            self.canv.beginForm(_foot(number), -120, -5, 5, 15)
            self.canv.setFont(Face.REGULAR.value, FURNITURE)
            self.canv.setFillColor(colour_of(SOFT))
            self.canv.drawRightString(0, 0, f"Page {number} of {count}")
            self.canv.endForm()


def _foot(number: int) -> str:
    return f"foot-{number}"

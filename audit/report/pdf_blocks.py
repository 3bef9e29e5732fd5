"""The blocks of a document as reportlab's flowables: what is drawn where is then reportlab's business."""

from collections.abc import Iterator, Sequence
from typing import Any, assert_never

from reportlab.platypus import CondPageBreak, Flowable, KeepTogether, Spacer

from audit.report.document import (
    AttendanceChart,
    Block,
    BoxChart,
    Bullets,
    CalibrationChart,
    Callout,
    Chart,
    Document,
    Facts,
    Heading,
    Headline,
    LineChart,
    Listing,
    Paragraph,
    Section,
    Table,
)
from audit.report.pdf_charts import draw
from audit.report.pdf_tables import Grid, caption, printed
from audit.report.pdf_text import (
    BLUE,
    BODY,
    CREAM,
    HAIR,
    INK,
    SMALL,
    SOFT,
    TONES,
    WASH,
    WIDTH,
    Face,
    colour_of,
    fitting,
    paragraph,
    piece,
    pieces,
    settable,
    width_of,
)

_FIRST = 120.0
"""So much of what follows a heading must stand on its page, in points; a chart asks for all of itself."""

_NUMBER = 40.0


class Place(Flowable):  # type: ignore[misc]  # reportlab has no types
    """Where a section begins: a bookmark, an entry of the outline, and the page that the contents name."""

    def __init__(self, section: Section, name: str) -> None:
        super().__init__()
        self._title = settable(f"{section.number} {section.title}", Face.REGULAR)
        self._name, self.spaceBefore = name, 18.0

    def wrap(self, *_: float) -> tuple[float, float]:
        """It takes no room."""
        return 0.0, 0.0

    def draw(self) -> None:
        """Called by reportlab when the page is known."""
        self.canv.bookmarkHorizontal(self._name, 0, 6)
        self.canv.addOutlineEntry(self._title, self._name, level=0)
        # The contents, pages before, show this picture in its place.
        self.canv.beginForm(_page_of(self._name), -60, -5, 5, 15)
        self.canv.setFont(Face.REGULAR.value, BODY)
        self.canv.setFillColor(colour_of(INK))
        self.canv.drawRightString(0, 0, str(self.canv.getPageNumber()))
        self.canv.endForm()


class ContentsLine(Flowable):  # type: ignore[misc]  # reportlab has no types
    """A section and its page, which is a link to it."""

    _HEIGHT = 14.5

    def __init__(self, section: Section, name: str) -> None:
        super().__init__()
        self._section, self._name = section, name

    def wrap(self, *_: float) -> tuple[float, float]:
        """One line."""
        return WIDTH, self._HEIGHT

    def draw(self) -> None:
        """Called by reportlab."""
        canvas, section, base = self.canv, self._section, 4.5
        title = fitting(section.title, Face.REGULAR, BODY, WIDTH - 80)
        canvas.setFont(Face.BOLD.value, BODY)
        canvas.setFillColor(colour_of(BLUE))
        canvas.drawString(0, base, fitting(section.number, Face.BOLD, BODY, 34))
        canvas.setFont(Face.REGULAR.value, BODY)
        canvas.setFillColor(colour_of(INK))
        canvas.drawString(_NUMBER, base, title)
        canvas.setStrokeColor(colour_of(SOFT))
        canvas.setLineWidth(0.5)
        canvas.setDash(0.6, 3)
        canvas.line(_NUMBER + 6 + width_of(title, Face.REGULAR, BODY), base + 1, WIDTH - 22, base + 1)
        canvas.saveState()
        canvas.translate(WIDTH, base)
        canvas.doForm(_page_of(self._name))
        canvas.restoreState()
        canvas.linkRect("", self._name, (0, 0, WIDTH, self._HEIGHT), relative=1)


def _page_of(name: str) -> str:
    """The picture of the number of a place's page."""
    return f"page-of-{name}"


def story(document: Document) -> list[Flowable]:
    """Everything between head and foot, in its order."""
    kicker = piece(fitting(document.kicker.upper(), Face.REGULAR, 8, WIDTH), Face.REGULAR, 8, SOFT)
    made: list[Flowable] = [
        paragraph([kicker], 8, after=6),
        paragraph([piece(document.title, Face.BOLD, 20, INK)], 20, leading=1.25, after=4),
        paragraph(pieces(document.subtitle, BODY + 0.5, SOFT), BODY + 0.5, after=8),
        _rule(),
        Spacer(0, 14),
        *(one for start in range(0, len(document.headlines), 5) for one in _headlines(document.headlines[start:][:5])),
        *_blocks(document.introduction),
    ]
    if document.sections:
        made.append(paragraph([piece("Contents", Face.BOLD, 11.5, INK)], 11.5, before=6, after=4))
        made += [ContentsLine(section, f"section-{place}") for place, section in enumerate(document.sections)]
    for place, section in enumerate(document.sections):
        made += _section(section, f"section-{place}")
    return made


def _rule() -> Flowable:
    return Grid([[""]], colWidths=[WIDTH], rowHeights=[2], style=[("LINEABOVE", (0, 0), (-1, 0), 1.6, colour_of(INK))])


def _headlines(headlines: Sequence[Headline]) -> Iterator[Flowable]:
    """Up to five in a row."""
    gap = 8.0
    width = (WIDTH - gap * (len(headlines) - 1)) / len(headlines)
    values: list[Any] = []
    labels: list[Any] = []
    style: list[Any] = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 9),
        ("RIGHTPADDING", (0, 0), (-1, -1), 8),
        ("TOPPADDING", (0, 0), (-1, 0), 7),
        ("BOTTOMPADDING", (0, 0), (-1, 0), 0),
        ("TOPPADDING", (0, 1), (-1, 1), 1),
        ("BOTTOMPADDING", (0, 1), (-1, 1), 9),
    ]
    widths: list[float] = []
    for one in headlines:
        if widths:
            widths.append(gap)
            values.append("")
            labels.append("")
        column = len(widths)
        widths.append(width)
        large = fitting(one.value, Face.BOLD, 15, width - 18)
        values.append(paragraph([piece(large, Face.BOLD, 15, TONES[one.tone])], 15))
        label = fitting(one.label, Face.REGULAR, SMALL, 12 * width)
        labels.append(paragraph([piece(label, Face.REGULAR, SMALL, SOFT)], SMALL, leading=1.35))
        style += [
            ("BACKGROUND", (column, 0), (column, 1), colour_of(WASH)),
            ("BOX", (column, 0), (column, 1), 0.5, colour_of(HAIR)),
        ]
    yield Grid([values, labels], colWidths=widths, style=style)
    yield Spacer(0, 12)


def _section(section: Section, name: str) -> Iterator[Flowable]:
    number = fitting(section.number, Face.BOLD, 13.5, 60)
    indent = max(_NUMBER, width_of(number, Face.BOLD, 13.5) + 10)
    title = Grid(
        [
            [
                paragraph([piece(number, Face.BOLD, 13.5, BLUE)], 13.5, leading=1.3),
                paragraph([piece(section.title, Face.BOLD, 13.5, INK)], 13.5, leading=1.3, loose=True),
            ]
        ],
        colWidths=[indent, WIDTH - indent],
        style=_BARE,
        spaceAfter=5,
    )
    content = _blocks(section.blocks)
    yield CondPageBreak(50 + _first(content))
    yield Place(section, name)
    yield title
    yield from content


_BARE = [
    ("VALIGN", (0, 0), (-1, -1), "TOP"),
    ("LEFTPADDING", (0, 0), (-1, -1), 0),
    ("RIGHTPADDING", (0, 0), (-1, -1), 0),
    ("TOPPADDING", (0, 0), (-1, -1), 0),
    ("BOTTOMPADDING", (0, 0), (-1, -1), 0),
]


def _blocks(blocks: Sequence[Block]) -> list[Flowable]:
    """All of them; a heading stays with the beginning of what follows it."""
    made: list[Flowable] = []
    for block in reversed(blocks):
        one = _block(block)
        if isinstance(block, Heading):
            one.insert(0, CondPageBreak(24 + _first(made)))
        made = [*one, *made]
    return made


def _first(content: Sequence[Flowable]) -> float:
    """How much of it must stand on the page of its heading."""
    height = 0.0
    for one in content:
        if isinstance(one, CondPageBreak):  # the next heading, which stays with what follows it
            return height or min(one.height, 2 * _FIRST)
        if isinstance(one, KeepTogether):
            return height + float(sum(part.wrap(WIDTH, 10 * _FIRST)[1] for part in one._content))  # noqa: SLF001
        height += one.wrap(WIDTH, 2 * _FIRST)[1]
        if height >= _FIRST:
            return _FIRST
    return height


def _block(block: Block) -> list[Flowable]:
    match block:
        case Paragraph():
            return [paragraph(pieces(block.content, BODY, TONES[block.tone]), BODY, after=5)]
        case Heading():
            return [paragraph([piece(block.text, Face.BOLD, 10, INK)], 10, leading=1.3, before=8, after=4)]
        case Bullets():
            signs = [f"{number}." if block.numbered else "\u2022" for number in range(1, len(block.items) + 1)]
            items = zip(signs, block.items, strict=True)
            return [*(paragraph(pieces(item, BODY), BODY, sign=sign, after=2) for sign, item in items), Spacer(0, 4)]
        case Callout():
            return _callout(block)
        case Listing():
            return _listing(block)
        case Facts():
            return _facts(block)
        case Table():
            return printed(block)
        case LineChart() | CalibrationChart() | BoxChart() | AttendanceChart():
            return list(_charts(block))
        case _:
            assert_never(block)


def _callout(block: Callout) -> list[Flowable]:
    """A box with a bar at its left; one that is higher than a page goes on, in the same colours, on the next."""
    colour = TONES[block.tone] if block.tone != "plain" else BLUE
    size = BODY - 0.3
    rows = [
        paragraph([piece(block.title, Face.BOLD, 10, INK)], 10, loose=True),
        *(paragraph(pieces(content, size), size, loose=True) for content in block.paragraphs),
        *(
            paragraph(pieces(item, size), size, sign=f"{number}.", loose=True)
            for number, item in enumerate(block.items, 1)
        ),
    ]
    ground = CREAM if block.tone in ("warning", "bad") else WASH
    style = [
        ("BACKGROUND", (0, 0), (-1, -1), colour_of(ground)),
        ("LINEBEFORE", (0, 0), (0, -1), 3, colour_of(colour)),
        ("LEFTPADDING", (0, 0), (-1, -1), 14),
        ("RIGHTPADDING", (0, 0), (-1, -1), 12),
        ("TOPPADDING", (0, 0), (-1, -1), 1.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 1.5),
        ("TOPPADDING", (0, 0), (-1, 0), 8),
        ("BOTTOMPADDING", (0, -1), (-1, -1), 9),
    ]
    return [KeepTogether([Grid([[one] for one in rows], colWidths=[WIDTH], style=style, spaceBefore=6, spaceAfter=10)])]


def _listing(block: Listing) -> list[Flowable]:
    """Lines in a fixed pitch, which keep their spaces."""
    lines = [line.replace("\t", "    ").replace(" ", "\u00a0") for line in block.text.split("\n")]
    style = [
        ("BACKGROUND", (0, 0), (-1, -1), colour_of(WASH)),
        ("BOX", (0, 0), (-1, -1), 0.5, colour_of(HAIR)),
        ("LEFTPADDING", (0, 0), (-1, -1), 10),
        ("RIGHTPADDING", (0, 0), (-1, -1), 10),
        ("TOPPADDING", (0, 0), (-1, -1), 0),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 0),
        ("TOPPADDING", (0, 0), (-1, 0), 5),
        ("BOTTOMPADDING", (0, -1), (-1, -1), 6),
    ]
    rows = [[paragraph([piece(one, Face.MONO, SMALL, INK)], SMALL, leading=1.45, loose=True)] for one in lines]
    return [Grid(rows, colWidths=[WIDTH], style=style, spaceBefore=2, spaceAfter=8)]


def _facts(block: Facts) -> list[Flowable]:
    """Names at the left, what they are beside them."""
    if not block.rows:
        return []
    names = [fitting(one.name, Face.REGULAR, BODY, 8 * 150) for one in block.rows]
    width = min(150.0, max(width_of(name, Face.REGULAR, BODY) for name in names) + 0.1)
    rows = [
        [
            paragraph([piece(name, Face.REGULAR, BODY, SOFT)], BODY, loose=True),
            paragraph(pieces(one.content, BODY, leaves=one.leaves), BODY, loose=True),
        ]
        for name, one in zip(names, block.rows, strict=True)
    ]
    style = [*_BARE, ("BOTTOMPADDING", (0, 0), (-1, -1), 1.5), ("RIGHTPADDING", (0, 0), (0, -1), 16)]
    widths = [width + 16, WIDTH - width - 16]
    return [Grid(rows, colWidths=widths, style=style, spaceBefore=2, spaceAfter=6)]


def _charts(chart: Chart) -> Iterator[Flowable]:
    """A chart stays whole, unless it has more rows than a page: then it goes on with the rest of them."""
    for part in _parts(chart):
        yield KeepTogether([caption(part.caption), draw(part, WIDTH)])
        yield Spacer(0, 8)


def _parts(chart: Chart) -> Iterator[Chart]:
    match chart:
        case BoxChart():
            for start in range(0, len(chart.rows), 14):
                yield BoxChart(caption=chart.caption, rows=chart.rows[start : start + 14])
        case AttendanceChart():
            for first in range(0, len(chart.rounds), 100):
                for start in range(0, len(chart.sites), 30):
                    yield AttendanceChart(
                        caption=chart.caption,
                        sites=chart.sites[start : start + 30],
                        rounds=chart.rounds[first : first + 100],
                    )
        case _:
            yield chart

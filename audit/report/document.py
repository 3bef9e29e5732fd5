"""A report as data: sections of paragraphs, facts, tables and charts, which HTML and PDF render alike.

What a report says is decided once, in a `Document`; how a page looks is the renderer's business. Text is plain Unicode
without mark-up of any language: a renderer escapes it. Where something is read from the log, the indices of its leaves
stand beside it as numbers, so that each renderer shows them in its own way.

    Section(number="R7", title="Privacy", blocks=(
        Paragraph(content=("The promise is to each ", strong("patient"), ".")),
        Table(
            columns=(Column(title="Hospital"), Column(title="Epsilon", align="right")),
            rows=((cell("north"), cell("1.250", leaves=(17,))),),
        ),
    ))
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Tone: TypeAlias = Literal["plain", "soft", "good", "warning", "bad"]
"""How a reader should take something. Colour alone never carries it: the words say it too."""

Align: TypeAlias = Literal["left", "right", "centre"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Some words of a text that are set apart. A `code` is a digest, a key or a name that a program reads."""

    text: str
    kind: Literal["strong", "soft", "code", "bad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafRef:
    """The index of a log entry, within a text."""

    index: int


Inline: TypeAlias = str | Span | LeafRef
Content: TypeAlias = tuple[Inline, ...]


def strong(text: str) -> Span:
    """Words that must not be missed."""
    return Span(text=text, kind="strong")


def soft(text: str) -> Span:
    """Words beside the point."""
    return Span(text=text, kind="soft")


def code(text: str) -> Span:
    """A digest, a key, a name of a file."""
    return Span(text=text, kind="code")


def bad(text: str) -> Span:
    """Words of alarm."""
    return Span(text=text, kind="bad")


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    """Running text."""

    content: Content
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """The title of what follows, within a section."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bullets:
    """A list, numbered or not."""

    items: tuple[Content, ...]
    numbered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Callout:
    """A box that is read even by those who read nothing else: a title, then paragraphs and a list."""

    title: str
    paragraphs: tuple[Content, ...] = ()
    items: tuple[Content, ...] = ()
    tone: Tone = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Commands or files, line by line, in a fixed pitch."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A name and what it is; `leaves` are where it was read."""

    name: str
    content: Content
    leaves: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Names and values, one below the other."""

    rows: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """One large figure at the top of a report, and what it is."""

    value: str
    label: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column; `weight` is its share of the width beside the others."""

    title: str
    align: Align = "left"
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell; `columns` of them it covers, and `shade` (0 to 1) is how dark its ground is."""

    content: Content = ()
    leaves: tuple[int, ...] = ()
    tone: Tone = "plain"
    columns: int = 1
    shade: float | None = None


def cell(*content: Inline, leaves: Sequence[int | None] = (), tone: Tone = "plain", columns: int = 1) -> Cell:
    """A cell; leaves that are None are left out."""
    known = tuple(leaf for leaf in leaves if leaf is not None)
    return Cell(content=content, leaves=known, tone=tone, columns=columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under named columns.

    Raises:
        ValueError: a row that does not fill the columns.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str | None = None
    first_names_row: bool = False  # the first cell of each row is its heading
    compact: bool = False  # no wider than its content

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            covered = sum(one.columns for one in row)
            if covered != len(self.columns):
                raise ValueError(f"row {number} covers {covered} columns of {len(self.columns)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Named points (x, y), by rising x."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChart:
    """Series over one axis; `limit` is a named horizontal line, `floor` the lowest value shown.

    Raises:
        ValueError: nothing to draw.
    """

    caption: str
    series: tuple[Series, ...]
    unit: str  # what the horizontal axis counts
    limit: tuple[str, float] | None = None
    floor: float | None = None

    def __post_init__(self) -> None:
        if not self.series or not all(one.points for one in self.series):
            raise ValueError("a line chart needs series, and each of them points")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationPoint:
    """One bin: mean score, share of patients with the label, its bounds, patients."""

    score: float
    rate: float
    low: float | None
    high: float | None
    patients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationChart:
    """Observed share over predicted probability, beside the diagonal of a perfect model; both 0 to 1."""

    caption: str
    points: tuple[CalibrationPoint, ...]

    def __post_init__(self) -> None:
        if not self.points:
            raise ValueError("a calibration chart needs points")


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxRow:
    """One distribution between 0 and 1.

    `quantiles` are five, from the lower whisker to the upper, or none; the mean is drawn with its interval.
    """

    name: str
    quantiles: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None
    patients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxChart:
    """Distributions one below the other."""

    caption: str
    rows: tuple[BoxRow, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("a box chart needs rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendance:
    """One attempt at one round. `state` is open, closed or aborted; `dropouts` are (site, phase)."""

    label: str
    state: str
    participants: tuple[str, ...]
    survivors: tuple[str, ...]
    dropouts: tuple[tuple[str, str], ...]

    def part_of(self, site: str) -> Literal["in", "out", "none", "absent"]:
        """In the sum, dropped out, an attempt without a result, or not invited."""
        if site not in self.participants:
            return "absent"
        if site in self.survivors:
            return "in"
        if self.state == "closed" or any(name == site for name, _ in self.dropouts):
            return "out"
        return "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttendanceChart:
    """Who was in which round: sites from top to bottom, rounds from left to right."""

    caption: str
    sites: tuple[str, ...]
    rounds: tuple[Attendance, ...]

    def __post_init__(self) -> None:
        if not self.sites or not self.rounds:
            raise ValueError("an attendance chart needs sites and rounds")


Chart: TypeAlias = LineChart | CalibrationChart | BoxChart | AttendanceChart
Block: TypeAlias = Paragraph | Heading | Bullets | Callout | Listing | Facts | Table | Chart


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One numbered part of a report; `number` is as it is cited, R1 to R14."""

    number: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A whole report."""

    kicker: str  # above the title: who, and what kind of paper
    title: str
    subtitle: Content
    subject: str  # in the head of every page: the study and its digest
    language: str  # BCP 47
    dated: str  # RFC 3339, UTC: when the report was made, as its maker states
    headlines: tuple[Headline, ...]
    introduction: tuple[Block, ...]
    sections: tuple[Section, ...]
    footer: str


def leaves_of(document: Document) -> frozenset[int]:
    """Every leaf index that a document names."""
    blocks = [*document.introduction, *(block for section in document.sections for block in section.blocks)]
    return frozenset(index for block in blocks for index in _leaves(block)) | frozenset(_inline(document.subtitle))


def _leaves(block: Block) -> Iterator[int]:
    match block:
        case Paragraph():
            yield from _inline(block.content)
        case Bullets():
            for item in block.items:
                yield from _inline(item)
        case Callout():
            for item in (*block.paragraphs, *block.items):
                yield from _inline(item)
        case Facts():
            for fact in block.rows:
                yield from (*fact.leaves, *_inline(fact.content))
        case Table():
            for row in block.rows:
                for one in row:
                    yield from (*one.leaves, *_inline(one.content))
        case _:
            pass


def _inline(content: Content) -> Iterator[int]:
    return (one.index for one in content if isinstance(one, LeafRef))


def leaf_words(leaves: Sequence[int]) -> str:
    """Leaf indices in words: #3 #7\u2013#9; three or more neighbours become a range."""
    words: list[str] = []
    for first, last in _runs(leaves):
        if last - first >= 2:
            words.append(f"#{first}\u2013#{last}")
        else:
            words += [f"#{index}" for index in range(first, last + 1)]
    return " ".join(words)


def _runs(leaves: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for index in leaves:
        if runs and index == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    return runs


def plain(content: Content) -> str:
    """A text without its marks; a leaf reads #7."""
    return "".join(_words(one) for one in content)


def _words(one: Inline) -> str:
    match one:
        case str():
            return one
        case Span():
            return one.text
        case LeafRef():
            return f"#{one.index}"

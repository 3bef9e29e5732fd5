"""audit/report/as_pdf.py: the same bytes from the same document, and nothing lost on the way to paper."""

import hashlib
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from reportlab.graphics.shapes import PolyLine, Rect

from audit.report.as_pdf import render_pdf
from audit.report.document import (
    Column,
    Document,
    Fact,
    Facts,
    Heading,
    Paragraph,
    Section,
    Table,
    cell,
    leaf_words,
    leaves_of,
)
from audit.report.pdf_charts import draw
from audit.report.pdf_text import BLUE, LEFT, WIDTH, Face, colour_of, fitting, settable, width_of
from tests.fakes.printed_pdf import FOOT, HEAD, annotations, bookmarks, read
from tests.fakes.sample_document import DIGEST, NAMES, charts, lines_table, sample_document


@pytest.fixture(scope="module")
def data():
    return render_pdf(sample_document())


@pytest.fixture(scope="module")
def pages(data):
    return read(data)


def paper(*blocks):
    """A document of one section."""
    return Document(
        kicker="",
        title="t",
        subtitle=(),
        subject="",
        language="en",
        dated="",
        headlines=(),
        introduction=(),
        sections=(Section(number="R1", title="section", blocks=blocks),),
        footer="",
    )


def two_columns(*rows):
    return Table(columns=(Column(title="a"), Column(title="b")), rows=rows)


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_same_document_is_the_same_bytes_in_every_process():
    here = render_pdf(sample_document(8))
    assert render_pdf(sample_document(8)) == here
    program = (
        "import hashlib; from audit.report import render_pdf; from tests.fakes.sample_document import sample_document;"
        "render_pdf(sample_document(1)); print(hashlib.sha256(render_pdf(sample_document(8))).hexdigest())"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "86400", "TZ": "Asia/Tokyo"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == hashlib.sha256(here).hexdigest()


def test_another_document_is_another_file():
    first, other = sample_document(2), sample_document(3)
    assert render_pdf(first) != render_pdf(other)


def test_the_file_says_what_it_is_and_carries_its_fonts(data):
    assert data.startswith(b"%PDF-1.")
    assert b"/Lang (en)" in data
    assert b"/Title (Heart disease" in data
    assert b"/CreationDate (D:20261123090000Z)" in data
    assert b"/DisplayDocTitle true" in data
    assert data.count(b"/FontFile2") == len(Face)


# --- pages -----------------------------------------------------------------------------------------------------------


def test_the_contents_name_the_pages_of_the_sections(data, pages):
    places = bookmarks(data)
    assert list(places) == ["R1 Scope and parties", "R7 Privacy", "R8 Training"]
    lines = pages[0].lines()
    for title, number in places.items():
        assert f"{title}{number}".replace(" ", "") in lines
        assert title.replace(" ", "") in pages[number - 1].lines()
    assert [one["Subtype"].name for one in annotations(data)] == ["Link"] * 3


def test_every_page_has_its_number_and_the_study(pages):
    for number, page in enumerate(pages, 1):
        assert page.lines()[-1].endswith(f"Page{number}of{len(pages)}")
        assert DIGEST in page.lines()[0] or number == 1


def test_a_long_table_has_its_head_on_each_of_its_pages(pages):
    holding = [page for page in pages if any(line.endswith("Whatitsays") for line in page.lines())]
    rows = [line.split("2026")[0] for page in holding for line in page.lines() if line.startswith("#")]
    assert len(holding) > 1
    assert rows == [f"#{number}" for number in range(60)]


def test_a_row_higher_than_a_page_goes_on(pages):
    assert sum(page.text().count("word") for page in pages) == 3000
    assert sum(page.text().count("x") for page in pages) >= 700


def test_a_row_that_fits_on_a_page_is_not_cut():
    tall = two_columns(*((cell(f"row-{number}"), cell("word " * 330)) for number in range(7)))
    for page in read(render_pdf(paper(tall))):
        assert page.text().count("word") == 330 * page.text().count("row-")


def test_too_many_columns_become_several_tables(pages):
    heads = [part for page in pages for line in page.lines() if "column-" in line for part in line.split("column-")[1:]]
    assert set(heads) == {str(place) for place in range(30)}
    assert heads.count("0") > 1
    assert len(heads) == 29 + heads.count("0")


def test_nothing_stands_outside_its_place(pages):
    for page in pages:
        for one in page.letters:
            assert one.left >= LEFT - 0.01, one
            assert one.right <= LEFT + WIDTH + 0.01 or one.text == " ", one
        assert min(one.bottom for one in page.body()) > FOOT + 3
        assert max(one.top for one in page.body()) < HEAD


@pytest.mark.parametrize("lines", range(46, 56))
def test_a_heading_stands_above_what_it_names(lines):
    """However full the page is: a heading is followed by the head of its table and a row."""
    filler = [Paragraph(content=(f"line {number}",)) for number in range(lines - 15)]
    told = paper(*filler, Heading(text="named"), two_columns(*((cell(f"row-{n}"), cell("text")) for n in range(12))))
    (page,) = [one.lines() for one in read(render_pdf(told)) if "named" in one.lines()]
    assert page[page.index("named") + 1 :][:2] == ["ab", "row-0text"]


@pytest.mark.parametrize("rows", range(38, 44))
def test_a_table_leaves_no_row_alone_on_its_last_page(rows):
    *_, last = read(render_pdf(paper(two_columns(*((cell(f"row-{n}"), cell("text")) for n in range(rows))))))
    assert last.text().count("row-") >= 2


def test_short_tables_and_charts_are_whole():
    short = two_columns(*((cell(f"row-{n}"), cell("text")) for n in range(8)))
    for page in read(render_pdf(paper(*([short] * 9)))):
        assert page.text().count("row-") % 8 == 0


# --- what entries may hold --------------------------------------------------------------------------------------------

HOSTILE = (
    "<b>bold</b> &amp; &lt; <a href='https://example.org/'>link</a> <img src='file:///etc/hostname'/>",
    "<para><font size='900'>large</font> </para> <!-- --> ]]> <unknown/> <br/>",
    "%PDF-1.4 (paren) \\( endstream endobj /JS (app.alert) ET Q",
    "\x00\x07\x1b[31m \u202e\u2066 שלום مرحبا 中文 \U0001f600 \ud800",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_text_whatever_it_looks_like(text):
    told = paper(
        Paragraph(content=(text,)),
        Heading(text=text),
        Facts(rows=(Fact(name=text, content=(text,)),)),
        Table(columns=(Column(title=text), Column(title="b")), rows=((cell(text), cell("x")),), caption=text),
    )
    told = replace(told, kicker=text, title=text, subtitle=(text,), subject=text, footer=text)
    told = replace(told, sections=(*told.sections, Section(number=text, title=text, blocks=())))
    data = render_pdf(told)
    wanted = settable(text, Face.REGULAR).replace(" ", "")
    printed = "".join(page.text() for page in read(data))
    assert printed.count(wanted) >= 4
    assert [one["Subtype"].name for one in annotations(data)] == ["Link"] * 2  # those of the contents
    assert b"/URI" not in data
    assert b"/Image" not in data.replace(b"/ImageB", b"").replace(b"/ImageC", b"").replace(b"/ImageI", b"")


def test_a_word_of_thousands_of_letters_is_printed():
    told = paper(two_columns((cell("y"), cell("x" * 20_000, leaves=(7,)))), Paragraph(content=("z" * 5_000,)))
    printed = "".join(page.text() for page in read(render_pdf(told)))
    assert (printed.count("x"), printed.count("z")) == (20_000, 5_000)


@pytest.mark.parametrize("name", [*NAMES, "Ægir ŐŰ ăâîșț Đặng", "Ελλάδα", "\u2264 \u03b5 \u2013 \u2026"])
def test_names_of_europe_are_set_as_they_are_written(name):
    for face in (Face.REGULAR, Face.BOLD):
        assert settable(name, face) == name


def test_what_cannot_be_set_is_named_by_its_number():
    assert settable("中", Face.REGULAR) == "[U+4E2D]"
    assert settable("\u202egnp.exe", Face.REGULAR) == "[U+202E]gnp.exe"  # would turn the text around
    assert settable("שלום", Face.REGULAR).startswith("[U+05E9]")  # its order on the line is not ours to set
    assert settable("a\u200bb\x00", Face.REGULAR) == "a[U+200B]b[U+0000]"
    assert (
        settable("\U0001f600", Face.REGULAR) == "[U+1F600]"
    )  # there is a picture of it, but it would be copied wrongly
    assert settable("Ko\u0308ln", Face.REGULAR) == "Köln"
    assert settable("a\nb", Face.REGULAR) == "a\nb"


def test_a_name_is_cut_where_it_is_too_long():
    assert fitting("short", Face.REGULAR, 9, 100) == "short"
    cut = fitting("a" * 100, Face.REGULAR, 9, 50)
    assert cut.endswith("\u2026")
    assert 40 < width_of(cut, Face.REGULAR, 9) <= 50


# --- charts ----------------------------------------------------------------------------------------------------------


def many_rounds():
    """As many rounds as one picture holds, with long numbers."""
    (*_, chart) = charts()
    one = chart.rounds[0]
    return replace(chart, rounds=tuple(replace(one, label=str(10_000 + number)) for number in range(100)))


@pytest.mark.parametrize("chart", [*charts(), many_rounds()], ids=lambda chart: type(chart).__name__)
def test_a_chart_stays_in_its_place(chart):
    drawing = draw(chart, WIDTH)
    for shape in drawing.contents:
        left, bottom, right, top = shape.getBounds()
        assert left >= -0.01, shape
        assert right <= WIDTH + 0.01, shape
        assert bottom >= -0.01, shape
        assert top <= drawing.height + 0.01, shape


def test_attendance_fills_a_square_for_each_update_in_the_sum():
    chart = charts()[-1]
    shapes = draw(chart, WIDTH).contents
    squares = [shape for shape in shapes if isinstance(shape, Rect)]
    filled = [shape for shape in squares if shape.fillColor == colour_of(BLUE)]
    assert len(filled) == sum(len(one.survivors) for one in chart.rounds)
    assert len(squares) == sum(len(one.participants) for one in chart.rounds)
    out = [one.part_of(site) for one in chart.rounds for site in chart.sites].count("out")
    assert len([shape for shape in shapes if isinstance(shape, PolyLine)]) == 2 * out


# --- the rest --------------------------------------------------------------------------------------------------------


def test_time_grows_with_the_rows_and_no_faster():
    def spent(rows):
        before = time.process_time()
        render_pdf(paper(lines_table(rows)))
        return time.process_time() - before

    spent(20)
    few, many = spent(60), spent(360)
    assert many / few < 6 * 2.5


def test_leaves_become_ranges():
    assert leaf_words((1, 2, 3, 9, 11, 12)) == "#1\u2013#3 #9 #11 #12"
    assert leaf_words(()) == ""


def test_the_leaves_of_a_document():
    assert {0, 2, 3, 9, 12, 59} <= leaves_of(sample_document())


def test_a_row_must_fill_the_columns():
    with pytest.raises(ValueError, match="row 0 covers 1 columns of 2"):
        two_columns((cell("x"),))

"""Any text, of any length and in any script, is printed: nothing is lost, and nothing stands outside its page."""

from hypothesis import given, settings
from hypothesis import strategies as st

from audit.report.as_pdf import render_pdf
from audit.report.document import (
    Bullets,
    Callout,
    Column,
    Document,
    Fact,
    Facts,
    Heading,
    Paragraph,
    Section,
    Table,
    cell,
)
from audit.report.pdf_text import BODY, LEFT, WIDTH, Face, fitting, settable
from tests.fakes.printed_pdf import FOOT, HEAD, read

NAMES_MAX = 8 * 150

text = st.text(max_size=60) | st.text("ab ", max_size=900) | st.text("0123456789abcdef", min_size=200, max_size=300)
blocks = (
    st.builds(lambda t: Paragraph(content=(t,)), text)
    | st.builds(lambda t: Heading(text=t), text)
    | st.builds(lambda items: Bullets(items=tuple((one,) for one in items)), st.lists(text, max_size=4))
    | st.builds(
        lambda t, items: Callout(title=t, items=tuple((one,) for one in items)), text, st.lists(text, max_size=4)
    )
    | st.builds(lambda name, t: Facts(rows=(Fact(name=name, content=(t,), leaves=(1, 2)),)), text, text)
    | st.integers(1, 5).flatmap(
        lambda columns: st.builds(
            lambda rows: Table(
                columns=tuple(Column(title=f"c{place}") for place in range(columns)),
                rows=tuple(tuple(cell(one) for one in row) for row in rows),
            ),
            st.lists(st.lists(text, min_size=columns, max_size=columns), max_size=5),
        )
    )
)


def document(content):
    return Document(
        kicker="k",
        title="t",
        subtitle=(),
        subject="s",
        language="en",
        dated="2026-11-23T09:00:00.000Z",
        headlines=(),
        introduction=(),
        sections=(Section(number="R1", title="section", blocks=tuple(content)),),
        footer="f",
    )


def letters(words):
    return sorted("".join(words).replace(" ", "").replace("\t", "").replace("\n", ""))


def said(block):
    match block:
        case Paragraph():
            return [block.content[0]]
        case Heading():
            return [block.text]
        case Bullets():
            return [item[0] for item in block.items] + ["\u2022"] * sum(bool(item[0].strip()) for item in block.items)
        case Callout():
            return [block.title, *(item[0] for item in block.items), *(f"{n + 1}." for n in range(len(block.items)))]
        case Facts():
            return [fitting(block.rows[0].name, Face.REGULAR, BODY, NAMES_MAX), block.rows[0].content[0], "#1#2"]
        case _:
            return [one.content[0] for row in block.rows for one in row]


@settings(max_examples=15, deadline=None)
@given(st.lists(blocks, min_size=1, max_size=3))
def test_everything_is_printed_and_within_the_page(content):
    pages = read(render_pdf(document(content)))
    body = [one.text for page in pages for one in page.body()]
    expected = [settable(one, Face.REGULAR) for block in content for one in said(block)]
    bold = any(isinstance(block, Heading | Callout) for block in content)
    tables = any(isinstance(block, Table) for block in content)
    front = ["k".upper(), "t", "Contents", "R1", "section", "1", "R1", "section"]
    if not bold and not tables:  # a face has its own set of characters, and a head stands on every page
        assert letters(body) == letters([*expected, *front])
    for page in pages:
        for one in page.letters:
            assert one.left >= LEFT - 0.01
            assert one.right <= LEFT + WIDTH + 0.01 or one.text.isspace()
        assert all(one.bottom > FOOT + 3 and one.top < HEAD for one in page.body())

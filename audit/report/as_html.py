"""A document -> report.html: one file without scripts, which loads nothing from anywhere and prints well."""

from functools import lru_cache
from importlib import resources

from jinja2 import Environment, StrictUndefined, Template

from audit.report import charts
from audit.report.document import Document, LeafRef, Span
from audit.report.figures import Report
from audit.report.sections import document_of


def render_html(report: Report) -> bytes:
    """report.html of a report."""
    return render_document(document_of(report))


def render_document(told: Document) -> bytes:
    """report.html of a document; text is escaped, whatever it holds."""
    return _page().render(document=told).encode()


@lru_cache(maxsize=1)
def _page() -> Template:
    source = resources.files("audit.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.tests["leaf"] = lambda one: isinstance(one, LeafRef)
    environment.tests["span"] = lambda one: isinstance(one, Span)
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["draw"] = charts.draw
    return environment.from_string(source)

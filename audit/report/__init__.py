"""What the log says about one study, as a report: read it once, then write it as HTML, PDF, JSON and OSCAL.

    report = read_report(entries, study=..., checkpoint=..., document=..., stated=...)
    told = document_of(report)
    render_document(told), render_pdf(told), to_json(report, told)

The parts: `figures` (what is known), `reader` (entries -> figures), `sections` and its neighbours (figures -> a
`Document`, which HTML and PDF render alike), `as_html`, `as_pdf`, `as_json`; the clause matrix:
`clauses`, `oscal`.
"""

from audit.report.as_html import render_document, render_html
from audit.report.as_json import to_json
from audit.report.as_pdf import render_pdf
from audit.report.figures import Report, Stated
from audit.report.oscal import assessment_results
from audit.report.reader import read_report
from audit.report.scope import LIMITS
from audit.report.sections import document_of

__all__ = [
    "LIMITS",
    "Report",
    "Stated",
    "assessment_results",
    "document_of",
    "read_report",
    "render_document",
    "render_html",
    "render_pdf",
    "to_json",
]

"""report.json: the figures that verify.py counts again, and everything else that the report says, for programs.

Its shape is `report.schema.json`, which travels beside it. `figures` are counted again by verify.py, and so is
every leaf that a row of `clauses` names; the rest says in data what the sections say in words.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict

from audit import entries
from audit.fields import Json
from audit.report.assessment import compare
from audit.report.clauses import Row, evaluate, matrix
from audit.report.document import (
    AttendanceChart,
    Block,
    BoxChart,
    Bullets,
    CalibrationChart,
    Callout,
    Content,
    Document,
    Facts,
    Heading,
    LeafRef,
    LineChart,
    Listing,
    Paragraph,
    Table,
    plain,
)
from audit.report.figures import JsonObject, Report, RoundFigures
from audit.report.register import departures, protocol, register
from audit.report.scope import LIMITS
from audit.report.sections import document_of

SCHEMA = "consortium/evidence-report/v2"

LEAVES_SHOWN = 50
"""Of the entries behind one clause; their number is said, and events.ndjson has them all."""


def to_json(report: Report, told: Document | None = None) -> bytes:
    """report.json; `told` is the report's document where the caller has made it already."""
    simplified = protocol(report)
    record: JsonObject = {
        "schema": SCHEMA,
        "figures": figures(report),
        "stated": {
            "exported_at": report.stated.exported_at,
            "exported_by": report.stated.exported_by,
            "software": dict(report.stated.software),
        },
        "limits": list(LIMITS),
        "clauses": [_clause(row) for row in evaluate(matrix(), report)],
        "assessment": [_plain(asdict(row)) for row in compare(report)],
        "register": [_plain(asdict(row)) for row in register(report)],
        "departures": [_plain(asdict(row)) for row in departures(report)],
        "protocol": None if simplified is None else _plain(asdict(simplified) | {"rows": dict(simplified.rows)}),
        "sections": [
            {"number": one.number, "title": one.title, "blocks": [_block(block) for block in one.blocks]}
            for one in (told or document_of(report)).sections
        ],
    }
    return (json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def figures(report: Report) -> JsonObject:
    """What verify.py counts again."""
    head = report.checkpoint
    return {
        "log": {"origin": head.origin, "size": head.size, "root": head.root.hex()},
        "study": {name: value for name, value in asdict(report.study).items() if value is not None},
        "model_digest": report.model_digest,
        "released": [asdict(release) for release in report.released],
        "model_certificate": _model_certificate_json(report.model_certificate),
        "refusals": dict(report.refusals),
        "sites": [asdict(site) for site in report.sites],
        "rounds": [_round_json(one) for one in report.rounds],
        "chosen": _chosen_json(report.chosen),
        "entries": {
            kind: {"count": len(seen.leaves), "first": seen.leaves[0], "last": seen.leaves[-1]}
            for kind, seen in report.seen.items()
        },
    }


def _clause(row: Row) -> JsonObject:
    clause = row.clause
    return {
        "id": clause.id,
        "law": clause.law,
        "clause": clause.clause,
        "asks": clause.asks,
        "section": clause.section,
        "status": row.status.value,
        "reason": row.reason,
        "missing": list(row.missing),
        "beyond": clause.beyond,
        "needs": [{"what": need.what, "entries": list(need.entries)} for need in clause.needs],
        "found": [
            {"type": one.type, "count": len(one.leaves), "leaves": list(one.leaves[:LEAVES_SHOWN])} for one in row.found
        ],
    }


def _plain(value: object) -> Json:
    """A value of dataclasses' `asdict` without tuples."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    assert value is None or isinstance(value, str | int | float)
    return value


def _text(content: Content, leaves: Sequence[int] = ()) -> JsonObject:
    found = [*leaves, *(one.index for one in content if isinstance(one, LeafRef))]
    return {"text": plain(content), "leaves": list(dict.fromkeys(found))}


def _block(block: Block) -> JsonObject:
    match block:
        case Paragraph():
            return {"kind": "paragraph", **_text(block.content)}
        case Heading():
            return {"kind": "heading", "text": block.text}
        case Bullets():
            return {"kind": "list", "items": [_text(item) for item in block.items]}
        case Callout():
            items: list[Json] = [_text(item) for item in (*block.paragraphs, *block.items)]
            return {"kind": "callout", "title": block.title, "items": items}
        case Listing():
            return {"kind": "listing", "text": block.text}
        case Facts():
            rows: list[Json] = [{"name": row.name, **_text(row.content, row.leaves)} for row in block.rows]
            return {"kind": "facts", "rows": rows}
        case Table():
            return {
                "kind": "table",
                "columns": [column.title for column in block.columns],
                "rows": [[_text(one.content, one.leaves) for one in row] for row in block.rows],
            }
        case LineChart() | CalibrationChart() | BoxChart() | AttendanceChart():
            # Its figures are in `figures`, and its points in the entries: a chart only draws them.
            return {"kind": "chart", "text": block.caption}


def _model_certificate_json(found: "tuple[int, entries.ModelCertificate] | None") -> JsonObject | None:
    if found is None:
        return None
    leaf, said = found
    return {
        "leaf": leaf,
        "model_digest": said.model_digest,
        "trust": said.trust,
        "sites": list(said.sites),
        "missing": list(said.missing),
        "epsilon": said.epsilon,
        "delta": said.delta,
        "epsilon_two_sites": said.epsilon_two_sites,
        "delta_two_sites": said.delta_two_sites,
        "epsilon_unmasked": said.epsilon_unmasked,
        "log_size": said.log_size,
    }


def _chosen_json(found: "tuple[int, entries.ModelChosen] | None") -> JsonObject | None:
    if found is None:
        return None
    leaf, said = found
    return {
        "leaf": leaf,
        "round": said.round,
        "model_digest": said.model_digest,
        "metric": said.metric,
        "figure": said.figure,
        "origin": said.origin,
        "reason": said.reason,
    }


def _round_json(one: RoundFigures) -> JsonObject:
    record = asdict(one) | {"metrics": None if one.metrics is None else dict(one.metrics)}
    for name in ("participants", "survivors", "dropouts", "spent"):
        record[name] = list(record[name])
    return record

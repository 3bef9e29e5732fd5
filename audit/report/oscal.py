"""The clause matrix as OSCAL 1.2.1 assessment results, for the programs of those who govern, assess and certify.

oscal-ar.json says what section R14 of the report says: each clause that applies is a control, what the log shows for it
is an observation, and the answer is a finding. OSCAL knows two answers only. A finding is `satisfied` where the matrix
says evidenced; partly and not evidenced are `not-satisfied`, with the matrix's own word in a property and the reason in
the remarks, since a log that shows half of something does not show it. Clauses that do not apply are excluded.

Nothing here is an assessment by a person. Identifiers are UUIDs made from the log's origin, size and root and from the
study, so that the same evidence is the same bytes.

The JSON form: pages.nist.gov/OSCAL, assessment-results model, 1.2.1.
"""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence

from audit.fields import Json
from audit.report.clauses import Found, Row, Status
from audit.report.document import leaf_words
from audit.report.figures import JsonObject, Report
from audit.tiles import WIDTH, Tile

OSCAL_VERSION = "1.2.1"
_MEDIA = {
    "html": "text/html",
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "pdf": "application/pdf",
    "sha256": "text/plain",
}
_LEAVES_MAX = 100
_LINKS_MAX = 8


def assessment_results(
    report: Report, rows: Sequence[Row], *, limits: Sequence[str], digests: Mapping[str, str]
) -> bytes:
    """oscal-ar.json.

    Args:
        report: What was read from the log.
        rows: The clause matrix, held against it.
        limits: What no software can attest, in words.
        digests: SHA-256 in hexadecimal of files of the archive that readers of the findings may want, by name.
    """
    return _Results(report, rows, limits, digests).to_json()


class _Results:
    """One document in the making: the report, and names made from it."""

    def __init__(self, report: Report, rows: Sequence[Row], limits: Sequence[str], digests: Mapping[str, str]) -> None:
        self._report, self._limits, self._digests = report, limits, digests
        self._rows = [row for row in rows if row.status is not Status.NOT_APPLICABLE]
        self._others = [row for row in rows if row.status is Status.NOT_APPLICABLE]
        head = report.checkpoint
        self._namespace = f"https://{head.origin}/oscal"  # of the properties that are ours; nothing is served there
        self._name = "\n".join((head.origin, str(head.size), head.root.hex(), report.study.digest))
        self._receipts = frozenset(report.key_leaves)

    def to_json(self) -> bytes:
        record = {
            "assessment-results": {
                "uuid": self._uuid("assessment-results"),
                "metadata": self._metadata(),
                "import-ap": {
                    "href": f"#{self._uuid('file', 'study.json')}",
                    "remarks": "There is no assessment plan in OSCAL. What was assessed is the study document and the "
                    "log of its execution, by the clause matrix that comes with the software.",
                },
                "results": [self._result()],
                "back-matter": {"resources": list(self._resources())},
            }
        }
        return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()

    def _uuid(self, *what: str) -> str:
        space = uuid.uuid5(uuid.NAMESPACE_URL, self._namespace)
        return str(uuid.uuid5(space, "\n".join((self._name, *what))))

    def _metadata(self) -> JsonObject:
        report = self._report
        coordinator = self._uuid("party", "coordinator")
        sites: list[Json] = [self._uuid("party", "site", site.site) for site in report.sites]
        roles: list[Json] = [{"id": "coordinator", "title": "Coordinator of the consortium, keeper of the log"}]
        parties: list[Json] = [
            {"uuid": coordinator, "type": "organization", "name": _line(report.consortium)},
            *(
                {"uuid": party, "type": "organization", "name": _line(site.site)}
                for party, site in zip(sites, report.sites, strict=True)
            ),
        ]
        responsible: list[Json] = [{"role-id": "coordinator", "party-uuids": [coordinator]}]
        if sites:
            roles.append({"id": "site", "title": "Hospital of the study"})
            responsible.append({"role-id": "site", "party-uuids": sites})
        return {
            "title": _line(f"What the log of study {report.study.id} shows: {report.study.title}"),
            "last-modified": report.stated.exported_at,
            "version": f"{report.checkpoint.size}",
            "oscal-version": OSCAL_VERSION,
            "roles": roles,
            "parties": parties,
            "responsible-parties": responsible,
            "remarks": "Made by software from a log. It is no certification and no assessment by a person.",
        }

    def _result(self) -> JsonObject:
        report = self._report
        result: JsonObject = {
            "uuid": self._uuid("result"),
            "title": _line(f"Study {report.study.id}, {report.status}"),
            "description": f"Entries 0 to {report.checkpoint.size - 1} of the log {report.checkpoint.origin}, held "
            "against the clause matrix. Every entry is in the same archive; verify.py checks them.",
            "start": report.started_at or report.first_ts,
            "end": report.ended_at or report.last_ts,
            "props": [
                self._property("log-origin", report.checkpoint.origin),
                self._property("log-size", str(report.checkpoint.size)),
                self._property("log-root-sha256", report.checkpoint.root.hex()),
                self._property("study", report.study.id),
                self._property("study-sha256", report.study.digest),
            ],
            "reviewed-controls": {"control-selections": [self._selection()]},
        }
        if self._rows:
            result["observations"] = [self._observation(row) for row in self._rows]
            result["findings"] = [self._finding(row) for row in self._rows]
        result["remarks"] = "What no software can attest:\n" + "\n".join(
            f"{number}. {limit}" for number, limit in enumerate(self._limits, 1)
        )
        return result

    def _selection(self) -> JsonObject:
        """The clauses that were looked at, and those that were left out with the reason for each."""
        chosen: JsonObject = {
            "description": "The rows of the clause matrix (section R14 of the report) that apply to this study."
        }
        if self._rows:
            chosen["include-controls"] = [{"control-id": row.clause.id} for row in self._rows]
        else:
            chosen["include-all"] = {}
        if self._others:
            chosen["exclude-controls"] = [{"control-id": row.clause.id} for row in self._others]
            reasons = (f"{row.clause.id}: not applicable. {row.reason}" for row in self._others)
            chosen["remarks"] = "\n".join(reasons)
        return chosen

    def _observation(self, row: Row) -> JsonObject:
        clause = row.clause
        observation: JsonObject = {
            "uuid": self._uuid("observation", clause.id),
            "title": _line(f"Entries for {clause.law}: {clause.clause}"),
            "description": f"{clause.asks} {_said(row)}",
            "props": [self._property("report-section", clause.section)],
            "methods": ["TEST"],
            "types": ["control-objective"],
            "subjects": [
                {
                    "subject-uuid": self._uuid("file", "log/checkpoint"),
                    "type": "resource",
                    "title": "The log of the consortium",
                }
            ],
        }
        if row.found:
            observation["relevant-evidence"] = [self._evidence(found) for found in row.found]
        observation["collected"] = self._report.stated.exported_at
        return observation

    def _evidence(self, found: Found) -> JsonObject:
        """Entries of one type: where they lie, which they are, and receipts of those that have one."""
        shown = found.leaves[:_LEAVES_MAX]
        evidence: JsonObject = {
            "href": _bundle_of(shown[0], self._report.checkpoint.size),
            "description": f"{len(found.leaves)} of type {found.type}: {leaf_words(shown)}"
            + ("" if len(shown) == len(found.leaves) else f" and others up to #{found.leaves[-1]}"),
            "props": [
                self._property("entry-type", found.type),
                self._property("entries", str(len(found.leaves))),
                *(self._property("leaf-index", str(leaf)) for leaf in shown),
            ],
        }
        receipts = [leaf for leaf in found.leaves if leaf in self._receipts][:_LINKS_MAX]
        if receipts:
            evidence["links"] = [
                {"href": f"proofs/{leaf}.tlog-proof", "rel": "proof", "text": f"Receipt of entry {leaf}"}
                for leaf in receipts
            ]
        return evidence

    def _finding(self, row: Row) -> JsonObject:
        clause = row.clause
        satisfied = row.status is Status.EVIDENCED
        return {
            "uuid": self._uuid("finding", clause.id),
            "title": _line(f"{clause.law}: {clause.clause}"),
            "description": f"{row.status.value.capitalize()}. {row.reason}",
            "props": [
                self._property("evidence-status", row.status.value),
                self._property("report-section", clause.section),
            ],
            "target": {
                "type": "objective-id",
                "target-id": clause.id,
                "title": _line(clause.clause),
                "description": clause.asks,
                "status": {
                    "state": "satisfied" if satisfied else "not-satisfied",
                    "reason": "pass" if satisfied else "other",
                    "remarks": f"{row.status.value.capitalize()}. {row.reason} Beyond software: {clause.beyond}",
                },
            },
            "related-observations": [{"observation-uuid": self._uuid("observation", clause.id)}],
        }

    def _property(self, name: str, value: str) -> JsonObject:
        return {"name": name, "ns": self._namespace, "value": _line(value)}

    def _resources(self) -> Iterator[JsonObject]:
        """Files of the archive."""
        for name in sorted({*self._digests, "study.json", "log/checkpoint"}):
            link: JsonObject = {"href": name, "media-type": _MEDIA.get(name.rpartition(".")[2], "text/plain")}
            if name in self._digests:
                link["hashes"] = [{"algorithm": "SHA-256", "value": self._digests[name]}]
            yield {"uuid": self._uuid("file", name), "title": name, "rlinks": [link]}


def _said(row: Row) -> str:
    if not row.found:
        return "No entry of the log speaks to it."
    return f"{sum(len(found.leaves) for found in row.found)} entries speak to it."


def _line(text: str) -> str:
    """Text on one line, as titles and values of properties must be."""
    return " ".join(text.split()) or "unnamed"


def _bundle_of(leaf: int, size: int) -> str:
    """The file of the archive that holds an entry."""
    number = leaf // WIDTH
    return f"log/{Tile(level=0, number=number, width=min(WIDTH, size - number * WIDTH)).bundle_path()}"

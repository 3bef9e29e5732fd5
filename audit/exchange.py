"""Log entries for other programs: one JSON object a line, as they are and as FHIR R4 AuditEvents.

`events.ndjson` is for anybody's scripts and is checked line by line by `verify.py`. `fhir.ndjson` is what a hospital's
audit record repository takes in (IHE RESTful ATNA, ITI-20). Both hold the entries of one study and those that speak of
the whole consortium; neither adds anything that the log does not say.

An AuditEvent here names no patient and claims no disclosure (BALP's PrivacyDisclosure asks for exactly one patient).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

from audit import entries

Record: TypeAlias = Mapping[str, Any]
Coding: TypeAlias = dict[str, str]

DCM = "http://dicom.nema.org/resources/ontology/DCM"
_HL7 = "http://terminology.hl7.org/CodeSystem"


@dataclass(frozen=True, slots=True)
class _Kind:
    """How an entry is told in the terms of DICOM PS3.16 and FHIR R4."""

    code: str
    display: str
    action: str  # create, read, update, delete, execute: C R U D E


_ACTIVITY = _Kind("110100", "Application Activity", "E")
_RECORDED = _Kind("110100", "Application Activity", "C")
_EXPORT = _Kind("110106", "Export", "R")  # as IHE BALP has it: at its source an export is a reading
_IMPORT = _Kind("110107", "Import", "C")
_LOG_USED = _Kind("110101", "Audit Log Used", "R")
_LOGIN = _Kind("110114", "User Authentication", "E")
_ALERT = _Kind("110113", "Security Alert", "E")

_KINDS: Mapping[type[entries.Entry], _Kind] = MappingProxyType(
    {
        entries.SiteInvited: _RECORDED,
        entries.SiteEnrolled: _RECORDED,
        entries.KeyRotated: _ALERT,
        entries.KeyRetired: _ALERT,
        entries.SiteRevoked: _ALERT,
        entries.SiteSuspended: _ALERT,
        entries.SiteReinstated: _ALERT,
        entries.SiteRenewed: _RECORDED,
        entries.SiteKeysRotated: _ALERT,
        entries.AccountEnrolled: _RECORDED,
        entries.WitnessEnrolled: _RECORDED,
        entries.AuthOk: _LOGIN,
        entries.AccessRepeated: _ALERT,
        entries.ConfigChanged: _ALERT,
        entries.SoftwareDeployed: _ALERT,
        entries.LogRecovered: _ALERT,
        entries.LogOmission: _ALERT,
        entries.WitnessRefused: _ALERT,
        entries.LogReviewed: _LOG_USED,
        entries.IncidentOpened: _ALERT,
        entries.ModelDownloaded: _EXPORT,
        entries.AuthFailed: _LOGIN,
        entries.AuthzDenied: _ALERT,
        entries.StudyCreated: _RECORDED,
        entries.CohortSnapshot: _Kind("110112", "Query", "E"),
        entries.SecaggFailed: _ALERT,
        entries.SecaggAccused: _ALERT,
        entries.UpdateSubmitted: _EXPORT,
        entries.RoundClosed: _IMPORT,
        entries.ModelReleased: _EXPORT,
        entries.ExportCreated: _LOG_USED,
    }
)
"""Every other kind of entry is an application's activity, or what people declared."""


def is_about(record: Record, study: str) -> bool:
    """Whether an entry belongs into a study's files: it is the study's, or the whole consortium's."""
    return bool(record.get("study", study) == study)


def events(log_entries: Iterable[bytes | None], study: str) -> bytes:
    """`events.ndjson`: `{"leaf": index, "entry": the stored bytes}` for every entry that belongs there."""
    lines = []
    for leaf, data in enumerate(log_entries):
        if data is not None and is_about(json.loads(data), study):
            lines.append(b'{"leaf":%d,"entry":%b}\n' % (leaf, data))  # the stored bytes, not serialised again
    return b"".join(lines)


def fhir_events(log_entries: Iterable[bytes | None], *, study: str, origin: str) -> bytes:
    """`fhir.ndjson`: one R4 AuditEvent for each line of `events`.

    Args:
        log_entries: The whole log, from leaf 0; None for what was dropped.
        study: The study's name.
        origin: The log's name; the systems of identifiers are under it.
    """
    lines = []
    for leaf, data in enumerate(log_entries):
        record = json.loads(data) if data is not None else None
        if record is not None and is_about(record, study):
            event = audit_event(leaf, record, origin=origin)
            lines.append(json.dumps(event, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines).encode()


def audit_event(leaf: int, record: Record, *, origin: str) -> dict[str, Any]:
    """An entry as an R4 AuditEvent: who, what, when, with what outcome, and every field of the entry as a detail."""
    system = f"https://{origin}/fhir"
    written = entries.KINDS[record["type"]]
    kind = _KINDS.get(written, _RECORDED if issubclass(written, entries.Declaration) else _ACTIVITY)
    body = record["body"]
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": record["id"],
        "type": _coding(DCM, kind.code, kind.display),
        "subtype": [_coding(f"{system}/CodeSystem/entry-type", record["type"], record["type"])],
        "action": kind.action,
        "recorded": record["ts"],
        "outcome": record["outcome"],
    }
    if reason := body.get("reason") or body.get("rule"):
        event["outcomeDesc"] = reason
    if "study" in record:
        event["purposeOfEvent"] = [{"coding": [_coding(f"{_HL7}/v3-ActReason", "HRESCH", "healthcare research")]}]
    event["agent"] = _agents(record, kind, system)
    event["source"] = {
        "site": record["actor"].removeprefix("site:"),
        "observer": _who(record["actor"], system),
        "type": [_coding(f"{_HL7}/security-source-type", "4", "Application Server")],
    }
    event["entity"] = [*_study(record, system), _entry(leaf, record, system)]
    return event


def _agents(record: Record, kind: _Kind, system: str) -> list[dict[str, Any]]:
    """Who acted; of what leaves a hospital, also who receives it."""
    actor: dict[str, Any] = {"who": _who(record["actor"], system), "requestor": True}
    if person := record["body"].get("steward") or record["body"].get("on_behalf"):
        actor["altId"] = person
    if record["type"] != entries.UpdateSubmitted.TYPE:
        return [actor]
    assert kind is _EXPORT
    actor = {"type": {"coding": [_coding(DCM, "110153", "Source Role ID")]}, **actor}
    receiver = {
        "type": {"coding": [_coding(DCM, "110152", "Destination Role ID")]},
        "who": _who(entries.COORDINATOR, system),
        "requestor": False,
    }
    return [actor, receiver]


def _who(actor: str, system: str) -> dict[str, Any]:
    name = actor.removeprefix("site:")
    role = "coordinators" if actor == entries.COORDINATOR else "sites"
    display = "Coordinator" if actor == entries.COORDINATOR else f"Site agent of {name}"
    return {"identifier": {"system": f"{system}/{role}", "value": name}, "display": display}


def _study(record: Record, system: str) -> list[dict[str, Any]]:
    if "study" not in record:
        return []
    place = "".join(f", {part} {record[part]}" for part in ("round", "attempt") if part in record)
    return [
        {
            "what": {"identifier": {"system": f"{system}/studies", "value": record["study"]}},
            "type": _coding("http://hl7.org/fhir/resource-types", "ResearchStudy", "ResearchStudy"),
            "role": _coding(f"{_HL7}/object-role", "20", "Job"),
            "name": f"Study {record['study']}{place}",
        }
    ]


def _entry(leaf: int, record: Record, system: str) -> dict[str, Any]:
    """The entry itself, with where it stands in the log."""
    details = {"tlog-leaf-index": leaf, **record["body"]}
    entity: dict[str, Any] = {
        "what": {"identifier": {"system": f"{system}/log-entries", "value": record["id"]}},
        "type": _coding(f"{_HL7}/audit-entity-type", "2", "System Object"),
        "role": _coding(f"{_HL7}/object-role", "3", "Report"),
    }
    if record["type"] in (entries.UpdateSubmitted.TYPE, entries.RoundClosed.TYPE):
        # Not 11, disclosure: what leaves is a masked sum's part, or a sum, and no record of anybody.
        display = "Aggregation, summarization, derivation"
        entity["lifecycle"] = _coding(f"{_HL7}/dicom-audit-lifecycle", "8", display)
    entity["detail"] = [
        {"type": name, "valueString": value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))}
        for name, value in details.items()
        if value != ""  # FHIR has no empty strings
    ]
    return entity


def _coding(system: str, code: str, display: str) -> Coding:
    return {"system": system, "code": code, "display": display}

"""The operator's commands: one table, used by a running coordinator (over the wire) and by the command line alone.

Arguments and answers are JSON objects, so that a console in a browser can use the same table later.
"""

import asyncio
import json
import platform
import secrets
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from audit import certificate, entries, evidence
from consortium import __version__, status
from consortium.contract.digest import canonical_bytes
from consortium.contract.errors import DocumentInvalid
from consortium.contract.names import SiteId
from consortium.contract.study import StudyFile
from consortium.coordinator import Coordinator
from consortium.errors import ConsortiumError
from consortium.record import now_stamp

Arguments: TypeAlias = Mapping[str, Any]
Answer: TypeAlias = dict[str, Any]

LOG_PAGE_BYTES, ROW_BYTES = 2_000_000, 100
"""How much of the log one `audit.log` answers; an answer on the wire has at most 3 MiB."""


class CommandRefused(ConsortiumError):
    """A command this coordinator does not have, or with arguments it does not take."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "See `--help`; if the command is right, run the same release of `consortium` as the coordinator."


async def execute(coordinator: Coordinator, command: str, arguments: bytes) -> bytes:
    """Carry out one command; raises whatever error of ours stopped it."""
    action = _COMMANDS.get(command)
    if action is None:
        raise CommandRefused(f"there is no command {command[:80]!r}")
    try:
        read = json.loads(arguments)
    except (ValueError, RecursionError) as error:
        raise CommandRefused("the arguments are not JSON") from error
    if not isinstance(read, dict):
        raise CommandRefused("the arguments are not an object")
    if command in _SLOW:  # they read much and change nothing that the studies at work look at
        return canonical_bytes(await asyncio.to_thread(action, coordinator, read))
    return canonical_bytes(action(coordinator, read))


def _text(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str):
        raise CommandRefused(f"the argument {name!r} must be text")
    return value


def _index(arguments: Arguments, name: str) -> int:
    value = arguments.get(name)
    if type(value) is not int or value < 0:
        raise CommandRefused(f"the argument {name!r} must be a whole number, 0 or more")
    return value


def _status(coordinator: Coordinator, _arguments: Arguments) -> Answer:
    return status.snapshot(coordinator.rooms, coordinator.drivers)


def _site_invite(coordinator: Coordinator, arguments: Arguments) -> Answer:
    kit, expires = coordinator.rooms.sites.invite(_text(arguments, "site"))
    return {"kit": kit.hex(), "expires": f"{expires:%Y-%m-%d %H:%M} UTC"}


def _site_list(coordinator: Coordinator, _arguments: Arguments) -> Answer:
    here = coordinator.rooms.sessions.connected()
    return {
        "sites": [
            {
                "site": row.site,
                "state": "revoked" if row.revoked else "enrolled",
                "connected": row.site in here,
                "spki_sha256": row.spki_sha256,
                "signing_key": row.signing_key,
                "ecdsa_key": row.ecdsa_key,
                "enrolled_at": row.enrolled_at.isoformat(),
            }
            for row in coordinator.rooms.sites.all()
        ]
    }


def _site_revoke(coordinator: Coordinator, arguments: Arguments) -> Answer:
    site = _text(arguments, "site")
    coordinator.rooms.sites.revoke(site)
    session = coordinator.rooms.sessions.get(SiteId(site))
    if session is not None:
        session.close()
    return {}


def _study_submit(coordinator: Coordinator, arguments: Arguments) -> Answer:
    document = _text(arguments, "document").encode()
    try:
        study = StudyFile.from_document(document)
    except DocumentInvalid as error:
        raise CommandRefused(str(error)) from error
    return {"study": study.id, "digest": coordinator.rooms.studies.submit(study, document)}


def _study_list(coordinator: Coordinator, _arguments: Arguments) -> Answer:
    return {
        "studies": [
            {"study": row.study, "state": row.state, "next_round": int(row.next_round), "digest": row.digest}
            for row in coordinator.rooms.studies.all()
        ]
    }


def _study_show(coordinator: Coordinator, arguments: Arguments) -> Answer:
    row = coordinator.rooms.studies.get(_text(arguments, "study"))
    return {
        "study": json.loads(row.document),
        "digest": row.digest,
        "state": row.state,
        "reason": row.reason,
        "model_digest": row.model_digest,
        "decisions": {s: d[0] for s, d in coordinator.rooms.studies.decisions(row.digest).items()},
        "epsilon": coordinator.rooms.studies.spent(row.digest),
        "rounds": list(coordinator.rooms.studies.history(row.digest)),
    }


def _study_start(coordinator: Coordinator, arguments: Arguments) -> Answer:
    name = _text(arguments, "study")
    coordinator.rooms.studies.move(name, "start")
    return _at_work(coordinator, name)


def _study_resume(coordinator: Coordinator, arguments: Arguments) -> Answer:
    name = _text(arguments, "study")
    coordinator.rooms.studies.move(name, "resume")
    return _at_work(coordinator, name)


def _at_work(coordinator: Coordinator, name: str) -> Answer:
    """A coordinator that is not running finds the study at its next start."""
    if coordinator.serving:
        coordinator.begin_study(name)
    return {}


def _study_pause(coordinator: Coordinator, arguments: Arguments) -> Answer:
    coordinator.stop_study(_text(arguments, "study"), "pause")
    return {}


def _study_abort(coordinator: Coordinator, arguments: Arguments) -> Answer:
    coordinator.stop_study(_text(arguments, "study"), "abort")
    return {}


def _study_release(coordinator: Coordinator, arguments: Arguments) -> Answer:
    return {"model_digest": coordinator.rooms.studies.release(_text(arguments, "study"))}


def _audit_log(coordinator: Coordinator, arguments: Arguments) -> Answer:
    """The log from `start` on, as much of it as one answer may hold."""
    log = coordinator.rooms.recorder.log
    size = log.size
    start = min(_index(arguments, "start"), size)
    rows: list[Answer] = []
    size_bytes = 0
    for index, data in enumerate(log.entries(start, size), start):
        size_bytes += len(data) + ROW_BYTES
        if rows and size_bytes > LOG_PAGE_BYTES:
            break
        record = json.loads(data)
        rows.append(
            {
                "index": index,
                "ts": record["ts"],
                "type": record["type"],
                "actor": record["actor"],
                "study": record.get("study", ""),
                "round": str(record.get("round", "")),
                "attempt": str(record.get("attempt", "")),
                "body": record["body"],
            }
        )
    return {"size": size, "entries": rows}


def _audit_proof(coordinator: Coordinator, arguments: Arguments) -> Answer:
    log = coordinator.rooms.recorder.log
    index = _index(arguments, "index")
    if index >= log.size:
        raise CommandRefused(f"the log has entries 0 to {log.size - 1}, not {index}")
    return {"receipt": log.receipt(index).to_bytes().decode()}


def _audit_export(coordinator: Coordinator, arguments: Arguments) -> Answer:
    row = coordinator.rooms.studies.get(_text(arguments, "study"))
    _certify_model(coordinator, row.study)
    folder = coordinator.home.folder / "exports"
    folder.mkdir(exist_ok=True)
    made = evidence.export(
        log=coordinator.rooms.recorder.log,
        study=row.study,
        study_document=row.document,
        model=coordinator.rooms.models.file(row.model_digest) if row.model_digest else None,
        exported_by="operator",
        software=[("hospital-consortium", __version__), ("python", platform.python_version())],
        signer=coordinator.home.export_signer,
        stamp=now_stamp(),
        out=folder / f"evidence-{row.study}-{secrets.token_hex(4)}.zip",
    )
    policy = evidence.policy_text(coordinator.rooms.recorder.log).decode()
    return {
        "path": str(made.path.resolve()),
        "size_bytes": made.path.stat().st_size,
        "entries": made.log_size,
        "manifest_sha256": made.manifest_sha256,
        "policy": policy,
        "policy_sha256": made.policy_sha256,
    }


def _certify_model(coordinator: Coordinator, study: str) -> None:
    """Log what the hospitals' certificates together promise about the model, if that is not there yet."""
    recorder = coordinator.rooms.recorder
    promise = certificate.due(recorder.log.entries(0, recorder.log.size), study=study)
    if promise is not None:
        recorder.record(entries.entry_bytes(entries.ModelCertificate(**now_stamp(), study=study, **promise.fields())))


_COMMANDS: Mapping[str, Callable[[Coordinator, Arguments], Answer]] = {
    "status": _status,
    "site.invite": _site_invite,
    "site.list": _site_list,
    "site.revoke": _site_revoke,
    "study.submit": _study_submit,
    "study.list": _study_list,
    "study.show": _study_show,
    "study.start": _study_start,
    "study.resume": _study_resume,
    "study.pause": _study_pause,
    "study.abort": _study_abort,
    "study.release": _study_release,
    "audit.export": _audit_export,
    "audit.log": _audit_log,
    "audit.proof": _audit_proof,
}

_SLOW = frozenset({"audit.export", "audit.log", "audit.proof"})

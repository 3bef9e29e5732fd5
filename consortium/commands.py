"""The operator's commands: one table, used by a running coordinator (over the wire) and by the command line alone.

Arguments and answers are JSON objects, so that a console in a browser can use the same table later.
"""

import json
import platform
import secrets
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from audit import evidence
from consortium import __version__, status
from consortium.contract.digest import canonical_bytes
from consortium.contract.study import StudyFile
from consortium.coordinator import Coordinator
from consortium.errors import ConsortiumError
from consortium.record import now_stamp

Arguments: TypeAlias = Mapping[str, Any]
Answer: TypeAlias = dict[str, Any]

LOG_PAGE = 10_000
"""Entries that one `audit.log` answers."""


class CommandUnknown(ConsortiumError):
    """A command this coordinator does not have, or with arguments it does not take."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "Run the same release of `consortium` as the coordinator."


async def execute(coordinator: Coordinator, command: str, arguments: bytes) -> bytes:
    """Carry out one command; raises whatever error of ours stopped it."""
    action = _COMMANDS.get(command)
    if action is None:
        raise CommandUnknown(f"there is no command {command!r}")
    try:
        read = json.loads(arguments)
    except ValueError as error:
        raise CommandUnknown("the arguments are not JSON") from error
    if not isinstance(read, dict):
        raise CommandUnknown("the arguments are not an object")
    try:
        answer = action(coordinator, read)
    except KeyError as error:
        raise CommandUnknown(f"{command} needs the argument {error}") from error
    return canonical_bytes(answer)


def _status(coordinator: Coordinator, _arguments: Arguments) -> Answer:
    return status.snapshot(coordinator.rooms, coordinator.drivers)


def _site_invite(coordinator: Coordinator, arguments: Arguments) -> Answer:
    kit, expires = coordinator.rooms.sites.invite(str(arguments["site"]))
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
                "enrolled_at": row.enrolled_at.isoformat(),
            }
            for row in coordinator.rooms.sites.all()
        ]
    }


def _site_revoke(coordinator: Coordinator, arguments: Arguments) -> Answer:
    site = str(arguments["site"])
    coordinator.rooms.sites.revoke(site)
    session = coordinator.rooms.sessions.get(coordinator.rooms.sites.get(site).site)
    if session is not None:
        session.close()
    return {}


def _study_submit(coordinator: Coordinator, arguments: Arguments) -> Answer:
    document = str(arguments["document"]).encode()
    study = StudyFile.from_document(document)
    return {"study": study.id, "digest": coordinator.rooms.studies.submit(study, document)}


def _study_list(coordinator: Coordinator, _arguments: Arguments) -> Answer:
    return {
        "studies": [
            {"study": row.study, "state": row.state, "next_round": int(row.next_round), "digest": row.digest}
            for row in coordinator.rooms.studies.all()
        ]
    }


def _study_show(coordinator: Coordinator, arguments: Arguments) -> Answer:
    row = coordinator.rooms.studies.get(str(arguments["study"]))
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
    name = str(arguments["study"])
    coordinator.rooms.studies.move(name, "start")
    return _at_work(coordinator, name)


def _study_resume(coordinator: Coordinator, arguments: Arguments) -> Answer:
    name = str(arguments["study"])
    coordinator.rooms.studies.move(name, "resume")
    return _at_work(coordinator, name)


def _at_work(coordinator: Coordinator, name: str) -> Answer:
    """A coordinator that is not running finds the study at its next start."""
    if coordinator.serving:
        coordinator.begin_study(name)
    return {}


def _study_pause(coordinator: Coordinator, arguments: Arguments) -> Answer:
    coordinator.stop_study(str(arguments["study"]), "pause")
    return {}


def _study_abort(coordinator: Coordinator, arguments: Arguments) -> Answer:
    coordinator.stop_study(str(arguments["study"]), "abort")
    return {}


def _study_release(coordinator: Coordinator, arguments: Arguments) -> Answer:
    return {"model_digest": coordinator.rooms.studies.release(str(arguments["study"]))}


def _audit_log(coordinator: Coordinator, arguments: Arguments) -> Answer:
    log = coordinator.rooms.recorder.log
    start = max(0, int(arguments["start"]))
    rows = []
    for index, data in enumerate(log.entries(start, min(log.size, start + LOG_PAGE)), start):
        record = json.loads(data)
        rows.append(
            {
                "index": index,
                "ts": record["ts"],
                "type": record["type"],
                "actor": record["actor"],
                "study": record.get("study", ""),
                "round": str(record.get("round", "")),
                "body": record["body"],
            }
        )
    return {"size": log.size, "entries": rows}


def _audit_proof(coordinator: Coordinator, arguments: Arguments) -> Answer:
    receipt = coordinator.rooms.recorder.log.receipt(int(arguments["index"]))
    return {"receipt": receipt.to_bytes().decode()}


def _audit_export(coordinator: Coordinator, arguments: Arguments) -> Answer:
    row = coordinator.rooms.studies.get(str(arguments["study"]))
    folder = coordinator.home.folder / "exports"
    folder.mkdir(exist_ok=True)
    made = evidence.export(
        log=coordinator.rooms.recorder.log,
        study=row.study,
        study_document=row.document,
        model=coordinator.rooms.models.path(row.model_digest).read_bytes() if row.model_digest else None,
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

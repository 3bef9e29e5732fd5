"""The operator's commands: one table, used by a running coordinator (over the wire) and by the command line alone.

Arguments and answers are JSON objects, so that a console in a browser can use the same table later.
"""

import asyncio
import base64
import json
import platform
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from audit import certificate, entries, retention
from audit.erasure import Wanted
from audit.errors import EntryRefused
from consortium import __version__, declarations, status, vault
from consortium import retention as dropping
from consortium.access_record import rule_of
from consortium.contract.digest import canonical_bytes
from consortium.contract.errors import DocumentInvalid
from consortium.contract.names import SiteId, StudyId
from consortium.contract.study import StudyFile
from consortium.contract.submission import (
    Destination,
    Submission,
    SubmissionRefused,
    owner_fingerprint,
    require_fresh,
    sign,
    verify,
)
from consortium.coordinator import Coordinator
from consortium.errors import ConsortiumError, SiteRevoked, SiteSuspended
from consortium.home import HOME_OWNER
from consortium.log_keys import OVERLAP_DAYS_MAX
from consortium.quorum import await_quorum, policy_of, require_quorum
from consortium.record import now_stamp
from consortium.roles import HOME, Caller, PersonRole, may_see, require_role, require_study
from consortium.studies import SignedSubmission

Arguments: TypeAlias = Mapping[str, Any]
Answer: TypeAlias = dict[str, Any]
CallersAction: TypeAlias = Callable[[Coordinator, Caller, Arguments], Answer]

YEARS_MAX = 100
PART_BYTES = 1_500_000
"""Of a file, in one answer."""
_EXPORT = re.compile(r"evidence-[a-z0-9-]{1,64}-[0-9a-f]{8}\.zip")
LOG_PAGE_BYTES, ROW_BYTES = 2_000_000, 100
"""How much of the log one `audit.log` answers; an answer on the wire has at most 3 MiB."""


class CommandRefused(ConsortiumError):
    """A command this coordinator does not have, or with arguments it does not take."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return "See `--help`; if the command is right, run the same release of `consortium` as the coordinator."


async def execute(coordinator: Coordinator, command: str, arguments: bytes, caller: Caller = HOME) -> bytes:
    """Carry out one command; raises whatever error of ours stopped it, after the log has it too.

    Args:
        coordinator: Whose.
        command: Its name.
        arguments: A JSON object.
        caller: Who gives it; by default whoever has the home, and so may do everything.
    """
    try:
        return await _carry_out(coordinator, command, arguments, caller)
    except Exception as error:
        if rule := rule_of(error):
            known = command if command in ALL_COMMANDS else "unknown command"
            coordinator.rooms.sites.access.denied(caller.subject, known, rule)
        raise


async def _carry_out(coordinator: Coordinator, command: str, arguments: bytes, caller: Caller) -> bytes:
    if command not in ALL_COMMANDS:
        raise CommandRefused(f"there is no command {command[:80]!r}")
    require_role(caller, command)  # before anything of the arguments is read
    try:
        read = json.loads(arguments)
    except (ValueError, RecursionError) as error:
        raise CommandRefused("the arguments are not JSON") from error
    if not isinstance(read, dict):
        raise CommandRefused("the arguments are not an object")
    if caller.role is not None and "by" in read:
        read["by"] = caller.account  # nobody records anything in somebody else's name
    if command.startswith("study.") and "study" in read:
        require_study(caller, command, coordinator.rooms.studies.owner(_text(read, "study")))
    own = _OF_CALLERS.get(command)
    action = _COMMANDS[command] if own is None else partial(_in_order, own, caller)
    if command in _SLOW:  # they read much or wait, and change nothing that the studies at work look at
        return canonical_bytes(await asyncio.to_thread(action, coordinator, read))
    return canonical_bytes(action(coordinator, read))


def _in_order(own: CallersAction, caller: Caller, coordinator: Coordinator, arguments: Arguments) -> Answer:
    return own(coordinator, caller, arguments)


def _text(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str):
        raise CommandRefused(f"the argument {name!r} must be text")
    return value


def _texts(arguments: Arguments, name: str) -> tuple[str, ...]:
    value = arguments.get(name, [])
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise CommandRefused(f"the argument {name!r} must be a list of texts")
    return tuple(value)


def _index(arguments: Arguments, name: str) -> int:
    value = arguments.get(name)
    if type(value) is not int or value < 0:
        raise CommandRefused(f"the argument {name!r} must be a whole number, 0 or more")
    return value


def _status(coordinator: Coordinator, _arguments: Arguments) -> Answer:
    return status.snapshot(coordinator.rooms, coordinator.drivers, coordinator.traffic.passed())


def _site_invite(coordinator: Coordinator, arguments: Arguments) -> Answer:
    legal_entity = "" if arguments.get("legal_entity") is None else _text(arguments, "legal_entity")
    try:
        kit, expires = coordinator.rooms.sites.invite(_text(arguments, "site"), legal_entity)
    except EntryRefused as error:
        raise CommandRefused(str(error)) from error
    return {"kit": kit.hex(), "expires": f"{expires:%Y-%m-%d %H:%M} UTC"}


def _site_list(coordinator: Coordinator, _arguments: Arguments) -> Answer:
    here = coordinator.rooms.sessions.connected()
    return {
        "sites": [
            {
                "site": row.site,
                "state": "revoked" if row.revoked else "suspended" if row.suspended else "enrolled",
                "reason": row.reason,
                "legal_entity": row.legal_entity,
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
    reason = "revoked by the operator" if arguments.get("reason") is None else _text(arguments, "reason")
    try:
        coordinator.rooms.sites.revoke(site, reason)
    except EntryRefused as error:
        raise CommandRefused(str(error)) from error
    coordinator.shut_out(SiteId(site), SiteRevoked(site))
    return {}


def _site_suspend(coordinator: Coordinator, arguments: Arguments) -> Answer:
    site, reason = _text(arguments, "site"), _text(arguments, "reason")
    try:
        coordinator.rooms.sites.suspend(site, reason)
    except EntryRefused as error:
        raise CommandRefused(str(error)) from error
    coordinator.shut_out(SiteId(site), SiteSuspended(site, reason))
    return {}


def _site_reinstate(coordinator: Coordinator, arguments: Arguments) -> Answer:
    site = _text(arguments, "site")
    try:
        coordinator.rooms.sites.reinstate(site)
    except EntryRefused as error:
        raise CommandRefused(str(error)) from error
    return {}


def _account_invite(coordinator: Coordinator, caller: Caller, arguments: Arguments) -> Answer:
    kit, expires = coordinator.rooms.accounts.invite(_text(arguments, "account"), _role(arguments), caller)
    return {"kit": kit.decode(), "expires": f"{expires:%Y-%m-%d %H:%M} UTC"}


def _account_list(coordinator: Coordinator, _arguments: Arguments) -> Answer:
    return {
        "accounts": [
            {
                "account": row.account,
                "role": row.role,
                "state": "revoked" if row.revoked else "enrolled",
                "signing_key_sha256": owner_fingerprint(row.signing_key),
                "enrolled_at": row.enrolled_at.isoformat(),
                "certificate_ends": row.not_after.isoformat(),
            }
            for row in coordinator.rooms.accounts.all()
        ]
    }


def _account_role(coordinator: Coordinator, caller: Caller, arguments: Arguments) -> Answer:
    coordinator.rooms.accounts.change_role(_text(arguments, "account"), _role(arguments), caller)
    return {}


def _account_revoke(coordinator: Coordinator, caller: Caller, arguments: Arguments) -> Answer:
    coordinator.rooms.accounts.revoke(_text(arguments, "account"), caller)
    return {}


def _account_renew(coordinator: Coordinator, caller: Caller, arguments: Arguments) -> Answer:
    """The caller's own next certificate, whatever the arguments say of others."""
    try:
        request_der = bytes.fromhex(_text(arguments, "request"))
    except ValueError as error:
        raise CommandRefused("the argument 'request' must be hexadecimal") from error
    return {"certificate": coordinator.rooms.accounts.renew(caller, request_der).decode("ascii")}


def _role(arguments: Arguments) -> PersonRole:
    found = _text(arguments, "role")
    try:
        return PersonRole(found)
    except ValueError as error:
        raise CommandRefused(f"the role must be one of {', '.join(PersonRole)}, not {found[:40]!r}") from error


def _study_submit(coordinator: Coordinator, caller: Caller, arguments: Arguments) -> Answer:
    document = _text(arguments, "document").encode()
    try:
        study = StudyFile.from_document(document)
    except DocumentInvalid as error:
        raise CommandRefused(str(error)) from error
    signed = _signed(coordinator, caller, arguments, study)
    digest = coordinator.rooms.studies.submit(study, document, signed)
    return {"study": study.id, "digest": digest, "owner_key_sha256": signed.submission.fingerprint}


def _signed(coordinator: Coordinator, caller: Caller, arguments: Arguments, study: StudyFile) -> SignedSubmission:
    """Whose study it is, by a signature that was checked; in the home itself it is signed with the home's own key."""
    home, now = coordinator.home, datetime.now(UTC)
    here = Destination(consortium=home.config.name, coordinator_signing_key=home.signing_key_hex)
    if caller.role is None:
        submission = sign(study.digest(), here, home.owner_key, now=now)
        return SignedSubmission(owner=home.pseudonym(HOME_OWNER), submission=submission)
    words = ("owner_key", "signed_at", "signature")
    submission = Submission(**{word: _text(arguments, word) for word in words})
    verify(submission, study.digest(), here)
    require_fresh(submission, now)
    if submission.owner_key != caller.signing_key:  # G-09: a statement that somebody else signed
        raise SubmissionRefused(
            "a statement by another key, or by somebody without one", "one by the key of the account that hands it in"
        )
    return SignedSubmission(owner=caller.subject, submission=submission)


def _study_list(coordinator: Coordinator, caller: Caller, _arguments: Arguments) -> Answer:
    return {
        "studies": [
            {"study": row.study, "state": row.state, "next_round": int(row.next_round), "digest": row.digest}
            for row in coordinator.rooms.studies.all()
            if may_see(caller, row.owner)
        ]
    }


def _study_show(coordinator: Coordinator, arguments: Arguments) -> Answer:
    row = coordinator.rooms.studies.get(_text(arguments, "study"))
    driver = coordinator.drivers.get(row.study)
    return {
        "study": json.loads(row.document),
        "digest": row.digest,
        "state": row.state,
        "reason": row.reason,
        "model_digest": row.model_digest,
        "submission": json.loads(row.submission) if row.submission else None,
        "decisions": {s: d[0] for s, d in coordinator.rooms.studies.decisions(row.digest).items()},
        "refusals": driver.progress.refusals if driver is not None else {},
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
    """A completed study's model, once enough hospitals have cosigned everything that led to it."""
    row = coordinator.rooms.studies.completed(_text(arguments, "study"))
    study = StudyFile.from_document(row.document)
    require_quorum(coordinator, study, _leaf_of_completion(coordinator, row.study) + 1)
    return {"model_digest": coordinator.rooms.studies.release(row.study)}


def _study_model(coordinator: Coordinator, arguments: Arguments) -> Answer:
    """A part of the file of a model that was released, for somebody who has no home to read it from."""
    row = coordinator.rooms.studies.completed(_text(arguments, "study"))
    if row.study not in coordinator.rooms.studies.released:
        raise CommandRefused(f"{row.study}: its model is fetched right after `study.release`")
    return _part(coordinator.rooms.models.store.path(row.model_digest), _index(arguments, "offset"))


def _part(path: Path, offset: int) -> Answer:
    """PART_BYTES of a file from an offset on, as base64."""
    with path.open("rb") as file:
        file.seek(offset)
        return {"data": base64.b64encode(file.read(PART_BYTES)).decode(), "size_bytes": path.stat().st_size}


def _leaf_of_completion(coordinator: Coordinator, study: str) -> int:
    """Where the log says that every round of a completed study is closed."""
    mark = f'"{entries.StudyCompleted.TYPE}"'.encode()
    log = coordinator.rooms.recorder.log
    records = ((leaf, json.loads(data)) for leaf, data in enumerate(log.known()) if data is not None and mark in data)
    return max(leaf for leaf, one in records if one["type"] == entries.StudyCompleted.TYPE and one["study"] == study)


def _record(coordinator: Coordinator, arguments: Arguments) -> Answer:
    about = ("study", "document_sha256", "document_commitment", "note_commitment")
    study, document, *commitments = (None if arguments.get(one) is None else _text(arguments, one) for one in about)
    try:
        entry = declarations.record(
            coordinator.home,
            coordinator.rooms.recorder,
            coordinator.rooms.studies,
            _text(arguments, "kind"),
            _texts(arguments, "fields"),
            study=study,
            document_sha256=document,
            person=_text(arguments, "by"),
            document_commitment=commitments[0],
            note_commitment=commitments[1],
        )
    except EntryRefused as error:
        raise CommandRefused(str(error)) from error
    return {"entry": json.loads(entries.entry_bytes(entry))}


def _audit_retention(coordinator: Coordinator, arguments: Arguments) -> Answer:
    """What is older than so many years; with a person's name, the decision to keep it is written down."""
    years = _index(arguments, "years")
    if not 1 <= years <= YEARS_MAX:
        raise CommandRefused(f"the argument 'years' must be 1 to {YEARS_MAX}")
    promised = {
        row.study: int(json.loads(row.document)["governance"]["retention_years"])
        for row in coordinator.rooms.studies.all()
    }
    if arguments.get("drop") is not None:
        return _audit_drop(coordinator, arguments, years, promised)
    longer = [f"{study}: {promise} years" for study, promise in promised.items() if promise > years]
    if longer:
        raise CommandRefused(f"studies were approved with a longer retention ({', '.join(longer)[:300]})")
    log = coordinator.rooms.recorder.log
    found = retention.due(log.known(), retention.cutoff(datetime.now(UTC).date(), years))
    if arguments.get("by") is not None:
        words = {"years": years, "older_than": found.older_than, "entries_due": found.entries, "action": "kept"}
        declarations.record(
            coordinator.home,
            coordinator.rooms.recorder,
            coordinator.rooms.studies,
            entries.RetentionApplied.TYPE,
            [f"{name}={value}" for name, value in words.items()],
            study=None,
            document_sha256=None,
            person=_text(arguments, "by"),
        )
    return {
        "older_than": found.older_than.isoformat(),
        "entries": found.entries,
        "bundles": found.bundles,
        "size_bytes": found.size_bytes,
    }


def _audit_rotate_key(coordinator: Coordinator, arguments: Arguments) -> Answer:
    """Begin a change of the log's key, or with `finish` end its overlap."""
    if arguments.get("finish"):
        found = coordinator.rooms.log_keys.finish()
    else:
        days = _index(arguments, "days")
        if not 1 <= days <= OVERLAP_DAYS_MAX:
            raise CommandRefused(f"the argument 'days' must be 1 to {OVERLAP_DAYS_MAX}")
        reason = _text(arguments, "reason")
        try:
            found = coordinator.rooms.log_keys.rotate(reason, days, datetime.now(UTC))
        except EntryRefused as error:
            raise CommandRefused(str(error)) from error
    return {"vkeys": list(found.vkeys), "overlap_until": found.overlap_until}


def _audit_payloads(coordinator: Coordinator, _arguments: Arguments) -> Answer:
    rooms = coordinator.rooms
    return {"payloads": [row.to_json() for row in vault.payloads(coordinator.home, rooms.recorder)]}


def _audit_erase(coordinator: Coordinator, arguments: Arguments) -> Answer:
    """Destroy payloads, or everything about a person, and tell the log."""
    subject = None if arguments.get("subject") is None else _text(arguments, "subject")
    try:
        wanted = Wanted(payloads=_texts(arguments, "payloads"), subject=subject)
    except EntryRefused as error:
        raise CommandRefused(str(error)) from error
    rooms = coordinator.rooms
    gone = vault.erase_payloads(coordinator.home, rooms.recorder, wanted, person=_text(arguments, "by"))
    return {"erased": list(gone)}


def _audit_drop(coordinator: Coordinator, arguments: Arguments, years: int, promised: Mapping[StudyId, int]) -> Answer:
    """What may be dropped; with `drop: true`, drop it. Studies that promised longer are no obstacle, and stay."""
    if arguments.get("drop") is not True:
        found = dropping.planned(coordinator, years, promised)
        begun = coordinator.rooms.recorder.log.intended()
        return {
            "older_than": found.due.older_than.isoformat(),
            "entries": found.entries,
            "size_bytes": found.size_bytes,
            "studies": list(found.studies),
            "announced": None if begun is None else begun[1].leaf,
        }
    done = dropping.carry_out(
        coordinator,
        years=years,
        promised=promised,
        document_sha256=_text(arguments, "document_sha256"),
        person=_text(arguments, "by"),
    )
    return {"said": done.applied.said(done.dropped)}


def _audit_log(coordinator: Coordinator, arguments: Arguments) -> Answer:
    """The log from `start` on, as much of it as one answer may hold."""
    log = coordinator.rooms.recorder.log
    size = log.size
    start = min(_index(arguments, "start"), size)
    rows: list[Answer] = []
    size_bytes = 0
    for index, data in enumerate(log.known(start, size), start):
        size_bytes += len(data or b"") + ROW_BYTES
        if rows and size_bytes > LOG_PAGE_BYTES:
            break
        record = json.loads(data) if data is not None else _gone(log.leaf_hash(index))
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


def _gone(leaf_hash: bytes) -> Answer:
    """A dropped entry's row."""
    return {"ts": "", "type": "dropped", "actor": "", "body": {"leaf_hash": leaf_hash.hex()}}


def _audit_proof(coordinator: Coordinator, arguments: Arguments) -> Answer:
    """An entry's receipt; with the SHA-256 leaf hash of one that somebody kept, only if it is that leaf's."""
    log = coordinator.rooms.recorder.log
    index = _index(arguments, "index")
    if index >= log.size:
        raise CommandRefused(f"the log has entries 0 to {log.size - 1}, not {index}")
    if arguments.get("leaf_hash") is not None and _text(arguments, "leaf_hash") != log.leaf_hash(index).hex():
        raise CommandRefused(f"that is not entry {index} of this log, whose hash is {log.leaf_hash(index).hex()}")
    return {"receipt": log.receipt(index).to_bytes().decode()}


def _audit_export_part(coordinator: Coordinator, arguments: Arguments) -> Answer:
    """A part of an export, for somebody who has no home to read it from; with the last part it is removed here."""
    name, offset = _text(arguments, "name"), _index(arguments, "offset")
    path = coordinator.home.folder / "exports" / name
    if _EXPORT.fullmatch(name) is None or not path.is_file():
        raise CommandRefused("there is no such export; the last part of one was fetched, or it was made elsewhere")
    part = _part(path, offset)
    if offset + PART_BYTES >= int(part["size_bytes"]):
        path.unlink()
    return part


def _audit_export(coordinator: Coordinator, caller: Caller, arguments: Arguments) -> Answer:
    row = coordinator.rooms.studies.get(_text(arguments, "study"))
    _certify_model(coordinator, row.study)
    study = StudyFile.from_document(row.document)
    cosigned = await_quorum(coordinator, study, coordinator.rooms.recorder.log.size)
    policy = policy_of(coordinator, study)
    disclosed = vault.disclosed(coordinator.home, _texts(arguments, "payloads"), study=row.study)
    folder = coordinator.home.folder / "exports"
    folder.mkdir(exist_ok=True)
    from audit import evidence  # noqa: PLC0415 - with it come reports and what prints them: 13 MB that a coordinator seldom needs

    made = evidence.export(
        log=coordinator.rooms.recorder.log,
        study=row.study,
        study_document=row.document,
        model=coordinator.rooms.models.file(row.model_digest) if row.model_digest else None,
        exported_by=caller.subject,
        software=[("hospital-consortium", __version__), ("python", platform.python_version())],
        signer=coordinator.home.export_signer,
        stamp=now_stamp(),
        out=folder / f"evidence-{row.study}-{secrets.token_hex(4)}.zip",
        cosigned=cosigned,
        policy=policy,
        payloads=disclosed,
    )
    return {
        "name": made.path.name,
        **({"path": str(made.path.resolve())} if caller.role is None else {}),  # where it lies is the home's affair
        "size_bytes": made.path.stat().st_size,
        "entries": made.log_size,
        "manifest_sha256": made.manifest_sha256,
        "policy": policy.decode(),
        "policy_sha256": made.policy_sha256,
    }


def _certify_model(coordinator: Coordinator, study: str) -> None:
    """Log what the hospitals' certificates together promise about the model, if that is not there yet."""
    recorder = coordinator.rooms.recorder
    promise = certificate.due(recorder.log.known(), study=study)
    if promise is not None:
        recorder.record(entries.entry_bytes(entries.ModelCertificate(**now_stamp(), study=study, **promise.fields())))


_COMMANDS: Mapping[str, Callable[[Coordinator, Arguments], Answer]] = {
    "status": _status,
    "account.list": _account_list,
    "site.invite": _site_invite,
    "site.list": _site_list,
    "site.reinstate": _site_reinstate,
    "site.revoke": _site_revoke,
    "site.suspend": _site_suspend,
    "study.show": _study_show,
    "study.start": _study_start,
    "study.resume": _study_resume,
    "study.pause": _study_pause,
    "study.abort": _study_abort,
    "study.release": _study_release,
    "study.model": _study_model,
    "record": _record,
    "audit.erase": _audit_erase,
    "audit.export-part": _audit_export_part,
    "audit.log": _audit_log,
    "audit.payloads": _audit_payloads,
    "audit.proof": _audit_proof,
    "audit.retention": _audit_retention,
    "audit.rotate-key": _audit_rotate_key,
}

_OF_CALLERS: Mapping[str, CallersAction] = {
    "account.invite": _account_invite,
    "account.renew": _account_renew,
    "account.revoke": _account_revoke,
    "account.role": _account_role,
    "audit.export": _audit_export,
    "study.list": _study_list,
    "study.submit": _study_submit,
}
"""What depends on who asks."""

ALL_COMMANDS = frozenset(_COMMANDS) | frozenset(_OF_CALLERS)

_SLOW = frozenset(
    {
        "account.invite",
        "account.renew",
        "account.revoke",
        "account.role",
        "audit.erase",
        "audit.export",
        "audit.export-part",
        "audit.log",
        "audit.payloads",
        "audit.proof",
        "audit.retention",
        "audit.rotate-key",
        "study.model",
        "study.release",
    }
)

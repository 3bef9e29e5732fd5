"""A study's evidence in one archive that a stranger can check offline.

Log format section 8. Order of an export:
    1 the latest checkpoint is taken; every file of the bundle is made from the entries under it
    2 manifest.sha256 lists the SHA-256 of each of them, and the export key signs its hash (manifest.note)
    3 export.created, with the manifest's hash, is appended to the log: an export that nobody logged cannot exist
    4 the entry, its receipt and the proof that the log only grew since step 1 go beside the manifest
    5 the archive is written to a temporary file, synced, and renamed
A crash after step 3 leaves an export in the log that nobody holds; it never leaves half an archive.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from audit import dropped, tiles
from audit.checkpoint import SignedCheckpoint, encode_hashes
from audit.entries import ExportCreated, Stamp, StudyCreated, entry_bytes
from audit.errors import ExportRefused, LogUnwritable
from audit.exchange import events, fhir_events
from audit.key_rotation import key_changes, stone_path
from audit.log import Log, LogView
from audit.note import NoteSigner, sign_note
from audit.policy import policy_for
from audit.report import LIMITS, Report, Stated, document_of, read_report, render_document, to_json
from audit.report.as_pdf import render_pdf
from audit.report.clauses import evaluate, matrix
from audit.report.oscal import assessment_results
from audit.storage_files import sync_directory

MANIFEST_SCHEMA = "consortium/evidence-manifest/v1"

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Archive members carry no time of their own: the same evidence is the same bytes."""

_CREATED = StudyCreated.TYPE.encode()
_STORED = {"model.safetensors"}
"""Floats and hashes hardly compress; everything else does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export made."""

    path: Path
    manifest_sha256: str
    leaf: int  # of export.created
    log_size: int  # of the checkpoint the evidence was read under
    policy_sha256: str
    report: Report


def export(
    *,
    log: Log,
    study: str,
    study_document: bytes,
    model: bytes | None,
    exported_by: str,
    software: Sequence[tuple[str, str]],
    signer: NoteSigner,
    stamp: Stamp,
    out: Path,
    cosigned: SignedCheckpoint | None = None,
    policy: bytes | None = None,
    payloads: Mapping[str, bytes] = MappingProxyType({}),
) -> Exported:
    """Write `out`, an archive with everything that `verify.py` needs.

    Args:
        log: open for writing, since the export is logged.
        study: the study's name.
        study_document: its canonical bytes, whose SHA-256 is the study digest.
        model: the last global model as safetensors, or None when there is none to hand out.
        exported_by: a role or pseudonym, printed as stated.
        software: (name, version) pairs, printed as stated.
        signer: the export key named by the log's first entry.
        stamp: identity and time of the export.created entry.
        out: where the archive goes; replaced if it exists.
        cosigned: a checkpoint of this log with witnesses' lines, to read it under; its latest one by default.
        policy: whose signatures that checkpoint should have; the log's alone by default.
        payloads: what is disclosed of what is kept beside the log: salt and payload, by commitment.

    Raises:
        ExportRefused: no such study, another document, or another export key than the log names.
        LogUnwritable: `out` or the log cannot be written.
    """
    stated = Stated(exported_at=stamp["ts"], exported_by=exported_by, software=tuple(software))
    made = contents(
        log=log,
        study=study,
        study_document=study_document,
        model=model,
        stated=stated,
        cosigned=cosigned,
        policy=policy,
    )
    if signer.verifier.vkey() != made.report.export_vkey:
        raise ExportRefused("export key", signer.verifier.vkey(), made.report.export_vkey)
    files, checkpoint = made.files, made.report.checkpoint
    files.update({f"payloads/{commitment}": data for commitment, data in payloads.items()})
    manifest, digest = manifest_of(files)
    text = f"{MANIFEST_SCHEMA}\nstudy {study}\nlog {checkpoint.origin} {checkpoint.size}\nmanifest-sha256 {digest}\n"
    entry = entry_bytes(ExportCreated(**stamp, study=study, manifest_sha256=digest, log_size=checkpoint.size))
    (leaf,) = log.append([entry])
    receipt_of_export = log.receipt(leaf)
    growth = log.consistency_proof(checkpoint.size, receipt_of_export.signed_checkpoint.checkpoint.size)
    files["manifest.sha256"] = manifest
    files["manifest.note"] = sign_note(text, signer).to_bytes()
    files["manifest.entry"] = entry
    files["manifest.tlog-proof"] = receipt_of_export.to_bytes()
    files["manifest.consistency"] = encode_hashes(growth)
    write_archive(out, files)
    return Exported(
        path=out,
        manifest_sha256=digest,
        leaf=leaf,
        log_size=checkpoint.size,
        policy_sha256=hashlib.sha256(files["log/policy.txt"]).hexdigest(),
        report=made.report,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What the manifest lists: the same whoever exports."""

    files: dict[str, bytes]  # by path; whoever exports adds what is its own
    report: Report


def contents(
    *,
    log: LogView,
    study: str,
    study_document: bytes,
    model: bytes | None,
    stated: Stated,
    cosigned: SignedCheckpoint | None = None,
    policy: bytes | None = None,
) -> Contents:
    """Step 1: every file, made from the entries under one checkpoint; arguments as of `export`.

    Raises:
        ExportRefused: no such study, or another document.
    """
    view = cosigned or log.checkpoint()
    checkpoint = view.checkpoint
    _require_known(log, study, checkpoint.size)
    report = read_report(
        log.known(0, checkpoint.size),
        study=study,
        checkpoint=checkpoint,
        document=study_document,
        stated=stated,
        cosigners=[line.name for line in view.note.signatures if line.name != checkpoint.origin],
    )
    found = hashlib.sha256(study_document).hexdigest()
    if found != report.study.digest:
        raise ExportRefused("study document", f"SHA-256 {found}", report.study.digest)
    told = document_of(report)
    report_json = to_json(report, told)
    digests = {"report.json": report_json, "study.json": study_document, "log/checkpoint": view.to_bytes()}
    files: dict[str, bytes] = {
        "README.txt": _template("README.txt"),
        "VERIFY.md": _template("VERIFY.md"),
        "report.html": render_document(told),
        "report.pdf": render_pdf(told),
        "report.json": report_json,
        "oscal-ar.json": assessment_results(
            report,
            evaluate(matrix(), report),
            limits=LIMITS,
            digests={name: hashlib.sha256(data).hexdigest() for name, data in digests.items()},
        ),
        "report.schema.json": resources.files("audit.report").joinpath("report.schema.json").read_bytes(),
        "study.json": study_document,
        "verify.py": resources.files("audit").joinpath("verify.py").read_bytes(),
        "log/checkpoint": view.to_bytes(),
        "log/policy.txt": policy or policy_text(log),
        "events.ndjson": events(log.known(0, checkpoint.size), study),
        "fhir.ndjson": fhir_events(log.known(0, checkpoint.size), study=study, origin=checkpoint.origin),
    }
    if model is not None:
        files["model.safetensors"] = model
    files.update(log_files(log, checkpoint.size, "log"))
    for change in key_changes(log.known(0, checkpoint.size)):
        if (stone := log.stepping_stone(change.leaf)) is not None:  # for whoever has a policy of before the change
            files[f"log/{stone_path(change.leaf)}"] = stone
    for index in report.key_leaves:
        files[f"proofs/{index}.tlog-proof"] = _receipt_at(log, index, checkpoint.size, view.to_bytes())
    return Contents(files=files, report=report)


def _require_known(log: LogView, study: str, size: int) -> None:
    """The study was not dropped, and the checkpoint covers the entry under which others were."""
    if log.applied is None:
        return
    said = log.applied.said(log.dropped)
    if log.applied.leaf >= size:
        raise ExportRefused("checkpoint", f"one of {size} entries; {said}", f"one over leaf {log.applied.leaf} or more")
    records = (json.loads(data) for data in log.known(0, size) if data is not None and _CREATED in data)
    if not any(record["type"] == StudyCreated.TYPE and record["study"] == study for record in records):
        raise ExportRefused("study", f"no entries of {study!r}: {said}", "a study whose entries are in the log")


def manifest_of(files: dict[str, bytes]) -> tuple[bytes, str]:
    """Step 2: the list of all files as `sha256sum` writes it, and its SHA-256."""
    manifest = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)).encode()
    return manifest, hashlib.sha256(manifest).hexdigest()


def policy_text(log: LogView) -> bytes:
    """The policy of a log without witnesses: its key (C2SP tlog-policy)."""
    return policy_for(log.verifier.vkey())


def write_archive(out: Path, files: dict[str, bytes]) -> None:
    """A zip of `files`, README first, then by name; complete and durable, or not there. Raises LogUnwritable."""
    names = sorted(files, key=lambda name: (name != "README.txt", name))
    temporary: Path | None = None
    try:
        descriptor, path = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
        temporary = Path(path)
        with os.fdopen(descriptor, "wb") as raw:
            with zipfile.ZipFile(raw, "w") as archive:
                for name in names:
                    member = zipfile.ZipInfo(name, date_time=_EPOCH)
                    stored = name in _STORED or ("/tile/" in name and "/entries/" not in name)
                    member.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
                    member.external_attr = 0o100644 << 16
                    archive.writestr(member, files[name])
            raw.flush()
            os.fsync(raw.fileno())
        temporary.chmod(0o644)
        temporary.replace(out)
        sync_directory(out.parent)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise LogUnwritable(out, error.strerror or str(error)) from error


def log_files(log: LogView, size: int, folder: str) -> Iterator[tuple[str, bytes]]:
    """Tiles and entry bundles of the first `size` entries, as they would be served at that checkpoint.

    Of a bundle that lost entries there is what is left, and beside it the list of what is gone.
    """
    lost = False
    for tile in tiles.tiles_of(size):
        yield f"{folder}/{tile.path()}", log.tile(tile)
        if tile.level == 0:
            known = list(log.known(tile.start, tile.start + tile.width))
            here = [entry for entry in known if entry is not None]
            if len(here) == len(known):
                yield f"{folder}/{tile.bundle_path()}", tiles.pack_bundle(here)
            elif here:
                yield f"{folder}/{tile.kept_path()}", tiles.pack_kept(known)
            lost = lost or len(here) < len(known)
    if lost:
        yield f"{folder}/{dropped.FILE}", log.dropped.bits


def _receipt_at(log: LogView, index: int, size: int, checkpoint: bytes) -> bytes:
    """A receipt under the evidence's own checkpoint, even when the log has grown since."""
    head = f"c2sp.org/tlog-proof@v1\nindex {index}\n".encode()
    return head + encode_hashes(log.inclusion_proof(index, size)) + b"\n" + checkpoint


def _template(name: str) -> bytes:
    return resources.files("audit").joinpath(f"templates/{name}").read_bytes()

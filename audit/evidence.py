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
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from audit import tiles
from audit.checkpoint import encode_hashes
from audit.entries import ExportCreated, Stamp, entry_bytes
from audit.errors import ExportRefused, LogUnwritable
from audit.exchange import events, fhir_events
from audit.log import Log, LogView
from audit.note import NoteSigner, sign_note
from audit.policy import policy_for
from audit.report import Report, Stated, read_report, render_html
from audit.storage import sync_directory

MANIFEST_SCHEMA = "consortium/evidence-manifest/v1"

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Archive members carry no time of their own: the same evidence is the same bytes."""

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

    Raises:
        ExportRefused: no such study, another document, or another export key than the log names.
        LogUnwritable: `out` or the log cannot be written.
    """
    stated = Stated(exported_at=stamp["ts"], exported_by=exported_by, software=tuple(software))
    view = log.checkpoint()
    checkpoint = view.checkpoint
    report = read_report(
        log.entries(0, checkpoint.size), study=study, checkpoint=checkpoint, document=study_document, stated=stated
    )
    found = hashlib.sha256(study_document).hexdigest()
    if found != report.study.digest:
        raise ExportRefused("study document", f"SHA-256 {found}", report.study.digest)
    if signer.verifier.vkey() != report.export_vkey:
        raise ExportRefused("export key", signer.verifier.vkey(), report.export_vkey)
    policy = policy_text(log)
    files: dict[str, bytes] = {
        "README.txt": _template("README.txt"),
        "VERIFY.md": _template("VERIFY.md"),
        "report.html": render_html(report),
        "report.json": report.to_json(),
        "study.json": study_document,
        "verify.py": resources.files("audit").joinpath("verify.py").read_bytes(),
        "log/checkpoint": view.to_bytes(),
        "log/policy.txt": policy,
        "events.ndjson": events(log.entries(0, checkpoint.size), study),
        "fhir.ndjson": fhir_events(log.entries(0, checkpoint.size), study=study, origin=checkpoint.origin),
    }
    if model is not None:
        files["model.safetensors"] = model
    files.update(_log_files(log, checkpoint.size))
    for index in report.key_leaves:
        receipt = _receipt_at(log, index, checkpoint.size, view.to_bytes())
        files[f"proofs/{index}.tlog-proof"] = receipt
    manifest = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)).encode()
    digest = hashlib.sha256(manifest).hexdigest()
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
        policy_sha256=hashlib.sha256(policy).hexdigest(),
        report=report,
    )


def policy_text(log: LogView) -> bytes:
    """The policy file to hand to auditors out of band (C2SP tlog-policy): the log's key; no witnesses yet."""
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
                    stored = name in _STORED or (name.startswith("log/tile/") and "/entries/" not in name)
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


def _log_files(log: Log, size: int) -> Iterator[tuple[str, bytes]]:
    """Tiles and entry bundles of the first `size` entries, as they would be served at that checkpoint."""
    for tile in tiles.tiles_of(size):
        yield f"log/{tile.path()}", log.tile(tile)
        if tile.level == 0:
            bundle = list(log.entries(tile.start, tile.start + tile.width))
            yield f"log/{tile.bundle_path()}", tiles.pack_bundle(bundle)


def _receipt_at(log: Log, index: int, size: int, checkpoint: bytes) -> bytes:
    """A receipt under the evidence's own checkpoint, even when the log has grown since."""
    head = f"c2sp.org/tlog-proof@v1\nindex {index}\n".encode()
    return head + encode_hashes(log.inclusion_proof(index, size)) + b"\n" + checkpoint


def _template(name: str) -> bytes:
    return resources.files("audit").joinpath(f"templates/{name}").read_bytes()

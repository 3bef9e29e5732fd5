"""A hospital's own evidence of a study, made from its own copy of the log: the coordinator is neither asked nor told.

Log format section 10. The archive is that of a coordinator (`audit.evidence`), and with it under `egress/` the
hospital's own log of what left, its key, and the hospital's certificate. The order:
    1 every file is made from the copy, and from the hospital's own log as it stands
    2 the hospital's signing key, which `site.enrolled` names in the log, signs the manifest
    3 `export.created` goes into the hospital's own log: by the running agent if there is one, else by this process
    4 the entry, its receipt and the proof that this log only grew since step 1 go beside the manifest
"""

import hashlib
import platform
import time
from dataclasses import dataclass
from pathlib import Path

from audit.checkpoint import encode_hashes
from audit.egress_entries import EvidenceExported, egress_bytes
from audit.errors import ExportRefused, LogUnwritable
from audit.evidence import contents, log_files, manifest_of, write_archive
from audit.log import LogView
from audit.note import NoteSigner, sign_note
from audit.report import Stated
from consortium import __version__
from consortium.contract.names import Digest
from site_agent.egress_log import EgressKeeper, EgressUnwritable, now_stamp, open_view
from site_agent.egress_rows import EgressRecord
from site_agent.home import AgentHome
from site_agent.log_copy import EvidenceRefused, decision_about, open_copy
from site_agent.model_folder import ModelFolder
from site_agent.store import Decision, Store

SITE_MANIFEST_SCHEMA = "consortium/site-evidence-manifest/v1"
PATIENCE_S = 15.0
"""A running agent moves what waits into the hospital's own log every second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteExported:
    """What an export made."""

    path: Path
    manifest_sha256: str
    leaf: int  # of export.created, in the hospital's own log
    log_size: int
    egress_size: int


def export_study(home: AgentHome, store: Store, name: str, out: Path) -> SiteExported:
    """Write `out`, evidence of a study as this hospital has it.

    Raises:
        CopyMissing, CopyAltered, EgressAltered: What it would be made from is not there, or not sound.
        EvidenceRefused: No such study here, or in the log.
        EgressUnwritable: The export could not be logged, or `out` not written.
    """
    log = open_copy(home)
    try:
        return _export(home, store, log, decision_about(log, store, name), out)
    except ExportRefused as error:
        raise EvidenceRefused(str(error)) from error
    except LogUnwritable as error:
        raise EgressUnwritable(str(error)) from error
    finally:
        log.close()


def _export(home: AgentHome, store: Store, log: LogView, decision: Decision, out: Path) -> SiteExported:
    stamp = now_stamp()
    software = (("hospital-consortium", __version__), ("python", platform.python_version()))
    stated = Stated(exported_at=stamp["ts"], exported_by=f"site:{home.site}", software=software)
    study, document = str(decision.study), decision.document
    made = contents(log=log, study=study, study_document=document, model=None, stated=stated)
    files, checkpoint = made.files, made.report.checkpoint
    released = {release.model_digest for release in made.report.released}
    if made.report.model_digest in released:  # what was not released stays here
        model = ModelFolder(home.folder / "models").path(Digest(str(made.report.model_digest)))
        if model.is_file():
            files["model.safetensors"] = model.read_bytes()
    EgressKeeper(home, store).close()
    own = open_view(home, store.egress_head())
    try:
        egress = own.checkpoint()
        files["egress/checkpoint"] = egress.to_bytes()
        files["egress/vkey"] = f"{own.verifier.vkey()}\n".encode()
        files["egress/certificate.pem"] = home.certificate_pem
        files.update(log_files(own, egress.checkpoint.size, "egress"))
    finally:
        own.close()
    manifest, digest = manifest_of(files)
    head = egress.checkpoint
    text = (
        f"{SITE_MANIFEST_SCHEMA}\nstudy {study}\nsite {home.site}\nlog {checkpoint.origin} {checkpoint.size}\n"
        f"egress {head.origin} {head.size}\nmanifest-sha256 {digest}\n"
    )
    entry = egress_bytes(
        EvidenceExported(
            **stamp,
            actor=f"site:{home.site}",
            study=study,
            manifest_sha256=digest,
            log_size=checkpoint.size,
            egress_size=head.size,
        )
    )
    leaf, receipt, growth = _logged(home, store, entry, head.size)
    files["manifest.sha256"] = manifest
    files["manifest.note"] = sign_note(
        text, NoteSigner(f"{checkpoint.origin}/site/{home.site}", home.signing_key)
    ).to_bytes()
    files["manifest.entry"] = entry
    files["manifest.tlog-proof"] = receipt
    files["manifest.consistency"] = growth
    write_archive(out, files)
    return SiteExported(path=out, manifest_sha256=digest, leaf=leaf, log_size=checkpoint.size, egress_size=head.size)


def _logged(home: AgentHome, store: Store, entry: bytes, since: int) -> tuple[int, bytes, bytes]:
    """Put an entry into the hospital's own log; its leaf, its receipt and the proof that the log grew from `since`."""
    sha256 = hashlib.sha256(entry).hexdigest()
    store.record_egress(
        EgressRecord(at=time.time(), kind="export", study_digest="", sha256=sha256, size_bytes=len(entry), entry=entry)
    )
    until = time.monotonic() + PATIENCE_S
    while True:
        EgressKeeper(home, store).close()
        own = open_view(home, store.egress_head())
        try:
            for leaf, data in enumerate(own.entries(since), since):
                if data == entry:
                    return leaf, own.receipt(leaf).to_bytes(), encode_hashes(own.consistency_proof(since))
        finally:
            own.close()
        if time.monotonic() > until:
            raise EgressUnwritable("the running agent did not put the export into the log of what left this hospital")
        time.sleep(0.2)

"""A-06: whoever exports changes a figure of report.json and signs the bundle with the real export key.

Held by: verify.py counts every figure again from the entries (step 18).
"""

import hashlib
import json

import pytest

from audit import verify
from audit.note import sign_note
from tests.fakes.sample_study_log import SampleConsortium, evidence, failed_steps, pack, unpack


def resealed(files: dict[str, bytes], sample: SampleConsortium) -> dict[str, bytes]:
    """A new manifest over changed files, signed with the real export key."""
    names = sorted(name for name in files if not name.startswith("manifest."))
    manifest = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in names).encode()
    head = files["manifest.note"].decode().split("manifest-sha256 ")[0]
    text = f"{head}manifest-sha256 {hashlib.sha256(manifest).hexdigest()}\n"
    note = sign_note(text, sample.export_signer).to_bytes()
    return files | {"manifest.sha256": manifest, "manifest.note": note}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("rounds", 0, "metrics", "auc"), 0.99),
        (("rounds", 0, "metrics_leaf"), 7),
        (("rounds", 2, "dropouts"), []),
        (("rounds", 2, "survivors"), ["cleveland", "hungary", "switzerland", "va-long-beach"]),
        (("sites", 1, "epsilon"), 0.01),
        (("sites", 1, "bytes_sent"), 0),
        (("sites", 1, "patients"), "1000-1999"),
        (("refusals", "authz.denied"), 0),
        (("released",), []),
        (("log", "size"), 1),
        (("study", "epsilon"), 0.1),
        (("model_digest",), "0" * 64),
    ],
)
def test_every_kind_of_figure(tmp_path, path, value):
    sample = SampleConsortium().whole_study()
    archive, policy = evidence(tmp_path, sample)
    files = unpack(archive)
    report = json.loads(files["report.json"])
    place = report["figures"]
    for key in path[:-1]:
        place = place[key]
    assert place[path[-1]] != value
    place[path[-1]] = value
    files["report.json"] = json.dumps(report).encode()
    failed = failed_steps(verify.check(str(pack(tmp_path / "bad.zip", resealed(files, sample))), policy))
    assert set(failed) == {"the export is in the log", "figures of the report"}
    assert failed["figures of the report"]["where"].startswith("report.json, figures.")
    assert failed["figures of the report"]["expected"] != failed["figures of the report"]["found"]


def test_a_resealed_bundle_is_not_the_one_that_was_logged(tmp_path):
    sample = SampleConsortium().whole_study()
    archive, policy = evidence(tmp_path, sample)
    files = unpack(archive) | {"report.html": b"<p>All is well.</p>"}
    failed = failed_steps(verify.check(str(pack(tmp_path / "bad.zip", resealed(files, sample))), policy))
    assert set(failed) == {"the export is in the log"}

"""A-06: whoever exports changes a figure of report.json and signs the bundle with the real export key.

Held by: verify.py counts every figure again from the entries, and looks up every entry that the clause matrix names
(step 19). Tried: rows a06 of `mutations.py`, each check of `_check_clause` and `_check_leaves`; and by hand the
comparison of the figures: each time, cases that were refused before pass the verification.
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


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A sample's consortium, its evidence and the policy to check it with."""
    sample = SampleConsortium().whole_study()
    archive, policy = evidence(tmp_path_factory.mktemp("a06"), sample)
    return sample, unpack(archive), policy


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
def test_every_kind_of_figure(tmp_path, honest, path, value):
    sample, files, policy = honest
    report = json.loads(files["report.json"])
    place = report["figures"]
    for key in path[:-1]:
        place = place[key]
    assert place[path[-1]] != value
    place[path[-1]] = value
    files = files | {"report.json": json.dumps(report).encode()}
    failed = failed_steps(verify.check(str(pack(tmp_path / "bad.zip", resealed(files, sample))), policy))
    assert set(failed) == {"the export is in the log", "figures of the report"}
    assert failed["figures of the report"]["where"].startswith("report.json, figures.")
    assert failed["figures of the report"]["expected"] != failed["figures of the report"]["found"]


def test_a_resealed_bundle_is_not_the_one_that_was_logged(tmp_path, honest):
    sample, files, policy = honest
    files = files | {"report.html": b"<p>All is well.</p>"}
    failed = failed_steps(verify.check(str(pack(tmp_path / "bad.zip", resealed(files, sample))), policy))
    assert set(failed) == {"the export is in the log"}


def first(rows, kind):
    """The first row of the matrix with entries of a type, and those entries."""
    return next((row, one) for row in rows for one in row["found"] if one["type"] == kind)


def claims_more(report):
    """A clause for which nothing was found is called evidenced."""
    row = next(row for row in report["clauses"] if row["status"] == "not evidenced by software")
    row["status"] = "evidenced"


def claims_all(report):
    """A clause for which a part was found is called evidenced."""
    row = next(row for row in report["clauses"] if row["id"] == "hipaa-164.312-b")
    assert row["status"] == "partly"
    row["status"] = "evidenced"


def claims_an_unknown_status(report):
    """A status of their own."""
    report["clauses"][0]["status"] = "certified"


def names_another_entry(report):
    """An entry of another type is given for evidence."""
    _, one = first(report["clauses"], "study.approved")
    one["leaves"][0] = 0


def invents_entries(report):
    """Entries that are in no log at all are given for evidence."""
    row = next(row for row in report["clauses"] if row["id"] == "hipaa-164.308-a-1-ii-D")
    row["found"] = [{"type": "log.reviewed", "count": 1, "leaves": [5]}]
    row["status"] = "partly"


def counts_more(report):
    """More entries than there are."""
    _, one = first(report["clauses"], "study.approved")
    one["count"] += 1


def names_a_leaf_beyond(report):
    """A figure in a section is said to be from an entry that does not exist."""
    table = next(block for part in report["sections"] for block in part["blocks"] if block["kind"] == "table")
    table["rows"][0][0]["leaves"] = [10**6]


@pytest.mark.parametrize(
    "lie",
    [
        claims_more,
        claims_all,
        claims_an_unknown_status,
        names_another_entry,
        invents_entries,
        counts_more,
        names_a_leaf_beyond,
    ],
    ids=lambda lie: lie.__name__,
)
def test_every_lie_of_the_clause_matrix(tmp_path, honest, lie):
    sample, files, policy = honest
    report = json.loads(files["report.json"])
    lie(report)
    files = files | {"report.json": json.dumps(report).encode()}
    failed = failed_steps(verify.check(str(pack(tmp_path / "bad.zip", resealed(files, sample))), policy))
    assert set(failed) == {"the export is in the log", "figures of the report"}
    assert failed["figures of the report"]["where"].startswith("report.json, ")

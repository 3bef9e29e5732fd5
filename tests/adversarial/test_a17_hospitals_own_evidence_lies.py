"""A-17: evidence that a hospital exported, and that says otherwise than the hospital's own log, or is not its own.

Held by: the manifest's signature under the key that the log names for the hospital (`_site_manifest`), and
the comparison of what left with what was signed for (`_compare_egress`), both in verify.py. Tried: rows a17 of
`mutations.py` (the signature, the size of what left, the tiles); without `_compare_egress` also those of updates that
were left out or that nobody signed for.
"""

from contextlib import closing

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.evidence import manifest_of
from audit.note import NoteSigner, sign_note
from audit.verify import check
from site_agent.site_evidence import export_study
from tests.fakes.evidence_home import STUDY, EvidenceHome, whole
from tests.fakes.sample_study_log import digest, failed_steps, key, pack, unpack

EGRESS_STEP = "the hospital's own log of what left it"
MANIFEST_STEP = "manifest is signed by the export key"


def failure(made, folder, files=None):
    """Which step does not hold, of the export or of an archive with these files."""
    archive = folder / "evidence.zip"
    if files is None:
        export_study(made.home, made.store, STUDY, archive)
    else:
        pack(archive, files)
    result = check(str(archive), made.policy)
    assert not result["verified"]
    return failed_steps(result)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return whole(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def files(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("evidence") / "evidence.zip"
    export_study(made.home, made.store, STUDY, out)
    return unpack(out)


def test_signed_with_another_key(made, files, tmp_path):
    """By somebody who has the hospital's evidence and not its key."""
    text = files["manifest.note"].partition(b"\n\n")[0].decode() + "\n"
    name = "fl.example.org/sample-consortium/site/hungary"
    for signer in (NoteSigner(name, Ed25519PrivateKey.generate()), made.consortium.export_signer):
        forged = sign_note(text, signer).to_bytes()
        step = failure(made, tmp_path, files | {"manifest.note": forged})[MANIFEST_STEP]
        assert step["where"] == "manifest.note"
        assert f"a signature by {name}+" in step["expected"]


def test_exported_in_another_hospitals_name(made, files, tmp_path):
    """One hospital signs what it says another one exported, or what is the other's log."""
    text = files["manifest.note"].partition(b"\n\n")[0].decode().replace("site hungary", "site cleveland") + "\n"
    own = NoteSigner("fl.example.org/sample-consortium/site/hungary", key("hungary"))
    step = failure(made, tmp_path, files | {"manifest.note": sign_note(text, own).to_bytes()})[MANIFEST_STEP]
    assert "/site/cleveland+" in step["expected"]
    other = NoteSigner("fl.example.org/sample-consortium/site/cleveland", key("cleveland"))
    steps = failure(made, tmp_path, files | {"manifest.note": sign_note(text, other).to_bytes()})
    assert steps[EGRESS_STEP]["where"] == "egress/certificate.pem"


def test_the_coordinators_evidence_with_a_hospitals_log_in_it(made, files, tmp_path):
    """Nobody but the hospital speaks for what left it."""
    with closing(made.consortium.open_log(tmp_path / "log")) as log:
        whole = unpack(made.consortium.export(log, tmp_path / "coordinator.zip").path)
    listed = {name: data for name, data in whole.items() if not name.startswith("manifest.")}
    listed |= {name: data for name, data in files.items() if name.startswith("egress/")}
    manifest, sha256 = manifest_of(listed)
    head = whole["manifest.note"].partition(b"manifest-sha256")[0].decode()
    note = sign_note(f"{head}manifest-sha256 {sha256}\n", made.consortium.export_signer).to_bytes()
    packed = whole | listed | {"manifest.sha256": manifest, "manifest.note": note}
    assert failure(made, tmp_path, packed)[EGRESS_STEP]["where"] == "egress"


@pytest.mark.parametrize("name", ["egress/checkpoint", "egress/tile/entries/000.p/7", "egress/tile/0/000.p/7"])
def test_an_altered_log_of_what_left(made, files, tmp_path, name):
    """By the hospital itself, which signs the list of files anew."""
    altered = dict(files)
    data = bytearray(altered[name])
    data[len(data) // 2] ^= 1
    altered[name] = bytes(data)
    listed = {name: data for name, data in altered.items() if not name.startswith("manifest.")}
    manifest, sha256 = manifest_of(listed)
    head = files["manifest.note"].partition(b"manifest-sha256")[0].decode()
    own = NoteSigner("fl.example.org/sample-consortium/site/hungary", key("hungary"))
    note = sign_note(f"{head}manifest-sha256 {sha256}\n", own).to_bytes()
    steps = failure(made, tmp_path, altered | {"manifest.sha256": manifest, "manifest.note": note})
    assert any(step["where"].startswith("egress/") for step in steps.values())


@pytest.mark.parametrize(
    ("change", "where", "found"),
    [
        (lambda sent: sent | {"size_bytes": sent["size_bytes"] - 1}, "(update.submitted of site:hungary)", "1272"),
        (
            lambda sent: None if sent["sha256"] == digest("masked hungary 3") else sent,
            "(update.submitted of site:hungary)",
            "none in the hospital's own log",
        ),
        (
            lambda sent: sent | {"sha256": "f" * 64} if sent["sha256"] == digest("masked hungary 2") else sent,
            "(update.submitted of site:hungary)",
            "none in the hospital's own log",
        ),
    ],
)
def test_what_left_is_not_what_the_hospital_signed_for(tmp_path, change, where, found):
    steps = failure(whole(tmp_path, change=change), tmp_path)
    assert list(steps) == [EGRESS_STEP]
    assert where in steps[EGRESS_STEP]["where"]
    assert steps[EGRESS_STEP]["found"] == found


def test_something_left_that_nobody_signed_for(tmp_path):
    made = EvidenceHome(tmp_path)
    made.consortium.whole_study()
    made.leaves("e" * 64, 5)
    steps = failure(made.build(), tmp_path)
    assert (list(steps), steps[EGRESS_STEP]["where"]) == ([EGRESS_STEP], "egress leaf 1")


def test_something_left_under_an_approval_that_is_not_in_the_log(tmp_path):
    made = whole(tmp_path)
    with made.store._transaction() as connection:
        connection.execute("UPDATE egress SET approval = ? WHERE id = 2", ("d" * 64,))
    steps = failure(made, tmp_path)
    assert (list(steps), steps[EGRESS_STEP]["where"]) == ([EGRESS_STEP], "egress leaf 2")
    assert steps[EGRESS_STEP]["found"] == f"approval {'d' * 64}"

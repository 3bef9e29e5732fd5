"""A-05: a forger makes a whole consistent log and bundle, signed with keys of his own.

Held by: the policy that the auditor obtained elsewhere (steps 2 and 3). Without one, the result says so.
Tried: rows a05 of `mutations.py`.
"""

from audit import verify
from audit.note import NoteSigner
from tests.fakes.sample_study_log import ORIGIN, SampleConsortium, evidence, failed_steps, key, pack, unpack


def forged(tmp_path, origin=ORIGIN):
    forger = SampleConsortium()
    forger.log_signer = NoteSigner(origin, key("forger"))
    return evidence(tmp_path / "forged", forger.whole_study())


def test_out_of_band_policy_refuses_it(tmp_path):
    (tmp_path / "forged").mkdir()
    (tmp_path / "real").mkdir()
    archive, _ = forged(tmp_path)
    _, policy = evidence(tmp_path / "real")
    failed = failed_steps(verify.check(str(archive), policy))
    assert "only lines of other keys" in failed["checkpoint is signed by the log"]["found"]


def test_another_origin(tmp_path):
    (tmp_path / "forged").mkdir()
    (tmp_path / "real").mkdir()
    archive, _ = forged(tmp_path, origin="fl.example.org/elsewhere")
    _, policy = evidence(tmp_path / "real")
    assert "policy names the log's key" in failed_steps(verify.check(str(archive), policy))


def test_without_a_policy_the_forgery_agrees_with_itself_and_the_result_warns(tmp_path):
    (tmp_path / "forged").mkdir()
    archive, _ = forged(tmp_path)
    result = verify.check(str(archive))
    assert result["verified"]
    assert any("NOT obtained independently" in note for note in result["notes"])


def test_a_checkpoint_signed_again_by_another_key_of_the_same_name(tmp_path):
    (tmp_path / "real").mkdir()
    archive, policy = evidence(tmp_path / "real")
    files = unpack(archive)
    text = files["log/checkpoint"].decode().rpartition("\n\n")[0] + "\n"
    line = NoteSigner(ORIGIN, key("forger")).sign(text).line()
    files["log/checkpoint"] = f"{text}\n{line}".encode()
    failed = failed_steps(verify.check(str(pack(tmp_path / "bad.zip", files)), policy))
    assert "checkpoint is signed by the log" in failed


def test_a_forged_line_beside_the_real_one_changes_nothing_but_the_hash(tmp_path):
    # Lines of unknown keys are allowed (witnesses will add theirs), so only the manifest objects.
    (tmp_path / "real").mkdir()
    archive, policy = evidence(tmp_path / "real")
    files = unpack(archive)
    text = files["log/checkpoint"].decode().rpartition("\n\n")[0] + "\n"
    files["log/checkpoint"] += NoteSigner("w.example", key("forger")).sign(text).line().encode()
    failed = failed_steps(verify.check(str(pack(tmp_path / "bad.zip", files)), policy))
    assert set(failed) == {"files are those of the manifest", "inclusion proofs"}

"""audit/verify.py on its own: arithmetic against independent implementations, the command line, honest evidence."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit import verify
from tests.fakes.sample_study_log import SITES, SampleConsortium, evidence, failed_steps, pack, unpack


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence")
    archive, policy = evidence(folder)
    (folder / "policy.txt").write_bytes(policy)
    return folder, archive, policy


def test_honest_evidence_verifies(sample):
    _, archive, policy = sample
    result = verify.check(str(archive), policy)
    assert failed_steps(result) == {}
    assert result["verified"]
    assert result["notes"] == []
    assert len(result["steps"]) == 22
    assert result["policy"]["independent"]
    assert verify.render(result).endswith("VERIFIED\n")


def test_without_a_policy_it_says_that_the_key_was_not_obtained_independently(sample):
    _, archive, _ = sample
    result = verify.check(str(archive))
    assert result["verified"]
    assert not result["policy"]["independent"]
    assert "NOT obtained independently" in verify.render(result)
    assert result["policy"]["sha256"] in verify.render(result)


def test_an_unpacked_folder_verifies_too(sample, tmp_path):
    _, archive, policy = sample
    shutil.unpack_archive(archive, tmp_path / "folder")
    assert verify.check(str(tmp_path / "folder"), policy)["verified"]
    (tmp_path / "folder/extra.txt").write_text("x")
    assert "files are those of the manifest" in failed_steps(verify.check(str(tmp_path / "folder"), policy))
    (tmp_path / "folder/extra.txt").unlink()
    (tmp_path / "folder/extra.txt").symlink_to("/etc/hostname")
    result = verify.check(str(tmp_path / "folder"), policy)
    assert result["steps"][0]["found"] == "a link or a device"


def test_the_packed_verify_is_this_file_and_runs_on_a_bare_python(sample, tmp_path):
    folder, archive, _ = sample
    files = unpack(archive)
    assert files["verify.py"] == Path(verify.__file__).read_bytes()
    (tmp_path / "verify.py").write_bytes(files["verify.py"])
    bare = [sys.executable, "-I", "-S", str(tmp_path / "verify.py")]  # no site-packages: no `cryptography`
    with_policy = [*bare, str(archive), "--policy", str(folder / "policy.txt")]
    good = subprocess.run(with_policy, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "VERIFIED" in good.stdout
    assert "own arithmetic" in good.stdout
    pack(tmp_path / "bad.zip", files | {"README.txt": b"changed"})
    bad = subprocess.run([*bare, str(tmp_path / "bad.zip"), "--json"], capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    step = json.loads(bad.stdout)["steps"][0]
    assert (step["status"], step["where"]) == ("FAIL", "README.txt")
    wrong = subprocess.run([*bare, str(tmp_path / "none.zip")], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "there is no file" in wrong.stderr


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--nonsense"], ["{archive}", "--policy", "/nonexistent"]])
def test_wrong_usage(sample, arguments, capsys):
    filled = [argument.format(archive=sample[1]) for argument in arguments]
    with pytest.raises(SystemExit) as stopped:
        verify.main(filled)
    assert stopped.value.code == 2
    assert "verify.py" in capsys.readouterr().err


def test_main_returns_the_exit_status(sample, capsys, tmp_path):
    folder, archive, _ = sample
    assert verify.main([str(archive), "--policy", str(folder / "policy.txt")]) == 0
    assert "PASS 18" in capsys.readouterr().out
    (tmp_path / "no.zip").write_bytes(b"not a zip")
    assert verify.main([str(tmp_path / "no.zip")]) == 1
    assert "archive can be read safely" in capsys.readouterr().out


def test_own_ed25519_agrees_with_a_library(monkeypatch):
    for number in range(12):
        key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        public, message = key.public_key().public_bytes_raw(), b"message" * number
        signature = key.sign(message)
        assert verify.ed25519_holds(public, signature, message)
        for bad in (
            (public, signature, message + b"!"),
            (public, signature[:-1] + bytes([signature[-1] ^ 1]), message),
            (public, bytes([signature[0] ^ 1]) + signature[1:], message),
            (bytes([public[0] ^ 1]) + public[1:], signature, message),
            (public[:31], signature, message),
            (public, signature[:63], message),
        ):
            assert not verify.ed25519_holds(*bad)
            assert not verify.signature_holds(*bad)
    assert verify.FAST_SIGNATURES
    monkeypatch.setattr(verify, "FAST_SIGNATURES", False)
    assert verify.signature_holds(public, signature, message)


def test_own_ed25519_refuses_a_second_spelling_of_a_signature():
    # RFC 8032 section 5.1.7: S must be below the group's order, or one signature would have several spellings.
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public, signature = key.public_key().public_bytes_raw(), key.sign(b"text")
    order = 2**252 + 27742317777372353535851937790883648493
    again = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    assert not verify.ed25519_holds(public, again, b"text")
    assert not verify.ed25519_holds((2**255 - 19).to_bytes(32, "little"), signature, b"text")
    assert isinstance(Ed25519PublicKey.from_public_bytes(public), Ed25519PublicKey)


@pytest.mark.parametrize(
    ("sigma", "q", "steps", "delta"),
    [
        (3.0, 0.2, 40, 1e-3),
        (1.0, 0.01, 1000, 1e-5),
        (5.0, 1.0, 20, 1e-5),
        (0.8, 0.05, 200, 1e-5),
        (20.0, 0.2, 40, 1e-3),
    ],
)
def test_the_two_bounds_enclose_the_tight_figure(sigma, q, steps, delta):
    """Against dp-accounting's privacy loss distributions, which share nothing with either bound."""
    dp_accounting = pytest.importorskip("dp_accounting")
    pld = pytest.importorskip("dp_accounting.pld")
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    event = dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(sigma))
    accountant.compose(event, steps)
    tight = accountant.get_epsilon(delta)
    spent = {(sigma, q): steps}
    assert verify.epsilon_lower(spent, delta) <= tight + 1e-6
    assert tight <= verify.epsilon_upper(spent, delta) + 1e-6
    rdp = dp_accounting.rdp.RdpAccountant(verify.ORDERS, dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    rdp.compose(event, steps)
    assert verify.epsilon_upper(spent, delta) == pytest.approx(rdp.get_epsilon(delta), rel=1e-6)


def test_bounds_grow_with_steps_and_add_up_over_kinds():
    one = {(4.0, 0.2): 10}
    assert verify.epsilon_upper(one, 1e-3) < verify.epsilon_upper({(4.0, 0.2): 20}, 1e-3)
    assert verify.epsilon_lower(one, 1e-3) < verify.epsilon_lower({(4.0, 0.2): 20}, 1e-3)
    both = {(4.0, 0.2): 10, (2.0, 0.1): 10}
    assert verify.epsilon_upper(both, 1e-3) > verify.epsilon_upper(one, 1e-3)
    assert verify.epsilon_lower(both, 1e-3) >= verify.epsilon_lower(one, 1e-3)


def test_what_is_not_confirmed_by_the_site_is_noted(tmp_path):
    sample = SampleConsortium(rounds=2)
    sample.opening()
    sample.agreeing()
    sample.one_round(1)
    gone = [line for line in sample.lines if b'"actor":"site:va-long-beach"' in line][-3:]  # killed after its upload
    sample.lines = [line for line in sample.lines if line not in gone]
    archive, policy = evidence_of(tmp_path, sample)
    result = verify.check(str(archive), policy)
    assert failed_steps(result) == {}
    assert any("not confirmed by an update.submitted" in note for note in result["notes"])
    assert any("va-long-beach in round 1" in note for note in result["notes"])


def evidence_of(folder: Path, sample: SampleConsortium) -> tuple[Path, bytes]:
    sample.rounds = 1  # the model of the only round
    return evidence(folder, sample)


def test_a_study_without_rounds_or_model(tmp_path):
    sample = SampleConsortium()
    sample.opening()
    sample.agreeing(without=SITES)
    log = sample.open_log(tmp_path / "log")
    archive = sample.export(log, tmp_path / "evidence.zip", model=None).path
    log.close()
    result = verify.check(str(archive))
    assert failed_steps(result) == {}
    assert any("no model file" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        (b"", "none"),
        (b"nonsense\n", "nonsense"),
        (b"log broken\nquorum none\n", "broken"),
        (b"log example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k\nquorum none\n", "0 keys"),
        (b"log example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k\nquorum all\n", "'all'"),
    ],
)
def test_policies_it_cannot_follow(sample, policy, found):
    step = failed_steps(verify.check(str(sample[1]), policy))["policy names the log's key"]
    assert found in step["found"]


def test_first_difference_names_the_path():
    left = {"a": [1, {"b": 2.0}], "c": None}
    assert verify.first_difference("x", left, json.loads(json.dumps(left))) is None
    assert verify.first_difference("x", left, {"a": [1, {"b": 3.0}], "c": None}) == ("x.a[1].b", 2.0, 3.0)
    assert verify.first_difference("x", left, {"a": [1], "c": None}) == ("x.a", "2 items", "1 items")
    assert verify.first_difference("x", left, {"a": [True, {"b": 2.0}], "c": None}) == ("x.a[0]", 1, True)
    assert verify.first_difference("x", left, {"a": left["a"]}) == ("x.c", None, "nothing")

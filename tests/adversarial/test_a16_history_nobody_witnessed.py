"""A-16: a log's owner shows an auditor a history that its witnesses never saw, signed with the true key of the log.

Held by: step 3 of `verify.py`, for whoever has a policy that names witnesses. Tried: rows a16 of `mutations.py`,
which skip the quorum there, and count lines without verifying them.
"""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import verify
from audit.cosignature import WitnessSigner
from audit.note import Note
from audit.policy import policy_for
from tests.fakes.sample_study_log import SampleConsortium, failed_steps

NAMES = ("anna", "berg", "city", "dorf")
WITNESSES = {
    name: WitnessSigner(f"log.example/witness/{name}", Ed25519PrivateKey.from_private_bytes(bytes([at]) * 32))
    for at, name in enumerate(NAMES, start=40)
}
STEP = "checkpoint is signed by the log"
NOW = 1_780_000_000


def checked(folder, cosign):
    """An archive over a checkpoint with the lines that `cosign` makes, checked under a policy of 3 in 4."""
    consortium = SampleConsortium().whole_study()
    log = consortium.open_log(folder / "log")
    own = log._signed
    lines = tuple(cosign(own.note.text))
    log._signed = replace(own, note=Note(text=own.note.text, signatures=(*own.note.signatures, *lines)))
    archive = consortium.export(log, folder / "evidence.zip").path
    policy = policy_for(log.verifier.vkey(), {name: one.key for name, one in WITNESSES.items()}, needed=3)
    log.close()
    return verify.check(str(archive), policy)


def test_a_history_that_three_witnesses_saw(tmp_path):
    result = checked(tmp_path, lambda text: [WITNESSES[name].cosign(text, NOW) for name in NAMES[:3]])
    assert failed_steps(result) == {}
    assert "cosigned by anna, berg, city" in result["steps"][2]["detail"]


@pytest.mark.parametrize("seen_by", [(), NAMES[:2], ("anna", "anna", "anna")])
def test_too_few_witnesses(tmp_path, seen_by):
    result = checked(tmp_path, lambda text: [WITNESSES[name].cosign(text, NOW) for name in seen_by])
    step = failed_steps(result)[STEP]
    assert step["expected"] == "cosignatures of 3 of anna, berg, city, dorf"
    assert step["found"] == (", ".join(sorted(set(seen_by))) or "none")


def test_cosignatures_of_another_history(tmp_path):
    other = "log.example\n3\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    result = checked(tmp_path, lambda _: [WITNESSES[name].cosign(other, NOW) for name in NAMES[:3]])
    assert failed_steps(result)[STEP]["found"] == "one that does not verify"

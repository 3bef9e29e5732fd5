"""audit/cosignature.py: one line per witness, over the checkpoint's text and a time, by a key of its own."""

import pickle
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.cosignature import TIME_MAX, WitnessKey, WitnessSigner, cosigned_message
from audit.errors import VerificationError
from audit.note import NoteVerifier

TEXT = "fl.example.org/log\n7\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
NOW = 1_780_000_000


def witness(name="fl.example.org/log/witness/st-anna", seed=5):
    return WitnessSigner(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def test_the_message_is_that_of_the_specification():
    assert cosigned_message(TEXT, 9).startswith(b"cosignature/v1\ntime 9\nfl.example.org/log\n7\n")


def test_a_cosignature_says_when():
    line = witness().cosign(TEXT, NOW)
    assert witness().key.is_of(line)
    assert witness().key.verify(TEXT, line) == NOW
    assert len(line.payload) == 72


def test_neither_text_nor_time_can_be_changed():
    line = witness().cosign(TEXT, NOW)
    later = replace(line, payload=(NOW + 1).to_bytes(8, "big") + line.payload[8:])
    for text, changed in [(TEXT.replace("7", "8", 1), line), (TEXT, later)]:
        with pytest.raises(VerificationError, match="one that fails"):
            witness().key.verify(text, changed)


def test_another_key_under_the_same_name():
    line = witness().cosign(TEXT, NOW)
    assert not witness(seed=6).key.is_of(line)
    with pytest.raises(VerificationError, match="one that fails"):
        witness(seed=6).key.verify(TEXT, line)


@pytest.mark.parametrize("time_s", [0, TIME_MAX + 1])
def test_times_outside_their_range(time_s):
    with pytest.raises(VerificationError, match="a time from 1"):
        witness().cosign(TEXT, time_s)
    line = witness().cosign(TEXT, NOW)
    with pytest.raises(VerificationError, match="a time from 1"):
        witness().key.verify(TEXT, replace(line, payload=time_s.to_bytes(8, "big") + line.payload[8:]))


def test_a_payload_of_another_length():
    line = witness().cosign(TEXT, NOW)
    with pytest.raises(VerificationError, match="72 bytes, found 71"):
        witness().key.verify(TEXT, replace(line, payload=line.payload[:-1]))


def test_a_witness_key_is_no_log_key():
    vkey = witness().key.vkey()
    assert WitnessKey.from_vkey(vkey) == witness().key
    with pytest.raises(VerificationError, match="type 1"):
        NoteVerifier.from_vkey(vkey)
    log_key = NoteVerifier(name="fl.example.org/log", public_key=witness().key.public_key)
    with pytest.raises(VerificationError, match="type 4"):
        WitnessKey.from_vkey(log_key.vkey())


def test_the_private_key_neither_prints_nor_travels():
    assert repr(witness()) == f"WitnessSigner({witness().key.vkey()})"
    with pytest.raises(TypeError):
        pickle.dumps(witness())

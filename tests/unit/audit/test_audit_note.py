"""audit/note.py: the specification's worked example, and every malformed note by name."""

import base64
import copy
import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.errors import VerificationError
from audit.note import NOTE_BYTES_MAX, NoteSigner, NoteVerifier, parse_note, sign_note, verify_note

VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n\n\u2014 example.com/foo"
    " Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()


def signer(name: str = "fl.example.org/log", seed: int = 1) -> NoteSigner:
    return NoteSigner(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def test_worked_example_of_the_specification():
    verifier = NoteVerifier.from_vkey(VKEY)
    note = parse_note(EXAMPLE)
    assert verify_note(note, [verifier]) == (verifier,)
    assert note.text == "This is an example message.\n"
    assert note.to_bytes() == EXAMPLE
    assert verifier.vkey() == VKEY


def test_a_note_signed_here_verifies_and_survives_parsing():
    note = sign_note("one\ntwo\n", signer(), signer("other", 2))
    again = parse_note(note.to_bytes())
    assert again == note
    assert len(verify_note(again, [signer("other", 2).verifier, signer().verifier])) == 2


def test_lines_of_unknown_keys_are_skipped():
    note = sign_note("text\n", signer("stranger", 9), signer())
    cosigned = note.to_bytes() + f"\u2014 hospital.example/w {base64.b64encode(bytes(76)).decode()}\n".encode()
    assert verify_note(parse_note(cosigned), [signer().verifier]) == (signer().verifier,)


def test_a_known_key_that_fails_spoils_the_note():
    good, other = sign_note("text\n", signer(), signer("other", 2)), sign_note("text!\n", signer())
    mixed = good.to_bytes().replace(good.signatures[0].line().encode(), other.signatures[0].line().encode())
    with pytest.raises(VerificationError, match="one that fails"):
        verify_note(parse_note(mixed), [signer().verifier, signer("other", 2).verifier])


def test_a_note_without_a_trusted_signature():
    with pytest.raises(VerificationError, match=r"signatures by fl\.example\.org/log\+"):
        verify_note(sign_note("text\n", signer()), [signer("other", 2).verifier])
    # The same name is not enough: the key id must match too.
    with pytest.raises(VerificationError):
        verify_note(sign_note("text\n", signer()), [signer(seed=3).verifier])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"text\n", "a blank line"),
        (b"text\n\n", "no last newline"),
        (b"text\n\n- a b\n", "em dash"),
        ("text\n\n\u2014 name\n".encode(), "em dash"),
        ("text\n\n\u2014 na+me AAAAAAA=\n".encode(), "key name"),
        ("text\n\n\u2014 name AAAA\n".encode(), "5 to 8192 bytes"),
        ("text\n\n\u2014 name !!!!\n".encode(), "base64"),
        ("text\n\n\u2014 name AAAAAAB=\n".encode(), "canonical base64"),
        (b"te\x00xt\n\n" + EXAMPLE.split(b"\n\n")[1], "control characters"),
        (b"te\rxt\n\n" + EXAMPLE.split(b"\n\n")[1], "control characters"),
        (b"\xff\n\n", "UTF-8"),
        (b"x" * (NOTE_BYTES_MAX + 1), "at most"),
        (b"text\n\n" + EXAMPLE.split(b"\n\n")[1] * 101, "at most 100 signature lines"),
    ],
)
def test_malformed_notes_are_refused_by_name(data, message):
    with pytest.raises(VerificationError, match=message):
        parse_note(data)


def test_the_split_is_at_the_last_blank_line():
    note = sign_note("a\n\nb\n", signer())
    assert parse_note(note.to_bytes()).text == "a\n\nb\n"


@pytest.mark.parametrize(
    ("vkey", "message"),
    [
        ("example.com/foo", "<name>"),
        (VKEY.replace("530d903a", "530d903b"), "key id"),
        (VKEY[:-4] + "AAAA", "key id"),
        ("example.com/foo+530d903a+AQ==", "Ed25519 key"),
        ("example.com/foo+530d903a+Bekye" + VKEY[-39:], "Ed25519 key"),
        ("+530d903a+" + VKEY.rsplit("+", 1)[1], "key name"),
    ],
)
def test_malformed_verifier_keys(vkey, message):
    with pytest.raises(VerificationError, match=message):
        NoteVerifier.from_vkey(vkey)


def test_a_signer_shows_and_leaks_nothing_private():
    assert repr(signer()) == f"NoteSigner({signer().verifier.vkey()})"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(signer())
    with pytest.raises(TypeError, match="not pickled"):
        copy.deepcopy(signer())

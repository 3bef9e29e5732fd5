"""audit/checkpoint.py: tree heads and receipts."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import merkle
from audit.checkpoint import (
    Checkpoint,
    Receipt,
    parse_checkpoint,
    parse_receipt,
    sign_checkpoint,
    verify_checkpoint,
    verify_receipt,
)
from audit.errors import VerificationError
from audit.note import NoteSigner, sign_note

SIGNER = NoteSigner("fl.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(32)))
ENTRIES = [b'{"n":%d}' % number for number in range(5)]
TREE = merkle.Tree(merkle.leaf_hash(entry) for entry in ENTRIES)
HEAD = Checkpoint(origin=SIGNER.name, size=5, root=TREE.root())


def test_text_and_back():
    signed = sign_checkpoint(HEAD, SIGNER)
    assert signed.to_bytes().decode().startswith(f"fl.example.org/log\n5\n{base64.b64encode(TREE.root()).decode()}\n\n")
    assert verify_checkpoint(signed.to_bytes(), SIGNER.verifier) == signed


def test_the_empty_log():
    empty = Checkpoint(origin=SIGNER.name, size=0, root=merkle.EMPTY_ROOT)
    assert empty.text().split("\n")[1:3] == ["0", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="]


def test_cosignatures_and_extension_lines_are_tolerated():
    text = HEAD.text() + "extension of a later release\n"
    data = sign_note(text, SIGNER).to_bytes() + b"\xe2\x80\x94 hospital.example " + base64.b64encode(bytes(76)) + b"\n"
    assert verify_checkpoint(data, SIGNER.verifier).checkpoint == HEAD
    assert verify_checkpoint(data, SIGNER.verifier).to_bytes() == data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("origin\n5\n", "one line each"),
        ("origin\n05\n" + "A" * 43 + "=\n", "decimal"),
        ("origin\n+5\n" + "A" * 43 + "=\n", "decimal"),
        ("origin\n9223372036854775808\n" + "A" * 43 + "=\n", "decimal"),
        ("origin\n\u0665\n" + "A" * 43 + "=\n", "decimal"),
        ("origin\n5\nAAAA\n", "32-byte root"),
        ("origin\n5\n!\n", "base64"),
        ("or igin\n5\n" + "A" * 43 + "=\n", "key name"),
        ("origin\n\n5\n" + "A" * 43 + "=\n", "one line each"),
    ],
)
def test_malformed_checkpoints(text, message):
    with pytest.raises(VerificationError, match=message):
        Checkpoint.from_text(text)


def test_origin_and_key_must_belong_together():
    other = NoteSigner("elsewhere", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    with pytest.raises(VerificationError, match="a key of elsewhere"):
        sign_checkpoint(HEAD, other)
    with pytest.raises(VerificationError, match="origin elsewhere"):
        verify_checkpoint(sign_checkpoint(HEAD, SIGNER).to_bytes(), other.verifier)


@pytest.mark.parametrize("index", range(5))
def test_receipts(index):
    receipt = Receipt(index=index, proof=TREE.inclusion_proof(index), signed_checkpoint=sign_checkpoint(HEAD, SIGNER))
    data = receipt.to_bytes()
    assert parse_receipt(data) == verify_receipt(data, ENTRIES[index], SIGNER.verifier) == receipt
    assert parse_receipt(data.replace(b"\nindex", b"\nextra AAAA\nindex")) == receipt
    with pytest.raises(VerificationError, match="root"):
        verify_receipt(data, ENTRIES[index - 1], SIGNER.verifier)


def test_a_receipt_of_a_log_with_one_entry_has_no_hashes():
    root = merkle.leaf_hash(b"only")
    head = Checkpoint(origin=SIGNER.name, size=1, root=root)
    receipt = Receipt(index=0, proof=(), signed_checkpoint=sign_checkpoint(head, SIGNER))
    assert verify_receipt(receipt.to_bytes(), b"only", SIGNER.verifier) == receipt


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"something else\nindex 0\n\n", "tlog-proof@v1"),
        (b"c2sp.org/tlog-proof@v1\n\n", "an index line"),
        (b"c2sp.org/tlog-proof@v1\nindex 00\n\n", "decimal"),
        (b"c2sp.org/tlog-proof@v1\nextra !\nindex 0\n\n", "base64"),
        (b"c2sp.org/tlog-proof@v1\nindex 0\n" + b"AAAA\n" * 65 + b"\n", "at most 64"),
        (b"c2sp.org/tlog-proof@v1\nindex 0\n!\n\n", "base64"),
        (b"\xff\n\n", "ASCII"),
        (b"c2sp.org/tlog-proof@v1\nindex 0\n\nno checkpoint", "a blank line"),
    ],
)
def test_malformed_receipts(data, message):
    with pytest.raises(VerificationError, match=message):
        parse_receipt(data)


def test_parsing_alone_proves_nothing():
    forged = sign_checkpoint(HEAD, NoteSigner(SIGNER.name, Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)))
    assert parse_checkpoint(forged.to_bytes()).checkpoint == HEAD
    with pytest.raises(VerificationError):
        verify_checkpoint(forged.to_bytes(), SIGNER.verifier)

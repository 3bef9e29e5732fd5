"""Which keys of a log are believed after an entry about them, and what its entries tell of its keys."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import entries
from audit.errors import EntryRefused, VerificationError
from audit.key_rotation import LogKeys, key_changes
from audit.note import NoteSigner, sign_note

NAME = "fl.example.org/log"
FIRST, SECOND, THIRD = (NoteSigner(NAME, Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2, 3))
STAMP = entries.stamp(1_795_000_000_000, bytes(10))
UNTIL = "2026-12-24T00:00:00.000Z"


def rotated(old, new):
    return {
        "old_vkey": old.verifier.vkey(),
        "new_vkey": new.verifier.vkey(),
        "overlap_until": UNTIL,
        "reason": "planned",
    }


def retired(signer):
    return {"vkey": signer.verifier.vkey()}


def keys(*signers):
    return LogKeys(accepted=tuple(signer.verifier for signer in signers))


def under(*signers):
    return sign_note("a checkpoint\n", *signers)


def test_the_new_key_is_believed_beside_the_old_one_until_that_is_retired():
    both = keys(FIRST).after("key.rotated", rotated(FIRST, SECOND), under(FIRST))
    assert both == keys(FIRST, SECOND)
    assert both.newest == SECOND.verifier
    assert both.after("key.rotated", rotated(FIRST, SECOND), under(SECOND)) == both  # read again
    assert both.after("key.retired", retired(FIRST), under(SECOND)) == keys(SECOND)
    assert both.after("model.released", {}, under(FIRST)) == both
    assert LogKeys.from_vkeys(both.vkeys()) == both


def test_changes_among_keys_that_are_not_believed_are_history():
    later = keys(THIRD)
    assert later.after("key.rotated", rotated(FIRST, SECOND), under(THIRD)) == later
    assert later.after("key.retired", retired(FIRST), under(THIRD)) == later


@pytest.mark.parametrize(
    ("believed", "kind", "body", "signed", "found"),
    [
        (keys(FIRST), "key.rotated", rotated(FIRST, SECOND), under(SECOND), "a signature by"),
        (keys(FIRST), "key.rotated", rotated(FIRST, SECOND), under(), "a signature by"),
        (keys(FIRST, SECOND), "key.rotated", rotated(FIRST, THIRD), under(FIRST, SECOND), "the newest key replaced"),
        (keys(FIRST, SECOND), "key.rotated", rotated(SECOND, THIRD), under(FIRST), "a signature by"),
        (keys(FIRST, SECOND), "key.retired", retired(SECOND), under(FIRST, SECOND), "a key that was replaced"),
        (keys(FIRST), "key.retired", {}, under(FIRST), "verifier key"),
    ],
)
def test_who_may_not_say_what_follows(believed, kind, body, signed, found):
    with pytest.raises(VerificationError, match=found):
        believed.after(kind, body, signed)


def test_another_name_is_neither_written_nor_believed():
    other = NoteSigner("fl.example.org/another", Ed25519PrivateKey.from_private_bytes(bytes([4]) * 32))
    with pytest.raises(VerificationError, match="a key of the name"):
        keys(FIRST).after("key.rotated", rotated(FIRST, other), under(FIRST))
    for bad in (other, FIRST):
        with pytest.raises(EntryRefused, match="another key of the name"):
            entries.KeyRotated(**STAMP, **rotated(FIRST, bad))
    with pytest.raises(VerificationError, match="of one name"):
        LogKeys.from_vkeys([FIRST.verifier.vkey(), other.verifier.vkey()])
    with pytest.raises(VerificationError, match="0 keys"):
        LogKeys.from_vkeys([])


def test_what_a_log_tells_of_its_keys():
    lines = [
        entries.entry_bytes(entries.SiteInvited(**STAMP, site="amber-clinic")),
        None,  # it was dropped
        entries.entry_bytes(entries.KeyRotated(**STAMP, **rotated(FIRST, SECOND))),
        entries.entry_bytes(entries.KeyRetired(**STAMP, **retired(FIRST))),
        entries.entry_bytes(entries.KeyRotated(**STAMP, **rotated(SECOND, THIRD))),
    ]
    first, second = key_changes(lines)
    assert (first.leaf, first.old, first.new, first.retired) == (2, FIRST.verifier, SECOND.verifier, True)
    assert (second.leaf, second.new, second.retired, second.overlap_until) == (4, THIRD.verifier, False, UNTIL)

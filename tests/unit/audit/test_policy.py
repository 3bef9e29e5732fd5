"""audit/policy.py: who must have signed, as tlog-policy writes it."""

import itertools

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import merkle, verify
from audit.checkpoint import Checkpoint, SignedCheckpoint, sign_checkpoint
from audit.cosignature import WitnessSigner
from audit.errors import VerificationError
from audit.note import Note, NoteSigner
from audit.policy import Cosigned, parse_policy, policy_for, witnesses_needed

LOG = NoteSigner("fl.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32))
SITES = ("anna", "berg", "city", "dorf")
WITNESSES = {
    name: WitnessSigner(f"fl.example.org/log/witness/{name}", Ed25519PrivateKey.from_private_bytes(bytes([at]) * 32))
    for at, name in enumerate((*SITES, "irb"), start=2)
}
KEYS = {name: signer.key for name, signer in WITNESSES.items()}
NOW = 1_780_000_000
WITNESS_LINES = "".join(f"witness {name} {key.vkey()}\n" for name, key in KEYS.items())
NESTED = f"""
# hospitals, and one who is none
log {LOG.verifier.vkey()} https://fl.example.org/log
{WITNESS_LINES}
group hospitals 3 {" ".join(SITES)}
group both all hospitals irb
quorum both
"""


def cosigned(*names, text_of=None) -> SignedCheckpoint:
    signed = sign_checkpoint(Checkpoint(origin=LOG.name, size=5, root=merkle.leaf_hash(b"x")), LOG)
    lines = tuple(WITNESSES[name].cosign(text_of or signed.note.text, NOW + at) for at, name in enumerate(names))
    note = Note(text=signed.note.text, signatures=(*signed.note.signatures, *lines))
    return SignedCheckpoint(checkpoint=signed.checkpoint, note=note)


@pytest.mark.parametrize(("n", "f", "q"), [(3, 0, 2), (4, 1, 3), (5, 1, 4), (7, 2, 5), (10, 3, 7)])
def test_the_arithmetic_of_the_specification(n, f, q):
    assert witnesses_needed(n, f) == q


@pytest.mark.parametrize("n", range(1, 8))
def test_two_quorums_share_somebody_honest(n):
    for f in range(n):
        needed = witnesses_needed(n, f)
        worst = (
            min(
                len(set(one) & set(other))
                for one, other in itertools.product(itertools.combinations(range(n), needed), repeat=2)
            )
            if needed <= n
            else f + 1
        )
        assert worst >= f + 1
    with pytest.raises(ValueError, match="may lie"):
        witnesses_needed(n, n)


def test_a_policy_that_we_write_is_read_back():
    policy = parse_policy(policy_for(LOG.verifier.vkey(), {name: KEYS[name] for name in SITES}, needed=3))
    assert policy.log(LOG.name) == LOG.verifier
    assert policy.require_quorum(cosigned("anna", "dorf", "city")) == (
        Cosigned(witness="anna", time_s=NOW),
        Cosigned(witness="dorf", time_s=NOW + 1),
        Cosigned(witness="city", time_s=NOW + 2),
    )
    with pytest.raises(VerificationError, match=r"3 of anna, berg, city, dorf, found cosignatures of anna, berg"):
        policy.require_quorum(cosigned("anna", "berg"))


def test_without_witnesses_nobody_is_asked():
    policy = parse_policy(policy_for(LOG.verifier.vkey()))
    assert policy.require_quorum(cosigned()) == ()


def test_groups_of_groups():
    policy = parse_policy(NESTED.encode())
    assert len(policy.require_quorum(cosigned("anna", "berg", "city", "irb"))) == 4
    for names in [("anna", "berg", "city", "dorf"), ("anna", "berg", "irb"), ()]:
        with pytest.raises(VerificationError, match="2 of hospitals, irb"):
            policy.require_quorum(cosigned(*names))


def test_one_witness_counts_once_however_often_it_signs():
    policy = parse_policy(policy_for(LOG.verifier.vkey(), {name: KEYS[name] for name in SITES}, needed=2))
    with pytest.raises(VerificationError, match=r"cosignatures of anna$"):
        policy.require_quorum(cosigned("anna", "anna", "anna"))


def test_strangers_are_skipped_and_a_known_one_that_fails_spoils_everything():
    policy = parse_policy(policy_for(LOG.verifier.vkey(), {name: KEYS[name] for name in SITES}, needed=1))
    assert [one.witness for one in policy.require_quorum(cosigned("irb", "berg"))] == ["berg"]
    with pytest.raises(VerificationError, match="one that fails"):
        policy.require_quorum(cosigned("berg", text_of="another\n1\nroot\n"))


def test_a_log_that_the_policy_does_not_name():
    with pytest.raises(VerificationError, match="0 keys"):
        parse_policy(NESTED.encode()).log("elsewhere.example/log")


LOG_LINE = f"log {LOG.verifier.vkey()}\n"
ANNA = f"witness anna {KEYS['anna'].vkey()}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("quorum none\n", "a `log <vkey>` line"),
        (LOG_LINE, "a `quorum` line"),
        (LOG_LINE + "quorum none\nquorum none\n", "one quorum line"),
        (LOG_LINE + "quorum anna\n", "line 2: expected a witness or group defined above, found 'anna'"),
        (LOG_LINE + ANNA + ANNA + "quorum anna\n", "a key of its own"),
        (LOG_LINE + ANNA + ANNA.replace("anna", "berg", 1) + "quorum anna\n", "a key of its own"),
        (LOG_LINE + ANNA + f"witness anna {KEYS['berg'].vkey()}\nquorum anna\n", "a name that is not used yet"),
        (LOG_LINE + f"witness none {KEYS['berg'].vkey()}\nquorum none\n", "a name that is not used yet"),
        (LOG_LINE + ANNA + "group g 2 anna\nquorum g\n", "all, any or a number from 1 to 1, found '2'"),
        (LOG_LINE + ANNA + "group g 0 anna\nquorum g\n", "found '0'"),
        (LOG_LINE + ANNA + "group g all anna anna\nquorum g\n", "'anna' again"),
        (LOG_LINE + ANNA + "group g all anna\ngroup h any anna\nquorum h\n", "'anna' again"),
        (LOG_LINE + "group g all g\nquorum g\n", "a witness or group defined above"),
        (LOG_LINE + "group g any\nquorum g\n", "all, any or a number"),
        (LOG_LINE + "trust me\nquorum none\n", "as in tlog-policy, found 'trust'"),
        (LOG_LINE + LOG_LINE + "quorum none\n", "every key once"),
        (f"log {KEYS['anna'].vkey()}\nquorum none\n", "type 1"),
        (LOG_LINE + f"witness w {LOG.verifier.vkey()}\nquorum w\n", "type 4"),
    ],
)
def test_a_policy_that_says_something_else(text, said):
    with pytest.raises(VerificationError, match=said):
        parse_policy(text.encode())
    with pytest.raises(verify.Failure):  # the stranger's checker has a reader of its own
        verify.Policy("policy", text.encode())


def chain(length):
    """Groups of one, each in the next."""
    groups = "".join(f"group g{at} all {f'g{at - 1}' if at else 'anna'}\n" for at in range(length))
    return (LOG_LINE + ANNA + groups + f"quorum g{length - 1}\n").encode()


def test_groups_are_not_nested_without_end():
    assert parse_policy(chain(64)).require_quorum(cosigned("anna"))
    assert verify.Policy("policy", chain(64)).is_met("g63", {"anna": NOW})
    with pytest.raises(VerificationError, match="64 groups"):
        parse_policy(chain(65))
    with pytest.raises(verify.Failure, match="64 groups"):
        verify.Policy("policy", chain(65))


@pytest.mark.parametrize("count", range(5))
def test_both_readers_count_alike(count):
    text = policy_for(LOG.verifier.vkey(), {name: KEYS[name] for name in SITES}, needed=3)
    signed, mine = cosigned(*SITES[:count]), verify.Policy("policy", text)
    found = verify.cosigners("checkpoint", signed.to_bytes(), mine.witnesses)
    assert found == {name: NOW + at for at, name in enumerate(SITES[:count])}
    assert mine.is_met(mine.quorum, found) == parse_policy(text).is_met("hospitals", found) == (count >= 3)


def test_bytes_that_are_no_policy():
    with pytest.raises(VerificationError, match="UTF-8"):
        parse_policy(b"log \xff\n")
    with pytest.raises(VerificationError, match="at most 1048576 bytes"):
        parse_policy(b"#" * (2**20 + 1))

"""The frozen known answers of secure aggregation (made by make_secagg_vectors.py) still hold."""

import json
from pathlib import Path

import numpy as np
import pytest

from privacy import p256
from privacy.encoding import Layout, decode
from privacy.keystream import Keystream
from privacy.secagg import keys, site
from privacy.secagg.context import Context
from privacy.secagg.messages import (
    Confirmation,
    KeyBundle,
    Phase,
    SealedShares,
    SiteId,
    UnmaskShares,
    UploadHeader,
)
from privacy.secagg.shares import SharesDisagree, split
from privacy.secagg.suites import SUITES, MalformedKey, SuiteName
from privacy.secagg.transcript import key_transcript, keying_hash, members_hash, survivor_transcript
from privacy.secret import Secret
from tests.fakes.memory_round import Link, MemoryRound, consortium
from tests.fakes.shares import combined
from tests.vectors import make_secagg_vectors
from tests.vectors.plain import from_plain, to_plain

GOLDEN = (
    "golden_round.json",
    "golden_round_with_dropout.json",
    "golden_round_p256.json",
    "golden_round_p256_with_dropout.json",
)
FOLDER = Path(__file__).parent / "secagg"
LISTS = {
    KeyBundle: "bundles",
    SealedShares: "sealed",
    UploadHeader: "headers",
    Confirmation: "confirmations",
    UnmaskShares: "unmask_shares",
}


def load(name):
    return json.loads((FOLDER / name).read_text())


def unhex(text):
    return Secret(bytes.fromhex(text))


def test_a_second_run_of_the_script_changes_nothing():
    for name, content in make_secagg_vectors.all_vectors().items():
        assert json.loads(json.dumps(content)) == load(name), name


@pytest.mark.parametrize("number", range(6))
def test_context(number):
    vector = load("context.json")["contexts"][number]
    assert from_plain(Context, vector["context"]).digest().hex() == vector["digest"]


def test_key_schedule():
    vector = load("key_schedule.json")
    draws = iter(vector["entropy"])
    context, t1 = bytes.fromhex(vector["context"]), bytes.fromhex(vector["key_transcript"])
    me, peer, members = SiteId(vector["site"]), SiteId(vector["peer"]), tuple(vector["members"])
    seeds = keys.draw_seeds(lambda _: bytes.fromhex(next(draws)), unhex(vector["long_term_secret"]), context, me)
    k = keys.pair_seed(seeds.root, t1, me, peer)
    derived = vector["derived"]
    assert seeds.root == unhex(derived["root"])
    assert seeds.self_mask == unhex(derived["self_mask"])
    assert seeds.private == unhex(derived["private"])
    assert k == unhex(derived["pair_seed"])
    assert keys.pair_mask_seed(k, t1, members, me, peer) == unhex(derived["pair_mask_seed"])
    assert keys.self_mask_seed(seeds.self_mask, t1, members, me) == unhex(derived["self_mask_seed"])
    assert keys.dither_seed(seeds, t1, me) == unhex(derived["dither"])
    assert list(vector["public_keys"]) == sorted(SUITES)
    for name, public in vector["public_keys"].items():
        assert keys.pair_key(SUITES[name], seeds.root, context, me).public.hex() == public["pair"]
        assert keys.box_key(SUITES[name], seeds, context, me).public.hex() == public["box"]
    assert members_hash(members).hex() == vector["members_hash"]


def test_ecdsa_signatures():
    vector = load("signatures.json")
    signer = p256.EcdsaSigner(p256.private_key(unhex(vector["seed"])).expose())
    payload, public = bytes.fromhex(vector["payload"]), bytes.fromhex(vector["public_key"])
    assert signer.public == public
    assert signer.sign(payload).hex() == vector["signature"]
    suite = SUITES[SuiteName.P256]
    assert suite.signature_holds(public, payload, bytes.fromhex(vector["signature"]))
    for signature in vector["bad_signatures"].values():
        assert not suite.signature_holds(public, payload, bytes.fromhex(signature))
    for key in vector["bad_keys"].values():
        with pytest.raises(MalformedKey):
            suite.parse_public_key(bytes.fromhex(key))


def test_masks():
    vector = load("masks.json")
    for prefix in vector["prefixes"]:
        width = prefix["modulus_bits"] // 8
        stream = Keystream(unhex(vector["seed"]), offset_bytes=prefix["first_element"] * width)
        assert [str(word) for word in stream.words(4, np.dtype(f"<u{width}"))] == prefix["elements"]


def test_shares():
    vector = load("shares.json")
    for case in vector["cases"]:
        threshold, shares = case["threshold"], [bytes.fromhex(share) for share in case["shares"]]
        dealt = split(unhex(case["secret"]), threshold=threshold, count=len(shares), seed=unhex(case["seed"]))
        assert [share.expose() for share in dealt] == shares
        assert combined(list(enumerate(shares, start=1))[-threshold:], threshold=threshold) == unhex(case["secret"])
    for points in vector["bad_shares"].values():
        with pytest.raises(SharesDisagree):
            combined([(x, bytes.fromhex(share)) for x, share in points], threshold=3)


@pytest.mark.parametrize("number", range(3))
def test_encoding(number):
    vector = load("encoding.json")
    case = vector["cases"][number]
    layout = from_plain(Layout, case["layout"])
    encoded = np.array([int(word) for word in case["encoded"]], dtype=layout.dtype)
    decoded = decode(encoded, layout, survivors=1)
    assert decoded["weight"].tolist() == vector["values"]["weight"]
    clipped = np.clip(vector["values"]["update"], -1, 1)
    assert np.abs(decoded["update"] - clipped).max() <= 2.0**-10


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_round(name):
    """Every message of every site is the frozen one, given the frozen boxes; so are the masks and the sum."""
    golden = load(name)
    group = consortium(len(golden["members"]), suite=SuiteName(golden["context"]["suite"]))
    assert to_plain(group.context) == golden["context"]
    boxes = {plain["site"]: from_plain(SealedShares, plain) for plain in golden["sealed"]}
    seen = []

    def frozen(sender, message):
        message = boxes[sender] if isinstance(message, SealedShares) else message
        seen.append(message)
        return message

    class Frozen(MemoryRound):
        def __post_init__(self):
            self.tamper_to_coordinator = frozen
            super().__post_init__()

    links = {golden["dropout"]: Link(lose_request=Phase.MASK)} if golden["dropout"] else {}
    round_ = Frozen(group, links=links, seed="golden")
    round_.run()
    for kind, key in LISTS.items():
        mine = sorted((m for m in seen if isinstance(m, kind)), key=lambda m: m.site)
        assert [to_plain(message) for message in mine] == golden[key]
    assert {site_: vector.tobytes().hex() for site_, vector in round_.masked.items()} == golden["masked"]
    assert round_.aggregate().tobytes().hex() == golden["aggregate"]
    assert round_.sums() == round_.plain_sums() == golden["sums"]
    assert list(round_.survivors) == golden["survivors"]
    assert all(isinstance(round_.site_states[name_], site.Done) for name_ in round_.survivors)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_transcripts(name):
    """T1, H(T1 || H(U2)) and T3 from the frozen messages alone."""
    golden = load(name)
    t1 = key_transcript(
        bytes.fromhex(golden["context_digest"]), [from_plain(KeyBundle, plain) for plain in golden["bundles"]]
    )
    members = tuple(plain["site"] for plain in golden["sealed"])
    assert keying_hash(t1, members).hex() == golden["keying_hash"]
    headers = [from_plain(UploadHeader, plain) for plain in golden["headers"]]
    transcript = survivor_transcript(t1, members, tuple(golden["survivors"]), headers)
    assert transcript.hex() == golden["transcript"]

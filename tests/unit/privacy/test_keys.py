"""Seeds, key pairs and sealed boxes."""

from collections.abc import Callable

import pytest

from privacy.errors import LocalProtocolError
from privacy.secagg import keys
from privacy.secagg.keys import CannotOpen
from privacy.secagg.messages import SiteId
from privacy.secagg.suites import SUITES, MalformedKey, SuiteName
from privacy.secret import Secret
from tests.fakes.memory_round import deterministic_entropy

CONTEXT = bytes(32)
T1 = b"t" * 32
ALICE, BOB = SiteId("alice"), SiteId("bob")
LONG_TERM = Secret(b"l" * 32)
HYBRID, P256 = SUITES[SuiteName.HYBRID_PQ], SUITES[SuiteName.P256]


def seeds(entropy: str = "e", long_term: Secret[bytes] = LONG_TERM, context: bytes = CONTEXT, site: SiteId = ALICE):
    return keys.draw_seeds(deterministic_entropy(entropy), long_term, context, site)


def every_seed(drawn):
    return [drawn.root.expose(), drawn.self_mask.expose(), drawn.private.expose()]


def test_everything_is_derived_from_its_inputs():
    assert every_seed(seeds()) == every_seed(seeds())


def test_seeds_differ_by_purpose_entropy_secret_context_and_site():
    all_seeds = [
        seed
        for drawn in (
            seeds(),
            seeds(entropy="f"),
            seeds(long_term=Secret(b"m" * 32)),
            seeds(context=b"c" * 32),
            seeds(site=BOB),
        )
        for seed in every_seed(drawn)
    ]
    assert len(set(all_seeds)) == len(all_seeds) == 15


def test_derived_seeds_differ_by_label_transcript_members_and_names():
    root = seeds().root
    members = (ALICE, BOB)
    derived = [
        keys.pair_seed(root, T1, ALICE, BOB),
        keys.pair_seed(root, T1, BOB, ALICE),
        keys.pair_seed(root, b"u" * 32, ALICE, BOB),
        keys.pair_mask_seed(root, T1, members, ALICE, BOB),
        keys.pair_mask_seed(root, T1, (ALICE,), ALICE, BOB),
        keys.self_mask_seed(root, T1, members, ALICE),
        keys.self_mask_seed(root, T1, members, BOB),
        keys.dither_seed(seeds(), T1, ALICE),
        keys.polynomial_seed(seeds(), CONTEXT, "root"),
        keys.polynomial_seed(seeds(), CONTEXT, "self-mask"),
    ]
    assert len({seed.expose() for seed in derived}) == len(derived)


@pytest.mark.parametrize("entropy", [lambda _: b"", lambda _: b"e" * 31, lambda size: b"e" * (size + 1)])
def test_a_generator_that_gives_another_length_is_refused(entropy: Callable[[int], bytes]):
    with pytest.raises(LocalProtocolError, match="random generator"):
        keys.draw_seeds(entropy, LONG_TERM, CONTEXT, ALICE)


def test_a_short_long_term_secret_is_refused():
    with pytest.raises(LocalProtocolError, match="long-term secret"):
        seeds(long_term=Secret(b"l" * 31))


# --- key pairs and boxes, in every suite ---------------------------------------------------------------------------

BINDING = {"label": "share", "key_transcript": T1, "sender": ALICE, "recipient": BOB}
SIZES = {SuiteName.HYBRID_PQ: (1216, 1202, 1168), SuiteName.P256: (65, 147, 113)}
every_suite = pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES.keys())


def seal(suite, plaintext, key, **changes):
    return keys.seal(Secret(plaintext), key.public, suite=suite, **{**BINDING, **changes})


@every_suite
def test_a_key_pair_is_derived_from_its_seed_context_site_and_purpose(suite):
    pair = keys.pair_key(suite, seeds().root, CONTEXT, ALICE)
    assert pair.public == keys.pair_key(suite, seeds().root, CONTEXT, ALICE).public
    assert len(pair.public) == suite.public_key_bytes
    others = [
        keys.pair_key(suite, seeds().self_mask, CONTEXT, ALICE),
        keys.pair_key(suite, seeds().root, b"c" * 32, ALICE),
        keys.pair_key(suite, seeds().root, CONTEXT, BOB),
        keys.box_key(suite, seeds(), CONTEXT, ALICE),
        keys.box_key(suite, keys.SiteSeeds(root=LONG_TERM, self_mask=LONG_TERM, private=seeds().root), CONTEXT, ALICE),
    ]
    assert len({pair.public, *(other.public for other in others)}) == 6


@every_suite
def test_a_box_opens_for_its_recipient(suite):
    pair = keys.box_key(suite, seeds(), CONTEXT, BOB)
    box = seal(suite, b"s" * 66, pair)
    assert keys.open_box(box, pair, **BINDING).expose() == b"s" * 66
    sizes = (len(pair.public), len(box), len(seal(suite, b"s" * 32, pair)))
    assert sizes == SIZES[suite.name] == (suite.public_key_bytes, suite.shares_box_bytes, suite.pair_box_bytes)


@every_suite
@pytest.mark.parametrize(
    "change", [{"label": "pair"}, {"key_transcript": b"u" * 32}, {"sender": BOB}, {"recipient": ALICE}]
)
def test_a_box_is_bound_to_label_transcript_and_names(suite, change):
    pair = keys.box_key(suite, seeds(), CONTEXT, BOB)
    box = seal(suite, b"s", pair)
    with pytest.raises(CannotOpen):
        keys.open_box(box, pair, **{**BINDING, **change})


@every_suite
def test_a_box_does_not_open_under_another_key_or_when_damaged(suite):
    pair = keys.box_key(suite, seeds(), CONTEXT, BOB)
    box = seal(suite, b"s", pair)
    with pytest.raises(CannotOpen):
        keys.open_box(box, keys.pair_key(suite, seeds().root, CONTEXT, BOB), **BINDING)
    for place in (0, 1, suite.encapsulation_bytes - 1, suite.encapsulation_bytes, len(box) - 1):
        with pytest.raises(CannotOpen):
            keys.open_box(box[:place] + bytes([box[place] ^ 1]) + box[place + 1 :], pair, **BINDING)
    zeroed = box[: suite.encapsulation_bytes - 32] + bytes(32) + box[suite.encapsulation_bytes :]
    for damaged in (b"", box[:-1], box + b"\0", zeroed):
        with pytest.raises(CannotOpen):
            keys.open_box(damaged, pair, **BINDING)


def test_a_box_of_one_suite_does_not_open_in_the_other():
    for one, other in ((HYBRID, P256), (P256, HYBRID)):
        box = seal(one, b"s" * 66, keys.box_key(one, seeds(), CONTEXT, BOB))
        with pytest.raises(CannotOpen):
            keys.open_box(box, keys.box_key(other, seeds(), CONTEXT, BOB), **BINDING)


@every_suite
def test_a_box_is_not_sealed_to_a_malformed_key(suite):
    for public in (b"", bytes(suite.public_key_bytes), b"\xff" * suite.public_key_bytes):
        with pytest.raises(MalformedKey):
            keys.seal(Secret(b"s"), public, suite=suite, **BINDING)

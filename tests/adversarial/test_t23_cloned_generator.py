"""Threat 23: two sites are clones of one machine and draw the same random bytes.

Held by: `draw_seeds` (privacy/secagg/keys.py), and `check_no_key_twice` at everybody else.
Tried: rows 23 of `mutations.py`.
"""

from dataclasses import replace

from privacy.secagg import site
from privacy.secagg.keys import draw_seeds
from privacy.secagg.messages import Phase
from privacy.secret import Secret
from tests.fakes.liar import blamed, signed_bundle
from tests.fakes.memory_round import MemoryRound, consortium, deterministic_entropy, site_name

GROUP = consortium(4)
A, B = site_name(0), site_name(1)


def drawn(name, secret, context=GROUP.context, entropy="one generator"):
    seeds = draw_seeds(deterministic_entropy(entropy), Secret(secret), context.digest(), name)
    return {seeds.root.expose(), seeds.self_mask.expose(), seeds.private.expose()}


def test_the_long_term_secret_tells_clones_of_the_generator_apart():
    assert not drawn(A, b"a" * 32) & drawn(A, b"b" * 32)


def test_the_name_tells_clones_of_the_whole_machine_apart():
    assert not drawn(A, b"a" * 32) & drawn(B, b"a" * 32)


def test_the_context_tells_attempts_apart_when_a_snapshot_is_restored():
    assert not drawn(A, b"a" * 32) & drawn(A, b"a" * 32, replace(GROUP.context, attempt=2))


def test_even_a_dead_generator_gives_three_different_seeds():
    seeds = draw_seeds(bytes, Secret(b"a" * 32), GROUP.context.digest(), A)
    assert len({seeds.root.expose(), seeds.self_mask.expose(), seeds.private.expose()}) == 3


def test_equal_seeds_that_get_through_are_refused_by_the_others():
    round_ = MemoryRound(GROUP)
    round_.run(until=Phase.SHARE)
    request = round_.request_for(A)
    clone = signed_bundle(
        GROUP.member(B), replace(request.bundles[1], self_mask_commitment=request.bundles[2].self_mask_commitment)
    )
    lie = replace(request, bundles=(request.bundles[0], clone, *request.bundles[2:]))
    assert blamed(round_.site_states[A], lie).rule == "no key appears twice"
    assert isinstance(round_.site_states[A], site.Advertising)

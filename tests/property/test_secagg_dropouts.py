"""For every pattern of dropouts that leaves the threshold, the unmasked sum is the plain integer sum, exactly."""

from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.secagg import coordinator, site
from privacy.secagg.messages import Phase
from privacy.secagg.suites import SuiteName
from tests.fakes.memory_round import PERFECT, Link, MemoryRound, consortium, site_name, small_layout

LOSABLE = st.sampled_from([None, None, None, *Phase])


@st.composite
def rounds(draw):
    n = draw(st.integers(3, 7))
    threshold = draw(st.integers(n // 2 + 1, n))
    bits = draw(st.sampled_from([16, 32, 64]))
    links = {}
    for number in range(n):
        kind = draw(st.sampled_from(["lose_request", "lose_reply"]))
        links[site_name(number)] = Link(
            **{kind: draw(LOSABLE)}, silent=draw(st.booleans()), duplicate=draw(st.booleans())
        )
    layout = small_layout(n, draw(st.integers(1, 40)), bits)
    suite = draw(st.sampled_from(SuiteName))
    return MemoryRound(
        consortium(n, suite=suite, threshold=threshold, layout=layout),
        links=links,
        seed=draw(st.text("abc", min_size=1, max_size=4)),
        reorder=draw(st.booleans()),
    )


def expected_survivors(round_):
    """The survivors if the round must succeed, else None: a count of who is left in each phase."""
    context = round_.group.context
    left = set(context.sites)
    survivors = left
    for phase in Phase:
        fallen = {s for s in left if phase in (round_.links.get(s, PERFECT).lose_request, round_.links[s].lose_reply)}
        left = left - fallen
        needed = context.threshold if phase in (Phase.CONFIRM, Phase.UNMASK) else context.required
        if len(left) < needed:
            return None
        if phase is Phase.MASK:
            survivors = left
    return tuple(sorted(survivors))


@settings(max_examples=60, deadline=None)
@given(rounds())
def test_the_sum_is_exact_or_stays_masked(round_):
    round_.run()
    survivors = expected_survivors(round_)
    if survivors is None:
        assert isinstance(round_.coordinator_state, coordinator.Aborted)
        assert not any(isinstance(effect, coordinator.Unmasked) for effect in round_.effects)
        return
    assert round_.survivors == survivors
    assert (round_.aggregate() == round_.plain_aggregate()).all()
    assert round_.sums() == round_.plain_sums()
    assert round_.blamed() == []
    for effects in round_.site_effects.values():
        kinds = [type(effect) for effect in effects]
        if site.PersistReleased in kinds:
            assert kinds.index(site.PersistReleased) == len(kinds) - 2

"""Section 10: for every pattern of dropouts, the sum over all groups is exact, or stays masked."""

from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.secagg import coordinator, grouped_coordinator
from privacy.secagg.beacon import WITHHELD_MAX
from privacy.secagg.messages import BeaconPhase, Phase
from tests.fakes.grouped_round import PHASES, GroupedRound, grouped

GROUP = grouped(12, group_size=4, threshold=7, minimum=7)
LOSABLE = st.sampled_from([None, None, None, None, *PHASES])


@st.composite
def rounds(draw):
    losses = {name: phase for name in GROUP.context.sites if (phase := draw(LOSABLE)) is not None}
    silent = frozenset(name for name in losses if draw(st.booleans()))
    seed = draw(st.text("abc", min_size=1, max_size=3))
    return GroupedRound(GROUP, losses=losses, silent=silent, seed=seed, reorder=draw(st.booleans()))


def expected_survivors(round_):
    """The survivors if the attempt must succeed, else None: a count of who is left in each phase, group by group."""
    losses, context = round_.losses, GROUP.context
    committed = [name for name in context.sites if losses.get(name) is not BeaconPhase.COMMIT]
    revealed = [name for name in committed if losses.get(name) is not BeaconPhase.REVEAL]
    if len(committed) < context.required or len(revealed) < max(context.required, len(committed) - WITHHELD_MAX):
        return None
    survivors = []
    for group in round_.groups():
        left = {name for name in group if name in revealed}
        # Threshold and minimum of a group of n out of m: 7 n / m, rounded up, and at least 3.
        needed = {"threshold": -(-7 * len(group) // len(revealed))}
        needed["required"] = max(3, needed["threshold"])
        for phase in Phase:
            left -= {name for name in left if losses.get(name) is phase}
            kind = "threshold" if phase in (Phase.CONFIRM, Phase.UNMASK) else "required"
            if len(left) < needed[kind]:
                return None
            if phase is Phase.MASK:
                survivors += left
    return tuple(sorted(survivors))


@settings(max_examples=40, deadline=None)
@given(rounds())
def test_the_sum_is_exact_or_stays_masked(round_):
    round_.run()
    survivors = expected_survivors(round_)
    assert round_.blamed() == []
    if survivors is None:
        assert isinstance(round_.coordinator_state, coordinator.Aborted)
        assert round_.of(coordinator.Unmasked) == []
        # Until every group could be unmasked, no site has revealed anything.
        asked = round_.of(grouped_coordinator.SendGroupedUnmaskRequest)
        assert bool(round_.released()) <= bool(asked)
        return
    assert round_.survivors == survivors
    assert (round_.aggregate() == round_.plain_aggregate()).all()
    dropped = [effect.site for effect in round_.of(coordinator.Dropout)]
    assert sorted(dropped) == sorted(round_.losses)
    assert round_.dropouts() == dict(round_.losses)

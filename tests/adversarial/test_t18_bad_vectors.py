"""Threat 18: a site uploads a vector out of range, with NaN, of the wrong length or the wrong ring.

Held by: `encode` (privacy/encoding.py): an honest site refuses such values before anything is sent. Of a site that
lies, the coordinator takes no other length than the plan's (`Coordinator.receive_vector`, `RunningSum.add`), and a
sum that the survivors cannot have made is applied by nobody: `decode`, at the coordinator and at every site. NaN has
no place in a ring of integers, and a vector of another ring has another length, or is a vector of this ring out of
range.
Tried: rows 18 of `mutations.py`.
"""

import dataclasses

import numpy as np
import pytest

from consortium.training_round import Phase as RoundPhase
from consortium.wire.errors import CallRefused
from privacy.encoding import decode, encode
from privacy.errors import EncodingRefused, LocalProtocolError
from privacy.secagg import site
from privacy.secagg.masks import RunningSum, apply_masks, vector_hash
from privacy.secagg.messages import Phase
from tests.fakes.memory_round import MemoryRound, consortium, site_name
from tests.fakes.scripted_site import ScriptedSite, serving
from tests.fakes.small_study import SITES, small_study

GROUP = consortium(4)
A, B = site_name(0), site_name(1)
GOOD = {"update": np.zeros(5), "weight": np.array([50.0])}


@pytest.mark.parametrize(
    ("lane", "values"),
    [
        ("update", np.array([0, 0, np.nan, 0, 0])),
        ("update", np.array([0, 0, np.inf, 0, 0])),
        ("update", np.zeros(4)),
        ("update", np.zeros(6)),
        ("update", np.zeros((5, 1))),
        ("weight", np.array([101.0])),
        ("weight", np.array([0.5])),
        ("weight", np.array([np.nan])),
    ],
)
def test_the_site_sends_nothing_and_is_a_dropout(lane, values):
    with pytest.raises(EncodingRefused) as caught:
        encode({**GOOD, lane: values}, GROUP.context.layout, encode_seed())
    round_ = MemoryRound(GROUP)
    round_.run(until=Phase.MASK)
    masking, _ = site.step(round_.site_states[A], round_.request_for(A))
    ended, effects = site.step(masking, site.AttemptEnded(reason=caught.value))
    assert ended.reason.lane == lane
    assert effects == (site.Abandon(reason=caught.value),)


def encode_seed():
    round_ = MemoryRound(GROUP)
    round_.run(until=Phase.MASK)
    return site.step(round_.site_states[A], round_.request_for(A))[0].dither


def test_out_of_range_values_have_no_more_weight_than_the_clip():
    values = {
        name: {"update": np.full(5, 1e30 if name == A else 0.5), "weight": np.array([1])}
        for name in GROUP.context.sites
    }
    round_ = MemoryRound(GROUP, values=values)
    round_.run()
    assert round_.sums()["update"] == [1.0 + 3 * 0.5] * 5


@pytest.mark.parametrize("vector", [np.zeros(5, np.uint32), np.zeros(7, np.uint32), np.zeros(6, np.uint64)])
def test_the_running_sum_takes_only_its_own_ring_and_length(vector):
    with pytest.raises(EncodingRefused):
        RunningSum(GROUP.context.layout).add(vector)


@pytest.mark.parametrize("chunks", [[bytes(20)], [bytes(28)], [bytes(24), bytes(4)], [bytes(23)], []])
def test_nor_chunks_of_another_length(chunks):
    total = RunningSum(GROUP.context.layout)
    with pytest.raises(LocalProtocolError):
        total.add(iter(chunks))
    with pytest.raises(LocalProtocolError):
        assert total.result is None  # half an upload spoils the sum


class FarOutOfRange(MemoryRound):
    """B masks a vector that no honest site can have encoded, under its real masks and its real signature."""

    def mask(self, name):
        if name != B:
            return super().mask(name)
        state = self.site_states[name]
        layout = self.group.context.layout
        vector = np.full(layout.length, 2 ** (layout.modulus_bits - 1) - 1, dtype=layout.dtype)
        self.encoded[name] = vector.copy()
        apply_masks(vector, state.masks)
        self.masked[name] = vector
        return vector_hash(vector)


def test_a_sum_that_the_survivors_cannot_have_made_is_applied_by_nobody():
    round_ = FarOutOfRange(GROUP)
    round_.run()
    with pytest.raises(EncodingRefused, match="a sum that cannot be"):
        decode(round_.aggregate(), GROUP.context.layout, survivors=len(round_.survivors))


@pytest.mark.parametrize("ring", ["<u2", "<u8"])
async def test_a_vector_of_another_ring_is_not_even_received(tmp_path, monkeypatch, ring):
    """Over the wire: its header says another length than the plan's, and the upload ends there."""
    study = small_study(rounds=1, round_deadline_s=2.0, upload_deadline_s=2.0)
    liar = SITES[1]
    honest = ScriptedSite._mask

    def mask(self, machine):
        return honest(self, machine).astype(ring) if self.name == liar else honest(self, machine)

    monkeypatch.setattr(ScriptedSite, "_mask", mask)
    async with serving(tmp_path) as world:
        sites = await world.hospitals(study)
        sites[liar].stays_away = True
        await world.command("study.start", study=study.id)
        await world.until(lambda: bool(sites[liar].refused_uploads))
        assert all(isinstance(refusal, CallRefused) for refusal in sites[liar].refused_uploads)
        await world.until(lambda: len(world.history(study)) >= 1)
        (row, *_) = world.history(study)
        assert liar not in row["survivors"]
        assert (row["round"], row["attempt"], liar, RoundPhase.COLLECTING) in world.dropouts()


def test_the_layout_of_the_plan_decides_not_what_a_site_says():
    wider = dataclasses.replace(GROUP.context.layout, modulus_bits=64)
    with pytest.raises(EncodingRefused):
        decode(np.zeros(6, np.uint32), wider)

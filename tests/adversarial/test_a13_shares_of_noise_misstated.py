"""A-13, with noise that hospitals share: an entry claims more shares than the study counts on, or another grid.

The epsilon of a sum rests on h = t - c shares on a grid fine enough for the arithmetic. Held by: `_check_event` in
step 17.
Tried: rows a13 of `mutations.py`; and by hand:
without the comparison with the site's dp.configured, without the one of dp.configured with itself, without the
least width of a share, and without the study's h, the case named for it verifies.
"""

import hashlib
import json
from dataclasses import replace

import pytest

from audit import entries, verify
from tests.fakes.sample_study_log import RATE, SIGMA, STEPS, SampleConsortium, evidence, failed_steps

PRIVACY = "privacy spent"
PLANNED = entries.PoissonSampledDiscreteGaussian(
    noise_multiplier=SIGMA,
    sampling_rate=RATE,
    steps=2 * STEPS,
    clip_norm_l2=1.0,
    shares=3,
    grid_spacing=2.0**-22,
    dimension=21,
)


class Distributed(SampleConsortium):
    """The sample study with shared noise; `configured` and `spent` are what cleveland writes instead."""

    def __init__(self, *, configured=PLANNED, spent=PLANNED, colluding=None, **fields):
        super().__init__(rounds=1)
        document = json.loads(self.document)
        document["privacy"] |= {"mechanism": "distributed-dp-sgd"} | (
            {} if colluding is None else {"colluding": colluding}
        )
        self.document = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        self.study_digest = hashlib.sha256(self.document).hexdigest()
        self.events = {entries.DpConfigured: configured, entries.DpSpent: spent}
        self.changed = fields

    def site(self, name, kind, /, **fields):
        if kind in self.events:
            event = self.events[kind] if name == "cleveland" else PLANNED
            fields["event"] = replace(event, steps=fields["event"].steps)
            if kind is entries.DpConfigured and name == "cleveland":
                fields |= self.changed
        return super().site(name, kind, **fields)


def failure(tmp_path, **lies):
    sample = Distributed(**lies)
    sample.opening()
    sample.agreeing()
    sample.one_round(1)
    archive, policy = evidence(tmp_path, sample)
    return failed_steps(verify.check(str(archive), policy)).get(PRIVACY)


def test_shared_noise_as_planned_verifies(tmp_path):
    assert failure(tmp_path) is None


@pytest.mark.parametrize(
    "lie",
    [
        {"shares": 2},
        {"grid_spacing": 2.0**-30},
        {"dimension": 1},
        {"clip_norm_l2": 0.5},
        {"noise_multiplier": 2 * SIGMA},
        {"sampling_rate": RATE / 2},
    ],
    ids=str,
)
def test_spent_is_not_what_was_configured(tmp_path, lie):
    found = failure(tmp_path, spent=replace(PLANNED, **lie))
    assert "dp.spent of cleveland" in found["where"]


def test_spent_with_noise_of_its_own_where_shares_were_configured(tmp_path):
    own = entries.PoissonSampledGaussian(noise_multiplier=SIGMA, sampling_rate=RATE, steps=STEPS)
    assert "dp.spent of cleveland" in failure(tmp_path, spent=own)["where"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("noise_multiplier", 2 * SIGMA), ("sampling_rate", RATE / 2), ("steps_planned", 400), ("clip_norm_l2", 0.5)],
)
def test_configured_contradicts_itself(tmp_path, field, value):
    found = failure(tmp_path, **{field: value})
    assert found["where"].endswith(f"dp.configured, {field}")


def test_a_grid_too_coarse_for_its_shares(tmp_path):
    coarse = replace(PLANNED, grid_spacing=2.0**-6)
    found = failure(tmp_path, configured=coarse, spent=coarse)
    assert found["where"].endswith("grid_spacing")


@pytest.mark.parametrize(("shares", "colluding", "allowed"), [(4, None, 3), (3, 1, 2)])
def test_more_shares_than_the_study_counts_on(tmp_path, shares, colluding, allowed):
    lie = replace(PLANNED, shares=shares)
    found = failure(tmp_path, configured=lie, spent=lie, colluding=colluding)
    assert (found["where"].endswith("shares"), found["expected"]) == (True, f"at most {allowed}, as the study says")

"""Views of records: reproducible, apart from every other generator, one a step, and never more than a patient's own."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from site_agent.errors import TrainingFailed
from site_agent.imaging.augmentation import Augmentation
from site_agent.local_steps import LocalStart
from site_agent.networks import build_from
from site_agent.plain_trainer import PlainTrainer
from site_agent.trainer import DpTrainer
from site_agent.training_spec import OptimizerSpec, PlainSpec
from site_agent.update import vector_of
from site_agent.views import RecordViews
from tests.fakes.training import entropy_of
from tests.fakes.training import spec as training_of
from tests.fakes.viewed_study import EVERY, MOVED, PATCH, SHAPE, SHIFTED, masked, network, transforms, views

EVERYBODY = [np.array([0, 1]), np.array([2, 3])]


def batch_of(spec, *, round_number=1, step=0, chosen=EVERYBODY, records=None):
    made = RecordViews(network(spec.patch), spec, records or masked(2, records_each=2))
    made.begin(round_number)
    for _ in range(step):
        made.next_step([])
    return made.next_step(chosen)


def same(first, second):
    return torch.equal(first.features, second.features) and torch.equal(first.labels, second.labels)


@pytest.mark.parametrize("patch", [None, PATCH])
def test_a_study_repeats_itself_and_nothing_else_does(patch):
    first = batch_of(views(patch=patch))
    assert same(first, batch_of(views(patch=patch)))
    others = {
        "site": batch_of(views(patch=patch, site="south")),
        "seed": batch_of(views(patch=patch, seed=2)),
        "round": batch_of(views(patch=patch), round_number=2),
        "step": batch_of(views(patch=patch), step=1),
    }
    assert [what for what, other in others.items() if same(first, other)] == []


def test_a_batch_is_grouped_by_patient():
    whole, cut = batch_of(views()), batch_of(views(patch=PATCH))
    assert whole.sizes == (2, 2)
    assert whole.features.shape == (4, 1, *SHAPE)
    assert cut.sizes == (4, 4)
    assert cut.features.shape == (8, 1, *PATCH.shape)
    assert cut.labels.shape == (8, *PATCH.shape)
    nobody = batch_of(views(patch=PATCH), chosen=[])
    assert nobody.sizes == ()
    assert nobody.features.shape == (0, 1, *PATCH.shape)


def test_records_stay_as_they_are():
    records = masked(2, records_each=2)
    before = records.features.copy()
    made = RecordViews(network(), views(MOVED + SHIFTED), records)
    made.begin(1)
    first, second = made.next_step(EVERYBODY), made.next_step(EVERYBODY)
    assert not same(first, second)
    assert np.array_equal(made.features.numpy(), before)
    assert np.array_equal(records.features, before)


@pytest.mark.parametrize("axes", [2, 3])
def test_no_global_generator_is_read_or_seeded(axes):
    """All transforms at once: whatever they draw comes from the generator they are given."""
    every = EVERY if axes == 3 else [one for one in EVERY if one["transform"] not in ("flip", "affine", "rotate90")]
    made = Augmentation(
        transforms(*({**one, "probability": 1.0} for one in every)), axes=axes, masks=True
    )  # fmt: skip
    image, mask = torch.rand(1, *(16, 12, 12)[:axes]), torch.zeros((16, 12, 12)[:axes])

    def state():
        return (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())  # noqa: NPY002 - the very generator that must not be read

    seen = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(seen))  # a transform that read it would see another one each time
        np.random.seed(len(seen))  # noqa: NPY002 - the very generator that must not be read
        random.seed(len(seen))
        before = state()
        seen.append(made(image, mask, np.random.RandomState(np.random.Philox(key=seed)))[0])
        assert state() == before
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


def training(**changes):
    base = training_of(noise_multiplier=1.0, sampling_rate=0.5, local_steps=2, max_records_per_patient=2)
    patch = changes.get("patch")
    return replace(base, network=network(patch), views=views(**changes))


def start_of(spec):
    return vector_of(build_from(spec.network))


@pytest.mark.parametrize("patch", [None, PATCH])
def test_views_take_nothing_from_the_privacy_generator(patch):
    """Samples and noise are bit for bit those of a study without views: an update of empty records tells."""
    spec = training(augmentation=MOVED, patch=patch)
    empty = masked(4)
    empty = replace(empty, features=np.full_like(empty.features, np.nan))  # broken: only noise is left
    found = []
    for views_of in (spec.views, None if patch is None else replace(spec.views, augmentation=())):
        one = DpTrainer(replace(spec, views=views_of), empty, entropy=entropy_of("apart"))
        found.append(one.train_round(start_of(spec)))
    assert np.array_equal(found[0].update, found[1].update)
    assert found[0].local.sampled_patients == found[1].local.sampled_patients
    assert found[0].local.broken_patients == sum(found[0].local.sampled_patients) > 0


@pytest.mark.parametrize("patch", [None, PATCH])
def test_a_view_that_cannot_be_made_is_a_broken_record(monkeypatch, patch):
    def fails(self, image, mask, random):
        if image[0, 0, 0] > 1e6:
            raise ValueError("a library's own words")
        return image, mask

    monkeypatch.setattr(Augmentation, "__call__", fails)
    records = masked(5)
    records.features[2] = 1e7
    spec = training(patch=patch)
    spec = replace(spec, privacy=replace(spec.privacy, mechanism=replace(spec.privacy.mechanism, sampling_rate=1.0)))
    local = DpTrainer(spec, records, entropy=entropy_of("broken")).train_round(start_of(spec)).local
    assert (local.sampled_patients, local.broken_patients) == ((5, 5), 2)
    plain = PlainTrainer(plain_of(spec), records)
    with pytest.raises(TrainingFailed, match="hold a value that is not a number after"):
        plain.train_round(start_of(spec))


def plain_of(spec):
    return PlainSpec(
        network=spec.network, optimizer=OptimizerSpec(learning_rate=0.1), local_steps=2, batch_part=1.0,
        max_records_per_patient=2, declared_patients=5, views=spec.views,
    )  # fmt: skip


def test_both_trainers_see_views_of_their_round():
    """Without noise to hide it, another round is another update; the same round the same."""
    spec = training(patch=PATCH)
    updates = {
        (attempt, number): PlainTrainer(plain_of(spec), masked(5), entropy=entropy_of("plain"))
        .train_round(start_of(spec), LocalStart(round=number))
        .update
        for attempt, number in ((1, 1), (2, 1), (1, 2))
    }
    assert np.array_equal(updates[1, 1], updates[2, 1])
    assert not np.array_equal(updates[1, 1], updates[1, 2])


def test_records_of_another_shape_are_refused():
    with pytest.raises(TrainingFailed, match="do not fit a network of inputs"):
        RecordViews(network(PATCH), replace(views(patch=PATCH), record_shape=(1, 16, 16)), masked(1))

"""Augmentation and patches, for any draws: masks go with their images, and no value comes in that was not there."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consortium.contract.record_views import Patch
from site_agent.imaging.augmentation import Augmentation
from site_agent.imaging.patches import patches_of, whole_answers
from tests.fakes.viewed_study import transforms

SPATIAL = (
    {"transform": "flip", "axes": (0, 1)},
    {"transform": "rotate90", "axes": (0, 1), "probability": 1.0},
    {"transform": "rotate", "max_degrees": 40.0, "probability": 1.0},
    {"transform": "zoom", "range": (0.7, 1.4), "probability": 1.0},
    {"transform": "affine", "shear": 0.2, "zoom": (0.8, 1.25), "probability": 1.0},
    {"transform": "distort", "cells": 4, "limit": 0.2, "probability": 1.0},
)
BRIGHT = (
    {"transform": "shift-intensity", "limit": 0.5, "probability": 1.0},
    {"transform": "scale-intensity", "limit": 0.5, "probability": 1.0},
    {"transform": "gaussian-noise", "std": 0.5, "probability": 1.0},
    {"transform": "gaussian-smooth", "sigma": (0.5, 1.0), "probability": 1.0},
    {"transform": "contrast", "gamma": (1.5, 3.0), "probability": 1.0},
)
SEEDS = st.integers(0, 2**64 - 1)


def generator(seed):
    return np.random.RandomState(np.random.Philox(key=seed))


def ramp(axes, along):
    """A record whose image and mask say, at every place, how far it is along an axis."""
    mask = torch.stack(torch.meshgrid(*[torch.arange(20.0)] * axes, indexing="ij"))[along]
    return mask.unsqueeze(0).clone(), mask


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("one", SPATIAL, ids=lambda one: one["transform"])
@settings(max_examples=6, deadline=None)
@given(seed=SEEDS, along=st.integers(0, 1))
def test_a_mask_moves_with_its_image(axes, one, seed, along):
    """A mask's value comes from the place nearest to where its image's comes from: half a pixel away at most."""
    image, mask = ramp(axes, along)
    seen, moved = Augmentation(transforms(one), axes=axes, masks=True)(image, mask, generator(seed))
    assert (seen.shape, moved.shape) == (image.shape, mask.shape)
    assert set(moved.unique().tolist()) <= set(mask.unique().tolist())
    assert (seen[0] - moved).abs().max() <= 0.5 + 1e-4
    if one["transform"] in ("flip", "rotate90"):
        assert torch.equal(seen[0], moved)


@pytest.mark.parametrize("one", BRIGHT, ids=lambda one: one["transform"])
@settings(max_examples=4, deadline=None)
@given(seed=SEEDS)
def test_brightness_leaves_masks_alone(one, seed):
    image, mask = ramp(2, 0)
    seen, kept = Augmentation(transforms(one), axes=2, masks=True)(image, mask, generator(seed))
    assert torch.equal(kept, mask)
    assert not torch.equal(seen, image)
    alone, nothing = Augmentation(transforms(one), axes=2, masks=False)(image, None, generator(seed))
    assert torch.equal(alone, seen)
    assert nothing is None


@settings(max_examples=40, deadline=None)
@given(
    seed=SEEDS,
    shape=st.lists(st.integers(8, 20), min_size=2, max_size=3),
    smaller=st.integers(0, 12),
    foreground=st.sampled_from([None, 0.0, 0.5, 1.0]),
)
def test_a_patch_is_a_piece_of_its_record(seed, shape, smaller, foreground):
    sides = tuple(max(8, side - smaller) for side in shape)
    places = torch.arange(float(np.prod(shape))).reshape(shape)
    lesion = torch.zeros(shape)
    lesion[(-1,) * len(shape)] = 1.0  # in a corner, where a patch cannot be centred
    patch = Patch(shape=sides, per_record=3, foreground=foreground)
    found = list(patches_of(places.unsqueeze(0), lesion, patch, generator(seed)))
    assert len(found) == 3
    for image, mask in found:
        first = np.unravel_index(int(image[0].flatten()[0]), shape)
        where = tuple(slice(int(start), int(start) + side) for start, side in zip(first, sides, strict=True))
        assert torch.equal(image[0], places[where])
        assert torch.equal(mask, lesion[where])
        if foreground == 1.0:
            assert mask.sum() == 1.0


def test_patches_come_from_everywhere_alike():
    """24 starts along one axis: every one is drawn about as often; without foreground a patch comes from anywhere."""
    image = torch.arange(31.0).repeat(8, 1).unsqueeze(0)
    patch = Patch(shape=(8, 8), per_record=64, foreground=1.0)
    drawn = [
        int(piece[0, 0, 0])
        for seed in range(60)
        for piece, _ in patches_of(image, torch.zeros(8, 31), patch, generator(seed))
    ]
    counts = np.bincount(drawn, minlength=24)
    assert counts.shape == (24,)
    assert ((counts - 160) ** 2 / 160).sum() < 50  # chi square of 23: 50 has a chance of 0.001


@pytest.mark.parametrize("blending", ["constant", "gaussian"])
@pytest.mark.parametrize(("shape", "sides"), [((30, 17), (8, 16)), ((11, 9, 8), (8, 8, 8))])
def test_windows_cover_a_record_and_are_few_at_a_time(blending, shape, sides):
    """A network that answers at a place from that place alone gives, in windows, what it gives for the whole."""
    seen = []

    class Pointwise(torch.nn.Module):
        def forward(self, records):
            seen.append(tuple(records.shape))
            return torch.cat([records * 2, 1 - records], dim=1)

    records = torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(3))
    patch = Patch(shape=sides, overlap=0.5, blending=blending)
    found = whole_answers(Pointwise().eval(), records, patch, windows_at_once=3)
    assert torch.allclose(found, torch.cat([records * 2, 1 - records], dim=1), atol=1e-6)
    assert all(window[1:] == (1, *sides) and window[0] <= 3 for window in seen)
    assert torch.equal(whole_answers(Pointwise(), records, None, windows_at_once=1)[:, :1], records * 2)

"""Patches: pieces of a record for training, and a network led over a whole record in windows of their shape (torch).

Where a patch is cut depends on its own record and on draws for it; how many foreground places other patients have
decides nothing. A record is measured whole: windows overlap, and where several cover a place, their answers are
averaged.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import nn

from consortium.contract.record_views import Patch


def patches_of(
    image: torch.Tensor, mask: torch.Tensor, patch: Patch, random: np.random.RandomState
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """`patch.per_record` pieces of a record, image and mask from the same place.

    Every place where a patch fits is as likely; or with probability `patch.foreground`, a place of the mask that is not
    background, each as likely, and the patch is centred on it as far as the record's edges allow. A record without
    foreground gives patches from anywhere. Every patch takes the same number of draws.

    Args:
        image: float32[channels, *shape].
        mask: float32[*shape], indices of the label's values; 0 is the background.
        patch: From the study.
        random: Where every draw comes from.
    """
    sides = np.array(patch.shape)
    free = np.array(mask.shape) - sides + 1  # starts along each axis
    # Only if it is asked for: it reads the whole mask.
    lesion = torch.nonzero(mask.flatten() > 0).flatten() if patch.foreground else torch.zeros(0, dtype=torch.int64)
    for _ in range(patch.per_record):
        coin, which, *anywhere = random.random_sample(2 + len(sides))
        if patch.foreground and coin < patch.foreground and len(lesion):
            place = int(lesion[min(int(which * len(lesion)), len(lesion) - 1)])
            centre = np.array(np.unravel_index(place, tuple(mask.shape)))
            start = np.clip(centre - sides // 2, 0, free - 1)
        else:
            start = np.minimum((np.array(anywhere) * free).astype(np.int64), free - 1)
        where = tuple(slice(int(first), int(first + side)) for first, side in zip(start, sides, strict=True))
        yield image[(slice(None), *where)], mask[where]


def whole_answers(
    module: nn.Module, records: torch.Tensor, patch: Patch | None, *, windows_at_once: int
) -> torch.Tensor:
    """The network's answers at every place of whole records: float32[records, outputs, *shape].

    Args:
        module: In evaluation mode. It sees patches where there are patches, and then only `windows_at_once` at a time.
        records: float32[records, channels, *shape].
        patch: From the study; None for a network that takes whole records.
        windows_at_once: At least 1.
    """
    if patch is None:
        answers: torch.Tensor = module(records)
        return answers
    inferers: Any = import_module("monai.inferers")  # seconds, and only patches need it
    found = inferers.sliding_window_inference(
        records, patch.shape, windows_at_once, module, overlap=patch.overlap, mode=patch.blending
    )
    assert isinstance(found, torch.Tensor)  # the networks of studies give one tensor
    return found

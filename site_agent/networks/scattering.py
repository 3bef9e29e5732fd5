"""Fixed features of a picture, and a linear layer over them: for hospitals too small to learn features under noise.

The features are the scattering coefficients of Bruna and Mallat (2013): a picture is filtered by waves of two scales
and several directions, of which only the modulus is kept, once and once more, and averaged over neighbourhoods of four
points. Nothing in them is learned, so nothing in them costs privacy; Tramèr and Boneh ("Differentially private learning
needs better features (or much more data)", ICLR 2021) found them ahead of trained networks at small budgets.

Each coefficient stands twice among the features: standardised over the picture it comes from, which says where
something is, and as it is, which says how much of it there is. A record's features have length 10. So the gradient of a
logistic loss at a record is about 10 times the error of its prediction, whatever the picture: a clip norm of 3 shortens
only the patients whose prediction is wrong by more than 0.3.
"""

import math
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

from consortium.contract.networks import SCATTERING_SPACING, ScatteringArgs, scattering_features
from site_agent.networks.records import RecordShape

LENGTH = 10.0  # of a record's features; the bias beside them is a feature of 1
_AMOUNT = 5.0  # of the coefficients as they are, against those standardised over their picture
_SIGMA, _FREQUENCY, _SLANT = 0.8, 0.75 * math.pi, 0.5  # of the wave of the finer scale; the coarser has twice its size
_LEAST = 1e-12  # keeps the modulus differentiable at 0
_STANDARD_EPS = 1e-5

_Waves: TypeAlias = tuple[torch.Tensor, torch.Tensor]


def scattering_network(args: ScatteringArgs, shape: RecordShape) -> nn.Module:
    """All weights zero, as in logistic regression: there is no symmetry to break."""
    count = scattering_features(args.orientations, (shape.channels, *shape.sides))
    layer = nn.Linear(count, shape.outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(Scattering(orientations=args.orientations), layer)


class Scattering(nn.Module):
    """float32[records, channels, height, width] -> float32[records, features], each record's of length 10.

    Without parameters or buffers. Every record is looked at alone.
    """

    def __init__(self, *, orientations: int) -> None:
        super().__init__()
        self.orientations = orientations

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """The features."""
        found = self.coefficients(pictures)
        standard = F.group_norm(found, found.shape[1], eps=_STANDARD_EPS)
        return LENGTH * F.normalize(torch.cat([standard.flatten(1), _AMOUNT * found.flatten(1)], dim=1), dim=1)

    def coefficients(self, pictures: torch.Tensor) -> torch.Tensor:
        """Scattering coefficients of orders 0, 1 and 2: float32[records, coefficients, height / 4, width / 4]."""
        fine = _modulus(pictures, _waves(0, self.orientations), stride=1)
        coarse = _modulus(pictures, _waves(1, self.orientations), stride=2)
        twice = _modulus(fine, _waves(1, self.orientations), stride=2)
        near, far = SCATTERING_SPACING // 2, SCATTERING_SPACING
        return torch.cat(
            [_averaged(pictures, far), _averaged(fine, far), _averaged(coarse, near), _averaged(twice, near)], dim=1
        )


def _modulus(pictures: torch.Tensor, waves: _Waves, *, stride: int) -> torch.Tensor:
    """How strongly each wave is present around each point: [records, channels * waves, height, width] by the stride."""
    real, imaginary = (_filtered(pictures, part, stride) for part in waves)
    return torch.sqrt(real.square() + imaginary.square() + _LEAST)


def _averaged(pictures: torch.Tensor, spacing: int) -> torch.Tensor:
    """Weighted means around every `spacing`-th point."""
    return _filtered(pictures, _bell(spacing), spacing)


def _filtered(pictures: torch.Tensor, filters: torch.Tensor, stride: int) -> torch.Tensor:
    """Every channel by every filter, mirrored at the borders: [records, channels * filters, ...]."""
    channels, width = pictures.shape[1], filters.shape[-1] // 2
    padded = F.pad(pictures, (width, width, width, width), mode="reflect")
    every = filters.to(pictures).repeat(channels, 1, 1, 1)
    return F.conv2d(padded, every, stride=stride, groups=channels)


@lru_cache
def _waves(scale: int, orientations: int) -> _Waves:
    """Morlet waves, real and imaginary part: float32[orientations, 1, size, size] each."""
    sigma, frequency = _SIGMA * 2**scale, _FREQUENCY / 2**scale
    down, right = _points(math.floor(4 * sigma))
    waves = []
    for turn in range(orientations):
        angle = math.pi * turn / orientations
        along = right * math.cos(angle) + down * math.sin(angle)
        across = down * math.cos(angle) - right * math.sin(angle)
        bell = torch.exp(-(along.square() + (_SLANT * across).square()) / (2 * sigma**2))
        wave = torch.exp(1j * frequency * along)
        balance = (bell * wave).sum() / bell.sum()  # with it, an even picture gives nothing
        waves.append(bell * (wave - balance) * _SLANT / (2 * math.pi * sigma**2))
    every = torch.stack(waves).unsqueeze(1)
    return every.real.float(), every.imag.float()


@lru_cache
def _bell(spacing: int) -> torch.Tensor:
    """Weights of a mean, the standard deviation 0.8 of the spacing: float32[1, 1, size, size]."""
    sigma = 0.8 * spacing
    down, right = _points(math.floor(2.5 * sigma))
    bell = torch.exp(-(right.square() + down.square()) / (2 * sigma**2))
    return (bell / bell.sum()).float()[None, None]


def _points(reach: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates of the points of a filter, float64."""
    ticks = torch.arange(-reach, reach + 1, dtype=torch.float64)
    down, right = torch.meshgrid(ticks, ticks, indexing="ij")
    return down, right

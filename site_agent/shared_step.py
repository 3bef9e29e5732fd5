"""The end of a step whose noise the hospitals share: clean sum -> what this hospital encodes and masks.

Secure aggregation design, section 6; protocol section 6. In: the sum of a sample's clipped gradients. Out: the same on
the grid of the update's lane, moved into its box, plus this hospital's share of discrete Gaussian noise. No weights are
moved here: the coordinator's optimizer does that with the sum over hospitals, and every hospital repeats it.

Holds against: whoever sees sums of at least t hospitals, of which at most c left out their share. Whoever sees this
vector by itself sees one share of noise and no more, so it must not leave unmasked.
"""

import numpy as np
from numpy.typing import NDArray
from opacus.accountants import RDPAccountant

from privacy.dp.mechanism import Grid, PoissonSampledDiscreteGaussian, noisy_share
from privacy.dp.randomness import CryptographicGenerator
from site_agent.gradients.engine import FLOAT_MARGIN, PatientSum


class SharedStep:
    """Ends one step after the other. Mutable: the accountant counts them.

    Args:
        mechanism: Of the sum over hospitals.
        sum_bound: The largest absolute value of a coordinate of the clean sum, in the unit of the clip norm.
        generator: Of the noise.
        counts: Every step is written down here when its noise is drawn.
    """

    def __init__(
        self,
        mechanism: PoissonSampledDiscreteGaussian,
        sum_bound: float,
        generator: CryptographicGenerator,
        counts: RDPAccountant,
    ) -> None:
        self.grid = Grid.of(mechanism, mechanism.dimension, margin=FLOAT_MARGIN)
        self._mechanism = mechanism
        self._sum_bound = sum_bound
        self._random = generator
        self._counts = counts

    def noisy_sum(self, clean: PatientSum) -> NDArray[np.float64]:
        """The sum with this hospital's share of the noise: float64[d], whole multiples of the grid spacing.

        The lane's scale is one over the spacing, so encoding carries these values exactly.
        """
        mechanism = self._mechanism
        # Counted first: whatever fails from here on, the step is not taken for one that did not happen.
        self._counts.step(noise_multiplier=mechanism.noise_multiplier, sample_rate=mechanism.sampling_rate)
        steps = noisy_share(clean.on_grid(self.grid), mechanism, self._sum_bound, self._random)
        # Below 2^53 in absolute value (SHARE_STD_MAX), and the spacing is a power of two: no rounding in either step.
        values = steps.astype(np.float64)
        values *= mechanism.grid_spacing
        return values

"""A privacy event of the ledger -> the event of a log entry: the same numbers, in the log's own words.

`privacy` and `audit` know nothing of each other; whoever composes a log's events needs every number of the ledger's.
"""

from typing import assert_never

from audit import entries
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import PoissonSampledDiscreteGaussian, PoissonSampledGaussian


def logged_event(event: DpEvent) -> entries.PrivacyEvent:
    """What dp.configured, dp.spent and dp.certificate carry; unit and relation stand elsewhere in those entries."""
    mechanism = event.mechanism
    match mechanism:
        case PoissonSampledGaussian():
            return entries.PoissonSampledGaussian(
                noise_multiplier=mechanism.noise_multiplier,
                sampling_rate=mechanism.sampling_rate,
                steps=mechanism.steps,
            )
        case PoissonSampledDiscreteGaussian():
            return entries.PoissonSampledDiscreteGaussian(
                noise_multiplier=mechanism.noise_multiplier,
                sampling_rate=mechanism.sampling_rate,
                steps=mechanism.steps,
                clip_norm_l2=mechanism.clip_norm_l2,
                shares=mechanism.shares,
                grid_spacing=mechanism.grid_spacing,
                dimension=mechanism.dimension,
            )
        case _:
            assert_never(mechanism)

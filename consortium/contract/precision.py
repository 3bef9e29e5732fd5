"""What rounding costs: how finely updates travel, and the error that this adds to their mean (protocol section 5).

Every site rounds each value up or down to the next step, at random and so that the expected value is the value itself.
One rounding has a standard deviation of at most half a step, and those of different sites are independent, so the mean
of n sites is off by sqrt(n) / (2 S sum(w / W_max)) at most (root mean square), and by nothing on average.
"""

import math
from dataclasses import dataclass

from consortium.contract.layout import real_scale, weight_max
from consortium.contract.study import StudyFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """How finely values within one clip travel in a ring."""

    step: float  # 1/S: the distance between neighbouring values
    steps: float  # C*S: how many steps lie between 0 and the clip
    bytes_per_parameter: int  # what a site uploads for each

    def error_of_mean(self, survivors: int, weights: float | None = None) -> float:
        """The largest root mean square error that rounding adds to the mean.

        Args:
            survivors: n, the sites in the sum.
            weights: sum(w / W_max) over them; n if every site counts the same.
        """
        return math.sqrt(survivors) * self.step / (2 * (survivors if weights is None else weights))


def precision_of(*, sites: int, clip: float, modulus_bits: int) -> Precision:
    """The precision of a study of `sites` hospitals; raises EncodingOverflow where not even one step fits."""
    scale = real_scale(sites, clip, modulus_bits)
    return Precision(step=1 / scale, steps=clip * scale, bytes_per_parameter=modulus_bits // 8)


def precision_line(study: StudyFile) -> str:
    """The precision of a study in one line for its author, in the smallest round it allows."""
    aggregation = study.aggregation
    sites, bits = len(study.sites.required), aggregation.modulus_bits
    clips = sorted({aggregation.update_clip, *(aggregation.tensor_clips or {}).values()})
    finest, *_, coarsest = [precision_of(sites=sites, clip=clip, modulus_bits=bits) for clip in [clips[0], *clips]]
    survivors = max(study.sites.minimum, aggregation.threshold)
    share, condition = 1.0, ""
    if study.training.weighting == "patients":
        share = study.data.minimum_patients / weight_max(study)
        condition = f", if each declares {study.data.minimum_patients} patients"
    error = coarsest.error_of_mean(survivors, survivors * share)
    steps = f"{coarsest.step:.2g}" if len(clips) == 1 else f"{finest.step:.2g} to {coarsest.step:.2g}"
    return (
        f"updates travel in steps of {steps} ({bits} bits, {sites} hospitals); "
        f"rounding adds at most {error:.2g} (root mean square) to the mean of {survivors}{condition}"
    )

"""What a study's noise will do to its signal, and what its budget is spent on when: arithmetic for its author (pure).

Noise to signal is the expected L2 norm of the noise on a sum over the norm that the sum would have if every patient of
an expected sample contributed a full clip norm in the same direction:

    sigma C sqrt(d)  /  (q N C)                       one step, one hospital
    sigma C sqrt(d m / h)  /  (m q N C)               one step, the sum over m hospitals (h = 1 where each adds its own)
    the latter / sqrt(steps)                          everything a study's steps add up to

so 1 means that noise is as long as the best signal there can be. Real gradients point in many directions and are
longer at the beginning than at the end: this is a comparison of designs, not a forecast of accuracy. With the signal
spread evenly over the d coordinates it is also the ratio in each of them.
"""

import math
from dataclasses import dataclass

from privacy.dp import accountant
from privacy.dp.events import DpEvent
from privacy.dp.mechanism import Mechanism, PoissonSampledDiscreteGaussian
from privacy.errors import LocalProtocolError


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """All of a study that decides its noise, its signal and its cost.

    Raises:
        LocalProtocolError: A count that is not at least 1.
    """

    mechanism: Mechanism  # with the steps of the whole study, spare rounds included
    delta: float
    local_steps: int  # steps in one round
    patients: int  # N: training patients that each hospital declares; their real number decides nothing
    sites: int  # m: hospitals in the smallest sum that the study opens
    parameters: int  # d
    steps_summed: int | None = None  # of all sums of the study; None: the mechanism's, as every hospital is in all

    def __post_init__(self) -> None:
        for name in ("local_steps", "patients", "sites", "parameters"):
            if getattr(self, name) < 1:
                raise LocalProtocolError(f"{name} must be at least 1", str(getattr(self, name)))

    @property
    def rounds(self) -> int:
        """Rounds of one hospital that the budget is for, spare ones included."""
        return self.mechanism.steps // self.local_steps

    @property
    def expected_batch(self) -> float:
        """Patients in one step of one hospital, on average: q N."""
        return self.mechanism.sampling_rate * self.patients

    @property
    def chance_of_empty_batch(self) -> float:
        """How often a step samples nobody, and is noise alone."""
        rate = self.mechanism.sampling_rate
        return math.exp(self.patients * math.log1p(-rate)) if rate < 1 else 0.0

    @property
    def noise_to_signal_site(self) -> float:
        """One step of one hospital alone: its own noise over its own best signal."""
        return self._share * math.sqrt(self.parameters) / self.expected_batch

    @property
    def noise_to_signal_sum(self) -> float:
        """One step, summed over the hospitals of the smallest sum."""
        return self.noise_to_signal_site / math.sqrt(self.sites)

    @property
    def noise_to_signal_study(self) -> float:
        """All steps of the study together, summed over the hospitals of the smallest sum."""
        return self.noise_to_signal_sum / math.sqrt(self.steps_summed or self.mechanism.steps)

    @property
    def exposed_patients(self) -> float:
        """Delta times the cohort.

        Delta alone would permit publishing each patient's record with that probability; this many patients would be
        exposed on average. It should be far below 1.
        """
        return self.delta * self.patients

    @property
    def _share(self) -> float:
        """Standard deviation of the noise that one hospital adds, over the clip norm."""
        shares = self.mechanism.shares if isinstance(self.mechanism, PoissonSampledDiscreteGaussian) else 1
        return self.mechanism.noise_multiplier / math.sqrt(shares)

    def epsilon_after(self, rounds: int) -> float:
        """What `rounds` rounds cost one patient."""
        event = DpEvent(mechanism=self.mechanism).with_steps(rounds * self.local_steps)
        return accountant.epsilon([event], delta=self.delta)

    def milestones(self) -> tuple[int, ...]:
        """The first round, the quarters and the last one."""
        last = self.rounds
        return tuple(sorted({1, *(max(1, round(last * part / 4)) for part in (1, 2, 3)), last}))


def odds(epsilon: float) -> float:
    """How often a guess that begins at even odds can be right after everything was seen: e^eps / (1 + e^eps)."""
    return 1 / (1 + math.exp(-epsilon))

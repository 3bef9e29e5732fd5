"""Section 2: which survivor sets a site agrees to, given what it took part in before.

Two sums over almost the same sites differ by almost one site's update. Where updates carry differential privacy that
is already paid for; where they do not, the survivor sets of consecutive rounds must be equal or differ by several
sites, and one global model is aggregated once.
"""

from dataclasses import dataclass

from privacy.errors import LocalProtocolError, PeerViolation
from privacy.secagg.messages import COORDINATOR, Phase, SiteId


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortRule:
    """What the site remembers of earlier rounds of the study, and what it insists on.

    The defaults are those of a first round. `released_on_model` comes from the site's own durable records of the
    attempts in which it released shares for the global model that this attempt starts from; attempts in which it
    released nothing do not count.
    """

    previous_survivors: frozenset[SiteId] | None = None  # of the last closed round, None before the first
    least_difference: int = 2  # k_diff, in sites: 1 when updates carry differential privacy, else 2 or more
    released_on_model: tuple[frozenset[SiteId], ...] = ()
    update_is_private: bool = False  # whether updates carry DP, and another attempt is charged to the ledger again

    def __post_init__(self) -> None:
        if self.least_difference < 1:
            raise LocalProtocolError("least_difference is 1 or more", str(self.least_difference))

    def check(self, survivors: frozenset[SiteId]) -> None:
        """4.3: raise PeerViolation, blaming the coordinator, for a survivor set this site does not sign."""
        if self.previous_survivors is not None:
            difference = len(survivors ^ self.previous_survivors)
            # 2: the difference of two sums must not be the update of fewer than k_diff sites.
            if 0 < difference < self.least_difference:
                rule = f"survivor sets of consecutive rounds are equal or differ by {self.least_difference} sites"
                raise PeerViolation(COORDINATOR, Phase.CONFIRM, rule, f"they differ by {difference}")
        # 2: the same model summed again without the victim would reveal the victim's update by subtraction.
        if not self.update_is_private and any(survivors != released for released in self.released_on_model):
            rule = "one global model is aggregated over one survivor set only"
            raise PeerViolation(COORDINATOR, Phase.CONFIRM, rule, "shares were released for another survivor set")

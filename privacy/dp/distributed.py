"""What distributed DP promises in a consortium of n sites: when all goes well, and when something does not.

Protocol: every site adds its share of the noise, std = C sigma / sqrt(h), before it masks; only sums of at least
`threshold` = t sites are opened, and at most `colluding` = c sites pool what they know. Then h = t - c shares are in
every sum that nobody who looks at it can take out again, and the study's epsilon is that of h shares.

| case | shares in the sum that count | function |
|---|---|---|
| as promised: t survivors, c of them against us | h | `central` |
| all n sites there, nobody against us | n | `when_all_contribute` |
| w sites more than c left their noise out, or showed it | h - w | `when_shares_are_missing` |
| secure aggregation failed: one site's vector is seen | 1 | `site_alone` |

Pure arithmetic on events; `accountant.epsilon` says what each costs.
"""

from privacy.dp.events import DpEvent
from privacy.dp.mechanism import SHARES_MAX, PoissonSampledDiscreteGaussian
from privacy.errors import LocalProtocolError


def honest_shares(*, threshold: int, colluding: int) -> int:
    """The shares of noise that a study may count on, h = t - c.

    Raises:
        LocalProtocolError: None is left.
    """
    if colluding < 0 or threshold - colluding < 1:
        raise LocalProtocolError("a threshold must be larger than the number of colluding sites", f"{threshold}")
    return threshold - colluding


def central(event: DpEvent) -> DpEvent:
    """As promised: h shares count. The event of the study itself; refuses any other kind of event."""
    _mechanism(event)
    return event


def when_all_contribute(event: DpEvent, sites: int) -> DpEvent:
    """Nobody drops out and nobody colludes: the noise of all `sites` is in the sum."""
    if sites < _mechanism(event).shares:
        raise LocalProtocolError("a consortium has at least as many sites as honest shares", str(sites))
    return _with(event, min(sites, SHARES_MAX))


def when_shares_are_missing(event: DpEvent, missing: int) -> DpEvent:
    """`missing` sites, beyond those the study reckons with, left their noise out or told it to whoever looks.

    Raises:
        LocalProtocolError: No share is left, so there is no guarantee to speak of.
    """
    shares = _mechanism(event).shares - missing
    if missing < 0 or shares < 1:
        raise LocalProtocolError("at least one share of noise must be left", f"{shares}")
    return _with(event, shares)


def site_alone(event: DpEvent) -> DpEvent:
    """Secure aggregation failed: somebody sees one site's vector, which carries one share of noise."""
    return _with(event, 1)


def _with(event: DpEvent, shares: int) -> DpEvent:
    return DpEvent(mechanism=_mechanism(event).with_shares(shares), unit=event.unit, relation=event.relation)


def _mechanism(event: DpEvent) -> PoissonSampledDiscreteGaussian:
    if not isinstance(event.mechanism, PoissonSampledDiscreteGaussian):
        raise LocalProtocolError("only shares of noise can be missing or seen alone", event.kind)
    return event.mechanism

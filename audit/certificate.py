"""The sites' privacy certificates -> what the global model promises, and both in words for a board.

NIST SP 800-226 asks for the unit, the relation, epsilon, delta, the trust model and what lies outside. A site's own
certificate says these for its patients (`entries.DpCertificate`); the model's is composed here from them alone:

| whose patient | epsilon | why |
|---|---|---|
| of one hospital | the largest of the sites' | parallel composition: no other site held the records |
| of two hospitals, local noise | the two largest added, deltas too | sequential composition of two mechanisms |
| of two hospitals, distributed noise | twice the largest at (1 + e^epsilon) delta | a group of 2 in one sum |

Pure: entries in, figures and sentences out. `verify.py` composes the same again with its own code.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from audit.entries import DpCertificate, DpSpent, ModelCertificate, RoundClosed, StudyStarted, parse_entry

LOCAL, DISTRIBUTED = "local", "distributed"
"""Trust models: noise of each site on its own is enough, or only that of several honest sites together."""

EPSILON_MAX = 1e9
"""The largest figure an entry holds; no guarantee is left long before."""

EPSILON_WEAK = 10.0
"""Above this the bound on a guess is 99.996 % or more: printed, and said to be hardly a promise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPromise:
    """The figures of a `model.certificate`."""

    model_digest: str
    unit: str
    relation: str
    trust: str
    sites: tuple[str, ...]
    missing: tuple[str, ...]
    epsilon: float
    delta: float
    epsilon_two_sites: float
    delta_two_sites: float
    epsilon_unmasked: float
    log_size: int

    def fields(self) -> dict[str, Any]:
        """The entry's own fields."""
        return {name: getattr(self, name) for name in ModelPromise.__slots__}


def compose(
    certificates: Mapping[str, DpCertificate], *, spent: Iterable[str], model_digest: str, log_size: int
) -> ModelPromise:
    """The promise of a model that was made from the updates of these sites.

    Args:
        certificates: One for each site, at least one.
        spent: Every site that spent privacy in the study.
        model_digest: The model's.
        log_size: How many entries of the log were read for it.
    """
    all_of_them = list(certificates.values())
    distributed = any(one.trust == DISTRIBUTED for one in all_of_them)
    epsilons = sorted((one.epsilon for one in all_of_them), reverse=True)
    deltas = sorted((one.delta for one in all_of_them), reverse=True)
    epsilon, delta = epsilons[0], deltas[0]
    if distributed:
        two_epsilon, two_delta = 2 * epsilon, (1 + math.exp(min(epsilon, 700.0))) * delta
    else:
        two_epsilon, two_delta = sum(epsilons[:2]), sum(deltas[:2])
    return ModelPromise(
        model_digest=model_digest,
        unit=all_of_them[0].unit,
        relation=all_of_them[0].relation,
        trust=DISTRIBUTED if distributed else LOCAL,
        sites=tuple(sorted(certificates)),
        missing=tuple(sorted(set(spent) - set(certificates))),
        epsilon=epsilon,
        delta=delta,
        epsilon_two_sites=min(two_epsilon, EPSILON_MAX),
        delta_two_sites=min(two_delta, 1.0),
        epsilon_unmasked=max(one.epsilon_unmasked for one in all_of_them),
        log_size=log_size,
    )


def due(log_entries: Iterable[bytes | None], *, study: str) -> ModelPromise | None:
    """What the coordinator should certify about a study's last model and has not; None if nothing is due.

    Args:
        log_entries: The stored bytes of all entries, in order; None for what was dropped.
        study: Which study.
    """
    certificates: dict[str, DpCertificate] = {}
    spent: set[str] = set()
    model: str | None = None
    last: ModelCertificate | None = None
    size = 0
    for data in log_entries:
        size += 1
        if data is None:
            continue
        match parse_entry(data):
            case DpCertificate(study=name) as entry if name == study:
                certificates[entry.actor.removeprefix("site:")] = entry
            case DpSpent(study=name) as entry if name == study:
                spent.add(entry.actor.removeprefix("site:"))
            case StudyStarted(study=name) as entry if name == study:
                model = entry.model_digest
            case RoundClosed(study=name) as entry if name == study:
                model = entry.next_model_digest
            case ModelCertificate(study=name) as entry if name == study:
                last = entry
            case _:
                pass
    if not certificates or model is None:
        return None
    promise = compose(certificates, spent=spent, model_digest=model, log_size=size)
    said = promise.fields()
    if last is not None and all(getattr(last, name) == said[name] for name in said if name != "log_size"):
        return None
    return promise


def percent_right(epsilon: float) -> float:
    """How often a guess at even odds can be right afterwards: e^eps / (1 + e^eps), rounded up to a tenth of a percent.

    Whoever would bet even odds that a patient's records were used, and then sees everything the promise covers, has
    odds of at most e^epsilon to one (but for delta). "At most" must not be a rounding less.
    """
    return math.ceil(1000 / (1 + math.exp(-min(epsilon, 700.0)))) / 10


def largest_of(bucket: str) -> int | None:
    """The most patients a range such as '100-199' stands for; None for an open one."""
    return None if bucket.endswith("+") else int(bucket.rpartition("-")[2])


def against_cohort(delta: float, bucket: str) -> str:
    """Delta beside the number of patients: how much of one patient's worth of bad luck it allows, at the least.

    A delta of one over the number of patients would let a mechanism publish a patient at random; it must be well
    below.
    """
    most = largest_of(bucket)
    if most is None:
        least = int(bucket[:-1])
        return f"at least {_rounded(delta * least, up=False):g} / n, with n patients ({bucket})"
    return f"at most {_rounded(delta * most, up=True):g} / n, with n patients ({bucket})"


def _rounded(value: float, *, up: bool) -> float:
    """To two digits, away from what would be too good; a last digit of float arithmetic does not count."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    digits = value / unit
    return (math.ceil(digits - 1e-9) if up else math.floor(digits + 1e-9)) * unit

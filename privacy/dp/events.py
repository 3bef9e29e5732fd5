"""What a release cost, as data that anyone can add up again.

A ledger keeps these, never an epsilon: an epsilon cannot be composed tightly with another, and a better accountant
could not improve on it later. An event that is not on the list is refused, because to guess its cost is to invent it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from privacy.dp.mechanism import Mechanism, PoissonSampledDiscreteGaussian, PoissonSampledGaussian
from privacy.errors import LocalProtocolError, UnknownEvent

POISSON_SAMPLED_GAUSSIAN = "poisson-sampled-gaussian"
POISSON_SAMPLED_DISCRETE_GAUSSIAN = "poisson-sampled-discrete-gaussian"
KNOWN = (POISSON_SAMPLED_GAUSSIAN, POISSON_SAMPLED_DISCRETE_GAUSSIAN)

_NUMBERS = ("noise_multiplier", "sampling_rate", "clip_norm_l2")
_FIELDS = {
    POISSON_SAMPLED_GAUSSIAN: (*_NUMBERS, "steps"),
    POISSON_SAMPLED_DISCRETE_GAUSSIAN: (*_NUMBERS, "grid_spacing", "steps", "shares", "dimension"),
}


class Unit(StrEnum):
    """Whose presence is hidden."""

    PATIENT = "patient"  # with all of the patient's records at the site


class Relation(StrEnum):
    """Which pairs of data sets must look alike."""

    ADD_OR_REMOVE_ONE = "add-or-remove-one"


@dataclass(frozen=True, slots=True, kw_only=True)
class DpEvent:
    """One spend: which mechanism ran, for whose privacy."""

    mechanism: Mechanism
    unit: Unit = Unit.PATIENT
    relation: Relation = Relation.ADD_OR_REMOVE_ONE

    def with_steps(self, steps: int) -> "DpEvent":
        """The same mechanism run for another number of steps."""
        return replace(self, mechanism=replace(self.mechanism, steps=steps))

    @property
    def kind(self) -> str:
        """The mechanism's name in records, one of KNOWN."""
        if isinstance(self.mechanism, PoissonSampledDiscreteGaussian):
            return POISSON_SAMPLED_DISCRETE_GAUSSIAN
        return POISSON_SAMPLED_GAUSSIAN

    def to_dict(self) -> dict[str, str | int | float]:
        """The record that ledgers and certificates hold; JSON keeps its numbers exactly."""
        return {
            "mechanism": self.kind,
            **{name: getattr(self.mechanism, name) for name in _FIELDS[self.kind]},
            "unit": self.unit.value,
            "relation": self.relation.value,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, object]) -> "DpEvent":
        """Read a record back.

        Raises:
            UnknownEvent: Another mechanism, unit or relation; a field that is missing, unknown or out of range.
        """
        name = record.get("mechanism")
        if not isinstance(name, str) or name not in _FIELDS:
            raise UnknownEvent(str(name), KNOWN)
        if set(record) != {"mechanism", "unit", "relation", *_FIELDS[name]}:
            raise UnknownEvent(f"{name} with the fields {', '.join(sorted(map(str, record)))}", KNOWN)
        try:
            return cls(
                mechanism=_mechanism(name, record),
                unit=Unit(str(record["unit"])),
                relation=Relation(str(record["relation"])),
            )
        except (LocalProtocolError, OverflowError, TypeError, ValueError) as error:
            raise UnknownEvent(f"{name} ({error})", KNOWN) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacySpend:
    """What all of some events together cost: (epsilon, delta) for a unit under a relation."""

    epsilon: float
    delta: float
    unit: Unit = Unit.PATIENT
    relation: Relation = Relation.ADD_OR_REMOVE_ONE


def _mechanism(name: str, record: Mapping[str, object]) -> Mechanism:
    if name == POISSON_SAMPLED_GAUSSIAN:
        return PoissonSampledGaussian(
            noise_multiplier=_number(record["noise_multiplier"]),
            sampling_rate=_number(record["sampling_rate"]),
            steps=_whole(record["steps"]),
            clip_norm_l2=_number(record["clip_norm_l2"]),
        )
    return PoissonSampledDiscreteGaussian(
        noise_multiplier=_number(record["noise_multiplier"]),
        sampling_rate=_number(record["sampling_rate"]),
        steps=_whole(record["steps"]),
        clip_norm_l2=_number(record["clip_norm_l2"]),
        shares=_whole(record["shares"]),
        grid_spacing=_number(record["grid_spacing"]),
        dimension=_whole(record["dimension"]),
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not a whole number")
    return value

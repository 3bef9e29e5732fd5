"""What can go wrong in this package: whose fault it is, what was found, and what to do next."""

from typing import Any


def _rebuild(kind: "type[PrivacyError]", fields: dict[str, object], message: str) -> "PrivacyError":
    """Unpickle an error without calling its constructor."""
    error = kind.__new__(kind, message)
    Exception.__init__(error, message)
    vars(error).update(fields)
    return error


class PrivacyError(Exception):
    """Base of every error of this package.

    Two errors are equal when they are of one class and their fields are equal, so that states that hold one can be
    compared after a replay. They survive a trip between processes, because training runs in a child process.
    """

    def advice(self) -> str:
        """What the operator should do next, in one sentence."""
        return "Report this with the log of the run; nothing was revealed."

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash((type(self), str(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), dict(vars(self)), str(self))


class LocalProtocolError(PrivacyError):
    """We are at fault: this process broke a rule of the protocol, or was configured so that it would."""

    def __init__(self, rule: str, found: str) -> None:
        self.rule = rule
        self.found = found
        super().__init__(f"{rule}; found: {found}")

    def advice(self) -> str:
        """What the operator should do next, in one sentence."""
        return "This is a fault on this machine: stop this round, keep the log, and report it to the maintainers."


class ContextRefused(PrivacyError):
    """The proposed attempt at a round breaks a rule of protocol sections 2 or 3, so no key is made for it."""

    def __init__(self, field: str, found: str, allowed: str) -> None:
        self.field = field
        self.found = found
        self.allowed = allowed
        super().__init__(f"secure aggregation refuses {field} = {found}; allowed: {allowed}")

    def advice(self) -> str:
        """What the operator should do next, in one sentence."""
        return f"Ask the consortium lead for a study or a round plan whose {self.field} is {self.allowed}."


class PeerViolation(PrivacyError):
    """A peer sent what an honest peer cannot send; `evidence` says what was found, without any secret."""

    def __init__(self, site: str, phase: str, rule: str, evidence: str) -> None:
        self.site = site
        self.phase = phase
        self.rule = rule
        self.evidence = evidence
        super().__init__(f"{site} broke a rule in phase {phase}: {rule}; evidence: {evidence}")

    def advice(self) -> str:
        """What the operator should do next, in one sentence."""
        return f"Keep the log and ask whoever operates {self.site} for an explanation before the next round with it."


class BelowThreshold(PrivacyError):
    """Too few participants are left to go on. Nobody is to blame and nothing is revealed."""

    def __init__(self, survivors: int, threshold: int) -> None:
        self.survivors = survivors
        self.threshold = threshold
        super().__init__(f"{survivors} participants are left and at least {threshold} are needed")

    def advice(self) -> str:
        """What the operator should do next, in one sentence."""
        return "Bring the missing sites back, or wait: the round is tried again with whoever is connected."


class Unrecoverable(PrivacyError):
    """The shares that were revealed do not give back a secret that the sum cannot be unmasked without."""

    def __init__(self, owner: str, revealed: int, threshold: int) -> None:
        self.owner = owner
        self.revealed = revealed
        self.threshold = threshold
        super().__init__(
            f"no {threshold} of the {revealed} revealed shares of a secret of {owner} give what {owner} committed to"
        )

    def advice(self) -> str:
        """What the operator should do next, in one sentence."""
        return f"Start a new attempt without {self.owner}, which dealt these shares or is surrounded by sites that lie."


class EncodingOverflow(PrivacyError):
    """The sum over all participants could wrap around the ring (protocol section 5)."""

    def __init__(self, lane: str, participants: int, bound: str, allowed: str) -> None:
        self.lane = lane
        self.participants = participants
        self.bound = bound
        self.allowed = allowed
        super().__init__(
            f"lane {lane!r}: the sum over {participants} participants could reach {bound}; the ring holds {allowed}"
        )

    def advice(self) -> str:
        """What the operator should do next, in one sentence."""
        return f"Lower the clip or the scale of lane {self.lane!r}, or raise modulus_bits in the study."


class EncodingRefused(PrivacyError):
    """A layout, an update or an aggregate that cannot be encoded or decoded; nothing was sent."""

    def __init__(self, lane: str, found: str, allowed: str) -> None:
        self.lane = lane
        self.found = found
        self.allowed = allowed
        super().__init__(f"lane {lane!r}: found {found}; allowed: {allowed}")

    def advice(self) -> str:
        """What the operator should do next, in one sentence."""
        return f"Check what produced lane {self.lane!r}: training may have diverged, or the study's layout is wrong."


class OutOfOrder(PrivacyError):
    """An event that has no meaning in the present state. The state is unchanged."""

    def __init__(self, state: str, event: str) -> None:
        self.state = state
        self.event = event
        super().__init__(f"{event} is not possible in state {state}")

    def advice(self) -> str:
        """What the operator should do next, in one sentence."""
        return (
            "Nothing was done; if it comes again, the coordinator and this agent disagree about the round: restart it."
        )


class BudgetExceeded(PrivacyError):
    """A hospital's own cap on epsilon for a dataset would be passed."""

    def __init__(self, requested: float, spent: float, cap: float, dataset: str) -> None:
        self.requested = requested
        self.spent = spent
        self.cap = cap
        self.dataset = dataset
        super().__init__(
            f"dataset {dataset!r}: epsilon {spent:g} is spent or reserved, and {requested:g} more would pass the cap "
            f"of {cap:g}"
        )

    def advice(self) -> str:
        """What the operator should do next, in one sentence."""
        return "The hospital may raise its cap in site.yaml, or the study may ask for less epsilon or fewer rounds."


class UnknownEvent(PrivacyError):
    """A privacy event that the accountant has no rule for; it is refused, never guessed at."""

    def __init__(self, event: str, allowed: tuple[str, ...] = ()) -> None:
        self.event = event
        self.allowed = allowed
        known = f"; known: {', '.join(allowed)}" if allowed else ""
        super().__init__(f"no accounting rule for the privacy event {event!r}{known}")

    def advice(self) -> str:
        """What the operator should do next, in one sentence."""
        return (
            "Use a mechanism that the accountant knows, or update this software if a newer version recorded the event."
        )

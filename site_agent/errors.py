"""What can go wrong at the hospital: whose fault it is, what was found, and what to do next.

A refusal by the hospital's own policy is an answer (`policy.Refuse`), not an error; `PolicyViolation` is raised only
where such an answer can no longer be given. No message here carries a patient identifier or a site's numbers.
"""

from privacy.errors import BudgetExceeded


class SiteError(Exception):
    """Anything the operator of a site agent can act on."""

    def advice(self) -> str:
        """What to do next, in one sentence."""
        return "Correct what the message names and try again."


class PolicyViolation(SiteError):
    """Something was about to happen that the hospital's own policy forbids. Whose fault: who asked for it."""

    def __init__(self, rule: str, explanation: str) -> None:
        super().__init__(f"the site's policy forbids it ({rule}): {explanation}")
        self.rule = rule
        self.explanation = explanation

    def advice(self) -> str:
        """What to do next."""
        return f"Nothing was done. The steward can change {self.rule} in site.yaml, or the study must be changed."


class NetworkRefused(SiteError):
    """A study names a network, or an argument of one, that is not allowed. Whose fault: the study's author."""

    def __init__(self, field: str, found: str, allowed: str) -> None:
        super().__init__(f"{field}: found {found}; allowed: {allowed}")
        self.field = field
        self.found = found
        self.allowed = allowed

    def advice(self) -> str:
        """What to do next."""
        return f"Ask the study's author to change {self.field}; nothing was trained."


class AdapterRefused(SiteError):
    """A study's adapter does not fit its network. Whose fault: the study's author."""

    def __init__(self, field: str, found: str, allowed: str) -> None:
        super().__init__(f"{field}: found {found}; allowed: {allowed}")
        self.field = field
        self.found = found
        self.allowed = allowed

    def advice(self) -> str:
        """What to do next."""
        return f"Ask the study's author to change {self.field}; nothing was trained."


class WeightsRefused(SiteError):
    """A file of weights is not the one a study names, or not its network's. Whose fault: whoever handed it out.

    Its words are about the file and the network; nothing in them is about patients.
    """

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(f"the weights: found {found}; allowed: {allowed}")
        self.found = found
        self.allowed = allowed

    def advice(self) -> str:
        """What to do next."""
        return "Nothing was trained. `sha256sum FILE` gives the digest that initial_weights in a study names."


class LossRefused(SiteError):
    """A loss does not keep patients apart, so clipping one would bound nothing. Whose fault: the study's author."""

    def __init__(self, loss: str, why: str) -> None:
        super().__init__(f"the loss {loss} is refused: {why}")
        self.loss = loss
        self.why = why

    def advice(self) -> str:
        """What to do next."""
        return "Ask the study's author for a loss that is a mean over records; nothing was trained."


class EngineUnsuited(SiteError):
    """A gradient engine cannot do a network, or did it wrongly when it was tried. Whose fault: nobody's."""

    def __init__(self, engine: str, why: str) -> None:
        super().__init__(f"the gradient engine {engine} cannot train this network: {why}")
        self.engine = engine
        self.why = why

    def advice(self) -> str:
        """What to do next."""
        return "Set `engine: auto` in site.yaml, or `loop`, which can train every network; nothing was trained."


class TrainingFailed(SiteError):
    """Training could not be done as the study says; what was reserved for it stays counted."""

    def advice(self) -> str:
        """What to do next."""
        return "This round goes on without this site. Keep the log and report it if it happens again."


class LedgerRefused(SiteError):
    """The privacy ledger was asked for something that contradicts what it holds. Whose fault: this machine."""

    def advice(self) -> str:
        """What to do next."""
        return "Stop the agent, keep the ledger file as it is, and report it; epsilon may have been miscounted."


class LedgerBehind(SiteError):
    """The privacy ledger counts less than this hospital has signed that it spent: an older copy of the file is there.

    Its words have this hospital's numbers in them and are for its operator alone.
    """

    def __init__(self, *, study: str, dataset: str, counted: int, signed: int) -> None:
        super().__init__(
            f"ledger.db is older than what this hospital has signed: it counts {counted} noisy steps of study "
            f"{study} on dataset {dataset}, and {signed} are in the log"
        )

    def advice(self) -> str:
        """What to do next."""
        return (
            "Nothing is trained on it. Put the newest ledger.db back (with ledger.db-wal, if there is one); if it is "
            "lost, `site-agent budget --restore` counts again what this hospital signed."
        )


class HistoryLost(SiteError):
    """The log has more of this hospital's entries than the agent remembers: an older copy of its home is there."""

    def __init__(self, *, remembered: int, logged: int) -> None:
        super().__init__(
            f"the log has {logged} entries of this hospital and agent.db remembers {remembered}: the agent's home is "
            "an older copy, and what was spent since then is not in its ledger"
        )

    def advice(self) -> str:
        """What to do next."""
        return (
            "Nothing is trained. Put the newest agent.db and ledger.db back; "
            "docs/how-to/recover-from-a-crash.md says what to do if they are lost."
        )


class StepsExceeded(BudgetExceeded):
    """A study would run more steps on a dataset than its noise was calibrated for."""

    def __init__(self, wanted: int, counted: int, planned: int, dataset: str) -> None:
        super().__init__(wanted, counted, planned, dataset)
        words = f"{counted} noisy steps are spent or reserved, and {wanted} are more than the {planned} planned"
        self.args = (f"dataset {dataset!r}: {words}",)

    def advice(self) -> str:
        """What to do next."""
        return "The study may ask for more spare_rounds from the beginning; it cannot be given more once it runs."


class LedgerUnavailable(SiteError):
    """The privacy ledger cannot be read or written, so nothing may be trained."""

    code = "try_later"

    def __init__(self, words: str, *, passes: bool = False) -> None:
        """`passes`: whether the same may succeed later without anybody changing the file (`sqlite_trouble.py`)."""
        super().__init__(words)
        self.passes = passes

    def advice(self) -> str:
        """What to do next."""
        return (
            "Free some space, or mend the permissions of the agent's home; nothing was half-written. If the file is "
            "damaged, put the newest copy back, or move it away and run `site-agent budget --restore`."
        )

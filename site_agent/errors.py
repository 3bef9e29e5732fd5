"""What can go wrong at the hospital: whose fault it is, what was found, and what to do next.

A refusal by the hospital's own policy is an answer (`policy.Refuse`), not an error; `PolicyViolation` is raised only
where such an answer can no longer be given. No message here carries a patient identifier or a site's numbers.
"""


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


class LedgerUnavailable(SiteError):
    """The privacy ledger cannot be read or written, so nothing may be trained."""

    code = "try_later"

    def advice(self) -> str:
        """What to do next."""
        return "Free some space, or mend the permissions of the agent's home; nothing was half-written."

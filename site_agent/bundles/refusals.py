"""What is wrong with a bundle, said with the exact place."""

from collections.abc import Sequence
from dataclasses import dataclass

from consortium.contract.errors import shown
from site_agent.errors import SiteError


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One place in a bundle that is not allowed."""

    file: str  # "configs/train.json"; empty for the bundle as a whole
    id: str = ""  # "validate#handlers#0#_target_", as MONAI writes ids; empty for the file as a whole
    found: str
    allowed: str
    advice: str

    @property
    def place(self) -> str:
        """Where, in one line."""
        file = shown(self.file)[1:-1] or "the bundle"
        return f"{file}: {shown(self.id)[1:-1]}" if self.id else file

    def __str__(self) -> str:
        return f"{self.place}: found {self.found}; allowed: {self.allowed}. {self.advice}"


class BundleRefused(SiteError):
    """A bundle that is not taken, with everything that was found in it. Whose fault: the bundle's author."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(["the bundle is refused:", *(f"  {finding}" for finding in self.findings)]))

    def advice(self) -> str:
        """What to do next."""
        return "Nothing of it was run. Ask its author to change what is listed above, or use another bundle."

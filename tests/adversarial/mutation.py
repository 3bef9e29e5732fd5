"""One check taken out of the code, and the test that has to notice."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mutation:
    """One check less."""

    threat: str  # the start of its file's name: "t04" is `test_t04_*.py`
    file: str
    find: str
    put: str
    test: str  # the function that must fail, in the threat's file

    @property
    def name(self) -> str:
        """For a list of them."""
        line = next(line for line in self.find.splitlines() if line.strip())
        return f"{self.threat}-{Path(self.file).stem}-{line.strip()[:60]}"


def never(threat: str, file: str, condition: str, test: str) -> Mutation:
    """The condition `if CONDITION:` never holds."""
    return Mutation(threat, file, f"if {condition}:", "if False:", test)


def gone(threat: str, file: str, statement: str, test: str) -> Mutation:
    """The statement does nothing."""
    return Mutation(threat, file, statement, "pass", test)

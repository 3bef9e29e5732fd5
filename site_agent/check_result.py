"""What one check of `site-agent check` found. docs/reference/site-check.md is the promise to programs that read it."""

from dataclasses import dataclass
from enum import StrEnum

from site_agent.errors import SiteError


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"  # a run works today, and somebody should look
    FAILED = "failed"  # a run would not work
    NOT_CHECKED = "not checked"  # something before it failed


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One thing that was tried."""

    name: str
    status: Status
    found: str
    advice: str = ""

    @property
    def ok(self) -> bool:
        """Whether a run can be expected to work, as far as this check can tell."""
        return self.status in (Status.OK, Status.WARNING)

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "check": self.name,
            "status": self.status.value,
            "ok": self.ok,
            "found": self.found,
            "advice": self.advice,
        }


class CheckFailed(SiteError):
    """Something a run will need is not as it must be."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self._advice = advice

    def advice(self) -> str:
        """What to do next."""
        return self._advice


class CheckWarns(CheckFailed):
    """Something works today, and somebody should look."""


def passed(name: str, found: str) -> CheckResult:
    """A check that found what it wants."""
    return CheckResult(name=name, status=Status.OK, found=found)


def not_checked(name: str, because: str) -> CheckResult:
    """A check that could not be made, because another one failed."""
    return CheckResult(
        name=name, status=Status.NOT_CHECKED, found=f"not tried, because of: {because}", advice="Mend that first."
    )


def broken(name: str, error: Exception) -> CheckResult:
    """A check that ended in an error: one of ours says what to do, any other is a defect of the check."""
    advice = getattr(error, "advice", None)
    return CheckResult(
        name=name,
        status=Status.WARNING if isinstance(error, CheckWarns) else Status.FAILED,
        found=str(error) if advice is not None else f"{type(error).__name__}: {error}",
        advice=advice() if advice is not None else "Report this: the check itself failed.",
    )

"""What the coordinator itself answers: whether it takes this hospital, how far the clocks are apart, its release.

Three questions over mutual TLS, and no session: an agent that runs beside the check is not disturbed.
"""

import importlib.util
import time
from dataclasses import dataclass

from consortium import __version__
from consortium.contract.clocks import CLOCK_OFFSET_MAX_S
from consortium.contract.messages import PROTOCOL_VERSION, Greeting
from consortium.contract.software import software
from consortium.wire.errors import CallRefused
from site_agent.agent import CoordinatorLine, dial
from site_agent.check_result import CheckFailed, CheckResult, CheckWarns, broken, not_checked, passed
from site_agent.home import AgentHome
from site_agent.store import Store

NAMES = ("coordinator", "clock", "versions")
HOSPITAL_PACKAGES = ("monai", "opacus", "pandas", "sklearn", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
    """How far another clock is ahead of this one, in seconds; negative if it is behind."""

    ahead_s: float
    uncertainty_s: float  # half of the time the question was on its way

    @classmethod
    def of(cls, *, asked_s: float, told_s: float, answered_s: float) -> "Offset":
        """From one question and its answer: the other clock was read somewhere between the two."""
        return cls(ahead_s=told_s - (asked_s + answered_s) / 2, uncertainty_s=(answered_s - asked_s) / 2)

    @property
    def certain_s(self) -> float:
        """The least the clocks can be apart."""
        return max(0.0, abs(self.ahead_s) - self.uncertainty_s)

    @property
    def words(self) -> str:
        """For a person."""
        direction = "ahead of" if self.ahead_s >= 0 else "behind"
        return f"the coordinator's is {abs(self.ahead_s):.1f} s {direction} this one (to {self.uncertainty_s:.1f} s)"


async def ask_coordinator(home: AgentHome) -> tuple[CheckResult, ...]:
    """Every question; those after one that failed are not asked."""
    try:
        line = CoordinatorLine(Store(home.folder / "agent.db"))
        async with await dial(home, line) as client:
            studies = await client.list_studies()
            asked_s = time.time()
            try:
                greeting: Greeting | CallRefused = await client.greet()
            except CallRefused as error:  # of a release before this one
                greeting = error
            answered_s = time.time()
    except Exception as error:  # noqa: BLE001 - a check that cannot be made has failed, whatever the reason
        here = _version_here("versions", None)
        unasked = here if not here.ok else not_checked("versions", "coordinator")
        return (broken("coordinator", error), not_checked("clock", "coordinator"), unasked)
    found = f"{home.address} answered over mutual TLS 1.3; studies offered: {len(studies)}"
    if isinstance(greeting, CallRefused):
        silent = CheckWarns(
            f"the coordinator does not tell its clock and release ({greeting})",
            "Its release is older than this agent's: ask the consortium lead when it is upgraded.",
        )
        return (passed("coordinator", found), broken("clock", silent), _version_here("versions", None))
    offset = Offset.of(asked_s=asked_s, told_s=greeting.unix_time_ms / 1000, answered_s=answered_s)
    return (passed("coordinator", found), _clock(offset), _version_here("versions", greeting))


def _clock(offset: Offset) -> CheckResult:
    if offset.certain_s <= CLOCK_OFFSET_MAX_S:
        return passed("clock", offset.words)
    error = CheckFailed(
        f"{offset.words}; allowed: {CLOCK_OFFSET_MAX_S:g} s",
        "Keep this computer's clock by NTP (timedatectl set-ntp true). If it is right, tell the consortium lead.",
    )
    return broken("clock", error)


def _version_here(name: str, greeting: Greeting | None) -> CheckResult:
    try:
        return passed(name, versions_found(greeting))
    except CheckFailed as error:
        return broken(name, error)


def versions_found(greeting: Greeting | None) -> str:
    """This agent's release and libraries, held against the coordinator's; raises CheckFailed, CheckWarns."""
    libraries = ", ".join(software()[1:])
    missing = [package for package in HOSPITAL_PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise CheckFailed(
            f"not installed: {', '.join(missing)}",
            "Install what a hospital needs: pip install 'hospital-consortium[site]'",
        )
    if greeting is None:
        return f"agent {__version__}; {libraries}"
    theirs = f"coordinator {greeting.coordinator_version}, which takes agents from {greeting.minimum_agent_version} on"
    found = f"agent {__version__}; {theirs}; {libraries}"
    if _numbers(__version__) < _numbers(greeting.minimum_agent_version):
        raise CheckFailed(found, "Install the release the consortium uses: this agent is too old and is turned away.")
    if greeting.protocol_version != PROTOCOL_VERSION:
        raise CheckFailed(
            f"{found}; protocol {PROTOCOL_VERSION} here and {greeting.protocol_version} there",
            "Install the release the consortium uses.",
        )
    if _numbers(__version__)[:2] != _numbers(greeting.coordinator_version)[:2]:
        raise CheckWarns(found, "Ask the consortium lead which release the consortium uses.")
    return found


def _numbers(version: str) -> tuple[int, ...]:
    """The first three numbers of a version; what is missing or not a number counts as 0."""
    parts = [int(part) if part.isdecimal() and part.isascii() else 0 for part in version[:40].split(".")]
    return tuple((*parts, 0, 0, 0)[:3])

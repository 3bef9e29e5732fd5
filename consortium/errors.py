"""What can go wrong at the coordinator, whose fault it is and what to do next."""

from collections.abc import Sequence
from pathlib import Path


class ConsortiumError(Exception):
    """Anything the operator of a coordinator can act on. `code` is what a remote caller is told."""

    code = "refused"

    def advice(self) -> str:
        """What to do next, in one sentence."""
        return "Correct what the message names and try again."


class HomeInvalid(ConsortiumError):
    """The coordinator's home folder is missing something, or is not one."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return (
            "`consortium init DIR --name NAME --address HOST:PORT` makes a home (NAME: 3 to 40 of a-z, 0-9 and '-'); "
            "--home names one that is there."
        )


class HomeExists(ConsortiumError):
    """`init` was asked to write over something."""

    code = "conflict"

    def advice(self) -> str:
        """What to do next."""
        return "Choose a folder that does not exist yet; nothing was changed."


class HomeUnwritable(ConsortiumError):
    """The disk refused a write."""

    code = "try_later"

    def advice(self) -> str:
        """What to do next."""
        return (
            "Free some space (or mend the permissions) and run the same command again; nothing half-written was kept."
        )


class StudyFileMissing(ConsortiumError):
    """A study was named that is no file, and none that ships with the package. Whose fault: who typed it."""

    code = "invalid"

    def __init__(self, wanted: Path, shipped: Sequence[str]) -> None:
        super().__init__(f"{wanted} is not a file, and no study of that name ships with this package")
        self.shipped = shipped

    def advice(self) -> str:
        """What to do next."""
        return f"Give the path of a study file, or one of these names: {', '.join(self.shipped)}."


class SiteUnknown(ConsortiumError):
    """A site that is not enrolled."""

    code = "not_found"

    def __init__(self, site: str) -> None:
        super().__init__(f"no site named {site!r} is enrolled")

    def advice(self) -> str:
        """What to do next."""
        return "`consortium site list` shows the names; `consortium site invite` makes a kit for a new one."


class SiteConflict(ConsortiumError):
    """A site that is already there, or a name that cannot be used."""

    code = "conflict"

    def advice(self) -> str:
        """What to do next."""
        return "`consortium site list` shows who is enrolled; nothing was changed."


class EnrolmentRefused(ConsortiumError):
    """A token that is wrong, used or expired, or a request that does not fit it."""

    def advice(self) -> str:
        """What to do next."""
        return "Ask the consortium lead for a new kit: `consortium site invite SITE --out kit.zip`."


class AccessDenied(ConsortiumError):
    """A certificate that is genuine but may not do this."""

    def advice(self) -> str:
        """What to do next."""
        return "Ask the consortium lead: `consortium site list` shows who is enrolled and who was revoked."


class AgentTooOld(ConsortiumError):
    """An agent whose version the coordinator no longer serves."""

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(f"this agent is version {found}; the coordinator serves {allowed} and newer")

    def advice(self) -> str:
        """What to do next."""
        return "Upgrade the agent (pip install --upgrade hospital-consortium) and start it again."


class StudyUnknown(ConsortiumError):
    """A study that was never submitted."""

    code = "not_found"

    def __init__(self, study: str) -> None:
        super().__init__(f"no study named {study!r} was submitted")

    def advice(self) -> str:
        """What to do next."""
        return "`consortium study list` shows the studies; `consortium study submit FILE` adds one."


class StudyConflict(ConsortiumError):
    """A study that is in the wrong state for what was asked."""

    code = "conflict"

    def advice(self) -> str:
        """What to do next."""
        return "`consortium study show ID` says where the study stands."


class UploadRefused(ConsortiumError):
    """A vector that nobody asked this site for now, or not in this form."""

    code = "conflict"

    def advice(self) -> str:
        """What to do next."""
        return "Nothing was kept. Wait for the coordinator's next message; an agent never sends such an upload unasked."


class EventRefused(ConsortiumError):
    """A site's signed event that does not verify or does not continue its chain."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return (
            "The site's own record and the log differ: stop the agent, keep its home, and compare what it signed "
            "with `consortium audit log`."
        )

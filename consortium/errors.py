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


class SchemaTooNew(ConsortiumError):
    """The database was written by a newer program. Whose fault: who started an older one."""

    code = "conflict"

    def __init__(self, found: str, known: str) -> None:
        super().__init__(f"the database has the tables of a newer version (schema {found}; this program knows {known})")

    def advice(self) -> str:
        """What to do next."""
        return "Run the newer version, or restore the backup that was made before it; nothing was changed."


class DatabaseLed(ConsortiumError):
    """Another coordinator works with this database."""

    code = "try_later"

    def __init__(self) -> None:
        super().__init__("another coordinator works with this database")

    def advice(self) -> str:
        """What to do next."""
        return "Use that one, or stop it first; `consortium serve --standby` waits and takes over."


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
            "Free some space (or mend the permissions) and run the same command again; nothing half-written was kept. "
            "A coordinator that is serving goes on by itself."
        )


class DatabaseBusy(HomeUnwritable):
    """Another program has held the database's write lock for longer than was waited for it."""

    def __init__(self, waited_s: float) -> None:
        super().__init__(f"another program has kept the database locked for {waited_s:g} s")

    def advice(self) -> str:
        """What to do next."""
        return (
            "Close whatever has consortium.db open (a backup, sqlite3; `fuser -v consortium.db` names it); nothing was "
            "changed. A coordinator that is serving goes on by itself."
        )


class DatabaseAway(HomeUnwritable):
    """PostgreSQL does not answer, or ended the connection."""

    def __init__(self, said: str) -> None:
        super().__init__(f"the database server cannot be used: {said}")

    def advice(self) -> str:
        """What to do next."""
        return (
            "Start PostgreSQL again, or mend the way there; nothing half-written was kept. A coordinator that was "
            "serving goes on by itself as soon as the server answers."
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
        return "Ask the consortium lead: `site list` and `account list` show who is enrolled and who was revoked."


class SiteRevoked(AccessDenied):
    """A hospital whose certificates count no more."""

    def __init__(self, site: str) -> None:
        super().__init__(f"{site} is revoked")


class SiteSuspended(AccessDenied):
    """A hospital that may not take part until the consortium lead reinstates it; its certificate is as good as ever."""

    code = "suspended"

    def __init__(self, site: str, reason: str) -> None:
        super().__init__(f"{site} is suspended: {reason}")

    def advice(self) -> str:
        """What to do next."""
        return "Ask the consortium lead; the agent tries again by itself and goes on once the hospital is reinstated."


class RenewalRefused(ConsortiumError):
    """A certificate request in a session that does not ask for the same hospital's next certificate."""

    def advice(self) -> str:
        """What to do next."""
        return (
            "Nothing was issued. The agent asks for a new TLS key under the signing keys it enrolled with; a hospital "
            "whose signing keys are lost or stolen is revoked and enrols again with a new kit."
        )


class RenewedTooOften(ConsortiumError):
    """More certificates in an hour than an agent has reason to ask for."""

    code = "try_later"

    def advice(self) -> str:
        """What to do next."""
        return "Wait an hour; the certificate that is there goes on."


class AccountUnknown(ConsortiumError):
    """A person without an account, or whose account was revoked."""

    code = "not_found"

    def __init__(self, account: str) -> None:
        super().__init__(f"no account named {account!r} stands")

    def advice(self) -> str:
        """What to do next."""
        return "`consortium account list` shows the names; `consortium account invite` makes a kit for a new one."


class AccountConflict(ConsortiumError):
    """An account that is already there, a name that cannot be used, or keys that are not the account's."""

    code = "conflict"

    def advice(self) -> str:
        """What to do next."""
        return "`consortium account list` shows who has an account; nothing was changed."


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


class DecisionUnsigned(EventRefused):
    """A decision about a study that no steward of the hospital signed as its entries in the log ask for (ADR 42)."""

    def __init__(self, site: str, study: str, study_digest: str, why: str, *, approves: bool) -> None:
        what = "approval" if approves else "rejection"
        super().__init__(f"the {what} of {study!r} that {site} handed over is not its stewards': {why}")
        self.study, self.study_digest, self.why, self.approves = study, study_digest, why, approves

    def advice(self) -> str:
        """What to do next."""
        return (
            "It does not count, and is not in the log. Agents sign no such entry: if nobody at the hospital knows of"
            " it, somebody has its agent's home. Stop the agent, have the site revoked, and enrol it with a new home."
        )


class CosignatureRefused(ConsortiumError):
    """A witness's line that is not over a checkpoint of this log, or not by the key it enrolled."""

    code = "invalid"

    def advice(self) -> str:
        """What to do next."""
        return (
            "Nothing was kept. A hospital whose witness key was lost says so with a new witness.enrolled entry: "
            "start its agent again."
        )


class NotWitnessed(ConsortiumError):
    """Something that needs hospitals' cosignatures, and there are too few of them yet."""

    code = "try_later"

    def advice(self) -> str:
        """What to do next."""
        return "Agents that are connected cosign within seconds. `consortium status` shows which hospitals are away."

"""The hospital's copy of the consortium's log, to read: its root is recomputed from every entry whenever it is opened.

`log_mirror.py` lets it grow while an agent runs.
"""

from audit.errors import AuditError
from audit.log import LogView
from site_agent.errors import SiteError
from site_agent.home import AgentHome
from site_agent.log_keys import keys_of_copy
from site_agent.log_mirror import FOLDER, is_there
from site_agent.store import Decision, Store


class CopyMissing(SiteError):
    """The agent has no copy of the consortium's log yet."""

    def advice(self) -> str:
        """What to do next."""
        return "Run the agent (site-agent run) until it has been connected for a moment: it keeps a copy of the log."


class CopyAltered(SiteError):
    """The hospital's copy of the log does not hold what its signed checkpoint says."""

    def advice(self) -> str:
        """What to do next."""
        return (
            "Keep the folder log/ of the agent's home for whoever examines it. The agent makes another when it is gone."
        )


class EvidenceRefused(SiteError):
    """No evidence can be made of this study here."""

    def advice(self) -> str:
        """What to do next."""
        return "Nothing was written. See which studies this hospital decided about: site-agent studies list."


def open_copy(home: AgentHome) -> LogView:
    """The hospital's copy of the log, its root recomputed from every entry; raises CopyMissing, CopyAltered."""
    if not is_there(home.folder):
        raise CopyMissing("this agent has no copy of the consortium's log yet")
    try:
        newest, *others = keys_of_copy(home)
        return LogView.read(home.folder / FOLDER, newest, also=others)
    except AuditError as error:
        raise CopyAltered(f"the copy of the consortium's log: {error}") from error


def decision_about(log: LogView, store: Store, name: str) -> Decision:
    """What was decided here about a study, in the version that the log has; raises EvidenceRefused."""
    decided = [made for made in store.decisions() if made.study == name]
    if not decided:
        raise EvidenceRefused(f"this hospital never decided about a study {name!r}")
    marked = [data for data in log.known() if data is not None and b'"type":"study.created"' in data]
    logged = [made for made in decided if any(made.study_digest.encode() in data for data in marked)]
    if not logged:
        raise EvidenceRefused(f"the copy of the log has no study {name!r} as this hospital decided about it")
    return logged[-1]

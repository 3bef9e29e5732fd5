"""What one command asks the coordinator, without a session: which studies there are, and to take in what is signed."""

from consortium.contract.messages import StudyDocument
from consortium.contract.study import StudyFile
from consortium.wire.errors import WireError
from site_agent.agent import CoordinatorLine, dial
from site_agent.errors import SiteError
from site_agent.home import AgentHome
from site_agent.store import Store


class StudyUnknown(SiteError):
    """A study that the coordinator does not offer to this hospital."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(
            f"the coordinator offers no study {name!r} to this hospital; it offers: {', '.join(known) or 'none'}"
        )

    def advice(self) -> str:
        """What to do next."""
        return "`site-agent studies list` shows the names."


class StudyAltered(SiteError):
    """The coordinator's bytes of a study are not those of its digest."""

    def advice(self) -> str:
        """What to do next."""
        return "Do not approve it. Ask the consortium lead which digest is right, by telephone."


async def offered(home: AgentHome, store: Store) -> tuple[StudyDocument, ...]:
    """Every study the coordinator has for this hospital."""
    async with await dial(home, CoordinatorLine(store)) as client:
        return await client.list_studies()


async def find(home: AgentHome, store: Store, name: str) -> StudyDocument:
    """One of them; raises StudyUnknown."""
    found = await offered(home, store)
    for document in found:
        if document.study == name:
            return document
    raise StudyUnknown(name, [document.study for document in found])


def read(document: StudyDocument) -> StudyFile:
    """The study in the coordinator's bytes, if they are those of the digest it names."""
    study = StudyFile.from_document(document.document)
    if study.digest() != document.study_digest or study.id != document.study:
        raise StudyAltered(
            f"study {document.study!r} does not have the digest {document.study_digest[:16]} it is listed under"
        )
    return study


async def hand_over(home: AgentHome, store: Store, *, insist: bool = False) -> bool:
    """Hand over what is signed; whether the coordinator could be reached. With `insist`, raise the error if not.

    Raises HistoryLost if the log has more of this hospital's entries than it remembers.
    """
    line = CoordinatorLine(store)
    try:
        async with await dial(home, line) as client:
            line.bind(client, None)
            await line.submit_events()
            await line.check_history()  # an entry under a number that the log has already would be dropped
    except WireError:
        if insist:
            raise
        return False
    return True

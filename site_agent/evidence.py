"""Messages in which this site found that somebody broke a rule of the protocol, kept for whoever asks later.

`evidence/<digest>` in the agent's home, in the wire's own encoding: the signatures of the other hospitals are in it.
The digest stands in this site's signed entry `secagg.accused`.
"""

from consortium.contract.digest import digest_of
from consortium.contract.messages import CoordinatorMessage
from consortium.contract.names import Digest
from consortium.contract.private_files import write_private
from consortium.wire import codec
from site_agent.home import AgentHome

KEPT_MAX = 64
"""A coordinator that breaks rules on purpose must not fill the hospital's disk: the first so many are kept."""


def keep_evidence(home: AgentHome, message: CoordinatorMessage) -> Digest | None:
    """Keep a message; None if there are so many already, or the disk does not take it."""
    data = codec.encode_coordinator_message(message)
    digest = digest_of(data)
    folder = home.folder / "evidence"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        kept = {path.name for path in folder.iterdir()}
        if digest not in kept:
            if len(kept) >= KEPT_MAX:
                return None
            write_private(folder / digest, data)
    except OSError:
        return None
    return digest

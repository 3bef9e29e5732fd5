"""Another witness key for this hospital: `site-agent rotate-witness-key`.

The agent must be stopped: the lock of its copy of the log says so. At its next start it names the new key in the log
(`witness.enrolled`), where it counts from that entry on; the old one counts for what is before it.
"""

import os

from audit.errors import LogLocked
from audit.mirror import Mirror
from consortium.contract import certificates
from consortium.contract.private_files import replace_private, write_private
from site_agent.errors import SiteError
from site_agent.home import AgentHome
from site_agent.log_keys import keys_of_copy
from site_agent.log_mirror import FOLDER, KEY


class WitnessKeyKept(SiteError):
    """The witness key was not changed."""

    def advice(self) -> str:
        """What to do next."""
        return "Stop the agent (it must have been connected once), then run this again; nothing was changed."


def rotate(home: AgentHome) -> None:
    """Put a new key in the place of the old one, whose bytes are overwritten.

    Raises:
        WitnessKeyKept: The agent runs, has no key yet, or the disk refuses.
    """
    path = home.folder / FOLDER / KEY
    if not path.is_file():
        raise WitnessKeyKept(f"there is no witness key in {home.folder / FOLDER}")
    try:
        copy = Mirror.open(home.folder / FOLDER, *keys_of_copy(home))
    except LogLocked as error:
        raise WitnessKeyKept("the agent is running: it cosigns with the key it has") from error
    try:
        following = path.with_name(f".{KEY}.next")
        following.unlink(missing_ok=True)  # of an earlier try that the disk refused
        write_private(following, certificates.private_pem(certificates.new_signing_key()))
        replace_private(path, following)
    except OSError as error:
        raise WitnessKeyKept(f"{path} could not be replaced: {os.strerror(error.errno or 0)}") from error
    finally:
        copy.close()
